//! Each row of the table of remedies, on a machine that it is for.

use nix::errno::Errno;
use vfio_early::host::list;
use vfio_early::remedy::{ROWS, Why};

use crate::fake::{Fake, Fault};
use crate::machine::{Function, GUEST, Line, Machine, desktop};
use crate::outcome::{obstacles, words};

/// What was said, and what has to be in it.
type Cases = Vec<(String, &'static str)>;

fn hold(cases: Cases) {
    for (said, expected) in cases {
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
    }
}

/// What is said of the device after a run with that command line, which is the boot's, too.
fn said_of(address: &str, machine: Machine, text: &str) -> String {
    said_after(address, &mut machine.command_line(text).boot(), text)
}

fn said_after(address: &str, fake: &mut Fake, text: &str) -> String {
    let report = fake.bind(&format!("vfio.devs={address} vfio.console=release {text}"));
    let texts = [words(&report, address), obstacles(&report, address), report.warnings.join("; ")];
    texts.join("; ")
}

const CARD: &str = "0000:00:14.0";
const INTEL: &str = "vendor_id\t: GenuineIntel\nflags\t\t: fpu lm\n";
const AMD: &str = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu lm\n";
const DMAR: Option<&str> = Some("DMAR");
const IVRS: Option<&str> = Some("IVRS");

/// `features_show()` of `drivers/xen/sys-hypervisor.c` on a host of Xen 4.17.
const XEN_HOST: &str = "00000000000008f5\n";
const XEN_GUEST: &str = "00000000000007f5\n";

const NO_INTEL: &str = "# CONFIG_INTEL_IOMMU is not set\nCONFIG_AMD_IOMMU=y\n";
const NO_AMD: &str = "CONFIG_INTEL_IOMMU=y\nCONFIG_AMD_IOMMU_V2=m\n";

/// Of the group of [`CARD`].
const REGIONS: (&str, &str) = (
    "sys/kernel/iommu_groups/20/reserved_regions",
    "0x000000007d800000 0x000000007fffffff direct\n",
);

const BOOTFB: &str = "81000000-81ffffff : 0000:00:02.0\n  81000000-812fffff : BOOTFB\n";

/// Without a group for want of an IOMMU.
fn no_iommu(table: Option<&'static str>) -> Machine {
    desktop().without_iommu(table)
}

fn without_a_group() -> Cases {
    let mut cases = Cases::new();
    let xen = |table, features| {
        let machine = no_iommu(table).file("sys/hypervisor/type", "xen\n");
        machine.file("sys/hypervisor/properties/features", features)
    };
    let elsewhere = |path, text| no_iommu(None).file(path, text);
    let config = |table, text| no_iommu(table).file("boot/config-6.1.0-fake-amd64", text);
    for (machine, text, expected) in [
        (no_iommu(None).file("run/systemd/container", "lxc"), "", "on the host itself"),
        (no_iommu(None).file(".dockerenv", ""), "", "on the host itself"),
        (xen(None, XEN_HOST), "", "boot without Xen"),
        // Where it hides no table.
        (xen(IVRS, XEN_HOST), "", "boot without Xen"),
        (xen(None, XEN_GUEST).file("proc/cpuinfo", INTEL), "", "this is a guest"),
        (no_iommu(DMAR), "intel_iommu=off", "remove intel_iommu=off"),
        (no_iommu(DMAR), "intel_iommu=on intel_iommu=off", "remove intel_iommu=off"),
        (no_iommu(IVRS), "amd_iommu=off", "remove amd_iommu=off"),
        (no_iommu(DMAR), "iommu=off intel_iommu=on", "remove iommu=off"),
        (no_iommu(IVRS), "iommu=soft,off", "remove iommu=off"),
        (config(DMAR, NO_INTEL), "intel_iommu=on", "a kernel with CONFIG_INTEL_IOMMU"),
        (config(IVRS, NO_AMD), "", "a kernel with CONFIG_AMD_IOMMU"),
        (config(IVRS, NO_INTEL), "", "the kernel log tells"),
        (no_iommu(DMAR), "intel_iommu=on,igfx_off", "in spite of intel_iommu=on; the kernel log"),
        (no_iommu(DMAR), "intel_iommu=off intel_iommu=on", "in spite of intel_iommu=on"),
        (no_iommu(DMAR), "intel_iommu=strict", "add intel_iommu=on"),
        (no_iommu(DMAR), "", "add intel_iommu=on"),
        (no_iommu(IVRS), "amd_iommu=on", "the kernel log tells"),
        (no_iommu(None).file("proc/cpuinfo", GUEST), "", "this is a guest"),
        (no_iommu(None).file("proc/cpuinfo", INTEL), "", "has no DMAR table; turn on VT-d"),
        (no_iommu(None).file("proc/cpuinfo", AMD), "", "has no IVRS table; turn on AMD-Vi"),
        (
            elsewhere("sys/bus/platform/devices/smmu/modalias", "platform:arm-smmu-v3\n"),
            "",
            "no driver of this kernel has it; boot a kernel with its driver",
        ),
        (
            elsewhere("sys/firmware/acpi/tables/VIOT", "VIOT"),
            "",
            "has a virtio-iommu, but no driver for it is here; add virtio_iommu",
        ),
        (
            elsewhere("sys/firmware/acpi/tables/GTDT", "GTDT"),
            "",
            "neither ACPI nor the device tree shows one (on Arm an SMMU); turn it on",
        ),
        (no_iommu(None), "", "neither a DMAR (Intel) nor an IVRS (AMD) table; turn on"),
        (no_iommu(DMAR), "vfio.enable_unsafe_noiommu_mode=1", "no VM can have a device by it"),
    ] {
        let said = said_of(CARD, machine, text);
        let unsafe_mode = text.contains("noiommu");
        assert_eq!(said.contains("enable_unsafe_noiommu_mode"), unsafe_mode, "{text:?}: {said}");
        cases.push((said, expected));
    }
    cases
}

#[test]
fn a_device_without_a_group_is_told_why_on_this_machine() {
    hold(without_a_group());
}

fn of_another_boot() -> Cases {
    let mut cases = Cases::new();
    for (booted, text, expected) in [
        ("intel_iommu=off", "intel_iommu=on", "boot with this one"),
        ("", "intel_iommu=on", "boot with this one"),
        ("intel_iommu=off", "intel_iommu=off quiet", "remove intel_iommu=off"),
    ] {
        let mut fake = no_iommu(DMAR).command_line(booted).boot();
        let said = said_after(CARD, &mut fake, text);
        cases.push((said, expected));
    }
    cases
}

#[test]
fn a_command_line_of_another_boot_is_not_blamed_for_this_one() {
    hold(of_another_boot());
}

/// The processor's own graphics, that the kernel leaves out of a working IOMMU.
fn left_out(id: &str, class: u32) -> Machine {
    Machine::new([Function::new(CARD, id, class).group(None)])
}

fn left_out_of_it() -> Cases {
    let mut cases = Cases::new();
    let arm = desktop().with_smmu().line(Line::V6_1).boot();
    let list = list::list(&arm.sysfs(), &[]).expect("the PCI bus can be read");
    let Why { reason, remedy } = list.no_group.expect("nothing has a group yet");
    cases.push((format!("{reason}; {remedy}"), "when a driver is first probed"));
    for (id, class, text, expected) in [
        ("8086:3e92", 0x03_0000, "intel_iommu=on,igfx_off", "remove igfx_off"),
        ("8086:3e92", 0x03_0000, "", "add intel_iommu=on"),
        ("8086:3e92", 0x03_0000, "intel_iommu=on", "the kernel log tells of what it leaves out"),
        ("8086:15b8", 0x02_0000, "intel_iommu=igfx_off", "the kernel log tells of what"),
        ("10de:1c03", 0x03_0000, "", "the kernel log tells of what it leaves out"),
    ] {
        let said = said_of(CARD, left_out(id, class), text);
        cases.push((said, expected));
    }
    cases
}

#[test]
fn a_device_that_is_left_out_is_told_why_on_this_machine() {
    hold(left_out_of_it());
}

fn interrupts() -> Cases {
    let mut cases = Cases::new();
    let machine = |files: &[(&'static str, &'static str)]| {
        let machine = Machine { remapping: Some(false), ..desktop() };
        files.iter().fold(machine, |machine, (path, text)| machine.file(path, text))
    };
    let guest = [("proc/cpuinfo", GUEST)];
    let mut arm = desktop().with_smmu().boot();
    arm.tree.write("proc/interrupts", " 11:  764 GIC-0  27 Level     arch_timer\n");
    cases
        .push((said_after(CARD, &mut arm, ""), "cannot keep the interrupts of devices apart here"));
    for (files, text, expected) in [
        (&[][..], "", "turn interrupt remapping on in the firmware"),
        (&[], "intremap=nosid", "turn interrupt remapping on in the firmware"),
        (&[], "intremap=off", "remove intremap=off"),
        (&guest, "nointremap", "remove intremap=off (or nointremap)"),
        (&guest, "", "have this guest's IOMMU remap them"),
    ] {
        let said = said_of(CARD, machine(files), text);
        cases.push((said, expected));
    }
    cases
}

#[test]
fn interrupts_that_are_not_remapped_are_blamed_on_who_keeps_them() {
    hold(interrupts());
}

fn firmware_memory() -> Cases {
    let mut cases = Cases::new();
    for (vendor, expected) in [
        ("HPE\n", "HPE's shared memory"),
        ("HP\n", "HPE's shared memory"),
        ("Dell Inc.\n", "look in the firmware's settings"),
    ] {
        let machine =
            desktop().file(REGIONS.0, REGIONS.1).file("sys/class/dmi/id/sys_vendor", vendor);
        let said = said_of(CARD, machine, "");
        cases.push((said, expected));
    }
    cases
}

#[test]
fn memory_of_the_firmware_is_a_matter_of_who_made_it() {
    hold(firmware_memory());
}

fn framebuffers() -> Cases {
    let mut cases = Cases::new();
    for (text, expected) in [
        ("", "add initcall_blacklist=sysfb_init"),
        ("initcall_blacklist=other_init", "add initcall_blacklist=sysfb_init"),
        ("initcall_blacklist=a,sysfb_init", "in spite of initcall_blacklist=sysfb_init"),
    ] {
        let display = Function::new("0000:00:02.0", "8086:5912", 0x03_8000);
        let machine = Machine::new([display]).file("proc/iomem", BOOTFB);
        let said = said_of("0000:00:02.0", machine, text);
        cases.push((said, expected));
    }
    cases
}

#[test]
fn a_framebuffer_that_is_kept_is_not_told_to_go_where_it_was_told() {
    hold(framebuffers());
}

/// QAT and DSA, by `include/linux/pci_ids.h`.
fn refused() -> Cases {
    let mut cases = Cases::new();
    for (id, text, expected) in [
        ("8086:37c8", "", "add vfio-pci.disable_denylist=1"),
        ("8086:0b25", "", "add vfio-pci.disable_denylist=1"),
        ("8086:37c8", "vfio-pci.disable-denylist=1", "without cache coherency"),
        ("1af4:37c8", "", "without cache coherency"),
    ] {
        let function = Function::new(CARD, id, 0x0b_4000).refused_with(Errno::EINVAL);
        let said = said_of(CARD, Machine::new([function]), text);
        cases.push((said, expected));
    }
    cases
}

#[test]
fn what_vfio_pci_refuses_by_its_list_is_told_from_the_rest() {
    hold(refused());
}

fn modules() -> Cases {
    let mut cases = Cases::new();
    let fails = |errno| Some(Fault::InsertFails { module: "vfio_pci".to_owned(), errno });
    for (left_out, fault, text, expected) in [
        (None, fails(Errno::EPERM), "module_blacklist=vfio_pci", "take it off module_blacklist="),
        (None, fails(Errno::EPERM), "module_blacklist=vfio", "EPERM), as lockdown does; see the"),
        (None, fails(Errno::ENOEXEC), "", "see the kernel log"),
        (
            Some("vfio-pci"),
            None,
            "",
            "vfio-pci is not in this initrd; add it to the initrd, and vfio_iommu",
        ),
        (
            Some("vfio_iommu_type1"),
            None,
            "",
            "vfio_iommu_type1 is not in this initrd; add it to the initrd",
        ),
    ] {
        let mut machine = desktop().command_line(text);
        machine.left_out.extend(left_out.map(str::to_owned));
        let mut fake = machine.boot();
        if let Some(fault) = fault {
            fake.fault(fault);
        }
        let said = said_after(CARD, &mut fake, text);
        cases.push((said, expected));
    }
    cases
}

#[test]
fn a_module_that_is_not_to_be_had_is_told_from_one_that_fails() {
    hold(modules());
}

fn read_only() -> Cases {
    let mut cases = Cases::new();
    for (machine, expected) in [
        (desktop(), "/sys must be writable, and vfio-early run as root"),
        (
            desktop().file("run/.containerenv", ""),
            "this is a container: run vfio-early on the host",
        ),
    ] {
        let mut fake = machine.boot();
        fake.fault(Fault::ReadOnly);
        let said = said_after(CARD, &mut fake, "");
        cases.push((said, expected));
    }
    cases
}

#[test]
fn what_cannot_be_written_is_a_matter_of_where_this_runs() {
    hold(read_only());
}

#[test]
fn every_row_of_the_table_is_seen_on_some_machine() {
    let all = [
        without_a_group(),
        of_another_boot(),
        left_out_of_it(),
        interrupts(),
        firmware_memory(),
        framebuffers(),
        refused(),
        modules(),
        read_only(),
    ];
    for row in &ROWS {
        let is_it =
            |(said, _): &&(String, &str)| said.contains(&format!("{}; {}", row.reason, row.remedy));
        assert!(all.iter().flatten().any(|case| is_it(&case)), "no test sees {row:#?}");
    }
}
