//! Evaluation by `nix-instantiate`, without a daemon and with a store of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::supplies::binary::workspace;
use crate::supplies::step;

/// An evaluator.
#[derive(Debug)]
pub struct Nix {
    library: PathBuf,
    store: String,
    folder: TempDir,
}

impl Nix {
    /// With nixpkgs' lib; `store` is what stands for the Nix store in what comes out.
    pub fn new(library: &Path, store: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("vfio-early-nix-").tempdir()?;
        Ok(Self { library: library.to_owned(), store: store.to_owned(), folder })
    }

    /// For files that are only parsed.
    pub fn without_library() -> Result<Self> {
        Self::new(Path::new("/"), "")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nix-instantiate");
        command.env("NIX_REMOTE", "").env("NIX_PATH", "");
        for (variable, folder) in [
            ("NIX_STORE_DIR", "store"),
            ("NIX_STATE_DIR", "state"),
            ("NIX_LOG_DIR", "log"),
            ("NIX_CONF_DIR", "conf"),
            ("XDG_CACHE_HOME", "cache"),
        ] {
            command.env(variable, self.folder.path().join(folder));
        }
        command
    }

    /// # Errors
    /// What is wrong in the file, and where.
    pub fn parse(&self, file: &Path) -> Result<()> {
        step::run(self.command().arg("--parse").arg(file)).map(drop)
    }

    /// The value of an expression, in which `tests` is `initrd/nixos/tests`.
    pub fn evaluate(&self, expression: &str) -> Result<Value> {
        self.evaluate_with(expression, &Value::Null)
    }

    /// The same, in which `input` is that value.
    pub fn evaluate_with(&self, expression: &str, input: &Value) -> Result<Value> {
        let file = self.folder.path().join("input.json");
        fs::write(&file, input.to_string())?;
        let bindings = "tests = import (/. + folder) { nixpkgsLib = /. + nixpkgs; inherit store; };
             input = builtins.fromJSON (builtins.readFile (/. + inputFile));";
        let mut command = self.evaluation(bindings, expression, &self.library);
        command.args(["--argstr", "store", &self.store]).arg("--argstr").arg("inputFile").arg(file);
        answer(&mut command)
    }

    /// The value of an expression, in which `nixos` is `initrd/nixos/tests/nixos.nix` for that nixpkgs.
    pub fn evaluate_over(&self, nixpkgs: &Path, expression: &str) -> Result<Value> {
        let bindings = "nixos = import (/. + folder + \"/nixos.nix\") { nixpkgs = /. + nixpkgs; };";
        answer(&mut self.evaluation(bindings, expression, nixpkgs))
    }

    fn evaluation(&self, bindings: &str, expression: &str, nixpkgs: &Path) -> Command {
        let expression = format!(
            "{{ folder, nixpkgs, store ? null, inputFile ? null }}: let {bindings} in {expression}"
        );
        let mut command = self.command();
        command.args(["--eval", "--strict", "--json", "--expr", &expression]);
        command.arg("--argstr").arg("folder").arg(workspace().join("initrd/nixos/tests"));
        command.arg("--argstr").arg("nixpkgs").arg(nixpkgs);
        command
    }
}

fn answer(command: &mut Command) -> Result<Value> {
    serde_json::from_slice(&step::run(command)?).context("nix-instantiate's answer is no JSON")
}
