//! Arch's package.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::files::{ALWAYS, DRACUT, File, MKINITCPIO, differences};
use super::makefile::make;
use crate::supplies::binary::workspace;
use crate::supplies::{libkmod, packages, step};

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

/// What pacman notes of the package's own.
const OF_PACMAN: &str = "var/";

/// By the real makepkg, with the program that `make` has built: what is tested is the recipe. The package
/// is installed into a root by the real pacman, and removed.
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
    makepkg.args(["--nodeps", "--noextract"]).current_dir(folder.path());
    // It would ask for what is installed here.
    makepkg
        .env("PACMAN", "true")
        .env("PKGEXT", ".pkg.tar.zst")
        .env(libkmod::VARIABLE, libkmod::set_up()?);
    makepkg.env_remove("MAKEFLAGS");
    // It refuses to run as root.
    if fs::metadata("/proc/self").context("cannot tell the user")?.uid() == 0 {
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let owner = format!("{NOBODY}:{NOBODY}");
        step::run(Command::new("chown").args(["--recursive", &owner]).arg(folder.path()))?;
        makepkg.uid(NOBODY).gid(NOBODY).env("HOME", folder.path());
    }
    step::run(&mut makepkg)?;
    let package = concat!("vfio-early-", env!("CARGO_PKG_VERSION"), "-1-x86_64.pkg.tar.zst");
    let mut complaints = installed(
        &folder.path().join(package),
        &[&ALWAYS[..], &[DRACUT, MKINITCPIO, LICENCES]].concat(),
    )?;
    // All that pacman runs, and that at the first installation alone.
    let script = fs::read_to_string(folder.path().join("vfio-early.install"))?;
    if script.matches("()").count() != 1 || !script.starts_with("post_install() {\n    echo ") {
        complaints.push(format!("an upgrade would do something: {script}"));
    }
    Ok(complaints)
}

/// What is wrong with a root after pacman has installed that package there, and after it has removed it.
fn installed(package: &Path, expected: &[&[File]]) -> Result<Vec<String>> {
    let root = tempfile::tempdir()?;
    let configuration = root.path().join("var/pacman.conf");
    fs::create_dir_all(root.path().join("var/lib/pacman"))?;
    fs::write(&configuration, "[options]\nArchitecture = x86_64\nLocalFileSigLevel = Never\n")?;
    let pacman = |words: &[&str]| -> Result<Vec<u8>> {
        let mut command = packages::root_command("pacman")?.context("only root can install")?;
        command.arg("--root").arg(root.path()).arg("--config").arg(&configuration);
        command.arg("--logfile").arg(root.path().join("var/log")).args(["--noconfirm"]);
        step::run(command.args(words))
    };
    pacman(&["--upgrade", &package.to_string_lossy()])?;
    let ours = |complaints: Vec<String>| {
        complaints.into_iter().filter(|line| !line.contains(&format!(" {OF_PACMAN}")))
    };
    let mut complaints: Vec<String> = ours(differences(root.path(), expected)?).collect();
    let said = String::from_utf8(pacman(&["--query", "--check", "--check", "vfio-early"])?)?;
    if !said.contains(" 0 altered files") {
        complaints.push(said);
    }
    pacman(&["--remove", "vfio-early"])?;
    complaints.extend(ours(differences(root.path(), &[])?));
    complaints.extend(root.path().join("usr").exists().then(|| "its folders are left".to_owned()));
    Ok(complaints)
}
