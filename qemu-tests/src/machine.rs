//! One virtual machine: what it has, what starts in it, QEMU with its monitor, keyboard, screens and
//! clock, and what came out.
//!
//! Uses [`supplies`](crate::supplies). Knows nothing of what is expected of a machine.

mod boot;
mod command;
mod device;
pub mod distro;
pub mod guest_program;
pub mod initrd;
mod iommu;
mod keyboard;
pub mod loader;
pub mod models;
pub mod moment;
mod newc;
pub mod observed;
pub(crate) mod profiles;
mod qemu;
pub mod qmp;
pub mod run;
pub mod screen;
pub mod topology;
mod tsc;
pub mod vm;
