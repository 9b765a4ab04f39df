//! Scripts that work in a tree of their own, which nobody else sees.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::packages;

/// Begins each of them.
pub(super) const TREE: &str = include_str!("../../guest/distro/tree");

/// A script, to be run as root in a mount namespace of its own. What it mounts it keeps to itself (each
/// begins so): `unshare` could see to that as well, but not in a chroot, whose root is no mount.
pub(crate) fn as_root(script: &str, folder: &Path) -> Result<Command> {
    let file = folder.join("script");
    fs::write(&file, [TREE, script].concat())?;
    let mut command = packages::root_command("unshare")?.context(
        "only root can run debootstrap and make initrds, and there is no sudo here: run this as \
         root",
    )?;
    command.args(["--mount", "--propagation=unchanged", "sh"]).arg(file);
    // The tools in the other root have their own.
    command.env_remove("TMPDIR");
    Ok(command)
}
