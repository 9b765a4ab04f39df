//! Evaluation by `nix-instantiate`, without a daemon and with a store of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::supplies::binary::workspace;
use crate::supplies::{cache, step};

/// Of a store in which something is built. It can be made again, so nothing waits for the disk.
const SETTINGS: &str = "\
build-users-group =
fsync-metadata = false
sandbox = false
substituters =
";

/// An evaluator.
#[derive(Debug)]
pub struct Nix {
    library: PathBuf,
    store: String,
    folder: PathBuf,
    /// Removes the folder at last.
    temporary: Option<TempDir>,
}

impl Nix {
    /// With nixpkgs' lib; `store` is what stands for the Nix store in what comes out.
    pub fn new(library: &Path, store: &str) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("vfio-early-nix-").tempdir()?;
        let folder = temporary.path().to_owned();
        let (library, store) = (library.to_owned(), store.to_owned());
        Ok(Self { library, store, folder, temporary: Some(temporary) })
    }

    /// With a store that is kept, in which something can be built: by nobody but this user, and in no
    /// sandbox.
    pub fn kept(nixpkgs: &Path, name: &str) -> Result<Self> {
        let folder = cache::folder()?.join(format!("nix-{name}"));
        let settings = folder.join("conf");
        fs::create_dir_all(&settings)?;
        fs::write(settings.join("nix.conf"), SETTINGS)?;
        let library = nixpkgs.to_owned();
        Ok(Self { library, store: String::new(), folder, temporary: None })
    }

    /// Where the store and what belongs to it are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// For files that are only parsed.
    pub fn without_library() -> Result<Self> {
        Self::new(Path::new("/"), "")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("NIX_REMOTE", "").env("NIX_PATH", "");
        for (variable, folder) in [
            ("NIX_STORE_DIR", "store"),
            ("NIX_STATE_DIR", "state"),
            ("NIX_LOG_DIR", "log"),
            ("NIX_CONF_DIR", "conf"),
            ("XDG_CACHE_HOME", "cache"),
        ] {
            command.env(variable, self.folder.join(folder));
        }
        command
    }

    /// # Errors
    /// What is wrong in the file, and where.
    pub fn parse(&self, file: &Path) -> Result<()> {
        step::run(self.command("nix-instantiate").arg("--parse").arg(file)).map(drop)
    }

    /// The value of an expression, in which `tests` is `initrd/nixos/tests`.
    pub fn evaluate(&self, expression: &str) -> Result<Value> {
        self.evaluate_with(expression, &Value::Null)
    }

    /// The same, in which `input` is that value.
    pub fn evaluate_with(&self, expression: &str, input: &Value) -> Result<Value> {
        let file = self.folder.join("input.json");
        fs::write(&file, input.to_string())?;
        let bindings = "tests = import (/. + folder) { nixpkgsLib = /. + nixpkgs; inherit store; };
             input = builtins.fromJSON (builtins.readFile (/. + inputFile));";
        let mut command = self.evaluation(bindings, expression, &self.library);
        command.args(["--argstr", "store", &self.store]).arg("--argstr").arg("inputFile").arg(file);
        answer(&mut command)
    }

    /// The value of an expression, in which `nixos` is `initrd/nixos/tests/nixos.nix` for that nixpkgs. In
    /// a store that is kept, its derivations are there afterwards.
    pub fn evaluate_over(&self, nixpkgs: &Path, expression: &str) -> Result<Value> {
        let bindings = "nixos = import (/. + folder + \"/nixos.nix\") { nixpkgs = /. + nixpkgs; };";
        let mut command = self.evaluation(bindings, expression, nixpkgs);
        if self.temporary.is_none() {
            command.arg("--read-write-mode");
        }
        answer(&mut command)
    }

    /// That derivation and all that it needs: path to what is in it.
    pub fn derivations(&self, path: &str) -> Result<Map<String, Value>> {
        let mut command = self.command("nix");
        command.args([
            "--extra-experimental-features",
            "nix-command",
            "show-derivation",
            "-r",
            path,
        ]);
        Ok(serde_json::from_slice(&step::run(&mut command)?)?)
    }

    fn evaluation(&self, bindings: &str, expression: &str, nixpkgs: &Path) -> Command {
        let expression = format!(
            "{{ folder, nixpkgs, store ? null, inputFile ? null }}: let {bindings} in {expression}"
        );
        let mut command = self.command("nix-instantiate");
        command.args(["--eval", "--strict", "--json", "--expr", &expression]);
        command.arg("--argstr").arg("folder").arg(workspace().join("initrd/nixos/tests"));
        command.arg("--argstr").arg("nixpkgs").arg(nixpkgs);
        command
    }
}

fn answer(command: &mut Command) -> Result<Value> {
    serde_json::from_slice(&step::run(command)?).context("nix-instantiate's answer is no JSON")
}
