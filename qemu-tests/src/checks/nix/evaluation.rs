//! Evaluation by `nix-instantiate`, without a daemon and with a store of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::supplies::binary::workspace;
use crate::supplies::step;

/// What the module makes of the configurations in its tests.
pub(super) const EXPECTED: &str = "initrd/nixos/tests/expected.json";

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
        let expression = format!(
            "{{ folder, library, store, inputFile }}:\n\
             let\n\
             \x20 tests = import (/. + folder) {{ nixpkgsLib = /. + library; inherit store; }};\n\
             \x20 input = builtins.fromJSON (builtins.readFile (/. + inputFile));\n\
             in\n\
             {expression}"
        );
        let mut command = self.command();
        command.args(["--eval", "--strict", "--json", "--expr", &expression]);
        command.arg("--argstr").arg("folder").arg(workspace().join("initrd/nixos/tests"));
        command.arg("--argstr").arg("library").arg(&self.library);
        command.args(["--argstr", "store", &self.store]);
        command.arg("--argstr").arg("inputFile").arg(&file);
        let output = step::run(&mut command)?;
        serde_json::from_slice(&output).context("nix-instantiate's answer is no JSON")
    }
}
