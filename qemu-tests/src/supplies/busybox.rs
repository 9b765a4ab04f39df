//! Debian's static busybox, for each processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::arch::Arch;
use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{cache, step};

/// That of this machine's Debian, of the package busybox-static.
const OWN: &str = "/bin/busybox";

/// The suite that another processor's is of, whose applets are those of this machine's Debian 12.
const SUITE: &str = "bookworm";

/// The program.
///
/// # Errors
/// When it is not there, and cannot be fetched.
pub(crate) fn bytes(arch: Arch) -> Result<Vec<u8>> {
    let file = if arch == Arch::of_this_machine() { PathBuf::from(OWN) } else { set_up(arch)? };
    fs::read(&file).with_context(|| {
        format!("cannot read {}: the package busybox-static has it", file.display())
    })
}

/// The names by which it is called, but its own.
///
/// # Errors
/// When it cannot be asked.
pub(crate) fn applets(arch: Arch) -> Result<Vec<String>> {
    let text = if arch == Arch::of_this_machine() {
        String::from_utf8(step::run(Command::new(OWN).arg("--list"))?)?
    } else {
        // It does not run here.
        let list = set_up(arch)?.with_file_name("applets");
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?
    };
    let names = text.lines().filter(|name| *name != "busybox");
    Ok(names.map(str::to_owned).collect())
}

fn set_up(arch: Arch) -> Result<PathBuf> {
    let name = format!("busybox/{}", arch.name());
    let is_whole = |entry: &Path| entry.join("applets").exists();
    Ok(cache::entry(&name, is_whole, |entry| make(entry, arch))?.join("busybox"))
}

fn make(entry: &Path, arch: Arch) -> Result<()> {
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let work = work.path();
    step::say(format_args!("busybox for {}: fetching it from Debian {SUITE}", arch.name()));
    let archive = Archive::open(&work.join("apt"), SUITE, Kind::Binary { arch, security: true })?;
    let package = archive.newest("busybox-static")?;
    let files = archive.download(&[package], work)?;
    let file = files.first().context("apt downloads one file")?;
    let tree = work.join("tree");
    step::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&tree))?;
    fs::rename(tree.join("bin/busybox"), entry.join("busybox"))?;
    // Written last: it says that all is there.
    let applets = step::run(Command::new(OWN).arg("--list"))?;
    Ok(fs::write(entry.join("applets"), applets)?)
}
