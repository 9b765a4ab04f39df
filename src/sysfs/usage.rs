//! What the host uses a device for: it is not taken from under a mounted disk.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use nix::errno::Errno;

use super::Sysfs;
use super::files::reading;
use super::mounts::{Btrfs, Mount, containing, folders, mounts, swaps};
use crate::pci::{Address, Class};
use crate::syscall;

/// What the host uses a device for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In words: `sda2 is mounted on /`.
    pub words: String,
    /// What would have to end.
    pub by: User,
}

/// Who uses a device, by what it takes to end that; of several the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// The host itself, which runs from this disk.
    Host,
    /// A file system that each boot asks for, or swap space.
    Boot,
    /// A file system, swap space, or a device that is made of this disk.
    Storage,
    /// A network link.
    Network,
    /// The device's own virtual functions.
    VirtualFunctions,
    /// Processes that draw or compute.
    Screen,
    /// A stream of sound.
    Sound,
    /// Who types.
    Keyboard,
}

impl User {
    /// Whether the host could not do without the device at the next boot either. A graphics card or a
    /// sound card that a process has open now is another's then, and the process comes after it.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        !matches!(self, User::VirtualFunctions | User::Screen | User::Sound)
    }
}

/// Where the host has what it runs from; `/sysroot` in an initrd.
const OF_THE_HOST: [&str; 9] =
    ["/", "/boot", "/boot/efi", "/efi", "/nix", "/nix/store", "/sysroot", "/usr", "/var"];

impl Sysfs {
    /// What uses the device; `None` where nothing known does. That the host runs from it comes before
    /// all else.
    #[must_use]
    pub fn usage(&self, address: Address, class: Class) -> Option<Usage> {
        self.virtual_functions(address)
            .or_else(|| self.disks_usage(address))
            .or_else(|| self.links_usage(address))
            .or_else(|| self.use_now(address, class))
    }

    /// Whether the root is still that of the kernel's own rootfs, or nothing is known to be mounted.
    #[must_use]
    pub fn is_initrd(&self) -> bool {
        let mountinfo = self.proc("self/mountinfo");
        !mounts(&mountinfo).iter().any(|mount| mount.point == "/" && mount.kind != "rootfs")
    }

    /// What uses the disks below the device.
    #[must_use]
    pub fn disks_usage(&self, address: Address) -> Option<Usage> {
        let mut seen = Vec::new();
        let disks = self.below("block", &address.to_string());
        let known = disks.iter().filter_map(|disk| self.disk_usage(disk, &mut seen));
        known.min_by_key(by).or_else(|| disks.iter().find_map(|disk| self.claim(disk)))
    }

    /// What uses the network links below the device.
    #[must_use]
    pub fn links_usage(&self, address: Address) -> Option<Usage> {
        self.below("net", &address.to_string()).iter().find_map(|link| self.net_usage(link))
    }

    /// vfio-pci takes no device whose virtual functions are on (`vfio_pci_core_register_device()`),
    /// and they would go with it. Source: `sriov_numvfs`.
    fn virtual_functions(&self, address: Address) -> Option<Usage> {
        let path = self.device_folder(address).join("sriov_numvfs");
        let count = self.text(path).ok()?;
        let count = Some(count.trim()).filter(|count| *count != "0")?;
        let words =
            format!("{count} virtual functions (SR-IOV) are on; 0 in its sriov_numvfs stops them");
        Some(Usage { words, by: User::VirtualFunctions })
    }

    /// The names in `/sys/class/CLASS` of what lies below a PCI device.
    pub(super) fn below(&self, class: &str, address: &str) -> Vec<OsString> {
        let folder = self.root.join("sys/class").join(class);
        let is_below = |name: &OsString| {
            let link = folder.join(name);
            reading("link", &link);
            fs::read_link(link).is_ok_and(|path| {
                path.iter().any(|part| part == address) || self.is_path_to(&path, address)
            })
        };
        self.names(&folder).into_iter().filter(is_below).collect()
    }

    /// An `NVMe` disk with several paths is no controller's: its subsystem, which is a virtual
    /// device, links to the controllers. It is so with one controller, too, where that says that
    /// there could be others.
    fn is_path_to(&self, disk: &Path, address: &str) -> bool {
        let is_subsystem =
            |path: &&Path| path.parent().is_some_and(|above| above.ends_with("nvme-subsystem"));
        // The disk is in that folder, and a partition in the disk's.
        let Some(subsystem) = disk.ancestors().find(is_subsystem) else { return false };
        let folder = self.root.join("sys/class/block").join(subsystem);
        self.names(&folder).into_iter().any(|link| {
            let link = folder.join(link);
            reading("link", &link);
            fs::read_link(link).is_ok_and(|path| path.iter().any(|part| part == address))
        })
    }

    pub(super) fn proc(&self, file: &str) -> String {
        self.text(Path::new("proc").join(file)).unwrap_or_default()
    }

    /// Sources: `holders/` (device-mapper, md), `/sys/fs/btrfs`, `/proc/self/mountinfo`, `/proc/swaps`,
    /// `/sys/power/resume`. What was `seen` before is not asked again: in another tree such links may go
    /// round.
    fn disk_usage(&self, disk: &OsStr, seen: &mut Vec<OsString>) -> Option<Usage> {
        let folder = self.root.join("sys/class/block").join(disk);
        let holders = self.names(&folder.join("holders")).into_iter();
        let name = disk.to_string_lossy().into_owned();
        if seen.iter().any(|there| there == disk) {
            return None;
        }
        seen.push(disk.to_owned());
        let held = holders.map(|holder| {
            let part = format!("{name} is part of {}", holder.display());
            match self.virtual_usage(&holder, seen) {
                Some(above) => Usage { words: format!("{part}, and {}", above.words), ..above },
                None => Usage { words: part, by: User::Storage },
            }
        });
        let held = held.min_by_key(by);
        if held.is_some() {
            return held;
        }
        let number = self.text(folder.join("dev")).unwrap_or_default();
        let number = number.trim();
        let mountinfo = self.proc("self/mountinfo");
        let mounts = mounts(&mountinfo);
        let systems = self.btrfs_systems();
        let system = systems.iter().find(|system| system.disks.iter().any(|it| it == disk));
        let nodes = self.nodes(disk);
        let is_mount = |mount: &&Mount<'_>| {
            // bcachefs names all of its disks.
            !number.is_empty() && mount.number == number
                || mount.source.split(':').any(|source| nodes.iter().any(|node| node == source))
                || system.is_some_and(|system| system.is_mounted_as(mount, &systems, &mounts))
        };
        let mounted = mounts.iter().filter(is_mount);
        let mounted = mounted.map(|mount| self.mount_usage(&name, mount, &mounts, seen));
        let mounted = mounted.min_by_key(by);
        let is_swap = || swaps(&self.proc("swaps")).any(|(path, _)| nodes.contains(&path));
        let of_boot = |words| Some(Usage { words, by: User::Boot });
        if mounted.is_some() {
            mounted
        } else if system.is_some() {
            Some(Usage { words: format!("{name} is part of a btrfs"), by: User::Storage })
        } else if is_swap() {
            of_boot(format!("{name} is swap space"))
        } else if self.resume_from().as_deref() == Some(number) {
            of_boot(format!("{name} is where the host resumes from (resume=)"))
        } else {
            None
        }
    }

    /// What a mount of the disk of that name is to the host, and what is made of files in it.
    fn mount_usage(
        &self,
        name: &str,
        mount: &Mount<'_>,
        mounts: &[Mount<'_>],
        seen: &mut Vec<OsString>,
    ) -> Usage {
        let words = format!("{name} is mounted on {}", mount.point);
        let own = self.user_of(mount);
        if own == User::Host {
            return Usage { words, by: own };
        }
        let is_in = |path: &str| containing(mounts, path).is_some_and(|it| std::ptr::eq(it, mount));
        let mut above = Vec::new();
        for overlay in mounts.iter().filter(|it| folders(it).iter().any(|path| is_in(path))) {
            let words = format!("the overlay on {} is made of it", overlay.point);
            above.push(Usage { words, by: self.user_of(overlay) });
        }
        for (path, _) in
            swaps(&self.proc("swaps")).filter(|(path, is_file)| *is_file && is_in(path))
        {
            above.push(Usage { words: format!("{path} is swap space"), by: User::Boot });
        }
        for disk in self.names(&self.root().join("sys/class/block")) {
            let Some(path) = self.backing_file(&disk).filter(|path| is_in(path)) else { continue };
            if let Some(usage) = self.virtual_usage(&disk, seen) {
                let words = format!("{path} is {}, and {}", disk.display(), usage.words);
                above.push(Usage { words, ..usage });
            }
        }
        match above.into_iter().min_by_key(by) {
            Some(above) if above.by < own => {
                Usage { words: format!("{words}, and {}", above.words), ..above }
            }
            _ => Usage { words, by: own },
        }
    }

    /// Of a loop device.
    pub(super) fn backing_file(&self, disk: &OsStr) -> Option<String> {
        let name = disk.to_str().filter(|name| name.starts_with("loop"))?;
        let path = self.text(format!("sys/class/block/{name}/loop/backing_file")).ok()?;
        Some(path.trim_end_matches('\n').to_owned())
    }

    /// What uses a block device that is no disk, or its partitions, as md's have.
    fn virtual_usage(&self, block: &OsStr, seen: &mut Vec<OsString>) -> Option<Usage> {
        let folder = self.root.join("sys/class/block").join(block);
        let is_partition = |name: &OsString| folder.join(name).join("partition").exists();
        let partitions = self.names(&folder).into_iter().filter(is_partition);
        let above = partitions.filter_map(|block| self.disk_usage(&block, seen)).min_by_key(by);
        above.into_iter().chain(self.disk_usage(block, seen)).min_by_key(by)
    }

    /// What a mount is to the host, by itself.
    pub(super) fn user_of(&self, mount: &Mount<'_>) -> User {
        if OF_THE_HOST.contains(&mount.point) {
            User::Host
        } else if self.is_asked_for(mount.point) {
            User::Boot
        } else {
            User::Storage
        }
    }

    /// Whether a boot mounts something there, and does not go on without it. Sources: `/etc/fstab`, and
    /// the units that an administrator has enabled.
    fn is_asked_for(&self, point: &str) -> bool {
        let fstab = self.text("etc/fstab").unwrap_or_default();
        let is_in_fstab = fstab.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let is_here = words.next() == Some(point) && !line.trim_start().starts_with('#');
            let options = words.nth(1).unwrap_or_default();
            is_here && !options.split(',').any(|option| matches!(option, "noauto" | "nofail"))
        });
        is_in_fstab || self.is_asked_for_by_unit(point)
    }

    /// The number of the partition that a resume is from, as in `259:1`. Source: `/sys/power/resume`.
    pub(super) fn resume_from(&self) -> Option<String> {
        let number = self.text("sys/power/resume").ok()?.trim().to_owned();
        (!number.is_empty() && number != "0:0").then_some(number)
    }

    /// The mounted btrfs. Source: `/sys/fs/btrfs`.
    pub(super) fn btrfs_systems(&self) -> Vec<Btrfs> {
        let folder = self.root.join("sys/fs/btrfs");
        let mut systems = Vec::new();
        for name in self.names(&folder) {
            let disks = self.names(&folder.join(&name).join("devices"));
            let nodes = disks.iter().flat_map(|disk| self.nodes(disk)).collect();
            if !disks.is_empty() {
                systems.push(Btrfs { id: name.to_string_lossy().into_owned(), disks, nodes });
            }
        }
        systems
    }

    /// The paths by which the disk is mounted.
    pub(super) fn nodes(&self, disk: &OsStr) -> Vec<String> {
        let mut nodes = vec![node(disk)];
        let mapped = self.root.join("sys/class/block").join(disk).join("dm/name");
        if let Ok(name) = self.text(mapped) {
            nodes.push(format!("/dev/mapper/{}", name.trim()));
        }
        nodes
    }

    /// A ZFS pool is no holder, and its mounts name no disk; a mount of another namespace is not seen
    /// here. Both keep anybody else from claiming the disk, which root can try.
    fn claim(&self, disk: &OsStr) -> Option<Usage> {
        let is_here = self.root == Path::new("/");
        let claimed = if is_here { syscall::claim(&node(disk)) } else { Err(Errno::EACCES) };
        let (mut has_zfs, mut is_hosts) = (false, false);
        for mount in mounts(&self.proc("self/mountinfo")).iter().filter(|mount| mount.kind == "zfs")
        {
            has_zfs = true;
            is_hosts |= OF_THE_HOST.contains(&mount.point);
        }
        let words = match claimed {
            Err(Errno::EBUSY) => "a pool has it, or it is mounted where that is not seen from here",
            Err(Errno::EACCES) if has_zfs => {
                "a ZFS pool may have it: only root, on the host itself, can tell"
            }
            _ => return None,
        };
        let by = if is_hosts { User::Host } else { User::Storage };
        Some(Usage { words: words.to_owned(), by })
    }

    /// Sources: the links `master` (bridge, bond) and `upper_…` (VLAN, macvlan), `/proc/net/route`,
    /// `/proc/net/if_inet6`.
    fn net_usage(&self, link: &OsStr) -> Option<Usage> {
        let of_network = |words| Some(Usage { words, by: User::Network });
        let folder = self.root.join("sys/class/net").join(link);
        let link = &*link.to_string_lossy();
        if let Ok(Some(master)) = super::link_name(&folder.join("master")) {
            return of_network(format!("{link} is part of {master}"));
        }
        for name in self.names(&folder) {
            if let Some(upper) = name.to_string_lossy().strip_prefix("upper_") {
                return of_network(format!("{upper} goes over {link}"));
            }
        }
        let routes = self.proc("net/route");
        let addresses = self.proc("net/if_inet6");
        let has_address = routes.lines().any(|line| line.split_whitespace().next() == Some(link))
            || addresses.lines().any(|line| line.split_whitespace().last() == Some(link));
        if has_address { of_network(format!("{link} has an address")) } else { None }
    }
}

/// Where devtmpfs has the disk: `!` stands for `/` in sysfs.
fn node(disk: &OsStr) -> String {
    format!("/dev/{}", disk.to_string_lossy().replace('!', "/"))
}

/// Of several the first that the least counts for, as [`Iterator::min_by_key`] finds it.
fn by(usage: &Usage) -> User {
    usage.by
}
