//! Debians with systemd and udev: root file systems, and initrds that their own tools make.
//!
//! What the small machines of [`vm`](crate::machine::vm) leave out is here: the initrds that users have, and
//! a real root after them. One archive for each [`Debian`] is made by debootstrap, and apt; a [`Recipe`]
//! makes an initrd and a root file system out of it. Both are kept in the cache, by what they are made of.

mod debian;
mod namespace;

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

pub use self::debian::{Debian, Suite};
use self::namespace::TREE;
pub(crate) use self::namespace::as_root;
use crate::machine::initrd;
use crate::machine::screen::Font;
use crate::supplies::kernels::{self, Kernel};
use crate::supplies::{cache, packages, step};

const PRELUDE: &str = include_str!("../guest/distro/prelude");

/// What observes in every real root: path, permissions, content.
const HARNESS: &[(&str, u32, &str)] = &[
    ("usr/lib/harness/ask", 0o755, include_str!("../guest/distro/ask")),
    ("usr/lib/harness/look", 0o755, include_str!("../guest/distro/look")),
    ("usr/lib/harness/collect", 0o755, include_str!("../guest/distro/collect")),
    ("usr/lib/harness/give-back", 0o755, include_str!("../guest/distro/give-back")),
    ("usr/lib/harness/plug", 0o755, include_str!("../guest/distro/plug")),
    (
        "usr/lib/systemd/system/harness.service",
        0o644,
        include_str!("../guest/distro/harness.service"),
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

/// Entries of the cache that are kept, of those that the current ones have replaced; of those with a
/// whole kernel, which take much room, one.
const KEPT: usize = 3;

/// A file that is laid over a Debian.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// A regular file.
    Regular {
        /// From the root, with or without a slash in front.
        path: String,
        /// Permissions.
        mode: u32,
        /// Its bytes.
        content: Cow<'static, [u8]>,
    },
    /// A symbolic link.
    Link {
        /// From the root, with or without a slash in front.
        path: String,
        /// Where it leads.
        target: String,
    },
}

impl File {
    /// A file of text that is not executable.
    pub fn text(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self::of(path, 0o644, content.into().into_bytes())
    }

    /// A program or a script.
    pub fn program(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self::of(path, 0o755, content.into())
    }

    fn of(path: impl Into<String>, mode: u32, content: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::Regular { path: path.into(), mode, content: content.into() }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let (Self::Regular { path, .. } | Self::Link { path, .. }) = self;
        let place = folder.join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("a file lies in a folder")?)?;
        match self {
            Self::Regular { mode, content, .. } => {
                fs::write(&place, content)?;
                fs::set_permissions(&place, PermissionsExt::from_mode(*mode))?;
            }
            Self::Link { target, .. } => symlink(target, &place)?,
        }
        Ok(())
    }
}

/// How an initrd and a root file system are made out of a Debian.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// Begins the name of its entries in the cache.
    pub name: &'static str,
    /// What it adds to.
    pub debian: Debian,
    /// In a small Debian: whose modules the initrd is made from; the real root gets those of the
    /// machine's devices. Of a fresh one only the line counts: it has its own.
    pub kernel: &'a Kernel,
    /// Lies over it.
    pub files: Vec<File>,
    /// Shell that goes on where `guest/distro/prelude` ends, as root. It puts an `initrd` into
    /// `$folder`, and ends with `real_root`.
    pub script: &'static str,
    /// The script's arguments.
    pub arguments: Vec<String>,
}

impl Recipe<'_> {
    /// The folder with `initrd`, `root.ext4` (an ext4 file system, to be used as a snapshot only)
    /// and whatever else the script makes; made where it is not in the cache.
    ///
    /// # Errors
    /// When Debian's mirror is out of reach, when this user cannot become root, or when the script
    /// fails.
    pub fn set_up(&self) -> Result<PathBuf> {
        let Self { name, debian, kernel, files, script, arguments } = self;
        let line = &kernel.line;
        let kernel_id =
            (!debian.has_kernel()).then_some((&kernel.release, &kernel.package_version, MODULES));
        let base = debian.name();
        let key = cache::key(&(files, script, arguments, kernel_id, HARNESS, TREE, PRELUDE, &base));
        let suite = debian.suite().name();
        let is_whole = |entry: &Path| entry.join("whole").exists();
        let entry = cache::entry(&format!("distro/{name}-{line}-{key}"), is_whole, |new| {
            packages::ensure(packages::DISTRO)?;
            let archive = debian.set_up()?;
            let start = Instant::now();
            let what = format!("{name}, kernel {line}: initrd and root file system");
            step::say(format_args!("{what}: making them in Debian {suite}"));
            let overlay = tempfile::Builder::new().prefix("overlay-").tempdir_in(new)?;
            self.lay_over(overlay.path())?;
            let modules = if debian.has_kernel() { Path::new("") } else { &kernel.modules };
            step::run(
                as_root(&format!("{PRELUDE}{script}"), new)?
                    .args([&archive, overlay.path(), modules, new])
                    .args(arguments),
            )?;
            if debian.has_kernel() {
                kernels::unpack(&new.join("vmlinuz"), &new.join("vmlinux"))?;
            }
            fs::write(new.join("whole"), "")?;
            step::say(format_args!("{what}: done in {:.0?}", start.elapsed()));
            Ok(())
        })
        .with_context(|| format!("{name}: cannot make a Debian {suite} for kernel {line}"))?;
        // The age of an entry is that of its last use.
        fs::File::open(entry.join("whole"))?.set_modified(SystemTime::now())?;
        let kept = if debian.has_kernel() { 1 } else { KEPT };
        prune(&entry, &format!("{name}-{line}-"), kept)?;
        Ok(entry)
    }

    /// The kernel of a fresh Debian, out of what [`Recipe::set_up`] has made.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn own_kernel(&self, entry: &Path) -> Result<Kernel> {
        let file = entry.join("release");
        let release = fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .trim_end()
            .to_owned();
        Ok(Kernel {
            line: self.kernel.line.clone(),
            arch: self.kernel.arch,
            vmlinuz: entry.join("vmlinuz"),
            vmlinux: entry.join("vmlinux"),
            // They are in the root file system.
            modules: PathBuf::new(),
            package_version: release.clone(),
            release,
        })
    }

    /// Fills the folder that lies over the Debian: the recipe's files, the harness, and the kernel's
    /// modules for the real root.
    fn lay_over(&self, overlay: &Path) -> Result<()> {
        for (path, mode, content) in HARNESS {
            File::of(*path, *mode, content.as_bytes()).write(overlay)?;
        }
        let characters = Font::CHARACTERS.join("\n") + "\n";
        File::text("usr/lib/harness/characters", characters).write(overlay)?;
        for file in &self.files {
            file.write(overlay)?;
        }
        if self.debian.has_kernel() {
            return Ok(());
        }
        // The host's graphics driver is for the real root alone.
        let display = if self.kernel.line == "5.10" { "bochs_drm" } else { "bochs" };
        let modules = MODULES.into_iter().chain([display]);
        initrd::lay_out_modules(self.kernel, modules, &overlay.join("usr"))
    }
}

/// Removes entries beside this one whose names begin so, but for those that were used last.
fn prune(entry: &Path, prefix: &str, kept: usize) -> Result<()> {
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
    for (_, path) in found.into_iter().skip(kept) {
        // They cost room, and nothing else.
        if let Err(error) = fs::remove_dir_all(&path) {
            step::say(format_args!("cannot remove {}: {error}", path.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Such as who tries another Debian has: a folder with what a root has, entered by chroot. All that
    /// is mounted is shared with others. It goes after [`TREE`], since the tests may run in one, too.
    const IN_A_CHROOT: &str = r#"
        mkdir "$tree/root"
        cd "$tree/root"
        mkdir usr tmp dev proc
        for name in bin lib lib64 sbin; do
            [ ! -L "/$name" ] || ln -s "usr/$name" "$name"
            [ -L "/$name" ] || { mkdir "$name" && mount --bind "/$name" "$name"; }
        done
        for name in usr dev proc; do mount --rbind "/$name" "$name"; done
        mount --make-rshared "$tree"
        cp "$1/script" .
        cut -d " " -f 5 /proc/self/mountinfo >"$1/before"
        chroot . unshare --mount --propagation=unchanged sh /script
        cut -d " " -f 5 /proc/self/mountinfo | diff "$1/before" -
    "#;

    #[test]
    fn a_tree_of_its_own_can_be_had_in_a_chroot_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let work =
            "mkdir \"$tree/dev\"; with_devices; ls \"$tree/dev/null\" >/dev/null; echo worked\n";
        fs::write(folder.path().join("script"), [TREE, work].concat()).unwrap();
        let mut command = Command::new("unshare");
        // Root needs no other user, which the kernel has for nobody in a chroot.
        if !packages::is_root().unwrap() {
            command.args(["--map-root-user", "--user"]);
        }
        let script = [TREE, IN_A_CHROOT].concat();
        command.args(["--mount", "--propagation=unchanged", "sh", "-c", &script, "sh"]);
        let said = step::run(command.arg(folder.path())).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), "worked\n");
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
        prune(&folder.path().join("6.1-a"), "6.1-", 3).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["6.1-a", "6.1-c", "6.1-d", "6.12-a", "debian-a"]);
    }
}
