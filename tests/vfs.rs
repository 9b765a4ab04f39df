//! Items for virtual functions: they are made in the real root, bound before a driver of the host has one,
//! and what is there already stays as it is.

use serde_json::Value;
use vfio_early::cmdline;
use vfio_early::host::{finish, list, vfs};
use vfio_early::report::{Outcome, Report};

use crate::fake::{Fake, Fault};
use crate::machine::{Function, Line, Machine};
use crate::outcome::{assert_says, outcomes};
use crate::verdict::status_of;

const CARD: &str = "0000:03:00.0";

/// A network card of up to seven functions, for which there is a driver as for itself.
fn server() -> Machine {
    let port = Function::new("0000:00:01.0", "8086:1901", 0x06_0400).built_in("pcieport");
    let card = Function::new(CARD, "8086:10c9", 0x02_0000).below(&port).group(3).host("igb");
    let other = Function::new("0000:00:14.0", "8086:a12f", 0x0c_0330).host("xhci_hcd");
    Machine::new([card.virtual_functions(7), other, port])
}

/// The initrd's run, and then the driver of the card comes up.
fn booted(machine: &Machine, text: &str) -> (Fake, Value) {
    let mut fake = machine.boot();
    let report = Report { command_line: text.to_owned(), ..fake.bind(text) };
    fake.load("igb");
    fake.take_writes();
    (fake, serde_json::to_value(report).expect("JSON"))
}

fn finish(fake: &mut Fake, text: &str, then: &Value) -> Option<Report> {
    let sysfs = fake.sysfs();
    let request = cmdline::parse(text.as_bytes());
    vfio_early::finish(request, then, &sysfs, fake).expect("the PCI bus can be read")
}

fn attribute(fake: &Fake, name: &str) -> String {
    fake.tree.read(&format!("sys/bus/pci/devices/{CARD}/{name}")).trim().to_owned()
}

/// The report's words on the item itself.
fn item_words(report: &Report) -> String {
    let device = report.devices.iter().find(|device| device.address.is_none()).expect("an item");
    [&device.reason, &device.remedy].map(|text| text.clone().unwrap_or_default()).join("; ")
}

#[test]
fn the_initrd_leaves_them_to_the_real_root_and_no_boot_stops_for_them() {
    for text in ["vfio.devs=vfs:03:00.0=4 vfio.strict", "vfio.devs=vfs:03:00.0 vfio.wait=9"] {
        let mut fake = server().boot();
        let report = fake.bind(text);
        assert_eq!((report.exit_status, report.devices[0].outcome), (0, Outcome::Later), "{text}");
        assert_says(&item_words(&report), &["when the driver of their device is up", "finish"]);
        assert_eq!((fake.take_writes(), fake.waits.len()), (Vec::new(), 0), "{text}");
        let (_, last) = report.lines().pop().expect("a line");
        assert!(last.starts_with("0 of 1 bound, 1 later, in"), "{last}");
        assert_eq!(status_of(&fake, &report).exit_status, 0, "{text}");
    }
}

#[test]
fn as_many_as_are_asked_for_are_made_and_bound() {
    for line in Line::ALL {
        let text = "vfio.devs=00:14.0,vfs:8086:10c9@03:00.0=3";
        let (mut fake, then) = booted(&server().line(line), text);
        let report = finish(&mut fake, text, &then).expect("they are left");
        let bound = ["0000:03:00.1 bound", "0000:03:00.2 bound", "0000:03:00.3 bound"];
        assert_eq!(outcomes(&report), bound, "{line:?}");
        assert_eq!(report.exit_status, 0);
        assert_eq!(fake.driver(CARD).as_deref(), Some("igb"), "{line:?}");
        assert_eq!(fake.driver_override(CARD), None);
        assert_eq!(attribute(&fake, "sriov_numvfs"), "3");
        assert_eq!(attribute(&fake, "sriov_drivers_autoprobe"), "1");
        let lines = fake.take_lines();
        assert_eq!(
            lines[..3],
            [
                "0000:03:00.0/sriov_drivers_autoprobe 0",
                "0000:03:00.0/sriov_numvfs 3",
                "0000:03:00.1/driver_override vfio-pci",
            ]
        );
        assert_eq!(
            lines.last().map(String::as_str),
            Some("0000:03:00.0/sriov_drivers_autoprobe 1")
        );
        // Once more, and nothing changes.
        let then = finish::merged(then, &report, false).expect("JSON");
        assert_eq!(then["exit_status"], 0);
        assert_eq!(then["devices"].as_array().map(Vec::len), Some(4), "{then}");
        assert_eq!(finish(&mut fake, text, &then), None);
        assert_eq!(fake.take_writes(), []);
        // Others at the same addresses were never bound.
        fake.store_in(CARD, "sriov_numvfs", "0");
        let report = finish(&mut fake, text, &then).expect("they are to be made");
        assert_eq!(outcomes(&report), bound, "{line:?}");
    }
}

#[test]
fn what_is_there_already_stays_as_it_is() {
    for (autoprobe, driver, ends, told) in [
        (
            "0",
            None,
            &["0000:03:00.1 bound", "0000:03:00.2 bound"][..],
            "2 virtual functions already",
        ),
        ("1", Some("igb"), &[], "0000:03:00.2, a virtual function, was with igb already"),
    ] {
        for text in ["vfio.devs=vfs:03:00.0=3", "vfio.devs=vfs:03:00.0"] {
            let (mut fake, then) = booted(&server(), text);
            fake.store_in(CARD, "sriov_drivers_autoprobe", autoprobe);
            fake.store_in(CARD, "sriov_numvfs", "2");
            assert_eq!(fake.driver("0000:03:00.1").as_deref(), driver);
            fake.take_writes();
            let report = finish(&mut fake, text, &then).expect("there is something to say");
            assert_eq!(outcomes(&report), ends, "{text}");
            if text.contains('=') && text.ends_with('3') || driver.is_some() {
                assert!(
                    report.warnings.iter().any(|it| it.contains(told)),
                    "{:?}",
                    report.warnings
                );
            }
            assert!(fake.take_lines().iter().all(|line| !line.contains("sriov")), "{text}");
            let now = ends.first().map_or(driver, |_| Some("vfio-pci"));
            assert_eq!(fake.driver("0000:03:00.2").as_deref(), now, "{text}");
            if now == Some("vfio-pci") {
                // Somebody gave it back.
                let then = finish::merged(then, &report, false).expect("JSON");
                fake.store_in("0000:03:00.2", "driver/unbind", "0000:03:00.2");
                let again = finish(&mut fake, text, &then);
                assert_eq!(again.map_or(Vec::new(), |it| outcomes(&it)), [""; 0], "{text}");
                assert_eq!(fake.driver("0000:03:00.2"), None, "{text}");
            }
        }
    }
}

#[test]
fn what_is_in_the_way_is_told() {
    type Change = fn(&mut Fake);
    let nothing: Change = |_| {};
    for (item, change, told) in [
        ("vfs:03:00.0=8", nothing, &["0000:03:00.0 can have no more than 7"][..]),
        ("vfs:03:00.0", nothing, &["has no virtual functions yet", "at most 7"]),
        ("vfs:00:14.0=2", nothing, &["0000:00:14.0 can have no virtual functions"]),
        ("vfs:00:14.0", nothing, &["0000:00:14.0 can have no virtual functions"]),
        ("vfs:05:00.0=2", nothing, &["the device that makes them is not there"]),
        ("vfs:10de:1c03@03:00.0=2", nothing, &["the guard wants 10de:1c03", "8086:10c9"]),
        (
            "vfs:03:00.0=2",
            |fake: &mut Fake| fake.fault(Fault::NoFunctions),
            &["sriov_numvfs of 0000:03:00.0, 2: "],
        ),
        (
            "vfs:03:00.0=2",
            |fake: &mut Fake| fake.store_in(CARD, "driver/unbind", CARD),
            &["0000:03:00.0 has no driver"],
        ),
    ] {
        let text = format!("vfio.devs={item} vfio.strict");
        let (mut fake, then) = booted(&server(), &text);
        change(&mut fake);
        let report = finish(&mut fake, &text, &then).expect("it is left");
        assert_eq!((report.exit_status, report.devices[0].outcome), (3, Outcome::Absent), "{item}");
        assert_says(&item_words(&report), told);
        assert_eq!(attribute(&fake, "sriov_numvfs"), "0", "{item}");
        assert_eq!(attribute(&fake, "sriov_drivers_autoprobe"), "1", "{item}");
    }
}

#[test]
fn those_that_somebody_makes_later_are_taken_when_they_come() {
    let text = "vfio.devs=vfs:8086:10c9@03:00.0";
    let (mut fake, _) = booted(&server(), text);
    fake.store_in(CARD, "sriov_numvfs", "2");
    for (address, text, is_meant) in [
        ("0000:03:00.1", text, true),
        ("0000:03:00.2", text, true),
        (CARD, text, false),
        ("0000:03:00.1", "vfio.devs=vfs:10de:1c03@03:00.0", false),
    ] {
        let (sysfs, request) = (fake.sysfs(), cmdline::parse(text.as_bytes()));
        let address = address.parse().expect("an address");
        let report = vfio_early::hotplug(request, address, &sysfs, &mut fake).expect("a bus");
        assert_eq!(report.is_some(), is_meant, "{address} {text}");
        if let Some(report) = report {
            assert_eq!(outcomes(&report), [format!("{address} bound")]);
        }
    }
    assert_eq!(fake.driver(CARD).as_deref(), Some("igb"));
}

#[test]
fn by_hand_they_are_made_and_released() {
    let (mut fake, _) = booted(&server(), "vfio.devs=00:14.0");
    let (sysfs, request) = (fake.sysfs(), cmdline::parse(b"vfio.devs=vfs:03:00.0=2"));
    let report = vfio_early::bind_on_host(request.clone(), &sysfs, &mut fake).expect("a bus");
    assert_eq!(outcomes(&report), ["0000:03:00.1 bound", "0000:03:00.2 bound"]);
    assert_eq!(report.request, request);
    assert_eq!(vfs::each_there(request, &sysfs).items.len(), 2);
    fake.tree.write("proc/cmdline", "vfio.devs=vfs:03:00.0=2\n");
    let list = list::list(&sysfs, &[]).expect("the PCI bus can be read");
    let asked = list.devices.iter().filter(|device| device.asked);
    let asked: Vec<_> = asked.map(|device| device.address.to_string()).collect();
    assert_eq!(asked, ["0000:03:00.1", "0000:03:00.2"]);
}

#[test]
fn check_tells_what_comes_later() {
    for (item, outcome, told) in [
        (
            "vfs:03:00.0=4",
            Outcome::Later,
            &["4 of at most 7 virtual functions of 0000:03:00.0"][..],
        ),
        ("vfs:03:00.0", Outcome::Later, &["has no virtual functions yet"]),
        ("vfs:03:00.0=8", Outcome::Absent, &["no more than 7"]),
        // What can only be one.
        (
            "03:00.7",
            Outcome::Absent,
            &["can only be a virtual function of 0000:03:00.0", "vfs:03:00.0"],
        ),
        ("03:01.0", Outcome::Absent, &["no such device", "vfio.wait=10"]),
        ("04:00.1", Outcome::Absent, &["no such device", "vfio.wait=10"]),
    ] {
        let mut fake = server().boot();
        let (sysfs, request) =
            (fake.sysfs(), cmdline::parse(format!("vfio.devs={item}").as_bytes()));
        let check = vfio_early::check(request, &sysfs, &mut fake).expect("a bus");
        assert_eq!(check.report.devices[0].outcome, outcome, "{item}");
        assert_says(&item_words(&check.report), told);
        assert_eq!(fake.take_writes(), []);
    }
}
