//! Builds a kernel from Debian's source package.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf, absolute};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use duct::cmd;

use crate::{kernels, step};

/// The package with the source, as a tar archive.
pub const PACKAGE: &str = "linux-source-6.12";

/// What is set over `x86_64_defconfig` for a kernel as NixOS has it.
pub const NIXOS: &str = include_str!("../kernels/nixos.config");

/// Lines that the build prints, more or less: one for each file.
const LINES: usize = 3_100;

/// How often it says how far it is.
const INTERVAL: Duration = Duration::from_secs(30);

/// Builds image and modules of the source below `tree`, with that configuration, into `entry`;
/// returns the release.
///
/// # Errors
/// When the source is not there, an option does not exist in it, or the build fails.
pub fn build(name: &str, tree: &Path, configuration: &str, entry: &Path) -> Result<String> {
    // make and its scripts run in the source's folder.
    let (source, entry) = (unpack(&absolute(tree)?)?, &absolute(entry)?);
    step::say(format_args!("kernel {name}: configuring it"));
    fs::write(source.join("fragment.config"), configuration)?;
    step::run(make(&source).arg("x86_64_defconfig"))?;
    let merge = source.join("scripts/kconfig/merge_config.sh");
    step::run(Command::new(merge).args(["-m", ".config", "fragment.config"]).current_dir(&source))?;
    step::run(make(&source).arg("olddefconfig"))?;
    let done = fs::read_to_string(source.join(".config"))?;
    let lost = lost(configuration, &done);
    ensure!(lost.is_empty(), "this source does not take these options: {}", lost.join(", "));

    compile(name, &source)?;
    step::say(format_args!("kernel {name}: packing its modules"));
    kernels::make_module_folders(entry)?;
    let target = format!("INSTALL_MOD_PATH={}", entry.display());
    // depmod runs later, over all kernels in the same way.
    step::run(make(&source).args([
        "modules_install",
        "INSTALL_MOD_STRIP=1",
        "DEPMOD=true",
        &target,
    ]))?;
    fs::rename(source.join("arch/x86/boot/bzImage"), entry.join("vmlinuz"))?;
    let release = step::run(make(&source).args(["--silent", "kernelrelease"]))?;
    let release = String::from_utf8(release)?.trim().to_owned();
    // It leads back into the source, which goes now.
    let _ = fs::remove_file(entry.join("lib/modules").join(&release).join("build"));
    Ok(release)
}

/// Unpacks the archive that the package has; returns the source's folder.
fn unpack(tree: &Path) -> Result<PathBuf> {
    let archive = tree.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
    let source = tree.join("source");
    fs::create_dir(&source)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive);
    step::run(tar.arg("--directory").arg(&source))?;
    Ok(source)
}

fn make(source: &Path) -> Command {
    let mut make = Command::new("make");
    // What a cargo or a make above says about jobs is not for this one.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").arg("--directory").arg(source);
    make
}

/// Runs the build, and says from time to time how far it is.
fn compile(name: &str, source: &Path) -> Result<()> {
    let start = Instant::now();
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    step::say(format_args!(
        "kernel {name}: building it, {jobs} files at a time (20 minutes of CPU)"
    ));
    let jobs = format!("--jobs={jobs}");
    let running = cmd!("make", "--directory", source, jobs, "bzImage", "modules")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .stderr_to_stdout()
        .unchecked()
        .reader()
        .context("cannot run make")?;
    let mut last = VecDeque::new();
    let mut said = Instant::now();
    let mut count = 0;
    for line in BufReader::new(&running).lines() {
        count += 1;
        if last.len() == 40 {
            last.pop_front();
        }
        last.push_back(line?);
        if said.elapsed() > INTERVAL {
            said = Instant::now();
            let percent = (count * 100 / LINES).min(99);
            let minutes = start.elapsed().as_secs() / 60;
            step::say(format_args!("kernel {name}: {percent} % after {minutes} min"));
        }
    }
    let status = running.try_wait()?.map(|output| output.status);
    if !status.is_some_and(|status| status.success()) {
        let last: Vec<_> = last.into_iter().collect();
        bail!("the kernel does not build: make says\n{}", last.join("\n"));
    }
    Ok(())
}

/// The options of a fragment that are not so in the whole configuration.
fn lost<'f>(fragment: &'f str, whole: &str) -> Vec<&'f str> {
    let is_option = |line: &&str| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
    fragment
        .lines()
        .filter(is_option)
        .filter(|option| {
            match option.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
                // An option that depends on one that is off is not mentioned at all.
                Some(name) => whole.lines().any(|line| line.starts_with(&format!("{name}="))),
                None => !whole.lines().any(|line| line == *option),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_fails_says_what_make_said_last() {
        if step::run(Command::new("make").arg("--version")).is_err() {
            eprintln!("make is not here");
            return;
        }
        let source = tempfile::tempdir().unwrap();
        for (end, expected) in [("true", None), ("echo no such header >&2; false", Some("header"))]
        {
            let text = format!("bzImage:\n\t@echo CC a\nmodules: bzImage\n\t@{end}\n");
            fs::write(source.path().join("Makefile"), text).unwrap();
            let error = compile("test", source.path()).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(error, None),
                Some(text) => assert!(error.is_some_and(|error| error.contains(text)), "{end}"),
            }
        }
    }

    #[test]
    fn an_option_that_the_source_does_not_take_is_found() {
        let whole = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_DD=y\n";
        for (fragment, expected) in [
            ("# A remark.\nCONFIG_A=y\n# CONFIG_C is not set\n", &[][..]),
            ("CONFIG_B=y", &["CONFIG_B=y"]),
            ("CONFIG_C=y", &["CONFIG_C=y"]),
            ("# CONFIG_D is not set", &["# CONFIG_D is not set"]),
            ("# CONFIG_E is not set", &[]),
        ] {
            assert_eq!(lost(fragment, whole), expected, "{fragment}");
        }
    }
}
