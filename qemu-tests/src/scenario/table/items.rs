//! How devices are named, and where they may have moved.

use super::machines::{desktop, port};
use crate::machine::topology::Device;
use crate::scenario::{Scenario, USUAL_AND_NIXOS, scenario};

/// The ways to name a device.
pub(super) fn items() -> Vec<Scenario> {
    vec![
        scenario("a slot wildcard takes all functions of the slot")
            .device("edu", "03.0")
            .device("qemu-xhci", "03.1")
            .device("ich9-intel-hda", "03.2")
            .device("qemu-xhci", "04.0")
            .cmdline("vfio.devs=00:03.*")
            .host_modules(["xhci_pci", "snd_hda_intel"])
            .bound("00:03.*", "0000:00:03.0")
            .saying("with it 00:03.* takes 0000:00:03.1 1b36:000d (class 0c0330), 0000:00:03.2 ")
            .bound("00:03.*", "0000:00:03.1")
            .bound("00:03.*", "0000:00:03.2"),
        scenario("a path finds its device although the bus number has changed")
            .kernels(USUAL_AND_NIXOS)
            .with(port("new", "02.0"))
            .with(Device::new("qemu-xhci", "00.0").below("new"))
            .with(port("old", "03.0"))
            .with(Device::new("qemu-xhci", "00.0").below("old"))
            .cmdline("vfio.devs=00:03.0/00.0")
            .host_modules(["xhci_pci"])
            .bound("00:03.0/00.0", "0000:02:00.0"),
        scenario("a path goes through two bridges, and takes all functions at its end")
            .with(port("port", "02.0"))
            .with(Device::new("pcie-pci-bridge", "00.0").below("port").named("bridge"))
            .with(Device::new("edu", "04.0").below("bridge"))
            .with(Device::new("edu", "04.1").below("bridge"))
            .cmdline("vfio.devs=0000:00:02.0/00.0/04.*")
            .bound("0000:00:02.0/00.0/04.*", "0000:02:04.0")
            .bound("0000:00:02.0/00.0/04.*", "0000:02:04.1"),
        scenario("of twin cards, one is taken and the other stays with the host")
            .device("e1000e", "03.0")
            .device("e1000e", "04.0")
            .cmdline("vfio.devs=8086:10d3@00:04.0")
            .host_modules(["e1000e"])
            .bound("8086:10d3@00:04.0", "0000:00:04.0"),
        scenario("an id takes both twin cards")
            .kernels(USUAL_AND_NIXOS)
            .device("e1000e", "03.0")
            .device("e1000e", "04.0")
            .device("nvme", "05.0")
            .cmdline("vfio.devs=pci:8086:10d3")
            .host_modules(["e1000e", "nvme"])
            .bound("pci:8086:10d3", "0000:00:03.0")
            .saying("pci:8086:10d3 takes each network controller of that id, and there are 2")
            .bound("pci:8086:10d3", "0000:00:04.0"),
        scenario("an id with a subsystem and wildcards takes what matches all of it")
            .device("e1000e", "03.0")
            .device("e1000", "04.0")
            .device("nvme", "05.0")
            .cmdline("vfio.devs=pci:1b36:0010:1af4:1100,pci:8086:0:8086:0")
            .host_modules(["e1000e", "nvme", "e1000"])
            .bound("pci:1b36:0010:1af4:1100", "0000:00:05.0")
            .bound("pci:8086:0:8086:0", "0000:00:03.0"),
        scenario("an id without a vendor takes what matches the rest of it")
            .device("e1000e", "03.0")
            .device("nvme", "05.0")
            .cmdline("vfio.devs=pci:0:0010:1af4:1100")
            .host_modules(["e1000e", "nvme"])
            .bound("pci:0:0010:1af4:1100", "0000:00:05.0"),
        desktop("an id that no device has is absent")
            .cmdline("vfio.devs=pci:10de:1c03,00:05.0")
            .absent("pci:10de:1c03")
            .bound("00:05.0", "0000:00:05.0"),
        desktop("an address where nothing is is absent, and the others are bound")
            .cmdline("vfio.devs=00:05.0,00:1e.0,05:00.0,00:1d.*")
            .bound("00:05.0", "0000:00:05.0")
            .absent("00:1e.0")
            .absent("05:00.0")
            .absent("00:1d.*"),
        scenario("hex digits may be in upper case")
            .device("e1000e", "1a.0")
            .device("e1000e", "1b.0")
            .cmdline("vfio.devs=8086:10D3@00:1A.0,8086:10D3@0000:00:1B.0")
            .host_modules(["e1000e"])
            .bound("8086:10D3@00:1A.0", "0000:00:1a.0")
            .bound("8086:10D3@0000:00:1B.0", "0000:00:1b.0"),
        desktop("two items that name one device bind it once")
            .cmdline("vfio.devs=00:05.0,0000:00:05.0,pci:1b36:000d")
            .bound_by_any("0000:00:05.0"),
        desktop("a repeated parameter counts every time, and spaces in quotes separate")
            .cmdline("vfio.devs=8086:10d3@00:03.0 quiet vfio.devs=\"1b36:0010@00:04.0  00:05.0,\"")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .bound("1b36:0010@00:04.0", "0000:00:04.0")
            .bound("00:05.0", "0000:00:05.0"),
        desktop("what stands after a double dash is not ours")
            .cmdline("vfio.devs=00:05.0 -- vfio.devs=00:04.0")
            .warning("vfio.devs stands behind --")
            .bound("00:05.0", "0000:00:05.0"),
        desktop("a malformed item is rejected, and the others are bound")
            .cmdline("vfio.devs=00:05.0,zz:1.0,8086:10d3@00:03.0,,01:00.9")
            .bound("00:05.0", "0000:00:05.0")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .rejected("zz:1.0")
            .rejected("01:00.9")
            .logs("zz:1.0")
            .logs("01:00.9"),
    ]
}

/// A device may have moved since its item was written.
pub(super) fn guards() -> Vec<Scenario> {
    vec![
        desktop("a guard that matches lets its device be bound")
            .cmdline("vfio.devs=8086:10d3@00:03.0")
            .bound("8086:10d3@00:03.0", "0000:00:03.0"),
        desktop("a guard that does not match leaves the device alone and says where the id is")
            .kernels(USUAL_AND_NIXOS)
            .cmdline("vfio.devs=1b36:0010@00:03.0,00:05.0")
            .refused("1b36:0010@00:03.0", "0000:00:03.0")
            .saying("0000:00:04.0")
            .saying("8086:10d3")
            .bound("00:05.0", "0000:00:05.0"),
        desktop("a guard whose id is nowhere leaves the device alone")
            .cmdline("vfio.devs=10de:1c03@00:03.0")
            .refused("10de:1c03@00:03.0", "0000:00:03.0")
            .saying("10de:1c03"),
        scenario("a guard on a path is held against the device at its end")
            .with(port("port", "02.0"))
            .with(Device::new("e1000e", "00.0").below("port"))
            .with(port("other", "03.0"))
            .with(Device::new("nvme", "00.0").below("other"))
            .cmdline("vfio.devs=8086:10d3@00:02.0/00.0,8086:10d3@00:03.0/00.0")
            .host_modules(["e1000e", "nvme"])
            .bound("8086:10d3@00:02.0/00.0", "0000:01:00.0")
            .refused("8086:10d3@00:03.0/00.0", "0000:02:00.0")
            .saying("0000:01:00.0"),
        scenario("a guard on a slot is held against its lowest function")
            .device("e1000e", "03.0")
            .device("edu", "03.1")
            .device("edu", "04.0")
            .device("e1000e", "04.1")
            .cmdline("vfio.devs=8086:10d3@00:03.*,8086:10d3@00:04.*")
            .host_modules(["e1000e"])
            .bound("8086:10d3@00:03.*", "0000:00:03.0")
            .saying("a slot is not always one card")
            .bound("8086:10d3@00:03.*", "0000:00:03.1")
            .refused("8086:10d3@00:04.*", "0000:00:04.0")
            .saying("0000:00:03.0")
            .refused("8086:10d3@00:04.*", "0000:00:04.1")
            .saying("0000:00:03.0"),
        desktop("a device that one item refuses stays refused")
            .cmdline("vfio.devs=00:05.0,10de:1c03@00:05.0")
            .refused_by_any("0000:00:05.0")
            .saying("10de:1c03"),
    ]
}

/// What else is read from the command line, and what only looks like it.
pub(super) fn parameters() -> Vec<Scenario> {
    vec![
        desktop("what a blank cuts off the list is told, and a parameter that is nearly ours")
            .cmdline("vfio.devs=00:05.0, 00:04.0 vfio-early.strict")
            .bound("00:05.0", "0000:00:05.0")
            .warning("outside vfio.devs= and not read: 00:04.0; ")
            .warning("vfio-early.strict is unknown; is vfio.strict meant?"),
        desktop("the last of several flags counts, and true and false are known")
            .cmdline("x=it's vfio.devs=00:1e.0 vfio.off=false vfio.strict=0 vfio.strict=true")
            .absent("00:1e.0")
            .exits(3),
    ]
}
