//! Boots real kernels in QEMU with emulated PCI devices, and asks what became of them.
//!
//! Each folder uses what stands above it here, and nothing below; `tests/layers.rs` holds that.
//! `cargo xtask` is a thin front over [`commands`].

pub mod supplies;
// Keeps them apart: a layer a line.
pub mod machine;
// What a check is comes before what is checked.
pub mod scenario;
// All that is checked.
pub mod checks;
// What people type.
pub mod commands;
