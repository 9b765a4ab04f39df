//! Commands for the running host.

pub mod check;
pub mod finish;
pub mod item;
pub mod keep;
pub mod list;
pub mod named;
pub mod names;
pub mod next_boot;
pub mod next_initrd;
pub mod page;
pub mod paste;
pub mod release;
pub mod released;
pub mod status;
pub mod udev;
pub mod verify;
pub mod vfs;
