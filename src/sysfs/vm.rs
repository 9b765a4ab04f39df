//! What the start of a VM depends on besides the drivers of devices.

use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat, read};

use super::Sysfs;
use crate::pci::Address;

/// More than `reserved_regions` has, which the kernel writes into one page.
const PAGE: usize = 4096;

/// The memory that the firmware keeps for a device of a group, as the kernel tells it.
fn direct(regions: &str) -> Option<String> {
    let line = regions.lines().find(|line| line.ends_with(" direct"))?;
    let (first, rest) = line.split_once(' ')?;
    let (last, _) = rest.split_once(' ')?;
    Some(format!("{first}-{last}"))
}

impl Sysfs {
    /// The memory that a device of the group has to reach at the same address whoever has the device:
    /// RMRR (Intel), IVMD (AMD). What the kernel calls relaxable is none of it. Source:
    /// `reserved_regions` of the group (`iommu_group_show_resv_regions()` in `drivers/iommu/iommu.c`).
    #[must_use]
    pub fn firmware_memory_of(&self, group: u32) -> Option<String> {
        let path = format!("kernel/iommu_groups/{group}/reserved_regions");
        if self.confined.is_some() {
            return direct(&self.text(Path::new("sys").join(path)).ok()?);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(self.sys().ok()?, path.as_str(), flags, Mode::empty()).ok()?;
        let mut buffer = [0; PAGE];
        let length = read(&file, &mut buffer).ok()?;
        direct(str::from_utf8(&buffer[..length]).ok()?)
    }

    /// Whether vfio gives devices away without an IOMMU. Such groups have no more than a number: before
    /// Linux 6.1 some kernels read a null pointer where one asks for their `reserved_regions`.
    #[must_use]
    pub fn is_without_iommu(&self) -> bool {
        self.parameter("vfio", "enable_unsafe_noiommu_mode") == Some(true)
    }

    /// Whether no IOMMU is behind the group. Source: its `name`, which vfio gives it.
    #[must_use]
    pub fn is_noiommu_group(&self, group: u32) -> bool {
        let name = self.text(format!("sys/kernel/iommu_groups/{group}/name"));
        name.is_ok_and(|name| name.trim() == "vfio-noiommu")
    }

    /// A flag of a module; `None` where the module is not there, or has no such one.
    #[must_use]
    pub fn parameter(&self, module: &str, name: &str) -> Option<bool> {
        let path = format!("module/{module}/parameters/{name}");
        Some(self.attribute(&path, &mut [0; super::ATTRIBUTE]).ok()?.starts_with('Y'))
    }

    /// Whether the IOMMU is Intel's. Source: `/sys/class/iommu/dmar0`.
    #[must_use]
    pub fn is_intel_iommu(&self) -> bool {
        let units = self.names(Path::new("sys/class/iommu"));
        units.iter().any(|name| name.as_encoded_bytes().starts_with(b"dmar"))
    }

    /// The name of the device's own file in `/dev/vfio/devices`; vfio gives a name also where the kernel
    /// has no such files, but then it has no number. Source: `vfio-dev/vfioN/dev`.
    #[must_use]
    pub fn device_file(&self, address: Address) -> Option<String> {
        let folder = Path::new("sys/bus/pci/devices").join(address.to_string()).join("vfio-dev");
        let name = self.names(&folder).into_iter().next()?.into_string().ok()?;
        self.is_there(folder.join(&name).join("dev")).then_some(name)
    }

    /// The number of a device's IOMMU group. Source: the link `iommu_group`.
    #[must_use]
    pub fn group_of(&self, address: Address) -> Option<u32> {
        let link = format!("bus/pci/devices/{address}/iommu_group");
        self.link_name(&link).ok()??.parse().ok()
    }

    /// The other functions in the slot of a device. Where it has some, function 1 is there, or 0 for any
    /// other one.
    #[must_use]
    pub fn other_functions(&self, folder: &str, address: Address) -> Vec<Address> {
        let Some((above, _)) = folder.rsplit_once('/') else { return Vec::new() };
        let is_there = |other: &Address| {
            let path = format!("{above}/{other}");
            match (&self.confined, self.sys()) {
                (None, Ok(sys)) => {
                    faccessat(sys, path.as_str(), AccessFlags::F_OK, AtFlags::empty()).is_ok()
                }
                _ => self.is_there(Path::new("sys").join(path)),
            }
        };
        let first = Address { function: u8::from(address.function == 0), ..address };
        if !is_there(&first) {
            return Vec::new();
        }
        let functions = (0..8).map(|function| Address { function, ..address });
        functions.filter(|other| *other != address && is_there(other)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_firmware_keeps_is_told_from_other_regions() {
        for (text, expected) in [
            ("", None),
            ("0x00000000fee00000 0x00000000feefffff msi\n", None),
            (
                "0x00000000c8000000 0x00000000c801ffff direct-relaxable\n\
                 0x00000000fee00000 0x00000000feefffff msi\n",
                None,
            ),
            (
                "0x00000000c8000000 0x00000000c801ffff direct\n\
                 0x00000000fee00000 0x00000000feefffff msi\n",
                Some("0x00000000c8000000-0x00000000c801ffff"),
            ),
            ("0x00000000000e0000 0x00000000000effff reserved\n", None),
            (" direct", None),
            ("direct", None),
        ] {
            assert_eq!(direct(text).as_deref(), expected, "{text:?}");
        }
    }
}
