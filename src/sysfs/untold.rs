//! What the host needs and what could not be found on any disk: from the mount downwards, where
//! [`Sysfs::usage`] goes from the disk upwards.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::files::reading;
use super::mounts::{Mount, containing, folders, mounts, swaps};
use super::{Sysfs, User};
use crate::cmdline;

/// More layers of file systems on each other are none that a host has.
const MOST_LAYERS: usize = 16;

impl Sysfs {
    /// What the host needs, as it seems, that is on nothing which could be told: neither the record nor
    /// anybody else keeps what that is on. In words, as `/ (overlay of overlay)`.
    #[must_use]
    pub fn untold(&self) -> Vec<String> {
        let mountinfo = self.proc("self/mountinfo");
        let mounts = mounts(&mountinfo);
        let mut untold = Vec::new();
        for (index, mount) in mounts.iter().enumerate() {
            let is_covered = mounts[index + 1..].iter().any(|it| it.point == mount.point);
            if !is_covered
                && self.user_of(mount) <= User::Boot
                && !self.is_on_disk(mount, &mounts, MOST_LAYERS)
            {
                untold.push(format!("{} ({} of {})", mount.point, mount.kind, mount.source));
            }
        }
        let text = self.proc("swaps");
        let has_swap = swaps(&text).any(|(path, _)| !path.contains("zram"));
        for (path, is_file) in swaps(&text) {
            let is_told = if is_file {
                let mount = containing(&mounts, &path);
                mount.is_some_and(|mount| self.is_on_disk(mount, &mounts, MOST_LAYERS))
            } else {
                // In memory.
                path.contains("zram") || self.is_node_on_disk(&path, &mounts, MOST_LAYERS)
            };
            if !is_told {
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

    /// Whether it is known what a mount is on. Memory, the network and what is mounted when it is used
    /// are no disk; the disks of ZFS are found by their being claimed.
    fn is_on_disk(&self, mount: &Mount<'_>, mounts: &[Mount<'_>], layers: usize) -> bool {
        let Some(layers) = layers.checked_sub(1) else { return false };
        let is_in_told = |path: &String| {
            containing(mounts, path)
                .is_some_and(|it| !std::ptr::eq(it, mount) && self.is_on_disk(it, mounts, layers))
        };
        match mount.kind {
            "rootfs" | "tmpfs" | "ramfs" | "devtmpfs" | "autofs" | "zfs" | "nfs" | "nfs4"
            | "cifs" | "smb3" => true,
            "overlay" => {
                let folders = folders(mount);
                !folders.is_empty() && folders.iter().all(is_in_told)
            }
            "btrfs" if !self.btrfs_systems().is_empty() => true,
            _ => {
                let link = self.root().join("sys/dev/block").join(mount.number);
                reading("link", &link);
                let target = fs::read_link(link).unwrap_or_default();
                let is_block = |name: &OsStr| self.is_block_on_disk(name, mounts, layers);
                target.file_name().is_some_and(is_block)
                    || mount.source.split(':').any(|it| self.is_node_on_disk(it, mounts, layers))
            }
        }
    }

    fn is_node_on_disk(&self, path: &str, mounts: &[Mount<'_>], layers: usize) -> bool {
        let folder = self.root().join("sys/class/block");
        let mut blocks = self.names(&folder).into_iter();
        let block = blocks.find(|block| self.nodes(block).iter().any(|node| node == path));
        block.is_some_and(|block| self.is_block_on_disk(&block, mounts, layers))
    }

    /// Through what it is made of. Sources: `slaves/`, `loop/backing_file`.
    fn is_block_on_disk(&self, block: &OsStr, mounts: &[Mount<'_>], layers: usize) -> bool {
        let Some(layers) = layers.checked_sub(1) else { return false };
        let link = self.root().join("sys/class/block").join(block);
        reading("link", &link);
        let Ok(path) = fs::read_link(&link) else { return false };
        let has = |part: &str| path.iter().any(|it| it == part);
        if !has("virtual") || has("nvme-subsystem") {
            return true;
        }
        // A partition has its disk's folder above it.
        let disk = match path.parent().and_then(Path::file_name) {
            Some(disk) if disk != "block" => disk,
            _ => block,
        };
        if let Some(file) = self.backing_file(disk) {
            return containing(mounts, &file).is_some_and(|it| self.is_on_disk(it, mounts, layers));
        }
        let slaves = self.names(&Path::new("sys/class/block").join(disk).join("slaves"));
        slaves.iter().any(|slave| self.is_block_on_disk(slave, mounts, layers))
    }
}
