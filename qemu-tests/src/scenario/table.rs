//! The scenarios, as a table.
//!
//! Each says what is there, what is asked, and what comes out; what holds always is checked
//! besides, see [`Scenario::complaints`].

use crate::machine::topology::{Device, Iommu};
use crate::scenario::{ALL, EVERY, Scenario, USUAL, USUAL_AND_NIXOS, scenario};
use crate::supplies::kernels::{BUILT, BUILT_IN, CDEV, NIXOS};

const HOST: [&str; 3] = ["e1000e", "nvme", "xhci_pci"];

const NO_NETLINK: &str = "uevents come over the kernel's netlink";
const ARGUMENTS: &str = "it is about the program's arguments";
const LIBKMOD: &str = "libkmod reads modules and their options, and the kernel takes them";

/// A network card, a disk controller and a USB controller, each in a slot of its own.
fn desktop(name: &'static str) -> Scenario {
    scenario(name)
        .device("e1000e", "03.0")
        .device("nvme", "04.0")
        .device("qemu-xhci", "05.0")
        .host_modules(HOST)
}

/// A root port, to put things below.
fn port(name: &str, place: &str) -> Device {
    Device::new("pcie-root-port", place).named(name)
}

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let [items, guards, program] = [items(), guards(), program()].map(on_one);
    [binding(), items, guards, groups(), modules(), variants(), trouble(), program].concat()
}

/// What is decided before a kernel is asked is run on one of Debian's each time, where nothing else is
/// said; the matrix has it on all, with one IOMMU.
fn on_one(scenarios: Vec<Scenario>) -> Vec<Scenario> {
    let one = |scenario: Scenario| match scenario.kernels {
        USUAL => scenario.kernels(&["6.1"]),
        USUAL_AND_NIXOS => scenario.kernels(&["6.1", NIXOS]),
        _ => scenario,
    };
    let why = Some("it is about items, guards or parameters");
    let with_one = |scenario| Scenario { one_iommu: why, ..scenario };
    scenarios.into_iter().map(one).map(with_one).collect()
}

/// The main job.
fn binding() -> Vec<Scenario> {
    let three = |name| {
        desktop(name)
            .cmdline("vfio.devs=00:03.0,00:04.0,00:05.0")
            .bound("00:03.0", "0000:00:03.0")
            .saying("8086:10d3@0000:00:03.0")
            .bound("00:04.0", "0000:00:04.0")
            .saying("1b36:0010@0000:00:04.0")
            .bound("00:05.0", "0000:00:05.0")
            .logs("0000:00:03.0 8086:10d3: bound to vfio-pci")
    };
    vec![
        three("three devices are bound and stay bound when their host drivers load").kernels(EVERY),
        three("three devices are bound with an AMD IOMMU")
            .only_with(Iommu::Amd, "it is the scenario before with the other IOMMU")
            .kernels(EVERY),
        three("a second bind finds everything bound and changes nothing")
            .kernels(USUAL_AND_NIXOS)
            .runs([&[], &["bind"]])
            .logs("bound to vfio-pci already"),
        desktop("a device whose host driver was loaded before is taken away from it")
            .loaded_before("e1000e")
            .cmdline("vfio.devs=8086:10d3@00:03.0")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .logs("(was e1000e)"),
        desktop("devices whose host drivers were loaded before are all taken away")
            .kernels(USUAL_AND_NIXOS)
            .loaded_before("e1000e")
            .loaded_before("nvme")
            .loaded_before("xhci_pci")
            .cmdline("vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .bound("1b36:0010@00:04.0", "0000:00:04.0")
            .bound("00:05.0", "0000:00:05.0")
            .logs("(was nvme)"),
        scenario("a device of a built-in driver is taken away from it")
            .device("pci-serial", "03.0")
            .device("pci-serial", "04.0")
            .cmdline("vfio.devs=00:03.0")
            .kernels(ALL)
            .bound("00:03.0", "0000:00:03.0")
            .logs("(was serial)"),
        scenario("a virtio device is taken from the built-in virtio-pci")
            .device("virtio-rng-pci", "03.0")
            .device("virtio-rng-pci", "04.0")
            .built_in("virtio_pci")
            .cmdline("vfio.devs=00:03.0")
            .kernels(&["6.12", "7.2", NIXOS])
            .only_on(
                &["6.12", "7.2", NIXOS, BUILT_IN, CDEV],
                "the other kernels have virtio-pci in a module",
            )
            .bound("00:03.0", "0000:00:03.0")
            .logs("(was virtio-pci)"),
        scenario("a disk controller is taken from the built-in ahci")
            .device("ich9-ahci", "03.0")
            .device("ich9-ahci", "04.0")
            .built_in("ahci")
            .cmdline("vfio.devs=8086:2922@00:03.0")
            .kernels(&[NIXOS])
            .only_on(&BUILT, "the other kernels have ahci in a module")
            .qemu_only("only kernels that are built here have ahci built in")
            .bound("8086:2922@00:03.0", "0000:00:03.0")
            .logs("(was ahci)"),
        whole_slots("no line of the log is lost with twenty-four devices", 3..6),
        whole_slots("from thirty-three devices on the log only says what is not bound", 3..8)
            .cmdline("vfio.devs=00:1e.0")
            .absent("00:1e.0")
            .logs("40 of 41"),
    ]
}

/// Every function of these slots, asked for with one wildcard a slot.
fn whole_slots(name: &'static str, slots: std::ops::Range<u8>) -> Scenario {
    let mut scenario = scenario(name);
    for slot in slots {
        let item = format!("00:{slot:02x}.*");
        for function in 0..8 {
            let place = format!("{slot:02x}.{function}");
            scenario = scenario.device("edu", &place).bound(&item, &format!("0000:00:{place}"));
        }
        scenario = scenario.cmdline(&format!("vfio.devs={item}"));
    }
    scenario
}

/// The ways to name a device.
fn items() -> Vec<Scenario> {
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
fn guards() -> Vec<Scenario> {
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

/// IOMMU groups, or none.
fn groups() -> Vec<Scenario> {
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
        scenario("a sibling that the host has already is named in a warning")
            .device("edu", "06.0")
            .device("nvme", "06.1")
            .loaded_before("nvme")
            .cmdline("vfio.devs=00:06.0")
            .bound("00:06.0", "0000:00:06.0")
            .saying("0000:00:06.1"),
        desktop("a bridge is refused, and the others are bound")
            .with(port("port", "02.0"))
            .cmdline("vfio.devs=00:02.0,00:05.0")
            .refused("00:02.0", "0000:00:02.0")
            .saying("bridge")
            .bound("00:05.0", "0000:00:05.0"),
        desktop("without an IOMMU devices are refused, and the firmware's names for it are said")
            .only_with(Iommu::None, "it is without one")
            .cmdline("vfio.devs=00:05.0")
            .refused("00:05.0", "0000:00:05.0")
            .saying("VT-d")
            .saying("AMD-Vi"),
        desktop("with an Intel IOMMU that is off devices are refused, with what to add")
            .kernels(USUAL_AND_NIXOS)
            .only_with(Iommu::Intel, "it is about the parameter of this one")
            .iommu_off("intel_iommu=off")
            .cmdline("vfio.devs=00:05.0")
            .refused("00:05.0", "0000:00:05.0")
            .saying("intel_iommu=on"),
        desktop("with an AMD IOMMU that is off devices are refused, with what to remove")
            .only_with(Iommu::Amd, "it is about the parameter of this one")
            .iommu_off("amd_iommu=off")
            .cmdline("vfio.devs=00:05.0")
            .refused("00:05.0", "0000:00:05.0")
            .saying("amd_iommu=off"),
        desktop("without interrupt remapping devices are bound, with a warning")
            .without_interrupt_remapping()
            .cmdline("vfio.devs=00:05.0")
            .bound("00:05.0", "0000:00:05.0")
            .warning("allow_unsafe_interrupts"),
    ]
}

/// Modules and their options.
fn modules() -> Vec<Scenario> {
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
            .saying("module_blacklist=")
            .qemu_only("the kernel refuses the module"),
        one("without vfio_iommu_type1 in the initrd devices are bound, with a warning")
            .left_out("vfio_iommu_type1")
            .warning("vfio_iommu_type1"),
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
fn variants() -> Vec<Scenario> {
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

/// Devices that come late, and the ways out.
fn trouble() -> Vec<Scenario> {
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
fn program() -> Vec<Scenario> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let mut names: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_device_that_a_scenario_expects_something_of_is_in_its_machine() {
        for scenario in all() {
            let functions = scenario.topology.functions();
            for address in scenario.wanted.iter().filter_map(|wanted| wanted.address.as_ref()) {
                let there = functions.iter().any(|function| function.address == *address);
                assert!(there, "{}: {address}", scenario.name);
            }
        }
    }
}
