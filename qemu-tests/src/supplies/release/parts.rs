//! What its parts have in common.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::{libkmod, package, step};

/// The version that all of it has.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `make` in that copy of the workspace, into that tree. Without a libkmod of the user's it asks `cargo
/// xtask build`, so that its program is the one that everything else tests.
pub(crate) fn make(words: &[&str], workspace: &Path, tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.args(words).arg(format!("DESTDIR={}", tree.display())).current_dir(workspace);
    for variable in [libkmod::VARIABLE, "MAKEFLAGS", "PREFIX", "prefix", "INITRD"] {
        command.env_remove(variable);
    }
    command
}

/// The first part of the name of the target that cargo built this binary for, such as `x86_64`.
pub(crate) fn architecture(binary: &Path) -> Result<&str> {
    let (_, triple) = package::target(binary)?;
    let triple = triple.to_str().context("the target's name is no text")?;
    triple.split('-').next().context("the target has no name")
}

/// Packs a folder as `NAME.tar.gz` beside it, owned by root, as old as `date` (seconds since 1970).
pub(super) fn archive(folder: &Path, date: &str, to: &Path) -> Result<()> {
    let name = folder.file_name().context("a folder has a name")?;
    let parent = folder.parent().context("it lies in another")?;
    let script = "tar --sort=name --owner=0 --group=0 --numeric-owner --format=gnu \
                  --mode=u+rw,go=rX,go-w --mtime=\"@$1\" -cf - \"$2\" | gzip -n9 >\"$3\"";
    step::run(
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", script, "bash", date])
            .args([Path::new(name), to])
            .current_dir(parent),
    )
    .map(drop)
}
