//! What is fetched or built once, and kept in the cache: Debian's packages, kernels, libkmod, the
//! binary under test and the packages of it, tools.
//!
//! Uses nothing of the rest.

pub mod arch;
pub mod archive;
pub mod binary;
pub(crate) mod boot_loaders;
pub(crate) mod busybox;
pub mod cache;
mod cargo_tool;
pub mod cross;
pub mod digest;
pub mod kernels;
pub mod libkmod;
pub mod musl;
pub mod package;
pub mod packages;
pub mod release;
mod rustup;
pub(crate) mod sbom;
pub(crate) mod source;
pub mod step;
pub(crate) mod wheel;
