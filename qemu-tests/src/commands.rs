//! The commands of `cargo xtask`: a file or folder for each.
//!
//! Uses all of the rest; nothing uses it.

pub mod bench;
pub mod boot;
pub mod build;
pub mod coverage;
mod cpu;
pub mod demo;
pub mod findings;
pub mod fuzz;
pub mod model;
pub mod nix;
pub mod package;
pub mod release;
pub mod reproduce;
pub mod rules;
pub mod screenshots;
pub mod setup;
pub mod soak;
mod table;
pub mod test;
