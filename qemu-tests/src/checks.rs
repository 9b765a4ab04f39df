//! What is checked: a file or folder for each subject.
//!
//! Uses all but [`commands`](crate::commands): no check knows which command runs it.

pub(crate) mod bench;
pub mod dracut;
pub(crate) mod faults;
pub(crate) mod flavours;
pub(crate) mod host;
pub(crate) mod initramfs_tools;
pub mod nix;
pub(crate) mod packaging;
pub(crate) mod races;
mod real_root;
pub mod rules;
pub(crate) mod screens;
pub mod soak;
pub mod supply;
pub mod systemd;
mod trial;
