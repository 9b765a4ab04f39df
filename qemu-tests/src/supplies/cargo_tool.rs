//! Programs from cargo's registry that checks and packages need, in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::supplies::{binary, cache, step};

/// A program from cargo's registry, of one version, with the dependencies that its authors locked.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The crate's name, which is the program's, too.
    pub name: &'static str,
    /// Exactly this one.
    pub version: &'static str,
}

impl Tool {
    /// The program; built when it is not in the cache.
    ///
    /// # Errors
    /// When cargo cannot fetch or build it.
    pub fn set_up(self) -> Result<PathBuf> {
        let Self { name, version } = self;
        let program = Path::new("bin").join(name);
        let is_whole = |entry: &Path| entry.join(&program).exists();
        let entry = cache::entry(&format!("tools/{name}-{version}"), is_whole, |new| {
            let start = Instant::now();
            step::say(format_args!("{name} {version}: installing it into the cache"));
            step::run(
                Command::new(binary::cargo_program())
                    .args(["install", name, "--version", &format!("={version}"), "--locked"])
                    .arg("--root")
                    .arg(new)
                    // It runs for a second: what optimising it costs never comes back.
                    .args(["--debug", "--no-default-features"])
                    .env("CARGO_PROFILE_DEV_DEBUG", "0")
                    .current_dir(new),
            )?;
            step::say(format_args!("{name} {version}: done in {:.0?}", start.elapsed()));
            Ok(())
        })?;
        Ok(entry.join(program))
    }
}
