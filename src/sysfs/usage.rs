//! What the host uses a device for: it is not taken from under a mounted disk.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use nix::errno::Errno;

use super::Sysfs;
use super::files::reading;
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
        !mounts(&mountinfo).any(|mount| mount.point == "/" && mount.kind != "rootfs")
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

    fn proc(&self, file: &str) -> String {
        self.text(Path::new("proc").join(file)).unwrap_or_default()
    }

    /// Sources: `holders/` (device-mapper, md), `/sys/fs/btrfs`, `/proc/self/mountinfo`,
    /// `/proc/swaps`. What was `seen` before is not asked again: in another tree such links may go
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
            // A holder that is no PCI device's can have partitions, as md's have.
            let folder = self.root.join("sys/class/block").join(&holder);
            let is_partition = |name: &OsString| folder.join(name).join("partition").exists();
            let partitions = self.names(&folder).into_iter().filter(is_partition);
            let above = partitions.filter_map(|block| self.disk_usage(&block, seen)).min_by_key(by);
            match above.into_iter().chain(self.disk_usage(&holder, seen)).min_by_key(by) {
                Some(above) => Usage { words: format!("{part}, and {}", above.words), ..above },
                None => Usage { words: part, by: User::Storage },
            }
        });
        let held = held.min_by_key(by);
        if held.is_some() {
            return held;
        }
        let number = self.text(folder.join("dev")).unwrap_or_default();
        let members = self.btrfs_members(disk);
        let mut nodes = self.nodes(disk);
        let own = nodes.len();
        for member in &members {
            nodes.extend(self.nodes(member));
        }
        let mountinfo = self.proc("self/mountinfo");
        let mounted = mounts(&mountinfo).filter_map(|mount| {
            // File systems on several disks have a number of their own. btrfs names one of them,
            // and bcachefs all.
            let mut sources = mount.source.split(':');
            let is_mount = !number.is_empty() && mount.number == number.trim()
                || sources.any(|source| nodes.iter().any(|node| node == source));
            let point = mount.point;
            is_mount.then(|| Usage {
                words: format!("{name} is mounted on {point}"),
                by: if OF_THE_HOST.contains(&point) {
                    User::Host
                } else if self.is_asked_for(point) {
                    User::Boot
                } else {
                    User::Storage
                },
            })
        });
        let mounted = mounted.min_by_key(by);
        let swaps = self.proc("swaps");
        let mut swaps = swaps.lines().filter_map(|line| line.split_whitespace().next());
        if mounted.is_some() {
            mounted
        } else if !members.is_empty() {
            Some(Usage { words: format!("{name} is part of a btrfs"), by: User::Storage })
        } else if swaps.any(|swap| nodes[..own].iter().any(|node| node == swap)) {
            Some(Usage { words: format!("{name} is swap space"), by: User::Boot })
        } else {
            None
        }
    }

    /// Whether a boot mounts something there, and does not go on without it. Source: `/etc/fstab`.
    fn is_asked_for(&self, point: &str) -> bool {
        let fstab = self.text("etc/fstab").unwrap_or_default();
        fstab.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let is_here = words.next() == Some(point) && !line.trim_start().starts_with('#');
            let options = words.nth(1).unwrap_or_default();
            is_here && !options.split(',').any(|option| matches!(option, "noauto" | "nofail"))
        })
    }

    /// The disks of the btrfs that the disk is part of, itself among them.
    fn btrfs_members(&self, disk: &OsStr) -> Vec<OsString> {
        let folder = self.root.join("sys/fs/btrfs");
        let systems = self.names(&folder).into_iter();
        let mut members = systems.map(|system| self.names(&folder.join(system).join("devices")));
        members.find(|members| members.iter().any(|it| it == disk)).unwrap_or_default()
    }

    /// The paths by which the disk is mounted.
    fn nodes(&self, disk: &OsStr) -> Vec<String> {
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
        for mount in mounts(&self.proc("self/mountinfo")).filter(|mount| mount.kind == "zfs") {
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

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// As in `259:1`.
    number: &'a str,
    point: &'a str,
    kind: &'a str,
    source: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().map(|line| {
        // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
        let (mount, source) = line.split_once(" - ").unwrap_or((line, ""));
        let (mut mount, mut source) = (mount.split(' ').skip(2), source.split(' '));
        let mut next = || mount.next().unwrap_or_default();
        let (number, _, point) = (next(), next(), next());
        let mut next = || source.next().unwrap_or_default();
        Mount { number, point, kind: next(), source: next() }
    })
}

/// Where devtmpfs has the disk: `!` stands for `/` in sysfs.
fn node(disk: &OsStr) -> String {
    format!("/dev/{}", disk.to_string_lossy().replace('!', "/"))
}

/// Of several the first that the least counts for, as [`Iterator::min_by_key`] finds it.
fn by(usage: &Usage) -> User {
    usage.by
}
