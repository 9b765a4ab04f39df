//! The binary under test.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Builds the static release binary, with what the build needs, and checks it.
///
/// # Errors
/// When the build fails, or when the binary is not static or too large.
pub fn build() -> Result<PathBuf> {
    bail!("not written yet")
}
