//! Commands for the running host.

pub mod check;
pub mod list;
pub mod names;
pub mod status;
