//! The initrd that the module is evaluated to, made by `NixOS`' own builders.
//!
//! Nothing can be had from a build cache here. But what is asked of nearly all packages is that their
//! programs are there: so each package is a folder with links to Debian's, under the name that it has in
//! the store, and said to be valid. What is then built are the units, the files below `/etc`, the scripts
//! and the closure of the modules, all by the derivations of nixpkgs as they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::evaluation::Nix;
use crate::machine::distro::{Debian, File, Recipe, Suite};
use crate::supplies::binary;
use crate::supplies::kernels::Kernel;

/// Ready to boot.
pub(super) struct Image {
    /// As a cpio archive.
    pub initrd: PathBuf,
    /// An ext4 file system; to be used as a snapshot only.
    pub root: PathBuf,
    /// The command lines of the configurations, by name.
    pub parameters: Map<String, Value>,
}

/// Evaluates and makes it.
///
/// # Errors
/// When it does not evaluate, when a builder fails, and those of [`Recipe::set_up`].
pub(super) fn set_up(nixpkgs: &Path, kernel: &Kernel, program: &Path) -> Result<Image> {
    let nix = Nix::kept(nixpkgs, "systemd")?;
    let evaluated = nix.evaluate_over(
        nixpkgs,
        "{ inherit (nixos.initrd) parameters; parts = nixos.initrd.parts.drvPath; }",
    )?;
    let text = |name: &str| evaluated[name].as_str().with_context(|| format!("no {name}"));
    let parts = text("parts")?;
    let derivations = nix.derivations(parts)?;
    let list = |name: &str, lines: Vec<String>| {
        File::text(format!("usr/lib/harness/nix/{name}"), lines.join("\n") + "\n")
    };
    let recipe = Recipe {
        name: "nixos-systemd",
        debian: Debian::Small(Suite::Trixie),
        kernel,
        files: vec![
            File::program("usr/bin/vfio-early", std::fs::read(program)?),
            File::program(
                "usr/lib/vfio-early/vfio-early-initrd",
                std::fs::read(binary::initrds(program))?,
            ),
            list("stand-ins", stand_ins(&derivations, parts)?),
            list("upstream-units", upstream_units(&derivations)),
            File::text(
                "usr/lib/systemd/system/vfio-early-claim.service.d/harness.conf",
                include_str!("../../guest/systemd/claim.conf"),
            ),
            File::text(
                "usr/lib/systemd/system/vfio-early.service.d/harness.conf",
                include_str!("../../guest/systemd/bind.conf"),
            ),
            File::text(
                "usr/lib/systemd/system/harness-emergency.service",
                include_str!("../../guest/nix/harness-emergency.service"),
            ),
        ],
        script: include_str!("../../guest/nix/make-images"),
        arguments: vec![nix.folder().display().to_string(), parts.to_owned()],
    };
    let entry = recipe.set_up()?;
    Ok(Image {
        initrd: entry.join("initrd"),
        root: entry.join("root.ext4"),
        parameters: evaluated["parameters"].as_object().context("no parameters")?.clone(),
    })
}

/// Those outputs that a package of Debian's stands in for, one a line: its name, its path, the derivation.
fn stand_ins(derivations: &Map<String, Value>, wanted: &str) -> Result<Vec<String>> {
    let (mut lines, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![(wanted, true)]);
    while let Some((path, may_be_built)) = left.pop() {
        if !seen.insert((path, may_be_built)) {
            continue;
        }
        let derivation = derivations.get(path).with_context(|| format!("no {path}"))?;
        if may_be_built && is_built(derivation, derivations) {
            // What the standard environment is made of has been built by others before it.
            let is_environment = name(derivation) == "stdenv-linux";
            let inputs = derivation["inputDrvs"].as_object().context("no inputs")?;
            left.extend(inputs.keys().map(|input| (input.as_str(), !is_environment)));
            continue;
        }
        let outputs = derivation["outputs"].as_object().context("no outputs")?;
        for output in outputs.values() {
            let place = output["path"].as_str().context("an output without a path")?;
            lines.insert(format!("{} {place} {path}", name(derivation)));
        }
    }
    Ok(lines.into_iter().collect())
}

/// Whether its builder needs no more than programs that Debian has: it is made of nixpkgs alone, and not of
/// anything that is fetched.
fn is_built(derivation: &Value, derivations: &Map<String, Value>) -> bool {
    let name = name(derivation);
    let is_fetched = |derivation: &Value| derivation["env"].get("outputHash").is_some();
    let inputs = derivation["inputDrvs"].as_object();
    let mut inputs = inputs.into_iter().flat_map(|inputs| inputs.keys());
    let is_package = name.starts_with("vfio-early-static") || name == "extra-utils";
    let is_of_bootstrap =
        derivation["env"]["stdenv"].as_str().is_some_and(|stdenv| stdenv.contains("bootstrap"));
    !is_package
        && !is_of_bootstrap
        && !is_fetched(derivation)
        && !inputs.any(|input| derivations.get(input).is_some_and(is_fetched))
}

fn name(derivation: &Value) -> &str {
    derivation["env"]["name"].as_str().unwrap_or_default()
}

/// The units of systemd itself that `NixOS` takes.
fn upstream_units(derivations: &Map<String, Value>) -> Vec<String> {
    let of_units = derivations.values().find(|derivation| name(derivation) == "initrd-units");
    let command =
        of_units.and_then(|units| units["env"]["buildCommand"].as_str()).unwrap_or_default();
    let list =
        command.lines().find_map(|line| line.strip_prefix("for i in ")?.strip_suffix("; do"));
    list.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}
