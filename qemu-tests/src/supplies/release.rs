//! What a release consists of, as files: packages for Debian, Fedora and Arch, an archive with an install
//! script for all else, the source, a list of what is linked in for each, and their checksums.
//!
//! All of them pack one binary. The same input makes the same bytes: dates are those of the changelog.

mod lists;
mod parts;
mod recipe;
mod rpm;
mod tarball;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::binary::workspace;
use crate::supplies::{binary, digest, libkmod, package, packages, step};

pub use self::parts::VERSION;
use self::parts::archive;
pub(crate) use self::parts::make;
pub(crate) use self::rpm::build as build_rpm;
pub(crate) use self::tarball::pack as build_tarball;

/// The file with the checksums.
const SUMS: &str = "SHA256SUMS";

/// The commit that this tree is at; with a `+` behind it where something of it has been changed since.
/// None where git knows nothing of it.
#[must_use]
pub fn commit() -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).current_dir(workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

/// Makes all files but [`SUMS`] in the folder `to`, from these programs and that copy of the workspace;
/// returns them in the order of their names. This machine's own program is the last; for the others there
/// are a Debian package and an archive. `source` is the archive of the source, which it takes along.
///
/// # Errors
/// When a tool that makes packages cannot be had, or fails.
pub(crate) fn pack(
    workspace: &Path,
    programs: &[PathBuf],
    source: &Path,
    to: &Path,
) -> Result<Vec<PathBuf>> {
    packages::ensure(&[packages::PACKAGE, packages::PACKAGING].concat())?;
    let date = package::changelog_date()?;
    let copy = |file: &Path| -> Result<PathBuf> {
        let place = to.join(file.file_name().context("a file has a name")?);
        fs::copy(file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(place)
    };
    let list = workspace.join(package::SBOM);
    let mut files = Vec::new();
    for program in programs {
        let debian = copy(&package::pack(workspace, program)?)?;
        // What `make` is to install; the recipes build it themselves where it is older than its source.
        let built = workspace.join("target/make/vfio-early");
        fs::create_dir_all(built.parent().context("a file lies in a folder")?)?;
        for (made, place) in
            [(program.clone(), built.clone()), (binary::initrds(program), binary::initrds(&built))]
        {
            fs::copy(made, &place).with_context(|| format!("cannot write {}", place.display()))?;
        }
        let its = [debian, tarball::pack(workspace, program, &date, to)?];
        files.extend(lists::write(&list, &its)?);
        files.extend(its);
    }
    let libkmod = libkmod::set_up()?;
    let others = [
        rpm::build(workspace, Some(&libkmod), &date, to)?,
        recipe::pack(workspace, source, &date, to)?,
        copy(source)?,
    ];
    files.extend(lists::write(&list, &others)?);
    files.extend(others);
    files.sort();
    Ok(files)
}

/// The archive of the source as of the last commit, which `make dist` makes; where git knows nothing of
/// this tree, of the source as it is.
///
/// # Errors
/// When it cannot be packed.
pub(crate) fn source() -> Result<PathBuf> {
    let name = format!("vfio-early-{VERSION}");
    let place = workspace().join(format!("target/make/{name}.tar.gz"));
    if commit().is_some() {
        step::run(Command::new("make").arg("dist").current_dir(workspace()))?;
        return Ok(place);
    }
    let work = tempfile::tempdir()?;
    let folder = work.path().join(name);
    fs::create_dir(&folder)?;
    binary::copy_workspace(&folder)?;
    fs::create_dir_all(place.parent().context("a file lies in a folder")?)?;
    archive(&folder, &package::changelog_date()?, &place)?;
    Ok(place)
}

/// Writes the checksums of these files beside them; returns that file.
///
/// # Errors
/// When one cannot be read.
pub fn write_sums(folder: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut text = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(text, "{}  {name}", digest::sha256(file)?)?;
    }
    let sums = folder.join(SUMS);
    fs::write(&sums, text).with_context(|| format!("cannot write {}", sums.display()))?;
    Ok(sums)
}
