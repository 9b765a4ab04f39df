//! The archive for systems without a package: what `make install` would put where, a folder for each
//! part, and a script that does so.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::parts::{VERSION, architecture, archive, make};
use crate::supplies::{package, step};

/// The parts, each with a target of `make`; the script knows their names.
const PARTS: [&str; 7] =
    ["program", "man", "completions", "systemd", "initramfs-tools", "dracut", "mkinitcpio"];

/// What lies beside them.
const TEXTS: [&str; 6] = [
    "packaging/tarball/install.sh",
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    package::BUILT_USING,
];

/// Packs it into the folder `to`.
///
/// # Errors
/// When `make` fails.
pub(crate) fn pack(workspace: &Path, binary: &Path, date: &str, to: &Path) -> Result<PathBuf> {
    let work = tempfile::tempdir()?;
    let name = format!("vfio-early-{VERSION}-{}", architecture(binary)?);
    let folder = work.path().join(&name);
    let files = folder.join("files");
    for part in PARTS {
        let tree = files.join(part);
        fs::create_dir_all(&tree)?;
        step::run(&mut make(&[&format!("install-{part}")], workspace, &tree))?;
    }
    // `make` takes them for part of these.
    for part in ["dracut", "mkinitcpio"] {
        fs::remove_dir_all(files.join(part).join("usr/lib/systemd"))?;
    }
    for text in TEXTS {
        let source = workspace.join(text);
        let place = folder.join(source.file_name().context("a file has a name")?);
        fs::copy(&source, place).with_context(|| format!("no {}", source.display()))?;
    }
    let place = to.join(format!("{name}.tar.gz"));
    archive(&folder, date, &place)?;
    Ok(place)
}
