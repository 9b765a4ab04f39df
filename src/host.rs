//! Commands for the running host.

pub mod status;
