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

use crate::supplies::{cache, step};

/// The package with the source, as a tar archive.
pub const PACKAGE: &str = "linux-source-6.12";

/// What is set over `x86_64_defconfig` for a kernel as NixOS has it.
pub const NIXOS: &str = include_str!("../../../kernels/nixos.config");

/// What is set over that for a kernel that has vfio built in.
pub const BUILT_IN: &str = include_str!("../../../kernels/built-in.config");

/// What is set over that for a kernel whose vfio has no files for groups.
pub const CDEV: &str = include_str!("../../../kernels/cdev.config");

/// The source's place in the cache. Its object files stay there, so that a kernel that is
/// configured a little differently takes only what differs.
const PLACE: &str = "kernels/source-6.12";

/// In it, last: the version of the package.
const VERSION: &str = "package-version";

/// Lines that a build from the beginning prints, more or less: one for each file.
const LINES: usize = 3_100;

/// How often it says how far it is.
const INTERVAL: Duration = Duration::from_secs(30);

/// One fragment of a configuration out of several, in which later ones have the last word.
pub fn merged(fragments: &[&str]) -> String {
    let mut options: Vec<&str> = Vec::new();
    for option in fragments.iter().flat_map(|fragment| fragment.lines()) {
        let Some(name) = option_name(option) else { continue };
        options.retain(|before| option_name(before) != Some(name));
        options.push(option);
    }
    options.iter().flat_map(|option| [option, "\n"]).collect()
}

/// The option that a line sets: `CONFIG_A=y` or `# CONFIG_A is not set`.
fn option_name(line: &str) -> Option<&str> {
    let off = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
    let name = off.or_else(|| Some(line.split_once('=')?.0))?;
    name.starts_with("CONFIG_").then_some(name)
}

/// The unpacked source, with the object files of the kernel that was built last.
pub struct Tree {
    source: PathBuf,
    /// Debian's version of the package.
    pub package_version: String,
}

/// The source in the cache; `download` unpacks the package into a folder in the one that it gets,
/// and returns that, and the package's version.
///
/// # Errors
/// Those of `download`, and when the archive in the package cannot be unpacked.
pub fn source(download: impl FnOnce(&Path) -> Result<(PathBuf, String)>) -> Result<Tree> {
    let is_whole = |place: &Path| place.join(VERSION).exists();
    let place = cache::entry(PLACE, is_whole, |new| {
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(new)?;
        let (tree, package_version) = download(work.path())?;
        unpack(&tree, &new.join("linux"))?;
        Ok(fs::write(new.join(VERSION), package_version)?)
    })?;
    let package_version = fs::read_to_string(place.join(VERSION))?;
    Ok(Tree { source: place.join("linux"), package_version })
}

/// Unpacks the archive that the package has into the folder `source`.
fn unpack(tree: &Path, source: &Path) -> Result<()> {
    let archive = tree.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
    fs::create_dir(source)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive);
    step::run(tar.arg("--directory").arg(source)).map(drop)
}

impl Tree {
    /// Builds image and modules with that configuration over `x86_64_defconfig` into `entry`;
    /// returns the release.
    ///
    /// # Errors
    /// When an option does not exist in the source, or the build fails.
    pub fn build(&self, name: &str, configuration: &str, entry: &Path) -> Result<String> {
        // One kernel at a time.
        let _lock = cache::lock(PLACE)?;
        // make and its scripts run in the source's folder.
        let (source, entry) = (self.source.as_path(), &absolute(entry)?);
        step::say(format_args!("kernel {name}: configuring it"));
        fs::write(source.join("fragment.config"), configuration)?;
        step::run(make(source).arg("x86_64_defconfig"))?;
        let mut merge = Command::new(source.join("scripts/kconfig/merge_config.sh"));
        step::run(merge.args(["-m", ".config", "fragment.config"]).current_dir(source))?;
        step::run(make(source).arg("olddefconfig"))?;
        let done = fs::read_to_string(source.join(".config"))?;
        let lost = lost(configuration, &done);
        ensure!(lost.is_empty(), "this source does not take these options: {}", lost.join(", "));

        compile(name, source)?;
        step::say(format_args!("kernel {name}: packing its modules"));
        make_module_folders(entry)?;
        let target = format!("INSTALL_MOD_PATH={}", entry.display());
        // depmod runs later, over all kernels in the same way.
        step::run(make(source).args([
            "modules_install",
            "INSTALL_MOD_STRIP=1",
            "DEPMOD=true",
            &target,
        ]))?;
        fs::copy(source.join("arch/x86/boot/bzImage"), entry.join("vmlinuz"))?;
        let release = step::run(make(source).args(["--silent", "kernelrelease"]))?;
        let release = String::from_utf8(release)?.trim().to_owned();
        // It leads back into the source, which need not stay.
        let _ = fs::remove_file(entry.join("lib/modules").join(&release).join("build"));
        Ok(release)
    }
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
    // Else it only builds what differs from the kernel that was built here last.
    let from_the_beginning = !source.join("vmlinux").exists();
    let cost = if from_the_beginning { "20 minutes of CPU" } else { "only what differs" };
    step::say(format_args!("kernel {name}: building it, {jobs} files at a time ({cost})"));
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
            let minutes = start.elapsed().as_secs() / 60;
            let done = if from_the_beginning {
                format!("{} %", (count * 100 / LINES).min(99))
            } else {
                format!("{count} files")
            };
            step::say(format_args!("kernel {name}: {done} after {minutes} min"));
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

/// Makes `lib` for the modules, and `usr/lib`, where newer depmods look.
pub(super) fn make_module_folders(entry: &Path) -> Result<()> {
    fs::create_dir(entry.join("lib"))?;
    fs::create_dir(entry.join("usr"))?;
    Ok(std::os::unix::fs::symlink("../lib", entry.join("usr/lib"))?)
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
    fn of_several_fragments_the_last_has_the_last_word() {
        let fragments = [
            "# A remark.\nCONFIG_A=m\nCONFIG_AB=y\n",
            "\n# CONFIG_AB is not set\nCONFIG_C=\"=\"\n",
            "CONFIG_A=y\n",
        ];
        assert_eq!(merged(&fragments), "# CONFIG_AB is not set\nCONFIG_C=\"=\"\nCONFIG_A=y\n");
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
