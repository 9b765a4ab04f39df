//! `cargo xtask package`: the Debian package.

use anyhow::Result;

use crate::supplies::{cross, package};

/// Arguments of `cargo xtask package`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Make it for this target of Rust's, and set up what that needs; without it, for this machine
    #[arg(long, value_name = "TARGET", value_parser = cross::PACKAGED)]
    pub target: Option<String>,
}

/// Makes it, and prints its path.
///
/// # Errors
/// As [`package::build`].
pub fn run(arguments: &Arguments) -> Result<()> {
    let package = match &arguments.target {
        Some(target) => package::build_for(target.parse()?)?,
        None => package::build()?,
    };
    println!("{}", package.display());
    Ok(())
}
