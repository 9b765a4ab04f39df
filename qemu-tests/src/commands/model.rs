//! `cargo xtask model`: the model check of `tests/model`, with its figures and to any depth.

use anyhow::{Context, Result};

use crate::supplies::binary;

/// Arguments of `cargo xtask model`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// At most so many acts of others in one run, for all cases
    #[arg(long, value_name = "NUMBER")]
    pub depth: Option<usize>,
    /// Only cases with this text in their names
    #[arg(long, value_name = "TEXT")]
    pub case: Option<String>,
}

/// Explores; whether nothing was found.
///
/// # Errors
/// When cargo cannot be run.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut command =
        binary::cargo(&["test", "--quiet", "--test", "fake", "model::", "--", "--nocapture"])?;
    if let Some(depth) = arguments.depth {
        command.env("VFIO_EARLY_MODEL_DEPTH", depth.to_string());
    }
    if let Some(case) = &arguments.case {
        command.env("VFIO_EARLY_MODEL_CASE", case);
    }
    Ok(command.status().context("cannot run cargo")?.success())
}
