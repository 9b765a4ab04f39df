//! What the program is linked with: musl in the place of the GNU C library, which would be half of it.
//! nixpkgs' `pkgsStatic` makes the one that NixOS has so, too.
//!
//! musl itself comes with Rust's standard library for it. Debian has no libraries for it: liblzma and
//! libkmod are built by `musl-gcc`, from the sources of Debian's packages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::supplies::arch::Arch;
use crate::supplies::source::{Source, key};
use crate::supplies::{cache, libkmod, packages, rustup, step};

/// What unpacks modules that are `.ko.xz`.
pub(crate) const LIBLZMA: &str = "liblzma.a";

/// Where that comes from.
pub(crate) const XZ: Source = Source {
    package: "xz-utils",
    version: "5.8.1",
    sha256: "0b54f79df85912504de0b14aec7971e3f964491af1812d83447005807513cd9e",
    told_in: "qemu-tests/src/supplies/musl.rs",
    script: include_str!("../../../packaging/static-liblzma"),
};

/// What unpacks those that are `.ko.zst`, without what only writes such files, or reads those of versions
/// before the first.
const ZSTD: Source = Source {
    package: "libzstd",
    version: "1.5.7+dfsg",
    sha256: "0c092ef267edce57ba7f3f2645c861f72eaf5e76273c6c3632869423464b90a5",
    told_in: "qemu-tests/src/supplies/musl.rs",
    script: "set -eu
make -j2 -C \"$1/lib\" CC=\"$CC\" 'CFLAGS=-O3 -ffunction-sections -fdata-sections' \\
    ZSTD_LIB_COMPRESSION=0 ZSTD_LIB_DICTBUILDER=0 ZSTD_LIB_DEPRECATED=0 ZSTD_LEGACY_SUPPORT=0 libzstd.a
cp \"$1/lib/libzstd.a\" \"$2\"
cp \"$1/lib/zstd.h\" \"$1/lib/zstd_errors.h\" \"$2/include\"
",
};

/// The headers of C libraries are another's; these are the kernel's, which all of them need.
fn kernel_headers() -> [(&'static str, String); 3] {
    let gnu = Arch::of_this_machine().gnu();
    [
        ("linux", "/usr/include/linux".to_owned()),
        ("asm-generic", "/usr/include/asm-generic".to_owned()),
        ("asm", format!("/usr/include/{gnu}/asm")),
    ]
}

/// Rust's name for what the program is built for.
#[must_use]
pub fn target() -> &'static str {
    match Arch::of_this_machine() {
        Arch::Amd64 => "x86_64-unknown-linux-musl",
        Arch::Arm64 => "aarch64-unknown-linux-musl",
    }
}

/// Which modules the program unpacks itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpacks {
    /// Those that are compressed with xz.
    Xz,
    /// Those with zstd, too, as custom kernels of `NixOS` can have them.
    XzAndZstd,
}

/// Why the program is not linked with it here, but with this machine's own C library: rustup cannot get
/// Rust's standard library for it. It is tried once, and said then.
pub fn missing() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = WHY.get_or_init(|| {
        let why = format!("{:#}", standard_library().err()?).replace('\n', "; ");
        step::say(format_args!(
            "{why}\nThe program is linked with this machine's own C library, and twice as large: \
             `rustup target add {}`, where that has a network, gets musl",
            target()
        ));
        Some(why)
    });
    why.as_deref()
}

/// Has cargo build for [`target`], with libraries that are for it; for this machine's own C library where
/// musl is [`missing`].
///
/// # Errors
/// When something that the build needs cannot be set up.
pub(crate) fn for_it(command: &mut Command, unpacks: Unpacks) -> Result<&mut Command> {
    if let Some(why) = missing() {
        ensure!(
            unpacks == Unpacks::Xz,
            "only with musl there is a libkmod that unpacks more: {why}"
        );
        return Ok(command);
    }
    let libraries = libraries(unpacks)?;
    if unpacks == Unpacks::XzAndZstd {
        command.env(libkmod::LIBRARIES, "lzma zstd");
    }
    Ok(with(command, &libraries))
}

/// The same, with the libraries in that folder.
pub(crate) fn with<'c>(command: &'c mut Command, libraries: &Path) -> &'c mut Command {
    command
        .args(["--target", target()])
        .env(libkmod::VARIABLE, libraries)
        // kmod-sys reads libkmod's header, in which nothing is musl's.
        .env("BINDGEN_EXTRA_CLANG_ARGS", format!("--target={}", Arch::of_this_machine().gnu()))
}

/// The folder of `libkmod.a` and `liblzma.a` for it, built when they are not in the cache.
///
/// # Errors
/// As [`for_it`].
pub(crate) fn libraries(unpacks: Unpacks) -> Result<PathBuf> {
    standard_library()?;
    let sources = match unpacks {
        Unpacks::Xz => &[libkmod::SOURCE, XZ][..],
        Unpacks::XzAndZstd => &[libkmod::SOURCE, XZ, ZSTD],
    };
    let texts: Vec<_> = sources.iter().flat_map(|source| [source.script, source.sha256]).collect();
    let is_whole = |entry: &Path| entry.join(libkmod::ARCHIVE).exists();
    cache::entry(&format!("musl/{:08x}", key(&texts)), is_whole, |entry| {
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
        for source in &sources[1..] {
            source.fetch(&entry.join(source.package), work.path())?;
        }
        build(&sources[1..], entry, work.path(), entry)
    })
}

/// Builds the usual libraries once more, from the sources in the cache.
///
/// # Errors
/// As [`for_it`].
pub(crate) fn build_again(work: &Path, folder: &Path) -> Result<()> {
    let sources = libraries(Unpacks::Xz)?;
    XZ.check(&sources.join(XZ.package))?;
    build(&[XZ], &sources, work, folder)
}

/// Builds those that libkmod asks for, whose archives are in a folder, and then that.
fn build(others: &[Source], archives: &Path, work: &Path, folder: &Path) -> Result<()> {
    packages::ensure(packages::MUSL)?;
    let headers = work.join("include");
    fs::create_dir(&headers)?;
    for (name, folder) in kernel_headers() {
        symlink(folder, headers.join(name))?;
    }
    for source in others {
        source.build(&archives.join(source.package), &[("CC", "musl-gcc")], work, folder)?;
    }
    let include = [&headers, &folder.join("include")].map(|folder| folder.display().to_string());
    let compiler = format!("musl-gcc -isystem {} -isystem {}", include[0], include[1]);
    let mut variables = vec![("CC", compiler.as_str())];
    if others.len() > 1 {
        // kmod's build asks pkg-config for it; nothing is linked there.
        let text = "Name: libzstd\nDescription: zstd\nVersion: 1.5\nLibs: -lzstd\n";
        fs::write(work.join("libzstd.pc"), text)?;
        let work = work.to_str().context("the cache's name is no text")?;
        variables.extend([("ZSTD", "enabled"), ("PKG_CONFIG_PATH", work)]);
    }
    libkmod::build_again(&variables, work, folder)
}

/// The folder of Rust's standard library for it, which has musl.
fn standard_library() -> Result<PathBuf> {
    rustup::standard_library(target())
}

/// musl itself for a target, and its version.
///
/// # Errors
/// When it is not where Rust has it, or does not say its version.
pub(crate) fn musl(target: &str) -> Result<(PathBuf, String)> {
    let file = rustup::standard_library(target)?.join("self-contained/libc.a");
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let version = version(&bytes).with_context(|| format!("{}: no version", file.display()))?;
    Ok((file, version))
}

/// The one text in it that is a version and nothing else (`__libc_version`).
fn version(archive: &[u8]) -> Option<String> {
    let is_version = |text: &&[u8]| {
        let mut numbers = text.split(|byte| *byte == b'.');
        let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        numbers.by_ref().take(3).filter(|text| is_number(text)).count() == 3
            && numbers.next().is_none()
    };
    let text = archive.split(|byte| *byte == 0).find(is_version)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_a_text_of_its_own() {
        for (archive, expected) in [
            (&b"!<arch>\n\0ELF\x001.2\x001.2.5\x00x1.2.6\0"[..], Some("1.2.5")),
            (b"1.2.3.4\x001..2\0", None),
            (b"", None),
        ] {
            assert_eq!(version(archive).as_deref(), expected, "{archive:?}");
        }
    }
}
