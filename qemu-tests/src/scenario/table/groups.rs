//! IOMMU groups, and machines without them.

use super::machines::{desktop, port};
use crate::machine::topology::{Device, Iommu};
use crate::scenario::{Scenario, USUAL_AND_NIXOS, scenario};

/// IOMMU groups, or none.
pub(super) fn groups() -> Vec<Scenario> {
    vec![
        scenario("a group item takes every endpoint behind the bridge")
            .kernels(USUAL_AND_NIXOS)
            .with(Device::new("pcie-pci-bridge", "03.0").named("bridge"))
            .with(Device::new("e1000", "01.0").below("bridge"))
            .with(Device::new("e1000", "02.0").below("bridge"))
            .device("e1000", "04.0")
            .cmdline("vfio.devs=group:01:01.0")
            .host_modules(["e1000"])
            .bound("group:01:01.0", "0000:01:01.0")
            .saying("8086:100e@0000:01:01.0")
            .bound("group:01:01.0", "0000:01:02.0")
            .saying("8086:100e@0000:01:02.0"),
        scenario("a sibling that stays with the host is named in a warning")
            .device("edu", "06.0")
            .device("nvme", "06.1")
            .cmdline("vfio.devs=00:06.0")
            .host_modules(["nvme"])
            .bound("00:06.0", "0000:00:06.0")
            .saying("0000:00:06.1"),
        scenario("a sibling that the host has already keeps the device from every VM")
            .device("edu", "06.0")
            .device("nvme", "06.1")
            .loaded_before("nvme")
            .cmdline("vfio.devs=00:06.0")
            .bound("00:06.0", "0000:00:06.0")
            .unusable("not viable: nvme has 0000:00:06.1"),
        desktop("a bridge is refused, and the others are bound")
            .with(port("port", "02.0"))
            .cmdline("vfio.devs=00:02.0,00:05.0")
            .refused("00:02.0", "0000:00:02.0")
            .saying("bridge")
            .bound("00:05.0", "0000:00:05.0"),
        desktop("without an IOMMU devices are refused, and who could give this guest one is said")
            .only_with(Iommu::None, "it is without one")
            .cmdline("vfio.devs=00:05.0")
            .refused("00:05.0", "0000:00:05.0")
            .saying("this is a guest, and its hypervisor gives it none"),
        desktop("with an Intel IOMMU that is off devices are refused, with what to remove")
            .kernels(USUAL_AND_NIXOS)
            .only_with(Iommu::Intel, "it is about the parameter of this one")
            .iommu_off("intel_iommu=off")
            .cmdline("vfio.devs=00:05.0")
            .refused("00:05.0", "0000:00:05.0")
            .saying("remove intel_iommu=off"),
        desktop("with an AMD IOMMU that is off devices are refused, with what to remove")
            .only_with(Iommu::Amd, "it is about the parameter of this one")
            .iommu_off("amd_iommu=off")
            .cmdline("vfio.devs=00:05.0")
            .refused("00:05.0", "0000:00:05.0")
            .saying("remove amd_iommu=off"),
        desktop("without interrupt remapping devices are bound, and no VM can have them")
            .without_interrupt_remapping()
            .cmdline("vfio.devs=00:05.0")
            .bound("00:05.0", "0000:00:05.0")
            .unusable("the start of a VM fails with EPERM"),
    ]
}
