//! The commands of `cargo xtask`: a file or folder for each.
//!
//! Uses all of the rest; nothing uses it.

pub mod bench;
pub mod boot;
pub mod coverage;
pub mod demo;
pub mod fuzz;
pub mod model;
pub mod screenshots;
pub(crate) mod table;
pub mod test;
