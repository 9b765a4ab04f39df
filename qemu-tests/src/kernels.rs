//! Debian's kernels, as the virtual machines boot them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::archive::{Archive, Kind};
use crate::{bzimage, cache, packages, step};

/// The kernel lines that are tested, oldest first.
pub const LINES: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// Where a kernel line comes from.
struct Source {
    line: &'static str,
    suite: &'static str,
    /// A released suite stays with its line; sid moves on to newer ones.
    released: bool,
}

const SOURCES: [Source; 4] = [
    Source { line: LINES[0], suite: "bullseye", released: true },
    Source { line: LINES[1], suite: "bookworm", released: true },
    Source { line: LINES[2], suite: "trixie", released: true },
    Source { line: LINES[3], suite: "sid", released: false },
];

/// The package that stands for the newest kernel of a suite.
const PACKAGE: &str = "linux-image-amd64";

/// One kernel in the cache, ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// One of [`LINES`].
    pub line: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// The compressed image, for firmware such as OVMF.
    pub vmlinuz: PathBuf,
    /// The ELF image out of it: QEMU boots it by PVH, which is seconds faster.
    pub vmlinux: PathBuf,
    /// Its `lib/modules/RELEASE`, with depmod's files.
    pub modules: PathBuf,
    /// Debian's version of the package that it came in.
    pub package_version: String,
}

/// What an entry in the cache says of itself, in `kernel.json`, written last.
#[derive(Serialize, Deserialize)]
struct Label {
    layout: u32,
    release: String,
    package_version: String,
}

/// Raised whenever an entry's content changes: older entries are then made anew.
const LAYOUT: u32 = 1;

/// The kernel of that line, from the cache only.
///
/// # Errors
/// When it is not there; the error names the command that fetches it.
pub fn get(line: &str) -> Result<Kernel> {
    let source = source(line)?;
    let entry = cache::folder()?.join(name(source));
    let Some(label) = label(&entry) else {
        bail!("kernel {line} is not set up: run `cargo xtask setup --kernel {line}`")
    };
    Ok(kernel(source, &entry, label))
}

/// The kernel of that line, fetched from Debian when it is not in the cache.
///
/// # Errors
/// When the download, its check or the unpacking fails.
pub fn set_up(line: &str) -> Result<Kernel> {
    let source = source(line)?;
    cache::entry(&name(source), |entry| label(entry).is_some(), |new| make(source, new))
        .with_context(|| format!("cannot set up kernel {line} of Debian {}", source.suite))?;
    get(line)
}

fn source(line: &str) -> Result<&'static Source> {
    SOURCES
        .iter()
        .find(|source| source.line == line)
        .with_context(|| format!("there is no kernel line {line}: try {}", LINES.join(", ")))
}

fn name(source: &Source) -> String {
    format!("kernels/{}", source.line)
}

fn label(entry: &Path) -> Option<Label> {
    let text = fs::read(entry.join("kernel.json")).ok()?;
    serde_json::from_slice(&text).ok().filter(|label: &Label| label.layout == LAYOUT)
}

fn kernel(source: &Source, entry: &Path, label: Label) -> Kernel {
    Kernel {
        line: source.line.to_owned(),
        vmlinuz: entry.join("vmlinuz"),
        vmlinux: entry.join("vmlinux"),
        modules: entry.join("lib/modules").join(&label.release),
        release: label.release,
        package_version: label.package_version,
    }
}

fn make(source: &Source, entry: &Path) -> Result<()> {
    let start = Instant::now();
    let Source { line, suite, .. } = source;
    packages::ensure(packages::BOOT)?;
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let work = work.path();

    step::say(format_args!("kernel {line}: looking for it in Debian {suite}"));
    let kind = Kind::Binary { security: source.released };
    let archive = Archive::open(&work.join("apt"), suite, kind)?;
    let parts = archive.newest_with_parts(PACKAGE)?;
    let package_version = parts[0].version.clone();
    check_line(source, &package_version)?;

    let megabytes = parts.iter().map(|part| part.size).sum::<u64>().div_ceil(1_000_000);
    step::say(format_args!("kernel {line}: downloading {package_version} ({megabytes} MB)"));
    let download = work.join("download");
    fs::create_dir(&download)?;
    let packages = archive.download(&parts, &download)?;

    step::say(format_args!("kernel {line}: unpacking it"));
    let tree = work.join("tree");
    for package in packages {
        step::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
    }
    let release = take_out(&tree, entry)?;
    bzimage::unpack(&entry.join("vmlinuz"), &entry.join("vmlinux"))?;
    step::run(Command::new("/sbin/depmod").arg("--basedir").arg(entry).arg(&release))?;

    let label = Label { layout: LAYOUT, release, package_version };
    fs::write(entry.join("kernel.json"), serde_json::to_vec_pretty(&label)?)?;
    step::say(format_args!("kernel {line}: done in {:.0?}", start.elapsed()));
    Ok(())
}

/// A released suite must have the line that is wanted; another one may have moved on, and then the
/// newest kernel there is what is to be tested.
fn check_line(source: &Source, package_version: &str) -> Result<()> {
    let Source { line, suite, released } = source;
    let is_of_line =
        package_version.strip_prefix(line).is_some_and(|rest| rest.starts_with(['.', '-', '~']));
    if is_of_line {
        return Ok(());
    }
    ensure!(!released, "Debian {suite} has kernel {package_version}, which is not {line}");
    step::say(format_args!(
        "kernel {line}: Debian {suite} has moved on: taking {package_version} in its place"
    ));
    Ok(())
}

/// Moves the image and the modules from unpacked packages to `entry`; returns the release.
///
/// Debian keeps modules in /lib or /usr/lib, and the image in /boot or beside the modules.
fn take_out(tree: &Path, entry: &Path) -> Result<String> {
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|place| tree.join(place))
        .into_iter()
        .find(|place| place.is_dir())
        .context("its packages have no folder of modules")?;
    let mut releases = Vec::new();
    for found in fs::read_dir(&modules)? {
        releases.push(found?.file_name().to_string_lossy().into_owned());
    }
    let [release] = &releases[..] else {
        bail!("its packages have modules of {} kernels: {releases:?}", releases.len())
    };
    let image = [
        tree.join(format!("boot/vmlinuz-{release}")),
        modules.join(release).join("vmlinuz"),
        modules.join(release).join(format!("vmlinuz-{release}")),
    ]
    .into_iter()
    .find(|place| place.is_file())
    .with_context(|| format!("its packages have no image of {release}"))?;

    fs::rename(image, entry.join("vmlinuz"))?;
    fs::create_dir(entry.join("lib"))?;
    fs::rename(&modules, entry.join("lib/modules"))?;
    // Newer depmods look only there.
    fs::create_dir(entry.join("usr"))?;
    std::os::unix::fs::symlink("../lib", entry.join("usr/lib"))?;
    Ok(release.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn every_line_has_a_source() {
        for line in LINES {
            assert_eq!(source(line).unwrap().line, line);
        }
        assert!(source("4.19").err().unwrap().to_string().contains("5.10, 6.1"));
    }

    #[test]
    fn a_released_suite_must_have_its_line() {
        let bookworm = source("6.1").unwrap();
        check_line(bookworm, "6.1.192-2").unwrap();
        check_line(bookworm, "6.12.1-1").unwrap_err();
        check_line(source("7.2").unwrap(), "7.3.1-1").unwrap();
    }

    #[test]
    fn image_and_modules_are_found_wherever_debian_keeps_them() {
        for (modules, image) in [
            ("lib/modules/6.1.0-9-amd64", "boot/vmlinuz-6.1.0-9-amd64"),
            ("usr/lib/modules/7.2.13+deb14-amd64", "usr/lib/modules/7.2.13+deb14-amd64/vmlinuz"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (tree, entry) = (folder.path().join("tree"), folder.path().join("entry"));
            write(tree.join(modules).join("modules.order"));
            write(tree.join(image));
            fs::create_dir(&entry).unwrap();
            let release = take_out(&tree, &entry).unwrap();
            assert!(modules.ends_with(&release), "{release}");
            assert!(entry.join("vmlinuz").exists(), "{image}");
            assert!(entry.join("lib/modules").join(&release).join("modules.order").exists());
            assert!(entry.join("usr/lib/modules").join(&release).exists());
        }
    }

    #[test]
    fn packages_of_two_kernels_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for release in ["6.1.0-1-amd64", "6.1.0-2-amd64"] {
            write(folder.path().join("lib/modules").join(release).join("modules.order"));
        }
        let error = take_out(folder.path(), Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("2 kernels"), "{error}");
    }
}
