//! What the host uses a device for: it is not taken from under a mounted disk.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use super::Sysfs;
use super::files::reading;
use crate::pci::Address;

/// What the host uses a device for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In words: `sda2 is mounted on /`.
    pub words: String,
    /// What would have to end.
    pub by: User,
}

/// Who uses a device, by what it takes to end that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The host itself, which runs from this disk.
    Host,
    /// A file system, swap space, or a device that is made of this disk.
    Storage,
    /// A network link.
    Network,
    /// The device's own virtual functions.
    VirtualFunctions,
}

/// Where the host has what it runs from; `/sysroot` in an initrd.
const OF_THE_HOST: [&str; 8] =
    ["/", "/boot", "/boot/efi", "/efi", "/nix/store", "/sysroot", "/usr", "/var"];

impl Sysfs {
    /// What uses the device; `None` where nothing known does. That the host runs from it comes before
    /// all else.
    #[must_use]
    pub fn usage(&self, address: Address) -> Option<Usage> {
        let address = address.to_string();
        self.virtual_functions(&address)
            .or_else(|| {
                let mut seen = BTreeSet::new();
                let disks = self.below("block", &address).into_iter();
                first_of_all(disks.filter_map(|disk| self.disk_usage(disk, &mut seen)))
            })
            .or_else(|| self.below("net", &address).iter().find_map(|link| self.net_usage(link)))
    }

    /// vfio-pci takes no device whose virtual functions are on (`vfio_pci_core_register_device()`),
    /// and they would go with it. Source: `sriov_numvfs`.
    fn virtual_functions(&self, address: &str) -> Option<Usage> {
        let path = self.pci().join("devices").join(address).join("sriov_numvfs");
        let count = self.text(path).ok()?;
        let count = Some(count.trim()).filter(|count| *count != "0")?;
        let words =
            format!("{count} virtual functions (SR-IOV) are on; 0 in its sriov_numvfs stops them");
        Some(Usage { words, by: User::VirtualFunctions })
    }

    /// The names in `/sys/class/CLASS` of what lies below a PCI device.
    fn below(&self, class: &str, address: &str) -> Vec<OsString> {
        let folder = self.root.join("sys/class").join(class);
        let entries = self.entries(&folder).into_iter().flatten().flatten();
        let is_below = |name: &OsString| {
            let link = folder.join(name);
            reading("link", &link);
            fs::read_link(link).is_ok_and(|path| {
                path.iter().any(|part| part == address) || self.is_path_to(&path, address)
            })
        };
        entries.map(|entry| entry.file_name()).filter(is_below).collect()
    }

    /// An `NVMe` disk with several paths is no controller's: its subsystem, which is a virtual
    /// device, links to the controllers.
    fn is_path_to(&self, disk: &Path, address: &str) -> bool {
        let Some(subsystem) = disk.parent().filter(|_| disk.iter().any(|p| p == "nvme-subsystem"))
        else {
            return false;
        };
        let folder = self.root.join("sys/class/block").join(subsystem);
        let mut links = self.entries(&folder).into_iter().flatten().flatten();
        links.any(|link| {
            let link = folder.join(link.file_name());
            reading("link", &link);
            fs::read_link(link).is_ok_and(|path| path.iter().any(|part| part == address))
        })
    }

    fn proc(&self, file: &str) -> String {
        self.text(Path::new("proc").join(file)).unwrap_or_default()
    }

    /// Sources: `holders/` (device-mapper, md), `/proc/self/mountinfo`, `/proc/swaps`. What was
    /// `seen` before is not asked again: in another tree such links may go round.
    fn disk_usage(&self, disk: OsString, seen: &mut BTreeSet<OsString>) -> Option<Usage> {
        let folder = self.root.join("sys/class/block").join(&disk);
        let holders = self.entries(folder.join("holders")).into_iter().flatten().flatten();
        let name = disk.to_string_lossy().into_owned();
        if !seen.insert(disk) {
            return None;
        }
        let held = first_of_all(holders.map(|holder| {
            let holder = holder.file_name();
            let part = format!("{name} is part of {}", holder.display());
            match self.disk_usage(holder, seen) {
                Some(above) => Usage { words: format!("{part}, and {}", above.words), ..above },
                None => Usage { words: part, by: User::Storage },
            }
        }));
        if held.is_some() {
            return held;
        }
        let number = self.text(folder.join("dev")).unwrap_or_default();
        let node = format!("/dev/{name}");
        let mounts = self.proc("self/mountinfo");
        let mounted = first_of_all(mounts.lines().filter_map(|line| {
            // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
            let (mount, source) = line.split_once(" - ").unwrap_or((line, ""));
            let mut fields = mount.split(' ').skip(2);
            let (is_number, mount_point) = (fields.next() == Some(number.trim()), fields.nth(1));
            // btrfs has a number of its own, but names a device.
            let is_mount =
                is_number && !number.is_empty() || source.split(' ').nth(1) == Some(&node);
            let mount_point = mount_point.unwrap_or("?");
            is_mount.then(|| Usage {
                words: format!("{name} is mounted on {mount_point}"),
                by: if OF_THE_HOST.contains(&mount_point) { User::Host } else { User::Storage },
            })
        }));
        let is_swap = |line: &str| line.split_whitespace().next() == Some(&node);
        mounted.or_else(|| {
            self.proc("swaps")
                .lines()
                .any(is_swap)
                .then(|| Usage { words: format!("{name} is swap space"), by: User::Storage })
        })
    }

    /// Sources: the link `master` (bridge, bond), `/proc/net/route`, `/proc/net/if_inet6`.
    fn net_usage(&self, link: &OsStr) -> Option<Usage> {
        let of_network = |words| Usage { words, by: User::Network };
        let master = self.root.join("sys/class/net").join(link).join("master");
        let link = &*link.to_string_lossy();
        if let Ok(Some(master)) = super::link_name(&master) {
            return Some(of_network(format!("{link} is part of {master}")));
        }
        let routes = self.proc("net/route");
        let addresses = self.proc("net/if_inet6");
        let has_address = routes.lines().any(|line| line.split_whitespace().next() == Some(link))
            || addresses.lines().any(|line| line.split_whitespace().last() == Some(link));
        has_address.then(|| of_network(format!("{link} has an address")))
    }
}

/// The first by which the host runs, else the first.
fn first_of_all(usages: impl Iterator<Item = Usage>) -> Option<Usage> {
    let mut first = None;
    for usage in usages {
        if usage.by == User::Host {
            return Some(usage);
        }
        first.get_or_insert(usage);
    }
    first
}
