//! The RPM, by Debian's rpmbuild.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::supplies::{libkmod, step};

/// The recipe, in the workspace.
const SPEC: &str = "packaging/rpm/vfio-early.spec";

/// Packs what `make` has built in that copy of the workspace; the package, in the folder `to`. Without
/// `libkmod` the recipe builds that, too, from kmod's archive.
///
/// # Errors
/// When rpmbuild fails.
pub(crate) fn build(
    workspace: &Path,
    libkmod: Option<&Path>,
    date: &str,
    to: &Path,
) -> Result<PathBuf> {
    let folder = tempfile::tempdir()?;
    let sources = folder.path().join("SOURCES");
    fs::create_dir(&sources)?;
    let archive = format!("kmod-{}.tar.xz", libkmod::VERSION);
    fs::copy(libkmod::set_up()?.join("kmod.orig.tar.xz"), sources.join(archive))?;
    let mut command = Command::new("rpmbuild");
    // What it needs is not there as RPMs.
    command.args(["-bb", "--build-in-place", "--nodeps"]);
    for define in [
        &format!("_topdir {}", folder.path().display()),
        // No links from build ids to programs.
        "_build_id_links none",
        // It compresses manual pages, and Debian's sh cannot run it.
        "__os_install_post bash /usr/lib/rpm/brp-compress",
        // The same bytes on any machine, at any time.
        "_buildhost localhost",
        "use_source_date_epoch_as_buildtime 1",
        "clamp_mtime_to_source_date_epoch 1",
    ] {
        command.args(["--define", define]);
    }
    command.arg(SPEC).current_dir(workspace).env("SOURCE_DATE_EPOCH", date);
    command.env_remove("MAKEFLAGS");
    match libkmod {
        Some(libkmod) => command.env(libkmod::VARIABLE, libkmod),
        None => command.env_remove(libkmod::VARIABLE),
    };
    step::run(&mut command)?;
    let mut found = Vec::new();
    for folder in fs::read_dir(folder.path().join("RPMS"))? {
        for file in fs::read_dir(folder?.path())? {
            found.push(file?.path());
        }
    }
    let [package] = &found[..] else { bail!("rpmbuild made {found:?}") };
    let place = to.join(package.file_name().context("a file has a name")?);
    fs::copy(package, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}
