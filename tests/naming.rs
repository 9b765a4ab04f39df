//! How items name devices: addresses, slots, paths, ids, groups, guards.

use crate::machine::{Function, Machine, desktop};
use crate::outcome::{assert_says, device, obstacles, outcomes, words};

#[test]
fn a_guard_that_does_not_match_leaves_the_device_alone() {
    let mut fake = desktop().boot();
    let before = fake.tree.everything();
    let report = fake.bind("vfio.devs=8086:15b8@02:00.0");
    assert_eq!(outcomes(&report), ["0000:02:00.0 refused"]);
    assert_says(&words(&report, "0000:02:00.0"), &["8086:15b8", "144d:a808", "0000:00:19.0"]);
    assert_eq!(fake.take_lines(), [""; 0]);
    assert_eq!(fake.tree.everything(), before);
}

#[test]
fn a_guard_whose_place_is_empty_says_where_its_device_is_now() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=8086:15b8@00:1a.0,10de:1c04@05:00.0");
    assert_eq!(outcomes(&report), ["8086:15b8@00:1a.0 absent", "10de:1c04@05:00.0 absent"]);
    assert_says(&words(&report, "8086:15b8@00:1a.0"), &["0000:00:19.0"]);
    assert_says(&words(&report, "10de:1c04@05:00.0"), &["10de:1c04 is nowhere"]);
}

#[test]
fn a_guard_on_a_slot_is_held_against_its_lowest_function() {
    for (items, expected) in [
        ("10de:1c03@01:00.*", ["0000:01:00.0 bound", "0000:01:00.1 bound"]),
        ("10de:10f1@01:00.*", ["0000:01:00.0 refused", "0000:01:00.1 refused"]),
        ("group:10de:1c03@01:00.0", ["0000:01:00.0 bound", "0000:01:00.1 bound"]),
        ("group:10de:1c03@01:00.1", ["0000:01:00.0 refused", "0000:01:00.1 refused"]),
    ] {
        let report = desktop().boot().bind(&format!("vfio.devs={items}"));
        assert_eq!(outcomes(&report), expected, "{items}");
    }
}

#[test]
fn a_guard_may_name_the_subsystem() {
    let mut card = Function::new("0000:00:03.0", "10de:1c03", 0x03_0000);
    card.subsystem = (0x1462, 0x3282);
    for (guard, expected) in [
        ("10de:1c03:1462:3282", "bound"),
        ("10de:0:1462:0", "bound"),
        ("10de:1c03:1462:3283", "refused"),
    ] {
        let report =
            Machine::new([card.clone()]).boot().bind(&format!("vfio.devs={guard}@00:03.0"));
        assert_eq!(outcomes(&report), [format!("0000:00:03.0 {expected}")], "{guard}");
        if expected == "refused" {
            let said = words(&report, "0000:00:03.0");
            let both =
                "the guard wants 10de:1c03:1462:3283, but 0000:00:03.0 is 10de:1c03:1462:3282";
            assert_says(&said, &[both, "10de:1c03:1462:3283 is nowhere on this machine"]);
        }
    }
}

/// A switch with two cards below it, three bridges deep.
fn switch() -> Machine {
    let port = Function::new("0000:00:01.0", "8086:1901", 0x06_0400).built_in("pcieport");
    let up = Function::new("0000:01:00.0", "1b36:000f", 0x06_0400).below(&port);
    let left = Function::new("0000:02:00.0", "104c:8233", 0x06_0400).below(&up);
    let right = Function::new("0000:02:01.0", "104c:8233", 0x06_0400).below(&up);
    let card = Function::new("0000:03:00.0", "10de:1c03", 0x03_0000).below(&left).group(20);
    let audio = Function::new("0000:03:00.1", "10de:10f1", 0x04_0300).below(&left).group(20);
    let disk = Function::new("0000:04:00.0", "144d:a808", 0x01_0802).below(&right).group(21);
    Machine::new([port, up, left, right, card, audio, disk])
}

#[test]
fn a_path_goes_down_several_bridges() {
    for (item, expected) in [
        ("00:01.0/00.0/00.0/00.0", &["0000:03:00.0 bound"][..]),
        ("00:01.0/00.0/00.0/00.*", &["0000:03:00.0 bound", "0000:03:00.1 bound"]),
        ("144d:a808@00:01.0/00.0/01.0/00.0", &["0000:04:00.0 bound"]),
        ("0:0:1.0/0.0/1.0/0.0", &["0000:04:00.0 bound"]),
        // A path may start in the middle, where buses have been numbered.
        ("01:00.0/01.0/00.0", &["0000:04:00.0 bound"]),
        ("group:00:01.0/00.0/00.0/00.1", &["0000:03:00.0 bound", "0000:03:00.1 bound"]),
        ("00:01.0/00.0/01.0", &["0000:02:01.0 refused"]),
        ("00:01.0/00.0/02.0/00.0", &["00:01.0/00.0/02.0/00.0 absent"]),
        ("00:01.0/00.0/00.0/00.0/00.0", &["00:01.0/00.0/00.0/00.0/00.0 absent"]),
        ("02:00.0/00.0/01.0", &["02:00.0/00.0/01.0 absent"]),
    ] {
        let report = switch().boot().bind(&format!("vfio.devs={item}"));
        assert_eq!(outcomes(&report), expected, "{item}");
    }
}

#[test]
fn what_is_behind_a_vmd_is_found_in_its_long_domain_and_left_to_the_host() {
    let vmd = Function::new("0000:00:0e.0", "8086:467f", 0x01_0400).built_in("vmd");
    let folder = "pci0000:00/0000:00:0e.0/pci10000:e0";
    let port = Function::new("10000:e0:06.0", "8086:464d", 0x06_0400).in_folder(folder);
    let disk = Function::new("10000:e1:00.0", "144d:a808", 0x01_0802).below(&port).host("nvme");
    let machine = Machine::new([vmd, port.group(14), disk.group(14)]);
    for item in ["10000:e1:00.0", "10000:e0:06.0/00.0", "pci:144d:a808", "00010000:E1:0.0"] {
        let mut fake = machine.boot();
        fake.load("nvme");
        let report = fake.bind(&format!("vfio.devs={item}"));
        assert_eq!(outcomes(&report), ["10000:e1:00.0 refused"], "{item}");
        assert_says(
            &words(&report, "10000:e1:00.0"),
            &["behind 0000:00:0e.0", "only while vmd has that", "turn VMD off in the firmware"],
        );
        assert_eq!(fake.take_lines(), [""; 0], "{item}");
    }
    // As a whole it can be given away.
    for items in ["00:0e.0", "00:0e.0,10000:e1:00.0"] {
        let mut fake = machine.boot();
        fake.load("nvme");
        let report = fake.bind(&format!("vfio.devs={items}"));
        assert_eq!(outcomes(&report)[0], "0000:00:0e.0 bound", "{items}");
        assert_eq!(obstacles(&report, "0000:00:0e.0"), "", "what is behind it goes with vmd");
        assert_eq!(words(&report, "0000:00:0e.0").matches("also has").count(), 0, "{items}");
    }
    let report = machine.boot().bind("vfio.devs=e1:00.0");
    assert_eq!(outcomes(&report), ["e1:00.0 absent"], "that is another domain");
}

#[test]
fn virtual_functions_are_taken_without_their_parent() {
    let parent = Function::new("0000:01:00.0", "8086:1572", 0x02_0000).group(10).host("i40e");
    let one = Function::new("0000:01:02.0", "8086:154c", 0x02_0000).group(11).host("iavf");
    let two = Function::new("0000:01:02.1", "8086:154c", 0x02_0000).group(12).host("iavf");
    let mut fake = Machine::new([parent, one, two]).boot();
    fake.load("i40e");
    fake.load("iavf");
    let report = fake.bind("vfio.devs=01:02.1,pci:8086:1572:0:0");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:02.1 bound"]);
    let report = fake.bind("vfio.devs=pci:8086:154c");
    assert_eq!(outcomes(&report), ["0000:01:02.0 bound", "0000:01:02.1 bound"]);
}

#[test]
fn a_device_that_is_listed_twice_is_written_to_once() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=00:14.0,0000:00:14.0,pci:8086:a12f,00:14.*,group:00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    assert_eq!(device(&report, "0000:00:14.0").item, "00:14.0");
    let lines = fake.take_lines();
    let overrides = lines.iter().filter(|line| line.contains("driver_override")).count();
    assert_eq!(overrides, 1, "{lines:#?}");
}

#[test]
fn of_two_items_for_one_device_the_one_that_refuses_it_wins() {
    for items in ["00:14.0,8086:ffff@00:14.0", "8086:ffff@00:14.0,00:14.0"] {
        let mut fake = desktop().boot();
        let report = fake.bind(&format!("vfio.devs={items}"));
        assert_eq!(outcomes(&report), ["0000:00:14.0 refused"], "{items}");
        assert_says(&words(&report, "0000:00:14.0"), &["8086:ffff"]);
        assert_eq!(device(&report, "0000:00:14.0").item, "8086:ffff@00:14.0");
        assert_eq!(fake.take_lines(), [""; 0], "{items}");
    }
}

#[test]
fn a_storage_or_network_controller_without_a_guard_gets_the_item_to_paste() {
    let hinted = |items: &str, address: &str| {
        let report = desktop().boot().bind(&format!("vfio.devs={items}"));
        words(&report, address)
    };
    assert_says(&hinted("00:19.0", "0000:00:19.0"), &["8086:15b8@0000:00:19.0"]);
    assert_says(&hinted("02:00.*", "0000:02:00.0"), &["144d:a808@0000:02:00.0"]);
    for (items, address) in [
        ("8086:15b8@00:19.0", "0000:00:19.0"),
        ("pci:8086:15b8", "0000:00:19.0"),
        // One guard is enough.
        ("00:19.0,8086:15b8@00:19.0", "0000:00:19.0"),
        ("8086:15b8@00:19.0,00:19.0", "0000:00:19.0"),
        ("00:14.0", "0000:00:14.0"),
    ] {
        assert_eq!(hinted(items, address), "", "{items}");
    }
}

#[test]
fn every_function_of_a_full_slot_is_taken_by_one_item() {
    let functions = (0..8).map(|function| {
        Function::new(&format!("0000:00:0a.{function}"), "1234:11e8", 0x00_ff00).group(10)
    });
    let report = Machine::new(functions).boot().bind("vfio.devs=00:0a.*");
    let expected: Vec<_> = (0..8).map(|function| format!("0000:00:0a.{function} bound")).collect();
    assert_eq!(outcomes(&report), expected);
    assert_eq!(words(&report, "0000:00:0a.0"), "", "all members of the group are asked for");
}

#[test]
fn the_driver_that_is_asked_for_by_name_is_the_one_that_is_taken() {
    use crate::fake::modules::Module;

    let variant = Module::new("mlx5_vfio_pci", &["vfio_pci_core"]).driver("mlx5_vfio_pci").vfio();
    let mut fake = desktop().module(variant).boot();
    let report = fake.bind("vfio.devs=00:14.0 vfio.driver=mlx5_vfio_pci");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    assert_eq!(fake.driver("0000:00:14.0").as_deref(), Some("mlx5_vfio_pci"));
    let report = desktop().boot().bind("vfio.devs=00:14.0 vfio.driver=no-such-driver");
    assert_eq!(outcomes(&report), ["0000:00:14.0 failed"]);
    assert_says(&words(&report, "0000:00:14.0"), &["no-such-driver is not in this initrd"]);
}
