//! The binary under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::elf::PT_INTERP;
use object::read::elf::{ElfFile64, ProgramHeader};

use crate::{libkmod, packages, step};

/// Bytes that the stripped binary may have: it travels in every initrd.
pub const SIZE_LIMIT: usize = 1_350_000;

/// The workspace's folder.
///
/// # Panics
/// Never: this package lies in the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package in a workspace")
}

/// A cargo command in the workspace, with all that a build of the package needs.
///
/// # Errors
/// When something of it cannot be set up.
pub fn cargo(arguments: &[&str]) -> Result<Command> {
    packages::ensure(packages::BUILD)?;
    let libkmod = libkmod::set_up()?;
    // The cargo that runs this program, so that `cargo +nightly xtask` stays with its toolchain.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace()).env(libkmod::VARIABLE, libkmod);
    Ok(command)
}

/// Builds the static release binary, with what the build needs, and checks it.
///
/// # Errors
/// When the build fails, or when the binary is not static or too large.
pub fn build() -> Result<PathBuf> {
    const WORDS: [&str; 4] =
        ["build", "--release", "--bin=vfio-early", "--message-format=json-render-diagnostics"];
    let mut command = cargo(&WORDS)?;
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", step::typed(&command)))?;
    ensure!(output.status.success(), "the binary does not build: see above");
    let binary = executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo built no executable of the name vfio-early")?;

    let bytes = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    check(&bytes).with_context(|| format!("{} is not fit for an initrd", binary.display()))?;
    step::say(format_args!("vfio-early: {} bytes, static: no interpreter", bytes.len()));
    Ok(binary)
}

/// The executable in cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "vfio-early")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// An initrd has no dynamic linker and little room.
fn check(bytes: &[u8]) -> Result<()> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("it is no 64-bit ELF file")?;
    let endian = file.endian();
    if file.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP) {
        bail!(
            "it needs a dynamic linker: was .cargo/config.toml, which links it statically, \
             overridden by RUSTFLAGS?"
        );
    }
    ensure!(bytes.len() <= SIZE_LIMIT, "it has {} bytes, over {SIZE_LIMIT}", bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_binary_with_an_interpreter_or_too_large_is_refused() {
        const PT_LOAD: u32 = 1;
        const INTERPRETER: u32 = 3;
        check(&elf(PT_LOAD)).unwrap();
        let mut large = elf(PT_LOAD);
        large.resize(SIZE_LIMIT + 1, 0);
        for (bytes, expected) in [
            (elf(INTERPRETER), "dynamic linker"),
            (large, "1350001 bytes"),
            (b"#!/bin/sh".to_vec(), "no 64-bit ELF"),
        ] {
            let error = check(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
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
