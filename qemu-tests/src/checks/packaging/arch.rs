//! Arch's package.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use super::files::{ALWAYS, DRACUT, File, MKINITCPIO, differences};
use super::makefile::make;
use crate::supplies::binary::workspace;
use crate::supplies::{libkmod, step};

/// Debian's user and group nobody.
const NOBODY: u32 = 65534;

/// What [`make`] needs, and what it has made.
const SOURCE: &[&str] = &[
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "build.rs",
    "docs",
    "initrd",
    "packaging",
    "src",
    "target/make",
];

const LICENCES: &[File] = &[
    ("644", "usr/share/licenses/vfio-early/LICENSE-APACHE"),
    ("644", "usr/share/licenses/vfio-early/LICENSE-MIT"),
];

/// By the real makepkg, with the program that `make` has built: what is tested is the recipe. It
/// packs no archive, for which it would ask pacman.
pub(super) fn built() -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    step::run(&mut make(&["all"], folder.path()))?;
    let source = folder.path().join(concat!("src/vfio-early-", env!("CARGO_PKG_VERSION")));
    fs::create_dir_all(&source)?;
    let copy = ["--recursive", "--parents", "--preserve=mode,timestamps"];
    let mut command = Command::new("cp");
    command.args(copy).args(SOURCE).arg(&source);
    step::run(command.current_dir(workspace()))?;
    for name in ["PKGBUILD", "vfio-early.install"] {
        fs::copy(workspace().join("packaging/arch").join(name), folder.path().join(name))?;
    }
    let mut makepkg = Command::new("makepkg");
    makepkg.args(["--nodeps", "--noextract", "--noarchive"]).current_dir(folder.path());
    makepkg.env("PACMAN", "true").env(libkmod::VARIABLE, libkmod::set_up()?);
    makepkg.env_remove("MAKEFLAGS");
    // It refuses to run as root.
    if fs::metadata("/proc/self").context("cannot tell the user")?.uid() == 0 {
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let owner = format!("{NOBODY}:{NOBODY}");
        step::run(Command::new("chown").args(["--recursive", &owner]).arg(folder.path()))?;
        makepkg.uid(NOBODY).gid(NOBODY).env("HOME", folder.path());
    }
    step::run(&mut makepkg)?;
    // All that pacman runs, and that at the first installation alone.
    let script = fs::read_to_string(folder.path().join("vfio-early.install"))?;
    let mut complaints = Vec::new();
    if script.matches("()").count() != 1 || !script.starts_with("post_install() {\n    echo ") {
        complaints.push(format!("an upgrade would do something: {script}"));
    }
    let packed = folder.path().join("pkg/vfio-early");
    complaints
        .extend(differences(&packed, &[&ALWAYS[..], &[DRACUT, MKINITCPIO, LICENCES]].concat())?);
    Ok(complaints)
}
