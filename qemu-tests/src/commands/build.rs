//! `cargo xtask build`: the static release binary.

use anyhow::Result;

use crate::supplies::{binary, cross};

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Build for this target of Rust's, and set up what that needs; without it, for this machine
    #[arg(long, value_name = "TARGET", value_parser = cross::TARGETS)]
    pub target: Option<String>,
}

/// Builds, and prints the binary's path.
///
/// # Errors
/// When something cannot be set up, it does not build, or is not fit for an initrd.
pub fn run(arguments: &Arguments) -> Result<()> {
    let program = match &arguments.target {
        Some(target) => cross::build(target.parse()?)?,
        None => binary::build()?,
    };
    println!("{}", program.display());
    Ok(())
}
