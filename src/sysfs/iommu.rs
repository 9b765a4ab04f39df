//! Which IOMMU there is, and whether it works: reads for [`Iommu`].

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{LONGEST, Sysfs};
use crate::console::Version;

/// Why a device has no IOMMU group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Iommu {
    /// An IOMMU works, so the kernel left out just this device.
    #[default]
    Works,
    /// An IOMMU works, and the kernel makes a device's group only when a driver is first probed for
    /// it: what has none may get one.
    GroupsAtProbe,
    /// ACPI tells of no IOMMU: none there, or off in the firmware.
    NoTable,
    /// There is an ACPI `DMAR` table (Intel) and no IOMMU works.
    IntelOff,
    /// There is an ACPI `IVRS` table (AMD) and no IOMMU works.
    AmdOff,
    /// There is a platform device of an IOMMU, as Arm's SMMU is, and no IOMMU works.
    PlatformOff,
    /// There is a virtio-iommu and no IOMMU works.
    VirtioOff,
    /// On a machine that could have one as a platform device there is none.
    NoPlatform,
}

/// Until then a device that ACPI's IORT or VIOT or a device tree gives to an IOMMU gets its group in
/// `really_probe()`; since then when it comes ("iommu: Get DT/ACPI parsing into the proper probe path").
const GROUPS_AT_ONCE: Version = Version { major: 6, minor: 15, patch: 0 };

/// As a PCI device's `modalias` begins.
const VIRTIO_IOMMU: &str = "pci:v00001AF4d00001057";

/// Whether it is one of Intel's or AMD's, which give all devices their groups when they start, and
/// whose interrupt remapping the firmware can turn on (`alloc_iommu()` in `drivers/iommu/intel/dmar.c`,
/// `iommu_init_pci()` in `drivers/iommu/amd/init.c`).
fn is_of_firmware(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("dmar") || name.starts_with("ivhd"))
}

impl Sysfs {
    /// Sources: `/sys/class/iommu`, the ACPI tables' names, `modalias` of platform and PCI devices.
    pub(super) fn iommu(&self) -> Iommu {
        let table = |name| self.is_there(Path::new("sys/firmware/acpi/tables").join(name));
        let working = self.names(Path::new("sys/class/iommu"));
        if !working.is_empty() {
            let at_once = working.iter().all(is_of_firmware);
            let at_once = at_once || self.kernel_version() >= GROUPS_AT_ONCE;
            if at_once { Iommu::Works } else { Iommu::GroupsAtProbe }
        } else if table("DMAR") {
            Iommu::IntelOff
        } else if table("IVRS") {
            Iommu::AmdOff
        } else if self.has_platform_iommu() {
            Iommu::PlatformOff
        } else if table("VIOT") || self.has_alias("pci", |alias| alias.starts_with(VIRTIO_IOMMU)) {
            Iommu::VirtioOff
        } else if table("GTDT") || !self.is_there("sys/firmware/acpi") {
            // An Arm machine, or one without ACPI: no DMAR or IVRS would be there.
            Iommu::NoPlatform
        } else {
            Iommu::NoTable
        }
    }

    /// As in `platform:arm-smmu-v3` (ACPI) or `of:NiommuT(null)Carm,mmu-500` (device tree). Its
    /// performance counters are devices of their own.
    fn has_platform_iommu(&self) -> bool {
        let is_one = |alias: &str| alias.contains("smmu") || alias.contains("iommu");
        self.has_alias("platform", |alias| is_one(alias) && !alias.contains("pmcg"))
    }

    fn has_alias(&self, bus: &str, is_it: impl Fn(&str) -> bool) -> bool {
        let folder = Path::new("sys/bus").join(bus).join("devices");
        let mut aliases = self
            .names(&folder)
            .into_iter()
            .filter_map(|name| self.text(folder.join(name).join("modalias")).ok());
        aliases.any(|alias| is_it(&alias))
    }

    /// Whether the firmware can turn on what [`Sysfs::interrupt_remapping`] finds missing.
    pub(super) fn remaps_by_firmware(&self) -> bool {
        self.names(Path::new("sys/class/iommu")).iter().any(is_of_firmware)
    }

    /// There is no flag for it in sysfs; interrupt chips tell by their names. Source:
    /// `/proc/interrupts`.
    pub(super) fn interrupt_remapping(&self) -> Option<bool> {
        // By line, since the file is long on large machines and the first lines tell.
        let file = self.file("proc/interrupts").ok()?.take(LONGEST);
        // The first error ends it: a folder in its place would give errors without end.
        are_isolated(BufReader::new(file).split(b'\n').map_while(Result::ok))
    }
}

/// Whether the interrupts of one device are kept apart from those of others
/// (`IRQ_DOMAIN_FLAG_ISOLATED_MSI` in the kernel). On x86 the remapped ones have `IR-`; on Arm those of
/// an ITS are. `None` where no line tells: on Arm, a controller that has one, before any device has an
/// interrupt of its own.
fn are_isolated(lines: impl Iterator<Item = Vec<u8>>) -> Option<bool> {
    let mut isolated = None;
    for line in lines {
        let has = |name: &[u8]| line.windows(name.len()).any(|part| part == name);
        if has(b" IR-") || has(b" ITS-") {
            return Some(true);
        }
        // A GIC of version 2 has no ITS: its messages come by a frame that any device can write to.
        if isolated.is_none() && (has(b" IO-APIC") || has(b" GIC-0 ") || has(b" GICv2")) {
            isolated = Some(false);
        }
    }
    isolated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_chips_tell_whether_devices_are_kept_apart() {
        for (text, expected) in [
            // x86.
            (
                "  0:  42   IO-APIC   2-edge  timer\n 24:  0   PCI-MSI 442368-edge  PCIe PME",
                Some(false),
            ),
            ("  0:  42  IR-IO-APIC    2-edge  timer", Some(true)),
            ("  0:  42   IO-APIC   2-edge  timer\n 24:  0  IR-PCI-MSI 442368-edge  x", Some(true)),
            // Arm, as Linux 6.1 and 6.12 have it.
            (" 11:  764 GIC-0  27 Level  arch_timer", Some(false)),
            (
                " 11:  605     GICv2  27 Level  arch_timer\n 21:  0  GICv2m-PCI-MSI-0000:00:03.0  0 Edge",
                Some(false),
            ),
            (" 11:  738     GICv3  27 Level  arch_timer", None),
            (
                " 11:  738     GICv3  27 Level  arch_timer\n 20:  6   ITS-MSI 49152 Edge  nvme0q0",
                Some(true),
            ),
            (" 20:  6  ITS-PCI-MSIX-0000:01:00.0  0 Edge  nvme0q0", Some(true)),
            ("", None),
        ] {
            let lines = text.lines().map(|line| line.as_bytes().to_vec());
            assert_eq!(are_isolated(lines), expected, "{text}");
        }
    }
}
