//! How modules lie in the initrd, their options, and variants of vfio-pci.

use super::machines::{desktop, port};
use crate::machine::topology::Device;
use crate::scenario::{Scenario, USUAL_AND_NIXOS, scenario};
use crate::supplies::kernels::{BUILT, BUILT_IN, CDEV, LINES, NIXOS};

const LIBKMOD: &str = "libkmod reads modules and their options, and the kernel takes them";

/// Modules and their options.
pub(super) fn modules() -> Vec<Scenario> {
    let one = |name| desktop(name).cmdline("vfio.devs=00:05.0").bound("00:05.0", "0000:00:05.0");
    vec![
        one("vfio-pci that was loaded beforehand gets the device").loaded_before("vfio-pci"),
        desktop("without vfio-pci in the initrd devices are kept from every driver")
            .kernels(USUAL_AND_NIXOS)
            .device("pci-serial", "06.0")
            .left_out("vfio-pci")
            .cmdline("vfio.devs=00:05.0,00:06.0")
            .failed("00:05.0", "0000:00:05.0")
            .saying("vfio-pci")
            .saying("initrd")
            .failed("00:06.0", "0000:00:06.0")
            .saying("initrd"),
        desktop("a blacklisted vfio-pci is named, and devices are kept from every driver")
            .cmdline("module_blacklist=vfio_pci vfio.devs=00:05.0")
            .failed("00:05.0", "0000:00:05.0")
            .saying("loading vfio_pci: Operation not permitted (EPERM)")
            .saying("take it off module_blacklist=")
            .qemu_only("the kernel refuses the module"),
        one("without vfio_iommu_type1 in the initrd devices are bound, and no VM can have them")
            .only_on(&LINES, "with iommufd a VM can do without")
            .left_out("vfio_iommu_type1")
            .unusable("vfio_iommu_type1"),
        one("with iommufd and without vfio_iommu_type1 some VMs can have the devices")
            .kernels(&[NIXOS])
            .only_on(&[NIXOS], "the others have no iommufd, or no vfio_iommu_type1 at all")
            .left_out("vfio_iommu_type1")
            .warning("only a VM that goes by iommufd")
            .qemu_only("the fake kernel is none of these"),
        one("without interrupt remapping an option lets VMs have the devices")
            .without_interrupt_remapping()
            .cmdline("vfio_iommu_type1.allow_unsafe_interrupts=1")
            .parameter("vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y")
            .qemu_only(LIBKMOD),
        one("options of the command line reach vfio's modules")
            .cmdline("vfio-pci.disable_idle_d3=1 vfio_iommu_type1.allow_unsafe_interrupts=1")
            .parameter("vfio_pci/parameters/disable_idle_d3", "Y")
            .parameter("vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y")
            .qemu_only(LIBKMOD),
        one("options of modprobe.d reach vfio's modules")
            .file("/etc/modprobe.d/vfio.conf", "options vfio-pci disable_idle_d3=1\n")
            .parameter("vfio_pci/parameters/disable_idle_d3", "Y")
            .parameter("vfio_pci/parameters/nointxmask", "N")
            .qemu_only(LIBKMOD),
        one("modules in .ko.xz load on a kernel that cannot decompress them")
            .compressed()
            .kernels(&["5.10", "6.1"])
            .only_on(&["5.10", "6.1", NIXOS, BUILT_IN, CDEV], "the others can decompress them")
            .qemu_only(LIBKMOD),
        one("modules in .ko.xz load on a kernel that can decompress them")
            .compressed()
            .kernels(&["6.12"])
            .only_on(&["6.12", "7.2"], "the others cannot decompress them")
            .qemu_only(LIBKMOD),
    ]
}

/// A driver of vfio-pci's family that is made for the device: only kernels that are built here have
/// one for what QEMU emulates.
pub(super) fn variants() -> Vec<Scenario> {
    const VARIANT: &str = "the other kernels have no variant driver for it";
    let card = |name| {
        scenario(name)
            .with(port("port", "02.0"))
            .with(Device::new("virtio-net-pci", "00.0").below("port"))
            .device("e1000e", "03.0")
            .host_modules(["e1000e"])
            .kernels(&[NIXOS])
            .only_on(&BUILT, VARIANT)
            .qemu_only(VARIANT)
            .bound("1af4:1041@01:00.0", "0000:01:00.0")
    };
    let both = "vfio.devs=1af4:1041@01:00.0,8086:10d3@00:03.0";
    vec![
        card("a network card gets its variant of vfio-pci, another one vfio-pci")
            .also_there("virtio_vfio_pci")
            .cmdline(both)
            .runs([&[], &["bind"]])
            .on("virtio_vfio_pci")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .logs("0000:01:00.0: virtio_vfio_pci, a variant of vfio-pci, is chosen for it")
            .logs("0000:01:00.0 1af4:1041: bound to virtio_vfio_pci (was virtio-pci)")
            .logs("0000:00:03.0 8086:10d3: bound to vfio-pci"),
        card("vfio.driver=vfio-pci keeps the variant away")
            .also_there("virtio_vfio_pci")
            .cmdline("vfio.driver=vfio-pci vfio.devs=1af4:1041@01:00.0"),
        card("without the variant in the initrd the card gets vfio-pci")
            .cmdline("vfio.devs=1af4:1041@01:00.0"),
        card("a variant that does not load gives way to vfio-pci")
            .also_there("virtio_vfio_pci")
            .cmdline("module_blacklist=virtio_vfio_pci vfio.devs=1af4:1041@01:00.0")
            .saying("virtio_vfio_pci did not take it"),
    ]
}
