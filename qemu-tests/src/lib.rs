//! Boots real kernels in QEMU with emulated PCI devices, and asks what became of them.
//!
//! What a test needs is set up first, into one cache folder ([`cache`]): Debian packages of the
//! machine ([`packages`]), kernels ([`kernels`]), libkmod ([`libkmod`]) and the binary under test
//! ([`binary`]). Then a virtual machine ([`vm`]) with an initrd ([`initrd`]) and devices
//! ([`topology`]) runs a scenario ([`scenarios`]). `cargo xtask` is a thin front over all of it.

pub mod answers;
pub mod archive;
pub mod bench;
pub mod binary;
pub mod boot;
pub mod bzimage;
pub mod cache;
mod cargo_tool;
mod complaints;
pub mod coverage;
pub mod demo;
pub mod digest;
pub mod distro;
pub mod dracut;
mod faults;
mod flavours;
pub mod fuzz;
pub mod gallery;
pub mod guest_program;
mod host;
mod initramfs_tools;
pub mod initrd;
mod kernel_build;
pub mod kernels;
mod keyboard;
pub mod libkmod;
pub mod matrix;
pub mod model;
pub mod models;
pub mod moment;
pub mod musl;
pub mod nix;
pub mod package;
pub mod packages;
mod packaging;
#[cfg(test)]
mod pages;
pub mod prediction;
mod qemu;
pub mod qmp;
mod races;
mod real_root;
pub mod reproduce;
pub mod rules;
pub mod run;
mod sbom;
pub mod scenario;
pub mod scenarios;
mod screens;
pub mod screenshot;
pub mod soak;
pub mod step;
pub mod suite;
pub mod supply;
pub mod systemd;
mod table;
mod terminal;
pub mod topology;
mod trial;
mod tsc;
pub mod vm;
mod wheel;
