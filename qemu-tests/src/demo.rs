//! `cargo xtask demo`: the main job, for somebody who sees it for the first time.

use anyhow::{Result, bail};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs it.
///
/// # Errors
/// When the machine does not boot.
pub fn run(_arguments: Arguments) -> Result<()> {
    bail!("not written yet")
}
