//! The scenarios, as a table.
