//! IOMMUs that are neither Intel's nor AMD's: what device tree, IORT or VIOT tell of gets its group,
//! before Linux 6.15, when a driver is first probed for it.

use nix::errno::Errno;
use vfio_early::report::Report;

use crate::check;
use crate::fake::{Fake, Fault};
use crate::list::at_80;
use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::{assert_says, device, group, obstacles, outcomes, words};
use crate::verdict::status_of;

const CARD: &str = "0000:01:00.0";
const SOUND: &str = "0000:01:00.1";

/// Lines on which groups come late.
const LATE: [Line; 3] = [Line::V5_10, Line::V6_1, Line::V6_12];

/// An Arm workstation: the desktop's devices behind an SMMU.
fn arm(line: Line) -> Machine {
    desktop().line(line).with_smmu()
}

fn numbers(report: &Report) -> Vec<Option<u32>> {
    report.devices.iter().map(|device| device.group).collect()
}

#[test]
fn a_device_without_a_group_yet_is_bound_and_its_group_read_then() {
    for line in Line::ALL {
        let mut fake = arm(line).boot();
        let foreseen = check::words(&mut fake, "vfio.devs=00:14.0,8086:15b8@00:19.0").join(" ");
        assert_says(&foreseen, &["0000:00:14.0 8086:a12f: would be bound to vfio-pci"]);
        let report = fake.bind("vfio.devs=00:14.0,8086:15b8@00:19.0");
        assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:00:19.0 bound"], "{line:?}");
        assert_eq!(numbers(&report), [Some(0x14), Some(0x19)], "{line:?}");
        assert_eq!(group(&report, "0000:00:14.0").viable, Some(true), "{line:?}");
        assert!(report.devices.iter().all(|device| device.warnings.is_empty()), "{report:#?}");
        assert_eq!(report.warnings, [""; 0], "{line:?}");
        assert!(report.lines().iter().any(|(_, line)| line.ends_with("vfio-pci, group 20")));
        let before = fake.tree.everything();
        assert_eq!(numbers(&fake.bind("vfio.devs=00:14.0,00:19.0")), [Some(0x14), Some(0x19)]);
        assert_eq!(fake.tree.everything(), before, "{line:?}: once more changes nothing");
    }
}

#[test]
fn whole_slots_ids_and_displays_are_no_exception() {
    for line in Line::ALL {
        for text in ["01:00.*", "pci:10de:1c03,pci:10de:10f1", "00:01.0/00.*", "01:00.0,01:00.1"] {
            let report = arm(line).boot().bind(&format!("vfio.devs={text}"));
            assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"], "{text}");
            assert_eq!(numbers(&report), [Some(2), Some(2)], "{text} on {line:?}");
            assert_eq!(words(&report, CARD), "", "{text} on {line:?}");
        }
    }
}

#[test]
fn what_has_no_group_after_the_probe_either_has_failed_for_that() {
    for line in LATE {
        let apart = Function::new("0000:00:05.0", "1234:11e8", 0x00_ff00).group(None);
        let other = Function::new("0000:00:14.0", "8086:a12f", 0x0c_0330);
        let machine = Machine::new([apart, other]).line(line).with_smmu();
        let report = machine.boot().bind("vfio.devs=00:05.0,00:14.0");
        assert_eq!(outcomes(&report), ["0000:00:05.0 failed", "0000:00:14.0 bound"], "{line:?}");
        if line > Line::V5_10 {
            let said = words(&report, "0000:00:05.0");
            assert_says(&said, &["no IOMMU group, not after this probe either", "IORT", "VIOT"]);
        }
    }
    let apart = Function::new("0000:00:05.0", "1234:11e8", 0x00_ff00).group(None);
    let mut fake = Machine::new([apart]).line(Line::V7_2).with_smmu().boot();
    let before = fake.tree.everything();
    assert_eq!(outcomes(&fake.bind("vfio.devs=00:05.0")), ["0000:00:05.0 refused"]);
    assert_eq!(fake.tree.everything(), before, "there it is known before");
}

#[test]
fn a_sibling_that_may_turn_out_to_be_in_the_group_is_named() {
    for line in LATE {
        let mut fake = arm(line).boot();
        let text = "vfio.devs=01:00.0,00:14.0";
        let foreseen = check::words(&mut fake, text).join(" ");
        assert_says(&foreseen, &["may also have 0000:01:00.1 10de:10f1"]);
        let report = fake.bind(text);
        assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:01:00.0 bound"], "{line:?}");
        assert_eq!(words(&report, "0000:00:14.0"), "", "nothing is in its slot: {line:?}");
        let said = words(&report, CARD);
        assert_says(&said, &["may also have 0000:01:00.1 10de:10f1", "vfio-early list"]);
        assert!(!said.contains("0000:00:01.0"), "the port is no stranger: {said}");
        let status = status_of(&fake, &report);
        assert_eq!(status.exit_status, 0, "{line:?}: {status}");
        // udev; then the unit that finishes has a look, and its exit status is that of `status`.
        fake.load("snd_hda_intel");
        let status = status_of(&fake, &report);
        assert_eq!(status.exit_status, 4, "{line:?}: {status}");
        let said = "is not viable: snd_hda_intel has 0000:01:00.1 10de:10f1";
        assert_says(&status.to_string(), &[CARD, said]);
        let report = fake.bind(text);
        assert_eq!(words(&report, CARD), "", "{line:?}");
        let said = obstacles(&report, CARD);
        assert_says(&said, &["group 2 is not viable: snd_hda_intel has 0000:01:00.1 10de:10f1"]);
        assert_eq!(group(&report, CARD).viable, Some(false), "{line:?}");
    }
    let report = arm(Line::V7_2).boot().bind("vfio.devs=01:00.0");
    assert_says(&words(&report, CARD), &["group 2 also has 0000:01:00.1 10de:10f1"]);
}

#[test]
fn what_is_below_the_same_port_may_be_in_the_group_and_what_is_not_may_not() {
    let port = Function::new("0000:00:02.0", "1b36:000c", 0x06_0400).built_in("pcieport");
    let switch = Function::new("0000:01:00.0", "104c:8232", 0x06_0400).below(&port).group(2);
    let card = Function::new("0000:02:00.0", "8086:10d3", 0x02_0000).below(&switch).group(2);
    let near = Function::new("0000:02:01.0", "1b36:0010", 0x01_0802).below(&switch).group(2);
    let far = Function::new("0000:00:03.0", "1b36:0010", 0x01_0802);
    let machine = Machine::new([port, switch, card, near, far]).with_smmu();
    for text in ["8086:10d3@02:00.0", "pci:8086:10d3"] {
        let report = machine.boot().bind(&format!("vfio.devs={text}"));
        let said = words(&report, "0000:02:00.0");
        assert_says(&said, &["may also have 0000:02:01.0 1b36:0010, which"]);
    }
}

#[test]
fn a_group_item_means_what_is_known_and_the_next_bind_takes_the_rest() {
    for line in LATE {
        let mut fake = arm(line).boot();
        let report = fake.bind("vfio.devs=group:01:00.0");
        assert_eq!(outcomes(&report), ["0000:01:00.0 bound"], "{line:?}");
        let said = words(&report, CARD);
        assert_says(&said, &["may also have 0000:01:00.1", "run vfio-early bind then"]);
        fake.load("snd_hda_intel");
        let report = fake.bind("vfio.devs=group:01:00.0");
        assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"], "{line:?}");
        assert_eq!(device(&report, SOUND).driver_before.as_deref(), Some("snd_hda_intel"));
        assert_eq!(words(&report, CARD), "", "{line:?}");
    }
    let report = arm(Line::V7_2).boot().bind("vfio.devs=group:01:00.0");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"]);
}

#[test]
fn a_group_item_takes_along_what_the_first_probe_shows_in_the_group() {
    for line in LATE {
        let card = Function::new("0000:00:03.0", "10de:1c03", 0x03_0200).host("nouveau");
        let sound = Function::new("0000:00:03.1", "10de:10f1", 0x04_0300);
        let machine = Machine::new([card, sound.built_in("snd_hda_intel")]).line(line).with_smmu();
        let mut fake = machine.boot();
        let report = fake.bind("vfio.devs=group:00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 bound", "0000:00:03.1 bound"], "{line:?}");
        assert_eq!(device(&report, "0000:00:03.0").driver_before, None, "{line:?}");
        let sound = device(&report, "0000:00:03.1");
        assert_eq!(sound.driver_before.as_deref(), Some("snd_hda_intel"), "{line:?}");
        assert_eq!(group(&report, "0000:00:03.0").viable, Some(true), "{line:?}");
    }
}

#[test]
fn nobody_waits_for_a_group_that_only_a_probe_makes() {
    for line in LATE {
        let mut fake = arm(line).boot();
        fake.unrelated_uevents(3);
        let report = fake.bind("vfio.devs=00:14.0 vfio.wait=10");
        assert_eq!(outcomes(&report), ["0000:00:14.0 bound"], "{line:?}");
        assert_eq!(fake.waits, [], "{line:?}");
    }
}

/// A guest with a virtio-iommu, of which virtio-pci has the device.
fn guest(line: Line) -> Machine {
    let iommu = Function::new("0000:00:02.0", "1af4:1057", 0x00_ff00).group(None);
    let nic = Function::new("0000:00:03.0", "8086:10d3", 0x02_0000).host("e1000e");
    Machine::new([iommu.built_in("virtio-pci"), nic]).line(line).with_virtio_iommu()
}

#[test]
fn the_driver_of_a_virtio_iommu_is_loaded_after_the_overrides_and_before_vfio() {
    for line in [Line::V6_12, Line::V7_2] {
        let mut fake = guest(line).boot();
        let foreseen = check::words(&mut fake, "vfio.devs=8086:10d3@00:03.0").join(" ");
        assert_says(&foreseen, &["0000:00:03.0 8086:10d3: would be bound to vfio-pci"]);
        let report = fake.bind("vfio.devs=8086:10d3@00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 bound"], "{line:?}");
        assert_eq!(group(&report, "0000:00:03.0").viable, Some(true), "{line:?}");
        let lines = fake.take_lines();
        assert_eq!(lines[..2], ["0000:00:03.0/driver_override vfio-pci", "load virtio_iommu"]);
        fake.load("e1000e");
        assert_eq!(fake.driver("0000:00:03.0").as_deref(), Some("vfio-pci"), "{line:?}");

        let mut fake = guest(line).boot();
        fake.load("virtio_iommu");
        let report = fake.bind("vfio.devs=8086:10d3@00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 bound"], "{line:?}");
        assert!(!fake.take_lines().contains(&"load virtio_iommu".to_owned()), "{line:?}");
    }
}

#[test]
fn without_the_driver_of_the_virtio_iommu_the_devices_stay_and_it_is_named() {
    for machine in [
        guest(Line::V6_12).left_out("virtio_iommu"),
        guest(Line::V7_2).left_out("virtio_iommu"),
        guest(Line::V6_1),
    ] {
        let mut fake = machine.boot();
        let before = fake.tree.everything();
        let report = fake.bind("vfio.devs=00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 refused"], "{:?}", machine.line);
        let said = words(&report, "0000:00:03.0");
        assert_says(&said, &["virtio-iommu", "add virtio_iommu to the initrd"]);
        assert!(!said.contains("VT-d"), "{said}");
        assert_eq!(fake.tree.everything(), before);
    }
}

#[test]
fn where_the_iommus_driver_does_not_come_the_kernel_binds_the_device_later() {
    for line in [Line::V6_12, Line::V7_2] {
        let mut fake = guest(line).boot();
        fake.fault(Fault::InsertFails { module: "virtio_iommu".into(), errno: Errno::EPERM });
        let report = fake.bind("vfio.devs=00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 failed"], "{line:?}");
        let said = words(&report, "0000:00:03.0");
        assert_says(&said, &["puts its probe off", "virtio_iommu", "by itself"]);
        fake.no_more_faults();
        fake.load("virtio_iommu");
        assert_eq!(fake.driver("0000:00:03.0").as_deref(), Some("vfio-pci"), "{line:?}");
    }
}

#[test]
fn the_virtio_iommu_itself_is_given_to_nobody() {
    for line in [Line::V6_12, Line::V7_2] {
        let mut fake = guest(line).boot();
        fake.load("virtio_iommu");
        let report = fake.bind("vfio.devs=00:02.0,00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 refused", "0000:00:03.0 bound"], "{line:?}");
        assert_says(&words(&report, "0000:00:02.0"), &["it is the IOMMU"]);
        assert_eq!(fake.driver("0000:00:02.0").as_deref(), Some("virtio-pci"), "{line:?}");
    }
}

/// Without a working IOMMU, and with these files below `/sys` beside it.
fn without_iommu(machine: Machine, table: Option<&'static str>, files: &[(&str, &str)]) -> Fake {
    let fake = machine.without_iommu(table).boot();
    for (path, content) in files {
        fake.tree.write(&format!("sys/{path}"), content);
    }
    fake
}

#[test]
fn why_there_is_no_iommu_is_said_in_the_machines_own_words() {
    let alias = "bus/platform/devices/9050000.smmuv3/modalias";
    let smmu: &[_] = &[(alias, "of:Nsmmuv3T(null)Carm,smmu-v3\n")];
    let named: &[_] = &[
        ("firmware/acpi/tables/GTDT", "GTDT"),
        ("bus/platform/devices/arm-smmu-v3.0.auto/modalias", "platform:arm-smmu-v3\n"),
    ];
    let counters: &[_] = &[
        ("firmware/acpi/tables/GTDT", "GTDT"),
        ("bus/platform/devices/arm-smmu-v3-pmcg.3.auto/modalias", "platform:arm-smmu-v3-pmcg\n"),
    ];
    let older: &[_] =
        &[("bus/platform/devices/fd800000.iommu/modalias", "of:NiommuT(null)Carm,mmu-500\n")];
    let arm: &[_] = &[("firmware/acpi/tables/GTDT", "GTDT")];
    for (what, table, files, said, not) in [
        (
            "an SMMU of a device tree without a driver",
            None,
            smmu,
            "no driver of this kernel",
            "VT-d",
        ),
        ("an older one", None, older, "no driver of this kernel", "VT-d"),
        ("one of IORT without a driver", Some("IORT"), named, "CONFIG_ARM_SMMU_V3", "DMAR"),
        ("IORT for an ITS alone", Some("IORT"), arm, "neither ACPI nor the device tree", "VT-d"),
        ("an SMMU's counters alone", Some("IORT"), counters, "neither ACPI nor", "VT-d"),
        ("a virtio-iommu without a driver", Some("VIOT"), &[], "add virtio_iommu", "VT-d"),
        ("an x86 machine without any", None, &[], "neither a DMAR (Intel) nor an IVRS", "SMMU"),
    ] {
        let mut fake = without_iommu(desktop(), table, files);
        let before = fake.tree.everything();
        let report = fake.bind("vfio.devs=00:14.0,group:01:00.0");
        let refused = ["0000:00:14.0 refused", "0000:01:00.0 refused"];
        assert_eq!(outcomes(&report), refused, "{what}");
        let words = words(&report, "0000:00:14.0");
        assert!(words.contains(said) && !words.contains(not), "{what}: {words}");
        assert_eq!(fake.tree.everything(), before, "{what}");
        let (_, list, _) = at_80(&fake, &["usb"]);
        assert!(list.contains("Not for a VM:"), "{what}: {list}");
    }
}

#[test]
fn interrupts_that_cannot_be_kept_apart_are_no_matter_of_the_firmware() {
    let gic2 = " 11:  764 GIC-0  27 Level     arch_timer\n";
    let gic3 = " 11:  738     GICv3  27 Level     arch_timer\n";
    let its = " 20:    6  ITS-PCI-MSIX-0000:01:00.0   0 Edge      nvme0q0\n";
    for line in Line::ALL {
        for (text, expected) in
            [(gic2.to_owned(), true), (gic3.to_owned(), false), (gic3.to_owned() + its, false)]
        {
            let mut fake = arm(line).boot();
            fake.tree.write("proc/interrupts", &text);
            let report = fake.bind("vfio.devs=00:14.0");
            assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
            let said = obstacles(&report, "0000:00:14.0");
            assert_eq!(said.contains("allow_unsafe_interrupts=1"), expected, "{text}: {said}");
            assert!(!said.contains("firmware"), "{said}");
        }
    }
    let report = guest(Line::V6_12).boot().bind("vfio.devs=8086:10d3@00:03.0");
    let said = obstacles(&report, "0000:00:03.0");
    assert_says(&said, &["cannot keep the interrupts", "unsafe_interrupts=1"]);
    let machine = Machine { remapping: Some(false), ..desktop() };
    let report = machine.boot().bind("vfio.devs=00:14.0");
    let said = obstacles(&report, "0000:00:14.0");
    assert_says(&said, &["turn interrupt remapping on in the firmware"]);
}

#[test]
fn what_has_no_group_yet_is_not_listed_as_lost_to_a_vm() {
    for line in LATE {
        let mut fake = arm(line).boot();
        let (_, list, _) = at_80(&fake, &[]);
        assert!(list.contains("Not known yet: ") && !list.contains("Not for a VM"), "{list}");
        assert!(list.contains("8086:a12f@00:14.0"), "{list}");
        let (_, json, _) = at_80(&fake, &["--json"]);
        assert_says(&json, &["\"groups-at-probe\"", "\"not-yet\""]);
        let (_, _, warned) = at_80(&fake, &["--format", "qemu", "00:14.0"]);
        assert_says(&warned, &["no IOMMU group yet"]);
        fake.load("xhci_hcd");
        let (_, list, _) = at_80(&fake, &["00:14.0"]);
        assert!(list.contains("IOMMU group 20"), "{list}");
    }
}
