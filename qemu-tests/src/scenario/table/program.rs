//! Waiting, the ways out, and arguments.

use super::machines::{desktop, port};
use crate::machine::topology::Device;
use crate::scenario::{ALL, Scenario, USUAL_AND_NIXOS, scenario};

const NO_NETLINK: &str = "uevents come over the kernel's netlink";
const ARGUMENTS: &str = "it is about the program's arguments";

/// Devices that come late, and the ways out.
pub(super) fn trouble() -> Vec<Scenario> {
    vec![
        desktop("a device that is plugged in during the wait is bound")
            .kernels(USUAL_AND_NIXOS)
            .with(port("port", "02.0"))
            .with(Device::new("qemu-xhci", "00.0").below("port").hot_added())
            .cmdline("vfio.devs=01:00.0,00:05.0 vfio.wait=60")
            .bound("01:00.0", "0000:01:00.0")
            .unforeseen("absent", "it comes during the wait")
            .bound("00:05.0", "0000:00:05.0")
            .logs("waiting for")
            .qemu_only(NO_NETLINK),
        desktop("a device that does not come within the wait is absent")
            .cmdline("vfio.devs=01:00.0,00:05.0 vfio.wait=1")
            .absent("01:00.0")
            .bound("00:05.0", "0000:00:05.0")
            .logs("waiting for")
            .qemu_only(NO_NETLINK),
        desktop("vfio.off leaves everything alone")
            .cmdline("vfio.devs=00:03.0,00:05.0 vfio.off")
            .does_nothing(),
        desktop("without vfio.devs nothing is done").cmdline("quiet").does_nothing(),
        desktop("an unknown parameter of ours is named, with the one that was meant")
            .cmdline("vfio.dev=00:05.0")
            .logs("vfio.devs")
            .does_nothing(),
        desktop("vfio.strict asks for the boot to stop when something is not bound")
            .kernels(USUAL_AND_NIXOS)
            .cmdline("vfio.strict vfio.devs=00:1e.0,00:05.0")
            .absent("00:1e.0")
            .bound("00:05.0", "0000:00:05.0")
            .exits(3),
        desktop("vfio.strict is content when all is bound")
            .cmdline("vfio.strict=yes vfio.devs=00:05.0")
            .bound("00:05.0", "0000:00:05.0"),
    ]
}

/// The program itself, and the table of models.
pub(super) fn program() -> Vec<Scenario> {
    vec![
        desktop("a dry run prints the plan and writes nothing")
            .cmdline("vfio.devs=00:05.0")
            .runs([&["--dry-run"]])
            .prints("0000:00:05.0")
            .does_nothing()
            .qemu_only(ARGUMENTS),
        desktop("a command line can be given as an argument")
            .runs([&["bind", "--cmdline", "vfio.devs=00:05.0"]])
            .bound("00:05.0", "0000:00:05.0")
            .qemu_only(ARGUMENTS),
        desktop("wrong arguments are told from failures by the exit status")
            .cmdline("vfio.devs=00:05.0")
            .runs([&["--no-such-argument"]])
            .exits(2)
            .does_nothing()
            .qemu_only(ARGUMENTS),
        scenario("another tree is read but not written to")
            .cmdline("vfio.devs=00:05.0")
            .runs([&["--root", "/tmp"]])
            .exits(2)
            .does_nothing()
            .qemu_only(ARGUMENTS),
        scenario("every model is what the table of models says")
            .device("e1000e", "03.0")
            .device("e1000", "04.0")
            .device("edu", "05.0")
            .device("nvme", "06.0")
            .device("ich9-ahci", "07.0")
            .device("qemu-xhci", "08.0")
            .device("intel-hda", "09.0")
            .device("ich9-intel-hda", "0a.0")
            .device("pci-serial", "0b.0")
            .device("secondary-vga", "0c.0")
            .with(port("port", "10.0"))
            .with(Device::new("pcie-pci-bridge", "00.0").below("port").named("bridge"))
            .with(Device::new("edu", "03.0").below("bridge"))
            .with(port("twins", "11.0"))
            .with(port("twin", "11.1"))
            .with(Device::new("edu", "00.0").below("twin"))
            .with(Device::new("edu", "00.1").below("twin"))
            .kernels(ALL)
            .host_modules(["e1000e", "e1000", "nvme", "ahci", "xhci_pci", "snd_hda_intel"])
            .does_nothing(),
    ]
}
