//! The program for another processor than this machine's.
//!
//! Debian has the C library for it as a package of this machine's; liblzma is of Debian's package for
//! that processor, and libkmod is built as for this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::supplies::arch::Arch;
use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{binary, cache, libkmod, packages, rustup, step};

/// The suite that liblzma is of.
const SUITE: &str = "bookworm";

const LIBLZMA: &str = "liblzma.a";

/// Rust's name of it, with the GNU C library.
#[must_use]
pub fn target(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    }
}

/// The static release binary for that processor, built where it is not.
///
/// # Errors
/// When it cannot be built.
pub fn program(arch: Arch) -> Result<PathBuf> {
    if arch == Arch::of_this_machine() { binary::build() } else { build(arch) }
}

/// Builds the static release binary for that processor, and checks it.
///
/// # Errors
/// When something that it needs cannot be set up, it does not build, or is not fit for an initrd.
pub fn build(arch: Arch) -> Result<PathBuf> {
    let mut command = cargo(arch, &[&binary::BUILD[..], &["--target", target(arch)]].concat())?;
    let program = binary::compile(command.args(binary::remap()?))?;
    binary::check_file(&program)?;
    Ok(program)
}

/// A cargo command with all that a build for that processor needs.
///
/// # Errors
/// When something of it cannot be set up.
pub fn cargo(arch: Arch, arguments: &[&str]) -> Result<Command> {
    rustup::standard_library(target(arch))?;
    let variable = |name: &str| format!("{name}_{}", target(arch).replace('-', "_"));
    let mut command = binary::cargo(arguments)?;
    let linker = variable("CARGO_TARGET").to_ascii_uppercase() + "_LINKER";
    command
        .env(libkmod::VARIABLE, libraries(arch)?)
        .env(linker, format!("{}-gcc", arch.gnu()))
        // Its headers are nowhere else.
        .env(variable("BINDGEN_EXTRA_CLANG_ARGS"), format!("--sysroot=/usr/{}", arch.gnu()));
    Ok(command)
}

/// The folder that holds `libkmod.a` and `liblzma.a` for that processor.
fn libraries(arch: Arch) -> Result<PathBuf> {
    let name = format!("cross/{}-libkmod-{}", arch.name(), libkmod::version_and_key());
    let is_whole =
        |entry: &Path| [libkmod::ARCHIVE, LIBLZMA].iter().all(|it| entry.join(it).exists());
    cache::entry(&name, is_whole, |entry| make(entry, arch))
}

fn make(entry: &Path, arch: Arch) -> Result<()> {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::cross(arch))?;
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let work = work.path();
    step::say(format_args!("liblzma for {}: fetching it from Debian {SUITE}", arch.name()));
    let archive = Archive::open(&work.join("apt"), SUITE, Kind::Binary { arch, security: true })?;
    let package = archive.newest("liblzma-dev")?;
    let root = work.join("root");
    for file in archive.download(&[package], work)? {
        step::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root))?;
    }
    let library = root.join("usr/lib").join(arch.gnu());
    fs::copy(library.join(LIBLZMA), entry.join(LIBLZMA))?;

    step::say(format_args!("libkmod for {}: building it", arch.name()));
    let cross = work.join("cross.ini");
    fs::write(&cross, cross_file(arch, &root))?;
    let (cross, archiver) = (cross.to_string_lossy(), format!("{}-ar", arch.gnu()));
    libkmod::build_again(&[("CROSS_FILE", &*cross), ("AR", &archiver)], work, entry)?;
    ensure!(entry.join(libkmod::ARCHIVE).exists(), "packaging/static-libkmod made no archive");
    Ok(())
}

/// What meson has to know.
fn cross_file(arch: Arch, root: &Path) -> String {
    let gnu = arch.gnu();
    let cpu = gnu.split('-').next().unwrap_or(gnu);
    let root = root.display();
    // meson 1.0 knows pkg-config by `pkgconfig` alone, newer ones by both names.
    format!(
        "[binaries]\nc = '{gnu}-gcc'\nar = '{gnu}-ar'\nstrip = '{gnu}-strip'\n\
         pkgconfig = 'pkg-config'\n\n\
         [properties]\nsys_root = '{root}'\npkg_config_libdir = '{root}/usr/lib/{gnu}/pkgconfig'\n\n\
         [host_machine]\nsystem = 'linux'\ncpu_family = '{cpu}'\ncpu = '{cpu}'\nendian = 'little'\n"
    )
}
