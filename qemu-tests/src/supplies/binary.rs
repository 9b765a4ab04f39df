//! The binary under test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, PT_INTERP};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

use crate::supplies::arch::Arch;
use crate::supplies::musl::{self, Unpacks};
use crate::supplies::{libkmod, packages, step};

/// The workspace's folder.
///
/// # Panics
/// Never: this package lies in the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package in a workspace")
}

/// A cargo command in the workspace, with all that a build of the package needs. It builds what
/// `Cargo.lock` names, or nothing.
///
/// # Errors
/// When something of it cannot be set up.
pub fn cargo(arguments: &[&str]) -> Result<Command> {
    packages::ensure(packages::BUILD)?;
    let libkmod = libkmod::set_up()?;
    let mut command = Command::new(cargo_program());
    command.args(locked(arguments)).current_dir(workspace()).env(libkmod::VARIABLE, libkmod);
    Ok(command)
}

/// The cargo that runs this program, so that `cargo +nightly xtask` stays with its toolchain.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Copies all of the workspace but what builds have left.
///
/// # Errors
/// When it cannot be read, or `to` cannot be written.
pub(crate) fn copy_workspace(to: &Path) -> Result<()> {
    copy_source(workspace(), to)
}

fn copy_source(from: &Path, to: &Path) -> Result<()> {
    let pack = "tar -C \"$1\" --exclude=./.git --exclude=target -cf - . | tar -C \"$2\" -xf -";
    step::run(Command::new("sh").args(["-euc", pack, "sh"]).args([from, to])).map(drop)
}

/// With `--locked`, which `fmt` alone neither knows nor needs: it reads no dependency.
fn locked<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = arguments.to_vec();
    if arguments.first().is_some_and(|subcommand| *subcommand != "fmt") {
        arguments.insert(1, "--locked");
    }
    arguments
}

/// The words for cargo that keep the folder of its sources out of the binary's messages, so that
/// it has the same bytes wherever it is built. The `Makefile` has the same.
///
/// # Errors
/// When cargo's folder cannot be told.
pub(crate) fn remap() -> Result<[String; 2]> {
    Ok(remap_of(&cargo_home()?))
}

/// Cargo's own folder, below which it keeps the sources of crates.
///
/// # Errors
/// When neither variable that names it is set.
pub(crate) fn cargo_home() -> Result<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("CARGO_HOME")
        .or_else(|| set("HOME").map(|home| format!("{home}/.cargo")))
        .context("neither CARGO_HOME nor HOME says where cargo keeps its sources")
}

/// [`remap`], for a cargo whose folder is `home`.
pub(crate) fn remap_of(home: &str) -> [String; 2] {
    let flag = format!("--remap-path-prefix={home}=/cargo");
    ["--config".to_owned(), format!("target.'cfg(all())'.rustflags=[{flag:?}]")]
}

/// The variable by which `build.rs` learns of the commit that is built; `--version` says it.
pub(crate) const COMMIT: &str = "VFIO_EARLY_COMMIT";

/// Builds the static release binary and the initrd's, with what the build needs, and checks them; the
/// path of the first.
///
/// # Errors
/// When the build fails, or when the binary is not static.
pub fn build() -> Result<PathBuf> {
    build_of(None)
}

/// The same, which says that it is of that commit.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_of(commit: Option<&str>) -> Result<PathBuf> {
    let mut command = cargo(&BUILD)?;
    command.args(remap()?).env_remove(COMMIT).envs(commit.map(|commit| (COMMIT, commit)));
    let binary = compile(musl::for_it(&mut command, Unpacks::Xz)?)?;
    check_files(&binary)?;
    Ok(binary)
}

/// The initrd's program, which cargo makes beside the host's.
#[must_use]
pub(crate) fn initrds(program: &Path) -> PathBuf {
    let mut path = program.to_owned().into_os_string();
    path.push("-initrd");
    path.into()
}

/// Says how large it is, and the initrd's beside it.
///
/// # Errors
/// When one is not fit for an initrd.
pub(crate) fn check_files(program: &Path) -> Result<()> {
    for binary in [program, &initrds(program)] {
        let name = binary.file_name().unwrap_or_default().display();
        let bytes =
            fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
        check(&bytes).with_context(|| format!("{} is not fit for an initrd", binary.display()))?;
        step::say(format_args!("{name}: {} bytes, static: no interpreter", bytes.len()));
    }
    Ok(())
}

/// Builds it with a libkmod that unpacks other modules, too, in the place of the usual one.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_that(unpacks: Unpacks) -> Result<PathBuf> {
    compile(musl::for_it(cargo(&BUILD)?.args(remap()?), unpacks)?)
}

/// Builds it with this machine's own C library, as the recipes for distributions do that have no Rust
/// for musl.
///
/// # Errors
/// When the build fails.
pub(crate) fn build_with_glibc() -> Result<PathBuf> {
    compile(cargo(&BUILD)?.args(remap()?))
}

/// Cargo's words for the binary's build, without [`remap`].
pub(crate) const BUILD: [&str; 5] = [
    "build",
    "--release",
    "--package=vfio-early",
    "--bins",
    "--message-format=json-render-diagnostics",
];

/// Runs cargo with [`BUILD`]; the executable that it made.
///
/// # Errors
/// When the build fails.
pub(crate) fn compile(command: &mut Command) -> Result<PathBuf> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", step::typed(command)))?;
    ensure!(output.status.success(), "the binary does not build: see above");
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo built no executable of the name vfio-early")
}

/// The executable in cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "vfio-early")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// An initrd has no dynamic linker. How large it may be is a check of its own: with another C library it
/// is of use all the same.
/// Why a program is none for that processor, where it is none.
pub(crate) fn is_not_for(program: &Path, arch: Arch) -> Option<String> {
    let bytes = fs::read(program).ok()?;
    let file = ElfFile64::<Endianness>::parse(&*bytes).ok()?;
    let machine = file.elf_header().e_machine(file.endian());
    let wanted = match arch {
        Arch::Amd64 => EM_X86_64,
        Arch::Arm64 => EM_AARCH64,
    };
    (machine != wanted).then(|| format!("{} is for another processor", program.display()))
}

fn check(bytes: &[u8]) -> Result<()> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("it is no 64-bit ELF file")?;
    let endian = file.endian();
    if file.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP) {
        bail!(
            "it needs a dynamic linker: was .cargo/config.toml, which links it statically, \
             overridden by RUSTFLAGS?"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cargo has to build and link this program before it can install anything; and gcc comes without
    /// the C library where recommended packages are left out.
    #[test]
    fn the_pages_name_what_cargo_needs_before_the_set_up_can_help() {
        for page in ["README.md", "docs/debian.md"] {
            let path = workspace().join(page);
            let text = fs::read_to_string(path).unwrap();
            let sentence =
                text.split("On a Debian 12").nth(1).or(text.split("On Debian 12").nth(1));
            let sentence = sentence.unwrap().split("nothing else").next().unwrap();
            let line = &sentence[..sentence.find("\n\n").unwrap_or(sentence.len())];
            for name in ["gcc", "libc6-dev", "git"] {
                assert!(line.contains(&format!("`{name}`")), "{page} does not name {name}: {line}");
            }
        }
    }

    /// An ELF header with one program header of that type.
    fn elf(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16] = 2; // ET_EXEC
        bytes[18] = 62; // EM_X86_64
        bytes[20] = 1; // EV_CURRENT
        bytes[32] = 64; // e_phoff
        bytes[52] = 64; // e_ehsize
        bytes[54] = 56; // e_phentsize
        bytes[56] = 1; // e_phnum
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn a_binary_with_an_interpreter_is_refused_and_none_for_its_size() {
        const PT_LOAD: u32 = 1;
        const INTERPRETER: u32 = 3;
        check(&elf(PT_LOAD)).unwrap();
        let mut large = elf(PT_LOAD);
        large.resize(2_000_000, 0);
        check(&large).unwrap();
        for (bytes, expected) in
            [(elf(INTERPRETER), "dynamic linker"), (b"#!/bin/sh".to_vec(), "no 64-bit ELF")]
        {
            let error = check(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn every_cargo_that_reads_dependencies_is_locked() {
        for (words, expected) in [
            (&["test", "--workspace"][..], &["test", "--locked", "--workspace"][..]),
            (&["clippy", "--", "-Dwarnings"], &["clippy", "--locked", "--", "-Dwarnings"]),
            (&["fmt", "--all"], &["fmt", "--all"]),
        ] {
            assert_eq!(locked(words), expected);
        }
    }

    #[test]
    fn what_builds_have_left_is_not_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in [".git", ".cargo", "target/release", "fuzz/target", "fuzz/src"] {
            fs::create_dir_all(from.path().join(name)).unwrap();
            fs::write(from.path().join(name).join("file"), "").unwrap();
        }
        copy_source(from.path(), to.path()).unwrap();
        for (name, is_there) in [
            (".git", false),
            ("target", false),
            ("fuzz/target", false),
            ("fuzz/src/file", true),
            (".cargo/file", true),
        ] {
            assert_eq!(to.path().join(name).exists(), is_there, "{name}");
        }
    }

    #[test]
    fn cargos_messages_tell_where_the_executable_is() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"log"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"vfio-early"},"executable":"/t/vfio-early"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/t/vfio-early".into()));
        assert_eq!(executable(""), None);
    }
}
