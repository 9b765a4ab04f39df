//! Every build takes the dependencies that `Cargo.lock` names, or none.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::check::Outcome;
use crate::supplies::binary;
use crate::supplies::libkmod;

/// Where commands are written down.
const RECIPES: [&str; 6] = [
    ".cargo/config.toml",
    ".ci/run",
    "Makefile",
    "initrd/nixos/package.nix",
    "packaging/arch/PKGBUILD",
    "packaging/rpm/vfio-early.spec",
];

/// A tree whose `Cargo.lock` lacks a dependency builds by none of the ways in; and no recipe calls
/// cargo in another way.
pub(super) fn everywhere() -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let tree = folder.path();
    binary::copy_workspace(tree)?;
    let mut complaints = Vec::new();
    for recipe in RECIPES {
        let text = fs::read_to_string(tree.join(recipe)).with_context(|| recipe.to_owned())?;
        // Nix has a list over several lines.
        let text = text.replace("[\n", "[ ");
        complaints.extend(unlocked(&text).map(|line| format!("{recipe} is not locked: {line}")));
    }

    let lock = tree.join("Cargo.lock");
    let text = fs::read_to_string(&lock)?;
    let stale = without(&text, "lexopt").context("Cargo.lock has no lexopt to take away")?;
    fs::write(&lock, &stale)?;
    let libkmod = libkmod::set_up()?;
    for (program, words) in
        [("make", &["target/make/vfio-early"][..]), ("cargo", &["xtask", "--help"])]
    {
        let program = if program == "cargo" { binary::cargo_program() } else { program.into() };
        let output = Command::new(&program)
            .args(words)
            .current_dir(tree)
            .env(libkmod::VARIABLE, &libkmod)
            .env_remove("MAKEFLAGS")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains("--locked") {
            let words = words.join(" ");
            complaints
                .push(format!("{} {words} took a stale Cargo.lock: {said}", program.display()));
        }
    }
    ensure!(fs::read_to_string(&lock)? == stale, "a locked build wrote Cargo.lock");
    Ok(Outcome::of(&complaints))
}

/// Lines that call cargo to build, run or test, and are not locked; `cargo xtask` is.
fn unlocked(text: &str) -> impl Iterator<Item = &str> {
    const READS_DEPENDENCIES: [&str; 9] =
        ["bench", "build", "clippy", "deb", "doc", "install", "run", "rustc", "test"];
    text.lines().filter(|line| {
        if line.trim().starts_with('#') || line.contains("--locked") {
            return false;
        }
        // In Nix cargo is called by others.
        let is_call = |(call, words): (&str, &str)| {
            let subcommand = words.split([' ', '"']).next().unwrap_or_default();
            READS_DEPENDENCIES.contains(&subcommand) || call == "cargoBuildFlags = "
        };
        let calls = ["cargo ", "$(CARGO) ", "xtask = \"", "cargoBuildFlags = "];
        calls.into_iter().any(|call| line.split(call).skip(1).any(|words| is_call((call, words))))
    })
}

/// `Cargo.lock` without that package.
fn without(lock: &str, name: &str) -> Option<String> {
    let entry = |text: &&str| text.contains(&format!("\nname = \"{name}\"\n"));
    let parts: Vec<&str> = lock.split("\n[[package]]").collect();
    let kept: Vec<&str> = parts.iter().copied().filter(|part| !entry(part)).collect();
    (kept.len() + 1 == parts.len()).then(|| kept.join("\n[[package]]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_cargo_that_is_not_locked_is_found() {
        for (line, is_found) in [
            ("\t$(CARGO) install --locked --path .", false),
            ("\tbinary=$$($(CARGO) xtask build)", false),
            ("# `cargo build` is for you", false),
            ("cargo xtask test", false),
            ("\t$(CARGO) install --path .", true),
            ("    cargo build --release", true),
            ("xtask = \"run --quiet --\"", true),
            ("xtask = \"run --locked --quiet --\"", false),
            ("  cargoBuildFlags = [ \"--package=vfio-early\" ];", true),
            ("BuildRequires:  cargo >= 1.91", false),
            ("remap = --config \"CARGO_HOME:-$$HOME/.cargo}=/cargo\"", false),
        ] {
            assert_eq!(unlocked(line).next().is_some(), is_found, "{line}");
        }
    }

    #[test]
    fn a_package_is_taken_out_of_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1\"\n\n\
                    [[package]]\nname = \"b\"\nversion = \"2\"\n";
        let left = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1\"\n";
        assert_eq!(without(lock, "b").as_deref(), Some(left));
        assert_eq!(without(lock, "c"), None);
    }
}
