//! `cargo xtask test`: every check.

use anyhow::{Result, bail};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only checks whose name contains one of these words
    pub filters: Vec<String>,
    /// Boot only this kernel line (may be repeated)
    #[arg(long = "kernel", value_name = "LINE", value_parser = crate::kernels::LINES)]
    pub kernels: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When a check fails.
pub fn run(_arguments: Arguments) -> Result<()> {
    bail!("not written yet")
}
