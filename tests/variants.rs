//! Variants of vfio-pci: the one that fits best is taken, and vfio-pci where it fails.

use nix::errno::Errno;

use crate::check;
use crate::fake::Fault;
use crate::fake::modules::Module;
use crate::journal;
use crate::machine::{Function, Line, Machine};
use crate::outcome::{device, outcomes, words};

const CARD: &str = "0000:00:03.0";

/// A card with a variant, whose driver is not named as its module is; one without.
fn machine() -> Machine {
    let card = Function::new(CARD, "8086:4940", 0x0b_4000).host("qat_4xxx");
    let other = Function::new("0000:00:04.0", "1b21:2142", 0x0c_0330);
    let any = Module::variant("any_vfio_pci", "any-vfio-pci", "v00008086d*sv*sd*bc*sc*i*");
    let fitting =
        Module::variant("qat_vfio_pci", "qat-vfio-pci", "v00008086d00004940sv*sd*bc*sc*i*");
    Machine::new([card, other]).line(Line::V6_12).module(any).module(fitting)
}

#[test]
fn the_variant_that_fits_best_is_taken_by_its_drivers_name() {
    for host in [None, Some("qat_4xxx"), Some("vfio-pci"), Some("qat_vfio_pci")] {
        let mut fake = machine().boot();
        if let Some(module) = host {
            fake.load(module);
        }
        journal::start();
        let report = fake.bind("vfio.devs=00:03.0,00:04.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 bound", "0000:00:04.0 bound"], "{host:?}");
        assert_eq!(fake.driver(CARD).as_deref(), Some("qat-vfio-pci"), "{host:?}");
        assert_eq!(fake.driver_override(CARD).as_deref(), Some("qat-vfio-pci"), "{host:?}");
        assert_eq!(fake.driver("0000:00:04.0").as_deref(), Some("vfio-pci"), "{host:?}");
        let said = report.lines();
        assert!(said.iter().any(|(_, line)| line.contains("bound to qat-vfio-pci")), "{said:#?}");
    }
}

#[test]
fn a_second_bind_keeps_the_variant() {
    let mut fake = machine().boot();
    fake.bind("vfio.devs=00:03.0");
    let before = fake.tree.everything();
    let report = fake.bind("vfio.devs=00:03.0");
    assert_eq!(outcomes(&report), ["0000:00:03.0 bound"]);
    assert_eq!(fake.tree.everything(), before);
}

#[test]
fn no_other_driver_gets_the_device_while_its_variant_is_not_known() {
    let mut fake = machine().boot();
    fake.bind("vfio.devs=00:03.0");
    let lines = fake.take_lines();
    assert!(lines[0].starts_with("0000:00:03.0/driver_override "), "{lines:#?}");
    assert!(!lines[0].ends_with(" vfio-pci"), "vfio-pci would take it: {lines:#?}");
}

#[test]
fn a_variant_that_is_asked_away_is_not_taken() {
    let mut fake = machine().boot();
    let report = fake.bind("vfio.devs=00:03.0 vfio.driver=vfio-pci");
    assert_eq!(outcomes(&report), ["0000:00:03.0 bound"]);
    assert_eq!(fake.driver(CARD).as_deref(), Some("vfio-pci"));
}

#[test]
fn a_driver_that_is_asked_for_again_by_its_modules_name_stays() {
    let mut fake = machine().boot();
    let text = "vfio.devs=00:03.0 vfio.driver=qat_vfio_pci";
    assert_eq!(outcomes(&fake.bind(text)), ["0000:00:03.0 bound"]);
    let before = fake.tree.everything();
    assert_eq!(outcomes(&fake.bind(text)), ["0000:00:03.0 bound"]);
    assert_eq!(fake.tree.everything(), before);
    assert_eq!(fake.driver(CARD).as_deref(), Some("qat-vfio-pci"));
}

#[test]
fn where_the_variant_does_not_load_vfio_pci_takes_the_device_and_it_is_said() {
    for errno in [Errno::EPERM, Errno::ENOEXEC] {
        let mut fake = machine().boot();
        fake.fault(Fault::InsertFails { module: "qat_vfio_pci".into(), errno });
        let report = fake.bind("vfio.devs=00:03.0");
        assert_eq!(outcomes(&report), ["0000:00:03.0 bound"], "{errno}");
        assert_eq!(fake.driver(CARD).as_deref(), Some("vfio-pci"), "{errno}");
        assert!(words(&report, CARD).contains("qat_vfio_pci"), "{report:#?}");
    }
}

#[test]
fn check_foresees_that_vfio_pci_takes_the_device_of_a_variant_that_does_not_load() {
    for (text, expected) in [
        ("vfio.devs=00:03.0", "0000:00:03.0 8086:4940: would be bound to qat_vfio_pci"),
        (
            "vfio.devs=00:03.0 module_blacklist=qat_vfio_pci",
            "0000:00:03.0 8086:4940: would be bound to vfio-pci",
        ),
        (
            "vfio.devs=00:03.0 module_blacklist=qat_vfio_pci,vfio_pci",
            "0000:00:03.0 8086:4940: would fail: module_blacklist= has vfio_pci; ",
        ),
    ] {
        let mut fake = machine().boot();
        let lines = check::words(&mut fake, text);
        assert!(lines[0].starts_with(expected), "{text}: {lines:#?}");
    }
}

#[test]
fn where_the_variant_refuses_the_device_vfio_pci_takes_it_and_it_is_said() {
    let mut fake = machine().boot();
    fake.fault(Fault::DriverRefuses { driver: "qat-vfio-pci".into(), errno: Errno::ENODEV });
    let report = fake.bind("vfio.devs=00:03.0");
    assert_eq!(outcomes(&report), ["0000:00:03.0 bound"]);
    assert_eq!(device(&report, CARD).driver_override.as_deref(), Some("vfio-pci"));
    assert_eq!(fake.driver(CARD).as_deref(), Some("vfio-pci"));
    assert!(words(&report, CARD).contains("qat_vfio_pci"), "{report:#?}");
}

#[test]
fn killed_before_any_write_and_run_again_the_variant_has_the_device() {
    for host in [None, Some("qat_4xxx")] {
        let boot = || {
            let mut fake = machine().boot();
            if let Some(module) = host {
                fake.load(module);
            }
            fake
        };
        let text = "vfio.devs=00:03.0,00:04.0";
        let mut fake = boot();
        fake.bind(text);
        let (files, writes) = (fake.tree.everything(), fake.take_writes().len());
        for write in 0..writes {
            let mut fake = boot();
            assert!(fake.bind_until_killed(text, write));
            fake.bind(text);
            assert_eq!(fake.tree.everything(), files, "{host:?}, killed before write {write}");
        }
    }
}
