//! The module over a whole nixpkgs, with NixOS' own modules around it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::evaluation::Nix;
use super::expected::{self, STORE, differences};

/// What is to be built of it; `nixos.nix` names it so.
const DERIVATIONS: [&str; 14] = [
    "the initrd, scripted",
    "the initrd, systemd",
    "the options",
    "the package",
    "the package for aarch64",
    "the shell",
    "the system, scripted",
    "the system, systemd",
    "the test absent-scripted",
    "the test absent-systemd",
    "the test bound-scripted",
    "the test bound-systemd",
    "the test strict-scripted",
    "the test strict-systemd",
];

/// Holds that every configuration has the same errors and warnings as over the stubs, that the stubs are
/// as the options that they stand for, and that all that is to be built evaluates to a derivation.
///
/// # Errors
/// When something does not evaluate.
pub fn problems(nixpkgs: &Path) -> Result<Vec<String>> {
    // A process each: Nix gives no memory back.
    let over =
        |what: &str| Nix::new(nixpkgs, STORE)?.evaluate_over(nixpkgs, &format!("nixos.{what}"));

    let stubs = over("stubs")?;
    let mut problems: Vec<String> = entries(&stubs)?
        .iter()
        .map(|(option, shapes)| format!("the stub of {option} is not as the option: {shapes:#}"))
        .collect();

    let expected = expected::read()?;
    for group in ["messages", "users", "attributes"] {
        let found = over(group)?;
        // A nixpkgs before 25.11 takes no modules that are attributes.
        if group != "attributes" || !entries(&found)?.is_empty() {
            problems.extend(differences(&expected, &json!({ group: found }), &[group]));
        }
    }

    // What does not evaluate to a derivation is an error.
    let derivations = over("derivations")?;
    let names: Vec<&str> = entries(&derivations)?.keys().map(String::as_str).collect();
    if names != DERIVATIONS {
        problems.push(format!("what is to be built: {names:?}"));
    }
    Ok(problems)
}

fn entries(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().context("no attributes")
}
