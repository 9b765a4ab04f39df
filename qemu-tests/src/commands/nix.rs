//! `cargo xtask nix`: the checks of the NixOS module, and what they hold it against, written anew.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::check::Count;
use crate::checks::nix::{checks, units, write};

/// Arguments of `cargo xtask nix`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Take what comes out for what is expected, and write the options page
    #[arg(long)]
    write: bool,
    /// Only write the systemd units, as the module has them, into this folder
    #[arg(long, value_name = "FOLDER")]
    units: Option<PathBuf>,
}

/// Runs `cargo xtask nix`; whether nothing failed.
///
/// # Errors
/// When something is to be written, and cannot be.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(folder) = &arguments.units {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, text) in units()? {
            fs::write(folder.join(name), text)?;
        }
        return Ok(true);
    }
    if arguments.write {
        write()?;
    }
    let mut count = Count::default();
    for check in checks() {
        let start = Instant::now();
        count.note(&check.name, start, (check.run)(None));
    }
    let Count { passed, failed, not_run, .. } = count;
    println!("{passed} passed, {} failed, {not_run} not run", failed.len());
    Ok(failed.is_empty())
}
