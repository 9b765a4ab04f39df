//! The program with musl in the place of the GNU C library, as nixpkgs' `pkgsStatic` makes the one that
//! NixOS has.
//!
//! Debian has no libraries for musl: liblzma, libzstd and libkmod are built by `musl-gcc`, from the sources
//! of Debian's packages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{binary, cache, libkmod, packages, step};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// The suite that the libraries' sources are of.
const SUITE: &str = "trixie";

const LIBLZMA: &str = "liblzma.a";
const LIBZSTD: &str = "libzstd.a";

/// Which modules the program unpacks itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpacks {
    /// Those that are compressed with xz.
    Xz,
    /// Those with zstd, too.
    XzAndZstd,
}

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

/// Without what only writes such files, or reads those of versions before the first.
const ZSTD: [&str; 7] = [
    "CC=musl-gcc",
    "CFLAGS=-O3 -ffunction-sections -fdata-sections",
    "ZSTD_LIB_COMPRESSION=0",
    "ZSTD_LIB_DICTBUILDER=0",
    "ZSTD_LIB_DEPRECATED=0",
    "ZSTD_LEGACY_SUPPORT=0",
    LIBZSTD,
];

/// Builds it; `None` where Rust's standard library for musl cannot be had.
///
/// # Errors
/// When something else that it needs cannot be set up, or it does not build.
pub(crate) fn build(unpacks: Unpacks) -> Result<Option<PathBuf>> {
    if !has_target()? {
        return Ok(None);
    }
    let (name, archives, libraries): (_, &[&str], _) = match unpacks {
        Unpacks::Xz => ("musl", &[libkmod::ARCHIVE, LIBLZMA], "lzma"),
        Unpacks::XzAndZstd => {
            ("musl-with-zstd", &[libkmod::ARCHIVE, LIBLZMA, LIBZSTD], "lzma zstd")
        }
    };
    let folder = cache::entry(
        &format!("{name}/libkmod-{}", libkmod::VERSION),
        |entry| archives.iter().all(|file| entry.join(file).exists()),
        |entry| make_libraries(unpacks, entry),
    )?;
    let mut command = binary::cargo(&[&binary::BUILD[..], &["--target", TARGET]].concat())?;
    command
        .env(libkmod::VARIABLE, folder)
        .env(libkmod::LIBRARIES, libraries)
        // kmod-sys reads libkmod's header, in which nothing is musl's.
        .env("BINDGEN_EXTRA_CLANG_ARGS", "--target=x86_64-unknown-linux-gnu");
    let program = binary::compile(&mut command)?;
    let size = fs::metadata(&program)?.len();
    step::say(format_args!("vfio-early, with {name}: {size} bytes"));
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

fn make_libraries(unpacks: Unpacks, entry: &Path) -> Result<()> {
    packages::ensure(packages::MUSL)?;
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let work = work.path();
    let headers = work.join("include");
    fs::create_dir(&headers)?;
    for (name, folder) in KERNEL_HEADERS {
        symlink(folder, headers.join(name))?;
    }
    let archive = Archive::open(&work.join("apt"), SUITE, Kind::Source)?;
    make_liblzma(&archive, work, &headers, entry)?;
    let compiler = format!("musl-gcc -isystem {}", headers.display());
    let mut variables = vec![("CC", compiler.as_str())];
    if unpacks == Unpacks::XzAndZstd {
        make_libzstd(&archive, work, &headers, entry)?;
        variables.extend([("ZSTD", "enabled"), ("PKG_CONFIG_PATH", path(work)?)]);
    }
    step::say("musl: libkmod: building it");
    libkmod::build_again(&variables, work, entry)
}

fn make_liblzma(archive: &Archive, work: &Path, headers: &Path, entry: &Path) -> Result<()> {
    let tree = source(archive, "xz-utils", work)?;
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
    step::run(Command::new("cp").arg("-r").arg(liblzma.join("api/.")).arg(headers))?;
    Ok(())
}

fn make_libzstd(archive: &Archive, work: &Path, headers: &Path, entry: &Path) -> Result<()> {
    let library = source(archive, "libzstd", work)?.join("lib");
    step::say("musl: libzstd: building it");
    step::run(Command::new("make").args(["-j2", "-C"]).arg(&library).args(ZSTD))?;
    fs::copy(library.join(LIBZSTD), entry.join(LIBZSTD))?;
    for header in ["zstd.h", "zstd_errors.h"] {
        fs::copy(library.join(header), headers.join(header))?;
    }
    // kmod's build asks pkg-config for it; nothing is linked there.
    let text = "Name: libzstd\nDescription: zstd\nVersion: 1.5\nLibs: -lzstd\n";
    fs::write(work.join("libzstd.pc"), text)?;
    Ok(())
}

/// The unpacked source of that package.
fn source(archive: &Archive, package: &str, work: &Path) -> Result<PathBuf> {
    step::say(format_args!("musl: {package}: fetching its source from Debian {SUITE}"));
    let download = work.join(format!("{package}-files"));
    fs::create_dir(&download)?;
    let files = archive.download_source(package, &download)?;
    let is_source = |file: &&PathBuf| file.to_string_lossy().contains(".orig.tar.");
    let source = files.iter().find(is_source).context("it has no .orig.tar")?;
    let tree = work.join(package);
    fs::create_dir(&tree)?;
    let unpack = ["--strip-components=1", "-xf"];
    step::run(Command::new("tar").arg("-C").arg(&tree).args(unpack).arg(source))?;
    Ok(tree)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
