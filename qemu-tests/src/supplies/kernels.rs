//! Debian's kernels, and some that are built here, as the virtual machines boot them.

mod build;
mod bzimage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use self::bzimage::unpack;
use crate::supplies::arch::Arch;
use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{cache, packages, step};

/// The kernel lines of Debian that are tested, oldest first.
pub const LINES: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// A kernel as NixOS has it, built here: no Debian kernel has simpledrm, iommufd, the device files
/// of vfio or a variant driver, and none lacks decompression of modules while it has `.ko.xz`.
pub const NIXOS: &str = "nixos";

/// Debian's 6.1 for machines in a cloud: fewer drivers.
pub const CLOUD: &str = "6.1-cloud";

/// Debian's 6.1 with `PREEMPT_RT`.
pub const RT: &str = "6.1-rt";

/// As [`NIXOS`], with vfio and vfio-pci built in.
pub const BUILT_IN: &str = "builtin";

/// As [`NIXOS`], with a file for each device of vfio's and none for groups.
pub const CDEV: &str = "cdev";

/// Debian's for Arm, in the order of their lines; the first of [`LINES`] is not among them.
pub const ARM64: [&str; 3] = ["6.1-arm64", "6.12-arm64", "7.2-arm64"];

/// Debian's for Arm machines in a cloud: small, with few drivers.
pub const CLOUD_ARM64: [&str; 2] = ["6.1-cloud-arm64", "6.12-cloud-arm64"];

/// The kernels that are built here: it takes long, so nobody gets them unasked. In this order the
/// second takes only what differs from the first.
pub const BUILT: [&str; 3] = [NIXOS, CDEV, BUILT_IN];

/// Every kernel that [`get`] and [`set_up`] know.
pub const NAMES: [&str; 14] = [
    LINES[0],
    LINES[1],
    LINES[2],
    LINES[3],
    CLOUD,
    RT,
    NIXOS,
    CDEV,
    BUILT_IN,
    ARM64[0],
    ARM64[1],
    ARM64[2],
    CLOUD_ARM64[0],
    CLOUD_ARM64[1],
];

/// Those that everyone gets who names none: Debian's lines, and the small ones for Arm.
#[must_use]
pub fn is_usual(name: &str) -> bool {
    LINES.contains(&name) || CLOUD_ARM64.contains(&name)
}

/// The kernel of that line, or of that name, for that processor.
#[must_use]
pub fn named(name: &str, arch: Arch) -> String {
    let is_full = SOURCES.iter().any(|source| source.name == name && source.arch == arch);
    if is_full { name.to_owned() } else { format!("{name}-{}", arch.name()) }
}

/// Where a kernel comes from.
struct Source {
    /// One of [`NAMES`].
    name: &'static str,
    /// The kernel's version begins with it.
    line: &'static str,
    suite: &'static str,
    arch: Arch,
    /// A released suite stays with its line; sid moves on to newer ones.
    released: bool,
    origin: Origin,
}

/// How a suite has a kernel.
enum Origin {
    /// In the newest one of this package's.
    Package(&'static str),
    /// It is built here from the suite's source, with these fragments of a configuration.
    Source(&'static [&'static str]),
}

/// The package that stands for the newest kernel of a suite.
const PACKAGE: &str = "linux-image-amd64";

const fn packaged(name: &'static str, suite: &'static str, released: bool) -> Source {
    let arch = Arch::Amd64;
    Source { name, line: name, suite, arch, released, origin: Origin::Package(PACKAGE) }
}

const fn flavour(name: &'static str, package: &'static str) -> Source {
    Source { name, origin: Origin::Package(package), ..packaged(LINES[1], "bookworm", true) }
}

const fn built(name: &'static str, fragments: &'static [&'static str]) -> Source {
    Source { name, origin: Origin::Source(fragments), ..packaged(LINES[2], "trixie", true) }
}

/// For Arm, of the same suite as the line of that number.
const fn arm64(name: &'static str, line: usize, package: &'static str) -> Source {
    let (suite, released) = match line {
        1 => ("bookworm", true),
        2 => ("trixie", true),
        _ => ("sid", false),
    };
    let origin = Origin::Package(package);
    Source { name, line: LINES[line], suite, arch: Arch::Arm64, released, origin }
}

const SOURCES: [Source; 14] = [
    packaged(LINES[0], "bullseye", true),
    packaged(LINES[1], "bookworm", true),
    packaged(LINES[2], "trixie", true),
    packaged(LINES[3], "sid", false),
    flavour(CLOUD, "linux-image-cloud-amd64"),
    flavour(RT, "linux-image-rt-amd64"),
    built(NIXOS, &[build::NIXOS]),
    built(BUILT_IN, &[build::NIXOS, build::BUILT_IN]),
    built(CDEV, &[build::NIXOS, build::CDEV]),
    arm64(ARM64[0], 1, "linux-image-arm64"),
    arm64(ARM64[1], 2, "linux-image-arm64"),
    arm64(ARM64[2], 3, "linux-image-arm64"),
    arm64(CLOUD_ARM64[0], 1, "linux-image-cloud-arm64"),
    arm64(CLOUD_ARM64[1], 2, "linux-image-cloud-arm64"),
];

/// One kernel in the cache, ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// One of [`NAMES`].
    pub line: String,
    /// The processor that it is for.
    pub arch: Arch,
    /// What `uname -r` says in it.
    pub release: String,
    /// The image as packaged, for firmware such as OVMF.
    pub vmlinuz: PathBuf,
    /// What QEMU boots by itself: on x86 the ELF image out of the other, by PVH, which is seconds
    /// faster; on Arm the same.
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
    /// What a kernel that is built here was configured with; empty for others.
    #[serde(default)]
    configuration: String,
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
    let Some(label) = label(source, &entry) else {
        bail!("kernel {line} is not set up: run `cargo xtask setup --kernel {line}`")
    };
    Ok(kernel(source, &entry, label))
}

/// The kernel of that line, fetched from Debian (and built, where it has to be) when it is not in
/// the cache.
///
/// # Errors
/// When the download, its check, the unpacking or the build fails.
pub fn set_up(line: &str) -> Result<Kernel> {
    let source = source(line)?;
    cache::entry(&name(source), |entry| label(source, entry).is_some(), |new| make(source, new))
        .with_context(|| format!("cannot set up kernel {line} of Debian {}", source.suite))?;
    get(line)
}

fn source(line: &str) -> Result<&'static Source> {
    SOURCES
        .iter()
        .find(|source| source.name == line)
        .with_context(|| format!("there is no kernel line {line}: try {}", NAMES.join(", ")))
}

fn name(source: &Source) -> String {
    format!("kernels/{}", source.name)
}

/// The processor that the kernel of that name is for.
///
/// # Panics
/// When there is none of that name.
#[must_use]
pub fn arch_of(name: &str) -> Arch {
    source(name).unwrap_or_else(|why| panic!("{why}")).arch
}

/// The line that the kernel of that name is of, one of [`LINES`].
///
/// # Panics
/// When there is none of that name.
#[must_use]
pub fn line_of(name: &str) -> &'static str {
    source(name).unwrap_or_else(|why| panic!("{why}")).line
}

/// What a kernel that is built here is configured with; empty for others.
fn configuration(source: &Source) -> String {
    match source.origin {
        Origin::Package(_) => String::new(),
        Origin::Source(fragments) => build::merged(fragments),
    }
}

/// What the entry says of itself; none when it is not as this program would make it.
fn label(source: &Source, entry: &Path) -> Option<Label> {
    let text = fs::read(entry.join("kernel.json")).ok()?;
    let label: Label = serde_json::from_slice(&text).ok()?;
    let current = label.layout == LAYOUT && label.configuration == configuration(source);
    current.then_some(label)
}

fn kernel(source: &Source, entry: &Path, label: Label) -> Kernel {
    let image = if source.arch == Arch::Amd64 { "vmlinux" } else { "vmlinuz" };
    Kernel {
        line: source.name.to_owned(),
        arch: source.arch,
        vmlinuz: entry.join("vmlinuz"),
        vmlinux: entry.join(image),
        modules: entry.join("lib/modules").join(&label.release),
        release: label.release,
        package_version: label.package_version,
    }
}

fn make(source: &Source, entry: &Path) -> Result<()> {
    let start = Instant::now();
    let name = source.name;
    packages::ensure(packages::BOOT)?;
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
    let configuration = configuration(source);
    let (release, package_version) = match source.origin {
        Origin::Source(_) => {
            packages::ensure(packages::KERNEL)?;
            let tree = build::source(|work| download(source, build::PACKAGE, work))?;
            (tree.build(name, &configuration, entry)?, tree.package_version)
        }
        Origin::Package(package) => {
            let (tree, package_version) = download(source, package, work.path())?;
            (take_out(&tree, entry)?, package_version)
        }
    };
    if source.arch == Arch::Amd64 {
        unpack(&entry.join("vmlinuz"), &entry.join("vmlinux"))?;
    }
    step::run(Command::new("/sbin/depmod").arg("--basedir").arg(entry).arg(&release))?;

    let label = Label { layout: LAYOUT, release, package_version, configuration };
    fs::write(entry.join("kernel.json"), serde_json::to_vec_pretty(&label)?)?;
    step::say(format_args!("kernel {name}: done in {:.0?}", start.elapsed()));
    Ok(())
}

/// Unpacks a package with all its parts into a folder in `work`; returns that, and its version.
fn download(source: &Source, package: &str, work: &Path) -> Result<(PathBuf, String)> {
    let Source { name, suite, arch, released, .. } = *source;
    step::say(format_args!("kernel {name}: looking for it in Debian {suite}"));
    let kind = Kind::Binary { arch, security: released };
    let archive = Archive::open(&work.join("apt"), suite, kind)?;
    let parts = archive.newest_with_parts(package)?;
    let package_version = parts[0].version.clone();
    check_line(source, &package_version)?;

    let megabytes = parts.iter().map(|part| part.size).sum::<u64>().div_ceil(1_000_000);
    step::say(format_args!("kernel {name}: downloading {package_version} ({megabytes} MB)"));
    let download = work.join("download");
    fs::create_dir(&download)?;
    let packages = archive.download(&parts, &download)?;

    step::say(format_args!("kernel {name}: unpacking it"));
    let tree = work.join("tree");
    for package in packages {
        step::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
    }
    Ok((tree, package_version))
}

/// A released suite must have the line that is wanted; another one may have moved on, and then the
/// newest kernel there is what is to be tested.
fn check_line(source: &Source, package_version: &str) -> Result<()> {
    let Source { line, suite, released, .. } = source;
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
    build::make_module_folders(entry)?;
    fs::rename(&modules, entry.join("lib/modules"))?;
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
        for name in NAMES {
            assert_eq!(source(name).unwrap().name, name);
            assert!(LINES.contains(&line_of(name)), "{name}");
            let is_built = matches!(source(name).unwrap().origin, Origin::Source(_));
            assert_eq!(BUILT.contains(&name), is_built, "{name}");
        }
        assert!(source("4.19").err().unwrap().to_string().contains("5.10, 6.1"));
    }

    #[test]
    fn a_kernel_that_was_built_with_another_configuration_is_built_anew() {
        let entry = tempfile::tempdir().unwrap();
        let nixos = source(NIXOS).unwrap();
        let current = super::configuration(nixos);
        for (configuration, expected) in [(current.as_str(), true), ("CONFIG_OLD=y", false)] {
            let label = Label {
                layout: LAYOUT,
                release: "6.12.1-nixos".to_owned(),
                package_version: "6.12.1-1".to_owned(),
                configuration: configuration.to_owned(),
            };
            let text = serde_json::to_vec(&label).unwrap();
            fs::write(entry.path().join("kernel.json"), text).unwrap();
            assert_eq!(super::label(nixos, entry.path()).is_some(), expected, "{configuration}");
        }
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
