//! Commands for the running host.

pub mod check;
pub mod status;
