//! Which writes, in which order, and that there is no need for more.

use vfio_early::cmdline;
use vfio_early::kernel::Write;

use crate::fake::Fake;
use crate::machine::{Line, desktop};
use crate::outcome::outcomes;

const ALL: &str = "vfio.devs=01:00.*,00:14.0,8086:15b8@00:19.0,144d:a808@00:1c.0/00.0";
const ADDRESSES: [&str; 5] =
    ["0000:01:00.0", "0000:01:00.1", "0000:00:14.0", "0000:00:19.0", "0000:02:00.0"];

fn with_host_drivers(line: Line) -> Fake {
    let mut fake = desktop().line(line).boot();
    for module in ["nouveau", "snd_hda_intel", "e1000e", "nvme"] {
        fake.load(module);
    }
    fake
}

/// Where the lines with that text are.
fn places(lines: &[String], text: &str) -> Vec<usize> {
    let found = lines.iter().enumerate().filter(|(_, line)| line.contains(text));
    found.map(|(place, _)| place).collect()
}

#[test]
fn every_override_is_written_before_any_module_is_loaded() {
    for line in Line::ALL {
        let mut fake = with_host_drivers(line);
        let report = fake.bind(ALL);
        assert!(outcomes(&report).iter().all(|line| line.ends_with(" bound")), "{report:#?}");
        let lines = fake.take_lines();
        let overrides = places(&lines, "driver_override vfio-pci");
        assert_eq!(overrides, [0, 1, 2, 3, 4], "{lines:#?}");
        for address in ADDRESSES {
            assert_eq!(
                places(&lines, &format!("{address}/driver_override")).len(),
                1,
                "{lines:#?}"
            );
        }
    }
}

#[test]
fn modules_that_need_no_other_go_in_first_and_vfio_pci_last() {
    for (line, first, all) in [
        (Line::V5_10, ["irqbypass", "vfio", "vfio_virqfd"].as_slice(), 5),
        (Line::V6_1, &["irqbypass", "vfio", "vfio_virqfd"], 6),
        (Line::V6_12, &["irqbypass", "vfio"], 5),
    ] {
        let mut fake = desktop().line(line).boot();
        fake.bind("vfio.devs=01:00.*");
        let lines = fake.take_lines();
        let loads: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("load ")).collect();
        assert_eq!((loads.len(), loads.last()), (all, Some(&"vfio_pci")), "{line:?}: {loads:?}");
        let mut leaves = loads[..first.len()].to_vec();
        leaves.sort_unstable();
        assert_eq!(leaves, first, "{line:?}: {loads:?}");
    }
}

#[test]
fn devices_are_taken_from_the_host_only_when_the_vfio_driver_is_loaded() {
    let mut fake = with_host_drivers(Line::V6_1);
    fake.bind(ALL);
    let lines = fake.take_lines();
    let unbinds = places(&lines, "/unbind ");
    assert_eq!(unbinds.len(), 4, "the USB controller has no driver: {lines:#?}");
    let last_load = *places(&lines, "load ").last().expect("modules are loaded");
    assert_eq!(lines[last_load], "load vfio_pci");
    assert!(unbinds.iter().all(|place| *place > last_load), "{lines:#?}");
    for address in ADDRESSES.iter().filter(|address| **address != "0000:00:14.0") {
        let unbind = places(&lines, &format!("/unbind {address}"));
        let probe = places(&lines, &format!("drivers_probe {address}"));
        assert_eq!((unbind.len(), probe.len()), (1, 1), "{lines:#?}");
        assert!(unbind < probe, "{lines:#?}");
    }
}

#[test]
fn a_host_without_vfio_pci_keeps_its_devices() {
    let mut fake = with_host_drivers_and_no_vfio_pci();
    let report = fake.bind(ALL);
    assert!(outcomes(&report).iter().all(|line| line.ends_with(" failed")), "{report:#?}");
    let lines = fake.take_lines();
    assert!(places(&lines, "unbind").is_empty(), "{lines:#?}");
    assert_eq!(fake.driver("0000:01:00.0").as_deref(), Some("nouveau"));
    assert_eq!(report.exit_status, 1);
}

fn with_host_drivers_and_no_vfio_pci() -> Fake {
    let mut fake = desktop().left_out("vfio-pci").boot();
    for module in ["nouveau", "snd_hda_intel", "e1000e", "nvme"] {
        fake.load(module);
    }
    fake
}

#[test]
fn modules_are_loaded_once_and_dependencies_first() {
    let mut fake = desktop().boot();
    fake.bind(ALL);
    let loads: Vec<_> =
        fake.take_lines().into_iter().filter(|line| line.starts_with("load ")).collect();
    let mut once = loads.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), loads.len(), "{loads:?}");
    assert_eq!(loads.len(), 6, "{loads:?}");
    let at = |module: &str| places(&loads, &format!("load {module}"))[0];
    assert!(at("vfio_iommu_type1") > at("vfio"), "{loads:?}");
}

#[test]
fn devices_that_the_loaded_driver_took_by_itself_are_not_probed_again() {
    let mut fake = desktop().boot();
    fake.bind(ALL);
    let lines = fake.take_lines();
    assert!(places(&lines, "drivers_probe").is_empty(), "{lines:#?}");
}

#[test]
fn a_second_bind_writes_only_the_same_overrides_and_changes_nothing() {
    for line in Line::ALL {
        let mut fake = with_host_drivers(line);
        fake.bind(ALL);
        fake.take_writes();
        let before = fake.tree.everything();
        let report = fake.bind(ALL);
        assert!(outcomes(&report).iter().all(|line| line.ends_with(" bound")), "{report:#?}");
        for (write, result) in fake.take_writes() {
            assert_eq!(result, Ok(()), "{write:?}");
            let Write::Store { attribute, value } = &write else { panic!("{write:?}") };
            assert!(attribute.ends_with("/driver_override"), "{attribute} {value}");
            assert_eq!(value, "vfio-pci");
        }
        assert_eq!(fake.tree.everything(), before);
    }
}

#[test]
fn a_device_that_vfio_pci_got_by_its_id_alone_gets_an_override() {
    // As with vfio-pci.ids= on the command line: bound, and lost at the next probe.
    let mut fake = desktop().boot();
    fake.load("vfio-pci");
    fake.bind("vfio.devs=00:14.0");
    fake.take_writes();
    fake.forget_override("0000:00:14.0");
    let report = fake.bind("vfio.devs=00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    assert_eq!(fake.take_lines(), ["0000:00:14.0/driver_override vfio-pci"]);
}

#[test]
fn devices_that_are_not_asked_for_are_never_written_to() {
    let mut fake = with_host_drivers(Line::V6_1);
    let before = fake.tree.everything();
    fake.bind("vfio.devs=00:14.0");
    let lines = fake.take_lines();
    for line in &lines {
        assert!(
            line.contains("0000:00:14.0")
                || line.starts_with("load vfio")
                || line == "load irqbypass",
            "{line}"
        );
    }
    // Nor do their files change.
    let others = |files: Vec<(String, String)>| {
        let of_it = |path: &str| {
            path.contains("0000:00:14.0") || path.contains("/vfio") || path.contains("/irqbypass")
        };
        files.into_iter().filter(|(path, _)| !of_it(path)).collect::<Vec<_>>()
    };
    assert_eq!(others(fake.tree.everything()), others(before));
}

#[test]
fn a_dry_run_names_the_steps_and_writes_nothing() {
    let mut fake = with_host_drivers(Line::V6_1);
    let before = fake.tree.everything();
    let request = cmdline::parse(format!("{ALL},00:1e.0,00:01.0").as_bytes());
    let check =
        vfio_early::check(request, &fake.sysfs(), &mut fake).expect("the PCI bus can be read");
    let text = check.plan.to_string();
    for line in [
        "absent 00:1e.0: ",
        "refuse 0000:00:01.0 8086:1901: ",
        "write vfio-pci to driver_override of 0000:01:00.0",
        "load vfio-pci with its dependencies",
        "unbind 0000:01:00.0 from nouveau",
        "write 0000:01:00.0 to drivers_probe",
    ] {
        assert!(text.lines().any(|other| other.starts_with(line)), "{line:?} is not in:\n{text}");
    }
    assert_eq!(fake.tree.everything(), before);
}

#[test]
fn nothing_is_written_when_every_device_is_refused() {
    let mut fake = desktop().without_iommu(Some("DMAR")).boot();
    let before = fake.tree.everything();
    let report = fake.bind(ALL);
    assert!(outcomes(&report).iter().all(|line| line.ends_with(" refused")), "{report:#?}");
    assert_eq!(fake.take_lines(), [""; 0]);
    assert_eq!(fake.tree.everything(), before);
}
