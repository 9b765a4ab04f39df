//! The program for other targets of Rust's than the usual one, which is this machine's with musl.
//!
//! For another processor Debian has a compiler and the GNU C library as packages of this machine's, and
//! musl's headers and liblzma for that library as packages for that processor, of which only files are
//! taken. All else is built from the same sources as for this machine.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Error, Result, bail};

use crate::supplies::arch::Arch;
use crate::supplies::archive::{Archive, Kind};
use crate::supplies::musl::{self, LIBLZMA, Unpacks, XZ};
use crate::supplies::source::key;
use crate::supplies::{binary, cache, libkmod, packages, rustup, step};

/// The suite that files for another processor are of.
const SUITE: &str = "bookworm";

/// Rust's names of all targets that the program is built for.
pub const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-musl",
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
];

/// Those that there is a package for.
pub const PACKAGED: [&str; 2] = [TARGETS[0], TARGETS[2]];

/// One of [`TARGETS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    arch: Arch,
    has_musl: bool,
}

impl Target {
    /// The usual one for a machine with that processor.
    #[must_use]
    pub fn of(arch: Arch) -> Self {
        Self { arch, has_musl: true }
    }

    fn is_of_this_machine(self) -> bool {
        self.arch == Arch::of_this_machine()
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let index = TARGETS.iter().position(|target| *target == text);
        let index =
            index.with_context(|| format!("no target {text}: try {}", TARGETS.join(", ")))?;
        let arch = if index < 2 { Arch::Amd64 } else { Arch::Arm64 };
        Ok(Self { arch, has_musl: index % 2 == 0 })
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let first = if self.arch == Arch::Amd64 { 0 } else { 2 };
        f.write_str(TARGETS[first + usize::from(!self.has_musl)])
    }
}

/// The static release binary for that processor.
///
/// # Errors
/// As [`build`].
pub fn program(arch: Arch) -> Result<PathBuf> {
    build(Target::of(arch))
}

/// Why there can be no program for that processor here: rustup cannot get Rust's standard library for it.
/// It is tried once.
pub fn missing(arch: Arch) -> Option<&'static str> {
    // This machine's own is one of two.
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    if arch == Arch::of_this_machine() {
        return None;
    }
    let why = WHY.get_or_init(|| {
        let target = Target::of(arch).to_string();
        Some(format!("{:#}", rustup::standard_library(&target).err()?).replace('\n', "; "))
    });
    why.as_deref()
}

/// Builds the static release binary for that target, and checks it.
///
/// # Errors
/// When something that it needs cannot be set up, it does not build, or is not fit for an initrd.
pub fn build(target: Target) -> Result<PathBuf> {
    build_of(target, None)
}

/// The same for one of [`PACKAGED`], which says that it is of that commit.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_of(target: Target, commit: Option<&str>) -> Result<PathBuf> {
    if target.is_of_this_machine() {
        if target.has_musl {
            if let Some(why) = musl::missing() {
                bail!("{why}");
            }
            return binary::build_of(commit);
        }
        let program = binary::build_with_glibc()?;
        binary::check_files(&program)?;
        return Ok(program);
    }
    rustup::standard_library(&target.to_string())?;
    let mut command = binary::cargo(&binary::BUILD)?;
    command.args(binary::remap()?).env_remove(binary::COMMIT);
    command.envs(commit.map(|commit| (binary::COMMIT, commit)));
    let program = binary::compile(with(&mut command, target, &libraries(target)?))?;
    binary::check_files(&program)?;
    Ok(program)
}

/// Has cargo build for that target, with the libraries for it in that folder.
pub(crate) fn with<'c>(
    command: &'c mut Command,
    target: Target,
    libraries: &Path,
) -> &'c mut Command {
    if target.is_of_this_machine() {
        return musl::with(command, libraries);
    }
    let name = target.to_string();
    let gnu = target.arch.gnu();
    let variable = |variable: &str| format!("{variable}_{}", name.replace('-', "_"));
    let linker = variable("CARGO_TARGET").to_ascii_uppercase() + "_LINKER";
    command
        .args(["--target", &name])
        .env(libkmod::VARIABLE, libraries)
        .env(linker, format!("{gnu}-gcc"))
        // kmod-sys reads libkmod's header, in which nothing is musl's; the other's are nowhere else.
        .env(
            variable("BINDGEN_EXTRA_CLANG_ARGS"),
            format!("--target={gnu} --sysroot=/usr/{gnu} -I/usr/{gnu}/include"),
        )
}

/// The folder that holds `libkmod.a` and `liblzma.a` for it.
///
/// # Errors
/// When they do not build.
pub(crate) fn libraries(target: Target) -> Result<PathBuf> {
    if target.is_of_this_machine() {
        return musl::libraries(Unpacks::Xz);
    }
    let texts = [libkmod::SOURCE, XZ].map(|source| [source.script, source.sha256]).concat();
    let is_whole = |entry: &Path| entry.join(libkmod::ARCHIVE).exists();
    cache::entry(&format!("cross/{target}-{:08x}", key(&texts)), is_whole, |entry| {
        packages::ensure(packages::BUILD)?;
        packages::ensure(packages::cross(target.arch))?;
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
        if target.has_musl {
            make_with_musl(target.arch, work.path(), entry)
        } else {
            make_with_glibc(target.arch, work.path(), entry)
        }
    })
}

/// Builds those for one of [`PACKAGED`] once more, into that folder.
///
/// # Errors
/// As [`libraries`].
pub(crate) fn build_libraries_again(target: Target, work: &Path, folder: &Path) -> Result<()> {
    if target.is_of_this_machine() {
        return musl::build_again(work, folder);
    }
    make_with_musl(target.arch, work, folder)
}

fn make_with_glibc(arch: Arch, work: &Path, entry: &Path) -> Result<()> {
    let root = fetch("liblzma-dev", arch, work)?;
    let library = root.join("usr/lib").join(arch.gnu());
    fs::copy(library.join(LIBLZMA), entry.join(LIBLZMA))?;
    let compiler = [format!("{}-gcc", arch.gnu())];
    let properties = format!("sys_root = '{}'\n", root.display());
    make_libkmod(arch, &compiler, &properties, &library.join("pkgconfig"), work, entry)
}

fn make_with_musl(arch: Arch, work: &Path, entry: &Path) -> Result<()> {
    packages::ensure(packages::MUSL)?;
    let gnu = arch.gnu();
    let root = fetch("musl-dev", arch, work)?;
    let headers = root.join("usr/include").join(gnu.replace("-gnu", "-musl"));
    for name in ["linux", "asm", "asm-generic"] {
        symlink(format!("/usr/{gnu}/include/{name}"), headers.join(name))?;
    }
    let compiler = format!("{gnu}-gcc");
    let own = step::run(Command::new(&compiler).arg("-print-file-name=include"))?;
    let own = String::from_utf8(own)?;
    let mut words = vec![compiler, "-nostdinc".to_owned()];
    for folder in [own.trim(), &headers.to_string_lossy(), &entry.join("include").to_string_lossy()]
    {
        words.extend(["-isystem".to_owned(), folder.to_owned()]);
    }
    let archive = musl::libraries(Unpacks::Xz)?.join(XZ.package);
    XZ.check(&archive)?;
    XZ.build(&archive, &[("CC", &words.join(" ")), ("HOST", gnu)], work, entry)?;
    // kmod's build asks pkg-config for it; nothing is linked there.
    let folder = work.join("pkgconfig");
    fs::create_dir(&folder)?;
    let text = format!("Name: liblzma\nDescription: xz\nVersion: {}\nLibs: -llzma\n", XZ.version);
    fs::write(folder.join("liblzma.pc"), text)?;
    make_libkmod(arch, &words, "", &folder, work, entry)
}

/// Unpacks the newest package of that name for that processor; its root.
fn fetch(name: &str, arch: Arch, work: &Path) -> Result<PathBuf> {
    step::say(format_args!("{name} for {}: fetching it from Debian {SUITE}", arch.name()));
    let archive = Archive::open(&work.join("apt"), SUITE, Kind::Binary { arch, security: true })?;
    let root = work.join("root");
    for file in archive.download(&[archive.newest(name)?], work)? {
        step::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root))?;
    }
    Ok(root)
}

/// Builds libkmod with a compiler, whose words are given, and the libraries that pkg-config has there.
fn make_libkmod(
    arch: Arch,
    compiler: &[String],
    properties: &str,
    libraries: &Path,
    work: &Path,
    entry: &Path,
) -> Result<()> {
    let gnu = arch.gnu();
    let cpu = gnu.split('-').next().unwrap_or(gnu);
    let (compiler, libraries) = (compiler.join("', '"), libraries.display());
    // meson 1.0 knows pkg-config by `pkgconfig` alone, newer ones by both names.
    let text = format!(
        "[binaries]\nc = ['{compiler}']\nar = '{gnu}-ar'\nstrip = '{gnu}-strip'\n\
         pkgconfig = 'pkg-config'\n\n[properties]\n{properties}pkg_config_libdir = '{libraries}'\n\n\
         [host_machine]\nsystem = 'linux'\ncpu_family = '{cpu}'\ncpu = '{cpu}'\nendian = 'little'\n"
    );
    let file = work.join("cross.ini");
    fs::write(&file, text)?;
    let (file, archiver) = (file.to_string_lossy(), format!("{gnu}-ar"));
    libkmod::build_again(&[("CROSS_FILE", &*file), ("AR", &archiver)], work, entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_its_name() {
        for name in TARGETS {
            let target: Target = name.parse().unwrap();
            assert_eq!(target.to_string(), name);
            let is_arm = target.arch == Arch::Arm64;
            assert_eq!(
                (name.starts_with("aarch64"), name.ends_with("musl")),
                (is_arm, target.has_musl)
            );
        }
        let error = "riscv64gc-unknown-linux-gnu".parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("aarch64-unknown-linux-musl"), "{error}");
    }
}
