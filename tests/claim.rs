//! Two moments: `claim` before udev, and `bind` beside it.

use vfio_early::Claim;
use vfio_early::claimed::Claimed;
use vfio_early::report::Report;

use crate::console::{OTHER, VGA, two_displays};
use crate::fake::Fake;
use crate::interruptions;
use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::{assert_says, device, obstacles, outcomes};

const ALL: &str = "vfio.devs=01:00.*,00:14.0,8086:15b8@00:19.0,144d:a808@00:1c.0/00.0";
const HOST: [&str; 4] = ["nouveau", "snd_hda_intel", "e1000e", "nvme"];

fn claimed(fake: &mut Fake, text: &str) -> Claimed {
    match fake.claim(text) {
        Claim::Claimed(claimed) => claimed,
        Claim::Done(report) => panic!("all was done: {report:#?}"),
    }
}

/// Less what a clock says.
fn timeless(report: Report) -> Report {
    Report { elapsed_us: 0, ..report }
}

#[test]
fn claim_writes_the_overrides_and_nothing_else() {
    for line in Line::ALL {
        let mut fake = desktop().line(line).boot();
        let claimed = claimed(&mut fake, ALL);
        assert_eq!(claimed.count(), 5);
        let lines = fake.take_lines();
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines.iter().all(|line| line.ends_with("driver_override vfio-pci")), "{lines:#?}");
        for module in HOST {
            fake.load(module);
        }
        let report = fake.go_on(ALL, claimed);
        assert!(outcomes(&report).iter().all(|line| line.ends_with(" bound")), "{report:#?}");
        let lines = fake.take_lines();
        assert!(!lines.iter().any(|line| line.contains("driver_override")), "{lines:#?}");
    }
}

#[test]
fn in_two_moments_it_ends_as_in_one() {
    for case in interruptions::cases() {
        let mut one = case.boot();
        let expected = one.bind(case.text);
        let mut other = case.boot();
        let report = match other.claim(case.text) {
            Claim::Claimed(claimed) => other.go_on(case.text, claimed),
            Claim::Done(report) => *report,
        };
        let which = format!("{} on {:?}", case.name, case.machine.line);
        assert_eq!(timeless(report), timeless(expected), "{which}");
        assert_eq!(other.tree.everything(), one.tree.everything(), "{which}");
    }
}

#[test]
fn the_report_tells_of_before() {
    let mut fake = desktop().boot();
    let claimed = claimed(&mut fake, ALL);
    // Whoever does that: the devices are bound now.
    fake.load("vfio-pci");
    assert_eq!(fake.driver("0000:00:19.0").as_deref(), Some("vfio-pci"));
    let report = fake.go_on(ALL, claimed);
    assert!(outcomes(&report).iter().all(|line| line.ends_with(" bound")), "{report:#?}");
    assert!(report.devices.iter().all(|device| device.driver_before.is_none()), "{report:#?}");
}

#[test]
fn a_boot_display_is_reserved_until_the_console_is_elsewhere() {
    for (line, class) in [Line::V6_1, Line::V6_12, Line::V7_2]
        .into_iter()
        .flat_map(|line| [(line, VGA), (line, OTHER)])
    {
        let text = "vfio.devs=00:02.0,00:14.0";
        let mut fake = two_displays(VGA, class).line(line).boot();
        let claimed = claimed(&mut fake, text);
        let lines = fake.take_lines();
        assert_eq!(
            lines,
            [
                "0000:00:02.0/driver_override vfio-early-reserved",
                "0000:00:14.0/driver_override vfio-pci"
            ]
        );
        fake.load("vfio-pci");
        assert_eq!(fake.driver("0000:00:02.0"), None, "{line:?}");
        assert!(fake.screen.console().is_some(), "{line:?}: the screen is dark");
        let report = fake.go_on(text, claimed);
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound", "0000:00:14.0 bound"], "{line:?}");
        let on = fake.screen.console().expect("there is a console");
        assert_eq!(fake.driver(on).as_deref(), Some("nouveau"), "{line:?}");
    }
}

#[test]
fn what_cannot_go_on_beside_udev_is_all_done_before() {
    let built_in = || {
        let serial = Function::new("0000:00:03.0", "1b36:0002", 0x07_0002).built_in("serial");
        Machine::new([serial, Function::new("0000:00:04.0", "1234:11e8", 0x00_ff00)])
    };
    for (why, mut fake, text) in [
        ("a host driver has it", built_in().boot(), "vfio.devs=00:03.0,00:04.0"),
        ("a host driver was loaded", interruptions::loaded(&HOST), ALL),
        ("it waits", desktop().boot(), "vfio.devs=00:14.0 vfio.wait=1"),
    ] {
        let Claim::Done(report) = fake.claim(text) else { panic!("{why}: it was claimed only") };
        assert!(
            outcomes(&report).iter().all(|line| line.ends_with(" bound")),
            "{why}: {report:#?}"
        );
        let again = fake.bind(text);
        assert_eq!(outcomes(&again), outcomes(&report), "{why}");
    }
    // Beside one that a host driver has and that is not asked for.
    let mut fake = built_in().boot();
    claimed(&mut fake, "vfio.devs=00:04.0");
}

#[test]
fn a_device_that_comes_or_goes_in_between_is_seen() {
    let text = "vfio.devs=pci:8086:15b8,00:14.0";
    let mut fake = desktop().boot();
    let left = claimed(&mut fake, text);
    let function = fake.remove_device("0000:00:19.0");
    let report = fake.go_on(text, left);
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "pci:8086:15b8 absent"], "{report:#?}");

    let by_address = "vfio.devs=00:19.0";
    let mut fake = desktop().boot();
    let left = claimed(&mut fake, by_address);
    fake.remove_device("0000:00:19.0");
    let report = fake.go_on(by_address, left);
    let reason = device(&report, "0000:00:19.0").reason.clone().unwrap_or_default();
    assert!(reason.contains("went away"), "{reason}");

    let mut fake = desktop().boot();
    fake.remove_device("0000:00:19.0");
    let left = claimed(&mut fake, text);
    fake.add_device(function);
    fake.settle("0000:00:19.0");
    let report = fake.go_on(text, left);
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:00:19.0 bound"], "{report:#?}");
}

#[test]
fn a_sibling_that_comes_in_between_is_told() {
    for (given, sibling, module, who) in [
        // With a display all devices are read again.
        ("0000:01:00.0", "0000:01:00.1", "snd_hda_intel", "snd_hda_intel has 0000:01:00.1"),
        ("0000:01:00.1", "0000:01:00.0", "nouveau", "so the kernel says"),
    ] {
        let text = format!("vfio.devs={given}");
        let mut fake = desktop().boot();
        let function = fake.remove_device(sibling);
        let left = claimed(&mut fake, &text);
        fake.load(module);
        fake.add_device(function);
        fake.settle(sibling);
        let report = fake.go_on(&text, left);
        assert_eq!(outcomes(&report), [format!("{given} bound")], "{report:#?}");
        let said = obstacles(&report, given);
        assert_says(&said, &[&format!("group 2 is not viable: {who}")]);
    }
}

#[test]
fn what_claim_left_is_of_no_need() {
    for case in interruptions::cases() {
        let mut one = case.boot();
        let expected = outcomes(&one.bind(case.text));
        let mut other = case.boot();
        other.claim(case.text);
        assert_eq!(outcomes(&other.bind(case.text)), expected, "{}", case.name);
        assert_eq!(other.tree.everything(), one.tree.everything(), "{}", case.name);
    }
}
