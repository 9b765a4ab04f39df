//! The program with musl in the place of the GNU C library, as nixpkgs' `pkgsStatic` makes the one that
//! NixOS has.
//!
//! Debian has no libraries for musl: liblzma and libkmod are built by `musl-gcc`, from the sources of
//! Debian's packages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{binary, cache, libkmod, packages, step};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// The suite that liblzma's source is of.
const SUITE: &str = "trixie";

const LIBLZMA: &str = "liblzma.a";

/// The headers of C libraries are another's; these are the kernel's, which all of them need.
const KERNEL_HEADERS: [(&str, &str); 3] = [
    ("linux", "/usr/include/linux"),
    ("asm-generic", "/usr/include/asm-generic"),
    ("asm", "/usr/include/x86_64-linux-gnu/asm"),
];

/// Without what only xz itself needs, or a writer of such files.
const CONFIGURE: [&str; 10] = [
    "--host=x86_64-linux-musl",
    "--disable-shared",
    "--disable-encoders",
    "--disable-xz",
    "--disable-xzdec",
    "--disable-lzmadec",
    "--disable-lzmainfo",
    "--disable-scripts",
    "--disable-doc",
    "--disable-nls",
];

/// Builds it; `None` where Rust's standard library for musl cannot be had.
///
/// # Errors
/// When something else that it needs cannot be set up, or it does not build.
pub fn build() -> Result<Option<PathBuf>> {
    if !has_target()? {
        return Ok(None);
    }
    let libraries = cache::entry(
        &format!("musl/libkmod-{}", libkmod::VERSION),
        |entry| [libkmod::ARCHIVE, LIBLZMA].iter().all(|file| entry.join(file).exists()),
        make_libraries,
    )?;
    let mut command = binary::cargo(&[&binary::BUILD[..], &["--target", TARGET]].concat())?;
    command
        .env(libkmod::VARIABLE, libraries)
        // kmod-sys reads libkmod's header, in which nothing is musl's.
        .env("BINDGEN_EXTRA_CLANG_ARGS", "--target=x86_64-unknown-linux-gnu");
    let program = binary::compile(&mut command)?;
    let size = fs::metadata(&program)?.len();
    step::say(format_args!("vfio-early, with musl: {size} bytes"));
    Ok(Some(program))
}

/// Whether Rust's standard library for musl is here; rustup gets it.
fn has_target() -> Result<bool> {
    let mut folder = Command::new("rustc");
    folder.args(["--print", "target-libdir", "--target", TARGET]).current_dir(binary::workspace());
    let folder = String::from_utf8(step::run(&mut folder)?)?;
    let is_here = || Path::new(folder.trim()).is_dir();
    if !is_here() {
        step::say(format_args!("musl: rustup target add {TARGET}"));
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", TARGET]).current_dir(binary::workspace());
        // Another Rust than rustup's, or no network.
        if let Err(error) = step::run(&mut rustup) {
            step::say(format_args!("{error:#}"));
        }
    }
    Ok(is_here())
}

fn make_libraries(entry: &Path) -> Result<()> {
    packages::ensure(packages::MUSL)?;
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let work = work.path();
    let headers = work.join("include");
    fs::create_dir(&headers)?;
    for (name, folder) in KERNEL_HEADERS {
        symlink(folder, headers.join(name))?;
    }

    step::say(format_args!("musl: liblzma: fetching its source from Debian {SUITE}"));
    let archive = Archive::open(&work.join("apt"), SUITE, Kind::Source)?;
    let download = work.join("download");
    fs::create_dir(&download)?;
    let files = archive.download_source("xz-utils", &download)?;
    let is_source = |file: &&PathBuf| file.to_string_lossy().ends_with(".orig.tar.xz");
    let source = files.iter().find(is_source).context("xz-utils has no .orig.tar.xz")?;
    let tree = work.join("xz");
    fs::create_dir(&tree)?;
    let unpack = ["--strip-components=1", "-xf"];
    step::run(Command::new("tar").arg("-C").arg(&tree).args(unpack).arg(source))?;

    step::say("musl: liblzma: building it");
    step::run(
        Command::new("./configure")
            .args(CONFIGURE)
            .env("CC", "musl-gcc")
            .env("CFLAGS", "-Os -ffunction-sections -fdata-sections")
            .current_dir(&tree),
    )?;
    let liblzma = tree.join("src/liblzma");
    step::run(Command::new("make").args(["-j2", "-C"]).arg(&liblzma))?;
    fs::copy(liblzma.join(".libs").join(LIBLZMA), entry.join(LIBLZMA))?;
    step::run(Command::new("cp").arg("-r").arg(liblzma.join("api/.")).arg(&headers))?;

    step::say("musl: libkmod: building it");
    let compiler = format!("musl-gcc -isystem {}", headers.display());
    libkmod::build_again(Some(&compiler), work, entry)
}
