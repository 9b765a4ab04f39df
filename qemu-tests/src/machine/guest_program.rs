//! Programs of the test machines that no package has, in C and linked statically.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::{binary, packages, step};

/// Compiles `guest/NAME.c`, and what is in `guest/NAME/` where there is such a folder; its bytes.
///
/// # Errors
/// When there is no compiler and none can be installed, or it fails.
pub fn compile(name: &str) -> Result<Vec<u8>> {
    packages::ensure(packages::BUILD)?;
    let parts = binary::workspace().join("qemu-tests/src/guest").join(name);
    let mut sources = vec![parts.with_extension("c")];
    if parts.is_dir() {
        for entry in fs::read_dir(parts)? {
            sources.push(entry?.path());
        }
    }
    sources.retain(|source| source.extension().is_some_and(|end| end == "c"));
    let folder = tempfile::Builder::new().prefix("vfio-early-cc-").tempdir()?;
    let program = folder.path().join(name);
    let options = ["-static", "-Os", "-Wall", "-Werror", "-o"];
    step::run(Command::new("cc").args(options).arg(&program).args(&sources))?;
    fs::read(&program).with_context(|| format!("cannot read {}", program.display()))
}
