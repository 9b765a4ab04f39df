//! Programs of the test machines that no package has, in C and linked statically.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::arch::Arch;
use crate::supplies::{binary, packages, step};

/// Compiles, for a guest with that processor, `guest/NAME.c`, and what is in `guest/NAME/` where there is such a folder; its bytes.
///
/// # Errors
/// When there is no compiler and none can be installed, or it fails.
pub fn compile(name: &str, arch: Arch) -> Result<Vec<u8>> {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::cross(arch))?;
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
    let is_own = arch == Arch::of_this_machine();
    let compiler = if is_own { "cc".to_owned() } else { format!("{}-gcc", arch.gnu()) };
    step::run(Command::new(compiler).args(options).arg(&program).args(&sources))?;
    fs::read(&program).with_context(|| format!("cannot read {}", program.display()))
}
