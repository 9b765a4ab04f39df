//! Debian packages that the machine needs.

use anyhow::Result;

/// A Debian package, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// What fails without it, in a few words.
    pub purpose: &'static str,
}

/// Everything that `cargo xtask` can need.
pub const ALL: &[Package] = &[];

/// Installs those that are missing.
///
/// # Errors
/// When apt fails, or when this user may not install packages: then the error has the command.
pub fn ensure(_packages: &[Package]) -> Result<()> {
    Ok(())
}
