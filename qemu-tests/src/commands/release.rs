//! `cargo xtask release`: the files that people can take away, made twice.

use std::fs;

use anyhow::{Context, Result};

use super::reproduce::tell;
use crate::checks::supply::reproduce::compare;
use crate::supplies::arch::Arch;
use crate::supplies::binary::workspace;
use crate::supplies::cross::{self, Target};
use crate::supplies::release;

/// Makes the files of a release, and their checksums, in a folder of `target`; says the digests, and what
/// another build made otherwise; whether nothing does.
///
/// # Errors
/// When one of the builds, or a tool that packs, fails.
pub fn run() -> Result<bool> {
    let commit = release::commit();
    let folder = workspace().join(format!("target/vfio-early-{}", release::VERSION));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("in use: {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let mut targets = Vec::new();
    let mut missing = Vec::new();
    let mut processors = [Arch::Amd64, Arch::Arm64];
    processors.sort_by_key(|arch| *arch == Arch::of_this_machine());
    for arch in processors {
        match cross::missing(arch) {
            None => targets.push(Target::of(arch)),
            Some(why) => missing.push((arch, why)),
        }
    }
    let comparison = compare(commit.as_deref(), &targets, &folder)?;
    let is_same = tell(&comparison);
    let mut files: Vec<_> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    release::write_sums(&folder, &files)?;
    match commit.as_deref() {
        None => println!("git knows no commit of this tree, and --version says none"),
        Some(commit) if commit.ends_with('+') => {
            println!("something is changed since the commit {commit}: this is no release");
        }
        Some(commit) => println!("of commit {commit}"),
    }
    for (arch, why) in missing {
        println!("nothing in it is for {}, and so it is no release: {why}", arch.name());
    }
    println!("{}", folder.display());
    Ok(is_same)
}
