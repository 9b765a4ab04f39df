//! IOMMU groups, or none: what a device's neighbours mean for it.

use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::{assert_says, group, obstacles, outcomes, words};

#[test]
fn a_sibling_that_nobody_asked_for_is_named_before_any_driver_has_it() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=01:00.0");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound"]);
    assert_says(&words(&report, "0000:01:00.0"), &["group 2", "0000:01:00.1 10de:10f1"]);
    assert_eq!(report.exit_status, 0);
}

#[test]
fn a_sibling_on_a_host_driver_is_named_with_it() {
    let mut fake = desktop().boot();
    fake.load("snd_hda_intel");
    let report = fake.bind("vfio.devs=01:00.0");
    let said = obstacles(&report, "0000:01:00.0");
    assert_says(&said, &["group 2 is not viable: snd_hda_intel has 0000:01:00.1 10de:10f1"]);
    assert_eq!(words(&report, "0000:01:00.0"), "", "it is no matter of later");
    assert_eq!(group(&report, "0000:01:00.0").viable, Some(false));
}

#[test]
fn siblings_that_are_asked_for_are_no_warning() {
    let report = desktop().boot().bind("vfio.devs=01:00.0,01:00.1");
    assert_eq!(words(&report, "0000:01:00.0"), "");
    assert_eq!(words(&report, "0000:01:00.1"), "");
    assert_eq!(group(&report, "0000:01:00.0").viable, Some(true));
}

#[test]
fn a_sibling_that_was_asked_for_but_refused_is_a_warning() {
    let report = desktop().boot().bind("vfio.devs=01:00.0,ffff:ffff@01:00.1");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 refused"]);
    assert_says(&words(&report, "0000:01:00.0"), &["0000:01:00.1"]);
}

/// One group with the function under test, and one neighbour.
fn with_neighbour(neighbour: Function) -> Machine {
    let port = Function::new("0000:00:01.0", "8086:1901", 0x06_0400).group(1).built_in("pcieport");
    let card = Function::new("0000:01:00.0", "10de:1c03", 0x03_0000).below(&port).group(1);
    Machine::new([port, card, neighbour.group(1)])
}

/// Whether it is a warning, and whether it is in the way.
type Told = (bool, bool);
const WARNED: Told = (true, false);
const IN_THE_WAY: Told = (false, true);
const HARMLESS: Told = (false, false);

#[test]
fn which_neighbours_are_a_warning_depends_on_what_they_are() {
    let neighbour = |id, class| Function::new("0000:00:1f.0", id, class);
    for (what, neighbour, load, expected) in [
        ("a host bridge without a driver", neighbour("8086:591f", 0x06_0000), None, HARMLESS),
        ("an ISA bridge without a driver", neighbour("8086:a145", 0x06_0100), None, HARMLESS),
        (
            "an ISA bridge on a driver",
            neighbour("8086:a145", 0x06_0100).host("lpc_ich"),
            Some("lpc_ich"),
            IN_THE_WAY,
        ),
        ("a PCI bridge without a driver", neighbour("104c:8233", 0x06_0400), None, HARMLESS),
        ("a bus controller", neighbour("8086:a123", 0x0c_0500).host("i801_smbus"), None, WARNED),
        ("a device on pci-stub", neighbour("1:1", 0x0c_0330).built_in("pci-stub"), None, HARMLESS),
    ] {
        let mut fake = with_neighbour(neighbour).boot();
        if let Some(module) = load {
            fake.load(module);
        }
        let report = fake.bind("vfio.devs=01:00.0");
        assert_eq!(outcomes(&report), ["0000:01:00.0 bound"], "{what}");
        let said = [words(&report, "0000:01:00.0"), obstacles(&report, "0000:01:00.0")];
        let [warned, hindered] = said.each_ref().map(|said| said.contains("0000:00:1f.0"));
        assert_eq!((warned, hindered), expected, "{what}: {said:?}");
        assert!(!said.concat().contains("0000:00:01.0"), "the root port is no stranger: {said:?}");
    }
}

#[test]
fn a_group_item_takes_endpoints_and_leaves_bridges() {
    let audio = Function::new("0000:01:00.1", "10de:10f1", 0x04_0300);
    let report = with_neighbour(audio).boot().bind("vfio.devs=group:01:00.0");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"]);
    assert_eq!(words(&report, "0000:01:00.0"), "");
    // Named by the bridge, it means the same group.
    let audio = Function::new("0000:01:00.1", "10de:10f1", 0x04_0300);
    let report = with_neighbour(audio).boot().bind("vfio.devs=group:00:01.0");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"]);
}

#[test]
fn a_group_of_bridges_alone_is_refused() {
    let report = desktop().boot().bind("vfio.devs=group:00:01.0");
    assert_eq!(outcomes(&report), ["0000:00:01.0 refused"]);
    assert_says(&words(&report, "0000:00:01.0"), &["PCI bridge"]);
}

#[test]
fn without_an_iommu_the_reason_is_worked_out() {
    for (table, texts) in [
        (None, ["VT-d", "AMD-Vi", "SVM"]),
        (Some("DMAR"), ["Intel", "add intel_iommu=on", "has it off"]),
        (Some("IVRS"), ["AMD", "AMD-Vi", "dmesg"]),
    ] {
        for line in Line::ALL {
            let mut fake = desktop().without_iommu(table).line(line).boot();
            let report = fake.bind("vfio.devs=00:14.0,group:01:00.0");
            assert_eq!(outcomes(&report), ["0000:00:14.0 refused", "0000:01:00.0 refused"]);
            assert_says(&words(&report, "0000:00:14.0"), &texts);
            assert_eq!(report.warnings, [""; 0], "interrupts do not matter then");
        }
    }
}

#[test]
fn a_device_that_the_kernel_keeps_out_of_a_working_iommu_is_refused_alone() {
    let graphics = Function::new("0000:00:02.0", "8086:5912", 0x03_0000).group(None);
    let other = Function::new("0000:00:14.0", "8086:a12f", 0x0c_0330);
    let report = Machine::new([graphics, other]).boot().bind("vfio.devs=00:02.0,00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:02.0 refused", "0000:00:14.0 bound"]);
    assert_says(&words(&report, "0000:00:02.0"), &["intel_iommu=on"]);
}

#[test]
fn without_interrupt_remapping_no_vm_can_have_a_device_and_one_line_says_so() {
    for (remapping, expected) in [(Some(false), 1), (Some(true), 0), (None, 0)] {
        let mut machine = desktop();
        machine.remapping = remapping;
        let report = machine.boot().bind("vfio.devs=01:00.*");
        for address in ["0000:01:00.0", "0000:01:00.1"] {
            let said = obstacles(&report, address);
            assert_eq!(said.contains("allow_unsafe_interrupts=1"), expected == 1, "{said}");
        }
        let lines = report.lines();
        let lines: Vec<_> =
            lines.iter().filter(|(_, line)| line.starts_with("no VM can have")).collect();
        assert_eq!(lines.len(), expected, "{remapping:?}: {lines:?}");
        for (level, line) in lines {
            assert_eq!(*level, log::Level::Error);
            assert_says(
                line,
                &["no VM can have 0000:01:00.0 10de:1c03 and 1 more: the kernel does"],
            );
        }
    }
}
