//! Rust's standard library for other targets, which rustup gets.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::supplies::step;

/// rustup may have another toolchain for another folder.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The folder of the one for that target.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn standard_library(target: &str) -> Result<PathBuf> {
    let mut folder = Command::new("rustc");
    folder.args(["--print", "target-libdir", "--target", target]).current_dir(HERE);
    let folder = PathBuf::from(String::from_utf8(step::run(&mut folder)?)?.trim());
    if !folder.is_dir() {
        step::say(format_args!("rustup target add {target}"));
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", target]).current_dir(HERE);
        step::run(&mut rustup)
            .with_context(|| format!("this Rust has no standard library for {target}"))?;
    }
    ensure!(folder.is_dir(), "rustup has added {target}, but it is not in {}", folder.display());
    Ok(folder)
}
