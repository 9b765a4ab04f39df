//! What the host needs and what could not be found on any disk: from the mount downwards, where
//! [`Sysfs::usage`] goes from the disk upwards.

use std::ffi::OsStr;
use std::path::Path;

use super::mounts::{Mount, containing, folders, swaps};
use super::usage::target;
use super::{Sysfs, User};
use crate::cmdline;

/// More layers of file systems on each other are none that a host has.
const MOST_LAYERS: usize = 16;

/// Where what is mounted has its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum On {
    /// In memory, on disks of this host, or on such that are found by their being claimed (ZFS).
    Host,
    /// Behind a network link.
    Network,
}

impl Sysfs {
    /// What the host needs, as it seems, that is on nothing which could be told: neither the record nor
    /// anybody else keeps what that is on. In words, as `/ (overlay of overlay)`.
    #[must_use]
    pub fn untold(&self) -> Vec<String> {
        let mountinfo = self.proc("self/mountinfo");
        let mounts = self.mounts(&mountinfo);
        let is_untold = |mount: &Mount<'_>| self.place_of(mount, &mounts, MOST_LAYERS).is_none();
        let mut untold = needed(&mounts, User::Boot, &is_untold);
        let swaps = swaps(&self.proc("swaps"));
        let has_swap = swaps.iter().any(|(path, _)| !path.contains("zram"));
        for (path, is_file) in swaps {
            let place = if is_file {
                let mount = containing(&mounts, &path);
                mount.and_then(|mount| self.place_of(mount, &mounts, MOST_LAYERS))
            } else {
                self.place_of_node(&path, &mounts, MOST_LAYERS)
            };
            // Or in memory.
            if place.is_none() && !path.contains("zram") {
                untold.push(format!("swap space ({path})"));
            }
        }
        let text = self.cmdline().unwrap_or_default();
        let has = |wanted: &[u8]| cmdline::parameters(&text).any(|(name, _)| name == wanted);
        if has(b"resume") && !has(b"noresume") && !has_swap && self.resume_from().is_none() {
            untold.push("what resume= names on the kernel command line".to_owned());
        }
        untold
    }

    /// What the host runs from and has by the network, in the same words.
    pub(super) fn by_network(&self) -> Vec<String> {
        let mountinfo = self.proc("self/mountinfo");
        let mounts = self.mounts(&mountinfo);
        let is_there =
            |mount: &Mount<'_>| self.place_of(mount, &mounts, MOST_LAYERS) == Some(On::Network);
        needed(&mounts, User::Host, &is_there)
    }

    /// `None` where it cannot be told.
    fn place_of(&self, mount: &Mount<'_>, mounts: &[Mount<'_>], layers: usize) -> Option<On> {
        let layers = layers.checked_sub(1)?;
        match mount.kind {
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "fuse.glusterfs" | "fuse.sshfs" => {
                Some(On::Network)
            }
            "overlay" => {
                let mut place = None;
                for path in folders(mount) {
                    let below = containing(mounts, &path).filter(|it| !std::ptr::eq(*it, mount))?;
                    place = place.max(Some(self.place_of(below, mounts, layers)?));
                }
                place
            }
            kind if OF_THE_KERNEL.contains(&kind) => Some(On::Host),
            "btrfs" if !self.btrfs_systems(mounts).is_empty() => Some(On::Host),
            _ => {
                let target = target(&self.root().join("sys/dev/block").join(mount.number));
                let of_block = |name: &OsStr| self.place_of_block(name, mounts, layers);
                let mut sources = mount.source.split(':');
                target.file_name().and_then(of_block).or_else(|| {
                    sources.find_map(|source| self.place_of_node(source, mounts, layers))
                })
            }
        }
    }

    fn place_of_node(&self, path: &str, mounts: &[Mount<'_>], layers: usize) -> Option<On> {
        let folder = self.root().join("sys/class/block");
        let mut blocks = self.names(&folder).into_iter();
        let block = blocks.find(|block| self.nodes(block).iter().any(|node| node == path))?;
        self.place_of_block(&block, mounts, layers)
    }

    /// Through what it is made of. Sources: `slaves/`, `loop/backing_file`. A disk by the network has in
    /// its path the session of iSCSI, or is one of the fabrics of `NVMe`, of nbd or of Ceph.
    fn place_of_block(&self, block: &OsStr, mounts: &[Mount<'_>], layers: usize) -> Option<On> {
        let layers = layers.checked_sub(1)?;
        let path = target(&self.root().join("sys/class/block").join(block));
        if path.as_os_str().is_empty() {
            return None;
        }
        let text = path.to_string_lossy();
        let has = |part: &str| text.contains(part);
        // What a card does by itself is below that.
        if has("/pci") {
            return Some(On::Host);
        }
        if has("/session") || has("/nbd") || has("/rbd") || has("/nvme-fabrics/") {
            return Some(On::Network);
        }
        if has("/nvme-subsystem/") {
            let is_far = self.is_path_to(&path, "nvme-fabrics");
            return Some(if is_far { On::Network } else { On::Host });
        }
        if !has("/virtual/") {
            return Some(On::Host);
        }
        // A partition has its disk's folder above it.
        let disk = match path.parent().and_then(Path::file_name) {
            Some(disk) if disk != "block" => disk,
            _ => block,
        };
        if let Some(file) = self.backing_file(disk) {
            return self.place_of(containing(mounts, &file)?, mounts, layers);
        }
        let slaves = self.names(&Path::new("sys/class/block").join(disk).join("slaves"));
        slaves.iter().filter_map(|slave| self.place_of_block(slave, mounts, layers)).max()
    }
}

/// What has its bytes nowhere else, or where it says by itself.
const OF_THE_KERNEL: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "zfs",
];

/// The mounts that so much depends on and that are so, in words.
fn needed(mounts: &[Mount<'_>], by: User, is_so: &dyn Fn(&Mount<'_>) -> bool) -> Vec<String> {
    let mut needed = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let is_needed = mount.by <= by;
        let is_covered = || mounts[index + 1..].iter().any(|it| it.point == mount.point);
        if is_needed && !is_covered() && is_so(mount) {
            needed.push(format!("{} ({} of {})", mount.point, mount.kind, mount.source));
        }
    }
    needed
}
