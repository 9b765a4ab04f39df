//! Boots real kernels in QEMU with emulated PCI devices, and asks what became of them.
//!
//! The layers are [`supplies`], [`machine`], [`mod@check`], [`scenario`], [`checks`] and [`commands`]: each uses those
//! before it. `cargo xtask` is a thin front over the last.

pub mod check;
pub mod checks;
pub mod commands;
pub mod machine;
pub mod scenario;
pub mod supplies;
