//! The folder where everything lives that is fetched or built once: kernels, libkmod.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// `$VFIO_EARLY_CACHE`, else `$XDG_CACHE_HOME/vfio-early`, else `~/.cache/vfio-early`.
///
/// # Errors
/// When none of the three variables is set.
pub fn folder() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("VFIO_EARLY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("vfio-early")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/vfio-early")))
        .context("no cache folder: set VFIO_EARLY_CACHE or HOME")
}
