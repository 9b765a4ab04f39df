//! What a device shows, and how it comes and goes.

use super::machines::{BRIDGE, EDU, NIC, NO_GROUP, PORT, SERIAL};
use super::rule::{Rule, of_device, rule};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        rule("a device shows its numbers")
            .read(of_device(NIC, "vendor"))
            .read(of_device(NIC, "device"))
            .read(of_device(NIC, "subsystem_vendor"))
            .read(of_device(NIC, "subsystem_device"))
            .read(of_device(NIC, "class"))
            .read(of_device(NIC, "modalias"))
            .read(of_device(EDU, "class"))
            .read(of_device(EDU, "modalias"))
            .exists(of_device(NIC, "boot_vga")),
        rule("the uevent of a device names its driver")
            .read(of_device(EDU, "uevent"))
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .read(of_device(EDU, "uevent"))
            .unbind("vfio-pci", EDU)
            .read(of_device(EDU, "uevent"))
            .read(of_device(SERIAL, "uevent")),
        rule("what the kernel has built in has its devices before the first program runs")
            .driver(SERIAL)
            .driver(PORT)
            .driver(BRIDGE)
            .driver(EDU)
            .driver(NIC),
        rule("an IOMMU shows itself, and a device its group where it has one")
            .exists("sys/class/iommu/dmar0")
            .exists("sys/firmware/acpi/tables/DMAR")
            .exists(of_device(EDU, "iommu_group"))
            .exists(of_device(NO_GROUP, "iommu_group")),
        rule("a device that goes away takes its links along")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .viable(EDU)
            .unplug(EDU)
            .exists("sys/bus/pci/devices/0000:00:03.0")
            .exists(format!("sys/bus/pci/drivers/vfio-pci/{EDU}"))
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .bind("vfio-pci", EDU)
            .unbind("vfio-pci", EDU)
            .store(format!("bus/pci/devices/{EDU}/driver/unbind"), EDU),
        rule("no driver can bind a device that has just been announced")
            .load("vfio-pci")
            .unplug(EDU)
            .replug(EDU, 7)
            .exists(of_device(EDU, "iommu_group"))
            .override_of(EDU)
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .driver(EDU)
            .bind("vfio-pci", EDU)
            .driver(EDU)
            // When the kernel has gone on.
            .driver(EDU),
        rule("a driver takes a device of its id that comes")
            .load("e1000e")
            .driver(NIC)
            .unplug(NIC)
            .replug(NIC, 1)
            .driver(NIC)
            .driver(NIC),
        rule("an override in time keeps the driver of the host from a device that comes")
            .load("e1000e")
            .load("vfio-pci")
            .unplug(NIC)
            .replug(NIC, 1)
            .set(NIC, "vfio-pci")
            .driver(NIC),
    ]
}
