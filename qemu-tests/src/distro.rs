//! A small Debian with systemd: a root file system, and the initrd that its own dracut makes.
//!
//! What the small machines of [`vm`](crate::vm) leave out is here: systemd as the first process in
//! the initrd and in the real root, udev, and units that order themselves among those of others.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use crate::kernels::Kernel;
use crate::screenshot::Font;
use crate::{archive, binary, cache, initrd, packages, step};

const SUITE: &str = "bookworm";

/// Besides what debootstrap takes of itself.
const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod,dracut-core";

const MAKE_ROOT: &str = include_str!("guest/systemd/make-root");
const MAKE_IMAGES: &str = include_str!("guest/systemd/make-images");

/// What observes in the guest: path, permissions, content.
const HARNESS: &[(&str, u32, &str)] = &[
    ("usr/lib/harness/look", 0o755, include_str!("guest/systemd/look")),
    ("usr/lib/harness/collect", 0o755, include_str!("guest/systemd/collect")),
    (
        "usr/lib/dracut/modules.d/91harness/module-setup.sh",
        0o755,
        include_str!("guest/systemd/module-setup.sh"),
    ),
    (
        "usr/lib/systemd/system/vfio-early.service.d/harness.conf",
        0o644,
        include_str!("guest/systemd/harness.conf"),
    ),
    (
        "usr/lib/systemd/system/harness.service",
        0o644,
        include_str!("guest/systemd/harness.service"),
    ),
    (
        "usr/lib/systemd/system/harness-emergency.service",
        0o644,
        include_str!("guest/systemd/harness-emergency.service"),
    ),
];

/// Modules in the real root: those of the machine's devices, where udev finds them.
const MODULES: [&str; 8] = [
    "virtio_blk",
    "virtio_pci",
    "ext4",
    "e1000e",
    "nvme",
    "xhci_pci",
    "vfio_pci",
    "vfio_iommu_type1",
];

/// Entries of the cache that are kept, of those that the current ones have replaced.
const KEPT: usize = 3;

/// A unit of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Such as `vfio-early.service`.
    pub name: String,
    /// The file's text.
    pub text: String,
}

impl Unit {
    /// The program that it runs, as an absolute path.
    fn program(&self) -> Option<&str> {
        let line = self.text.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
        line.trim_start_matches('-').split_whitespace().next()
    }
}

/// The units in `folder`, by name.
///
/// # Errors
/// When there are none, or one cannot be read.
pub fn units(folder: &Path) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for found in fs::read_dir(folder).with_context(|| format!("no units: {}", folder.display()))? {
        let path = found?.path();
        if path.extension() == Some(OsStr::new("service")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            units.push(Unit { name, text });
        }
    }
    units.sort_by(|one, other| one.name.cmp(&other.name));
    anyhow::ensure!(!units.is_empty(), "no units: {} has none", folder.display());
    Ok(units)
}

/// Ready to boot.
#[derive(Debug, Clone)]
pub struct Distro {
    /// Made by dracut.
    pub initrd: PathBuf,
    /// An ext4 file system; to be used as a snapshot only.
    pub root: PathBuf,
    /// What `systemd-analyze verify` says of the units.
    pub verified: String,
    /// What it says of a unit whose ordering is a cycle.
    pub verified_cycle: String,
}

/// Initrd and root file system for that kernel with that program and those units, made where they
/// are not in the cache.
///
/// # Errors
/// When Debian's mirror is out of reach, when this user cannot become root, or when one of the
/// tools fails.
pub fn set_up(kernel: &Kernel, program: &Path, units: &[Unit]) -> Result<Distro> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let module = binary::workspace().join("initrd/dracut/90vfio-early/module-setup.sh");
    let module =
        fs::read_to_string(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let kernel_id = (&kernel.release, &kernel.package_version);
    let debian = archive_name();
    let key = key(&(&bytes, &module, units, kernel_id, HARNESS, MAKE_IMAGES, MODULES, &debian));
    let name = format!("distro/{}-{key}", kernel.line);
    let is_whole = |entry: &Path| entry.join("whole").exists();
    let entry = cache::entry(&name, is_whole, |new| {
        packages::ensure(packages::DISTRO)?;
        let archive = debian_archive(&debian)?;
        let start = Instant::now();
        step::say(format_args!("kernel {}: running dracut in Debian {SUITE}", kernel.line));
        let overlay = tempfile::Builder::new().prefix("overlay-").tempdir_in(new)?;
        lay_over(overlay.path(), kernel, &bytes, &module, units)?;
        step::run(
            as_root(MAKE_IMAGES, new)?
                .args([&archive, overlay.path(), &kernel.modules, new])
                .arg(units.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>().join(" ")),
        )?;
        fs::write(new.join("whole"), "")?;
        step::say(format_args!(
            "kernel {}: initrd and root file system done in {:.0?}",
            kernel.line,
            start.elapsed()
        ));
        Ok(())
    })
    .with_context(|| format!("cannot make a Debian {SUITE} with systemd for {}", kernel.line))?;
    // The age of an entry is that of its last use.
    fs::File::open(entry.join("whole"))?.set_modified(SystemTime::now())?;
    prune(&entry, &format!("{}-", kernel.line))?;
    let text = |name| {
        let path = entry.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Distro {
        verified: text("verify.txt")?,
        verified_cycle: text("verify-cycle.txt")?,
        initrd: entry.join("initrd"),
        root: entry.join("root.ext4"),
    })
}

fn archive_name() -> String {
    format!("distro/debian-{}", key(&(SUITE, PACKAGES, MAKE_ROOT)))
}

fn key(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The tar archive of a Debian without anything of ours.
fn debian_archive(name: &str) -> Result<PathBuf> {
    let is_whole = |entry: &Path| entry.join("root.tar").exists();
    let entry = cache::entry(name, is_whole, |new| {
        let start = Instant::now();
        step::say(format_args!("Debian {SUITE} with systemd: running debootstrap"));
        let archive = new.join("new.tar");
        step::run(
            as_root(MAKE_ROOT, new)?.args([SUITE, &archive::mirror()?, PACKAGES]).arg(&archive),
        )?;
        fs::rename(archive, new.join("root.tar"))?;
        step::say(format_args!("Debian {SUITE} with systemd: done in {:.0?}", start.elapsed()));
        Ok(())
    })?;
    Ok(entry.join("root.tar"))
}

/// A script, to be run as root in a mount namespace of its own.
fn as_root(script: &str, folder: &Path) -> Result<Command> {
    let file = folder.join("script");
    fs::write(&file, script)?;
    let mut command = packages::root_command("unshare")?.context(
        "only root can run debootstrap and dracut, and there is no sudo here: run this as root",
    )?;
    command.args(["--mount", "--propagation=private", "sh"]).arg(file);
    Ok(command)
}

/// What lies over the Debian: the program where the units look for it, dracut modules, the
/// harness, and the kernel's modules for the real root.
fn lay_over(
    overlay: &Path,
    kernel: &Kernel,
    program: &[u8],
    module: &str,
    units: &[Unit],
) -> Result<()> {
    let write = |path: &str, mode: u32, content: &[u8]| -> Result<()> {
        let path = overlay.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        fs::write(&path, content)?;
        Ok(fs::set_permissions(&path, PermissionsExt::from_mode(mode))?)
    };
    for (path, mode, content) in HARNESS {
        write(path, *mode, content.as_bytes())?;
    }
    let characters = Font::CHARACTERS.join("\n") + "\n";
    write("usr/lib/harness/characters", 0o644, characters.as_bytes())?;
    write("usr/lib/dracut/modules.d/90vfio-early/module-setup.sh", 0o755, module.as_bytes())?;
    let usual = "/usr/bin/vfio-early";
    for unit in units {
        write(&format!("usr/lib/systemd/system/{}", unit.name), 0o644, unit.text.as_bytes())?;
        let place = unit.program().with_context(|| format!("{} runs nothing", unit.name))?;
        write(place, 0o755, program)?;
        let link = overlay.join("usr/bin/vfio-early");
        if place != usual && !link.is_symlink() {
            fs::create_dir_all(overlay.join("usr/bin"))?;
            symlink(place, &link)?;
        }
    }
    // The host's graphics driver is for the real root alone.
    let display = if kernel.line == "5.10" { "bochs_drm" } else { "bochs" };
    let modules = MODULES.into_iter().chain([display]);
    initrd::lay_out_modules(kernel, modules, &overlay.join("usr"))
}

/// Removes entries beside this one whose names begin so, but for those that were used last.
fn prune(entry: &Path, prefix: &str) -> Result<()> {
    let folder = entry.parent().context("an entry lies in a folder")?;
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for each in fs::read_dir(folder)? {
        let path = each?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix)
            && let Ok(used) = fs::metadata(path.join("whole")).and_then(|whole| whole.modified())
        {
            found.push((used, path));
        }
    }
    found.sort();
    found.reverse();
    for (_, path) in found.into_iter().skip(KEPT) {
        // They cost room, and nothing else.
        if let Err(error) = fs::remove_dir_all(&path) {
            step::say(format_args!("cannot remove {}: {error}", path.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_unit_is_where_its_first_line_says() {
        for (text, expected) in [
            ("[Service]\nExecStart=/usr/bin/vfio-early bind\n", Some("/usr/bin/vfio-early")),
            ("ExecStart=-/nix/store/a/bin/vfio-early bind", Some("/nix/store/a/bin/vfio-early")),
            ("[Service]\n", None),
        ] {
            let unit = Unit { name: String::new(), text: text.to_owned() };
            assert_eq!(unit.program(), expected, "{text}");
        }
    }

    #[test]
    fn units_of_this_tree_are_found_and_name_their_program() {
        let units = units(&binary::workspace().join("initrd/systemd")).unwrap();
        assert!(units.iter().any(|unit| unit.name == "vfio-early.service"), "{units:?}");
        assert!(units.iter().all(|unit| unit.program() == Some("/usr/bin/vfio-early")));
    }

    #[test]
    fn of_replaced_entries_only_the_last_used_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["6.1-a", "6.1-b", "6.1-c", "6.1-d", "6.12-a", "debian-a"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("whole"), "").unwrap();
        }
        let old = fs::File::open(folder.path().join("6.1-b/whole")).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        prune(&folder.path().join("6.1-a"), "6.1-").unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["6.1-a", "6.1-c", "6.1-d", "6.12-a", "debian-a"]);
    }
}
