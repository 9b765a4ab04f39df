//! What the host uses a device for: it is not taken from under a mounted disk.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use super::Sysfs;
use super::files::reading;
use crate::pci::Address;

impl Sysfs {
    /// What uses the device, in words; `None` where nothing known does.
    #[must_use]
    pub fn usage(&self, address: Address) -> Option<String> {
        let address = address.to_string();
        self.virtual_functions(&address)
            .or_else(|| self.below("block", &address).iter().find_map(|disk| self.disk_usage(disk)))
            .or_else(|| self.below("net", &address).iter().find_map(|link| self.net_usage(link)))
    }

    /// vfio-pci takes no device whose virtual functions are on (`vfio_pci_core_register_device()`),
    /// and they would go with it. Source: `sriov_numvfs`.
    fn virtual_functions(&self, address: &str) -> Option<String> {
        let path = self.pci().join("devices").join(address).join("sriov_numvfs");
        let count = self.text(path).ok()?;
        let count = Some(count.trim()).filter(|count| *count != "0")?;
        Some(format!("{count} virtual functions (SR-IOV) are on; 0 in its sriov_numvfs stops them"))
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

    /// Sources: `holders/` (device-mapper, md), `/proc/self/mountinfo`, `/proc/swaps`.
    fn disk_usage(&self, disk: &OsStr) -> Option<String> {
        let folder = self.root.join("sys/class/block").join(disk);
        let mut holders = self.entries(folder.join("holders")).into_iter().flatten().flatten();
        let disk = disk.to_string_lossy();
        if let Some(holder) = holders.next() {
            return Some(format!("{disk} is part of {}", holder.file_name().display()));
        }
        let number = self.text(folder.join("dev")).unwrap_or_default();
        let node = format!("/dev/{disk}");
        for line in self.proc("self/mountinfo").lines() {
            // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
            let (mount, source) = line.split_once(" - ").unwrap_or((line, ""));
            let mut fields = mount.split(' ').skip(2);
            let (is_number, mount_point) = (fields.next() == Some(number.trim()), fields.nth(1));
            // btrfs has a number of its own, but names a device.
            if is_number && !number.is_empty() || source.split(' ').nth(1) == Some(&node) {
                return Some(format!("{disk} is mounted on {}", mount_point.unwrap_or("?")));
            }
        }
        let swaps = self.proc("swaps");
        let is_swap = swaps.lines().any(|line| line.split_whitespace().next() == Some(&node));
        is_swap.then(|| format!("{disk} is swap space"))
    }

    /// Sources: the link `master` (bridge, bond), `/proc/net/route`, `/proc/net/if_inet6`.
    fn net_usage(&self, link: &OsStr) -> Option<String> {
        let master = self.root.join("sys/class/net").join(link).join("master");
        let link = &*link.to_string_lossy();
        if let Ok(Some(master)) = super::link_name(&master) {
            return Some(format!("{link} is part of {master}"));
        }
        let routes = self.proc("net/route");
        let addresses = self.proc("net/if_inet6");
        let has_address = routes.lines().any(|line| line.split_whitespace().next() == Some(link))
            || addresses.lines().any(|line| line.split_whitespace().last() == Some(link));
        has_address.then(|| format!("{link} has an address"))
    }
}
