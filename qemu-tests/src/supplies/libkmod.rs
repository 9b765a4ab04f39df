//! A static libkmod, which no Debian package has.
//!
//! It is built from Debian's source package, unpatched, by kmod's own build: see
//! packaging/static-libkmod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{cache, digest, packages, step};

/// The suite whose source package is taken.
const SUITE: &str = "trixie";

/// kmod's own version. Debian's revision of it does not matter: its patches are not applied.
pub const VERSION: &str = "34.2";

/// The variable by which `build.rs` finds the folder.
pub const VARIABLE: &str = "LIBKMOD_STATIC_DIR";

/// The variable that tells `build.rs` what `libkmod.a` itself asks for.
pub(crate) const LIBRARIES: &str = "LIBKMOD_STATIC_LIBS";

/// SHA-256 of kmod's source archive of [`VERSION`], on top of apt's check against the index.
pub const SOURCE_SHA256: &str = "012d16e2099115486d8aa9f2c2a23d058d3d0cad83113a60512647d25d3869e8";

/// What is linked into the binary.
pub const ARCHIVE: &str = "libkmod.a";

/// How it is built; the recipes of other distributions' packages build it so, too.
const SCRIPT: &str = include_str!("../../../packaging/static-libkmod");

/// The source's archive, beside `libkmod.a`: who links with it can pass it on, and build it again.
const SOURCE: &str = "kmod.orig.tar.xz";

/// The folder that holds `libkmod.a`, built when it is not in the cache.
///
/// # Errors
/// When the source cannot be fetched, is not the expected one, or does not build.
pub fn set_up() -> Result<PathBuf> {
    let name = format!("libkmod/{}", version_and_key());
    let is_whole = |entry: &Path| [ARCHIVE, SOURCE].iter().all(|file| entry.join(file).exists());
    cache::entry(&name, is_whole, make)
}

/// Another one for each way to build it.
pub(crate) fn version_and_key() -> String {
    format!("{VERSION}-{:08x}", key())
}

/// Changes when anything that goes into the build changes.
fn key() -> u32 {
    // FNV-1a: the standard library's hashes may change with its version.
    [SCRIPT, SOURCE_SHA256]
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn make(entry: &Path) -> Result<()> {
    let start = Instant::now();
    packages::ensure(packages::BUILD)?;
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let work = work.path();

    step::say(format_args!("libkmod {VERSION}: fetching its source from Debian {SUITE}"));
    let archive = Archive::open(&work.join("apt"), SUITE, Kind::Source)?;
    let download = work.join("download");
    fs::create_dir(&download)?;
    let files = archive.download_source("kmod", &download)?;
    fs::copy(checked_source(&files)?, entry.join(SOURCE))?;

    step::say(format_args!("libkmod {VERSION}: building it"));
    compile(&entry.join(SOURCE), &[], work, entry)?;
    step::say(format_args!("libkmod {VERSION}: done in {:.0?}", start.elapsed()));
    Ok(())
}

/// Builds `libkmod.a` once more, from the source in the cache, with those variables of the build: what
/// [`reproduce`](crate::checks::supply::reproduce) and [`musl`](crate::supplies::musl) link with. `work` is a folder for what is
/// not kept.
///
/// # Errors
/// As [`set_up`].
pub(crate) fn build_again(variables: &[(&str, &str)], work: &Path, folder: &Path) -> Result<()> {
    let source = set_up()?.join(SOURCE);
    checked_source(std::slice::from_ref(&source))?;
    compile(&source, variables, work, folder)
}

fn compile(source: &Path, variables: &[(&str, &str)], work: &Path, folder: &Path) -> Result<()> {
    let tree = work.join("tree");
    fs::create_dir(&tree)?;
    step::run(
        Command::new("tar").arg("-C").arg(&tree).args(["--strip-components=1", "-xf"]).arg(source),
    )?;
    let script = work.join("static-libkmod");
    fs::write(&script, SCRIPT)?;
    let mut build = Command::new("sh");
    build.args([&script, &tree]).arg(folder).env("LC_ALL", "C.UTF-8");
    build.env_remove("ZSTD").envs(variables.iter().copied());
    step::run(&mut build)?;
    Ok(())
}

/// The one source archive among the downloaded files, if it is the expected one.
fn checked_source(files: &[PathBuf]) -> Result<&Path> {
    let source = files
        .iter()
        .find(|file| file.to_string_lossy().contains(".orig.tar."))
        .with_context(|| format!("apt-get source left no .orig.tar among {files:?}"))?;
    let sum = digest::sha256(source)?;
    ensure!(
        sum == SOURCE_SHA256,
        "Debian {SUITE} has another kmod than {VERSION}: {} has the SHA-256 {sum}; if its signed \
         index has it so, put the new VERSION and SOURCE_SHA256 into qemu-tests/src/supplies/libkmod.rs",
        source.display()
    );
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_source_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kmod_35.orig.tar.xz");
        fs::write(&file, "another").unwrap();
        let error = checked_source(&[file]).unwrap_err().to_string();
        assert!(error.contains("kmod_35") && error.contains("SOURCE_SHA256"), "{error}");
        checked_source(&[]).unwrap_err();
    }
}
