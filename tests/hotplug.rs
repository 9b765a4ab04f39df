//! `vfio-early hotplug`: a device that comes while the host runs, as udev's rule tells of it.

use vfio_early::cmdline;
use vfio_early::report::Report;

use crate::fake::{Fake, Fault};
use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::{assert_says, outcomes, words};

const NIC: &str = "0000:00:19.0";
const TEXT: &str = "vfio.devs=00:14.0,8086:15b8@00:19.0,00:1e.0";

/// A host that runs without its network card, and the card.
fn host(machine: &Machine) -> (Fake, Function) {
    let mut fake = machine.boot();
    fake.bind(TEXT);
    let nic = fake.remove_device(NIC);
    fake.take_writes();
    (fake, nic)
}

fn hotplug(fake: &mut Fake, text: &str, address: &str) -> Option<Report> {
    let sysfs = fake.sysfs();
    let address = address.parse().expect("an address");
    vfio_early::hotplug(cmdline::parse(text.as_bytes()), address, &sysfs, fake)
        .expect("the PCI bus can be read")
}

#[test]
fn a_device_that_comes_is_bound_whether_the_hosts_driver_is_there_or_not() {
    for line in Line::ALL {
        for is_loaded in [false, true] {
            let (mut fake, nic) = host(&desktop().line(line));
            if is_loaded {
                fake.load("e1000e");
            }
            for turn in 0..3 {
                fake.add_device(nic.clone());
                fake.settle(NIC);
                // It is new: that it was bound at boot and is not now is nobody's will.
                let has_it = fake.driver(NIC).is_some();
                assert_eq!(has_it, is_loaded, "{line:?} {turn}");
                let report = hotplug(&mut fake, TEXT, NIC).expect("it is meant");
                assert_eq!(
                    outcomes(&report),
                    ["0000:00:19.0 bound"],
                    "{line:?} {is_loaded} {turn}"
                );
                fake.load("e1000e");
                assert_eq!(fake.driver(NIC).as_deref(), Some("vfio-pci"), "{line:?} {is_loaded}");
                fake.remove_device(NIC);
                if !is_loaded {
                    break;
                }
            }
        }
    }
}

#[test]
fn the_override_comes_first() {
    let (mut fake, nic) = host(&desktop());
    fake.add_device(nic);
    hotplug(&mut fake, TEXT, NIC).expect("it is meant");
    assert_eq!(fake.take_lines()[0], "0000:00:19.0/driver_override vfio-pci");
}

#[test]
fn one_that_drivers_cannot_bind_to_yet_is_bound_in_the_end() {
    let (mut fake, nic) = host(&desktop());
    fake.load("e1000e");
    fake.add_device(nic);
    let report = hotplug(&mut fake, TEXT, NIC).expect("it is meant");
    assert_eq!(outcomes(&report), ["0000:00:19.0 failed"]);
    fake.settle(NIC);
    let report = hotplug(&mut fake, TEXT, NIC).expect("it is meant");
    assert_eq!(outcomes(&report), ["0000:00:19.0 bound"]);
}

#[test]
fn what_is_not_meant_or_was_released_is_left_alone() {
    for (text, mark) in [
        ("vfio.devs=00:14.0", ""),
        ("vfio.devs=00:14.0 vfio.strict", ""),
        ("quiet", ""),
        (TEXT, "8086:15b8@0000:00:19.0\n"),
    ] {
        let (mut fake, nic) = host(&desktop());
        fake.load("e1000e");
        fake.tree.write("run/vfio-early/released", mark);
        fake.add_device(nic);
        fake.settle(NIC);
        let before = fake.tree.everything();
        fake.take_writes();
        assert_eq!(hotplug(&mut fake, text, NIC), None, "{text}");
        assert_eq!((fake.take_writes(), fake.tree.everything()), (Vec::new(), before), "{text}");
    }
    // Another card at that place was not released.
    let (mut fake, nic) = host(&desktop());
    fake.tree.write("run/vfio-early/released", "8086:15b7@0000:00:19.0\n");
    fake.add_device(nic);
    assert!(hotplug(&mut fake, TEXT, NIC).is_some());
}

#[test]
fn a_guard_that_does_not_match_keeps_it_with_the_host() {
    for item in ["10de:1c03@00:19.0", "10de:1c03@00:19.*", "group:10de:1c03@00:19.0"] {
        let (mut fake, nic) = host(&desktop());
        fake.add_device(nic);
        let text = format!("vfio.devs=00:14.0,{item}");
        let report = hotplug(&mut fake, &text, NIC).expect("it is meant");
        assert_eq!(outcomes(&report), ["0000:00:19.0 refused"], "{item}");
        assert_says(&words(&report, NIC), &["the guard wants 10de:1c03", "8086:15b8"]);
        assert_eq!(fake.take_writes(), [], "{item}");
    }
}

#[test]
fn what_the_host_uses_already_stays() {
    let (mut fake, nic) = host(&desktop());
    fake.load("e1000e");
    fake.add_device(nic);
    fake.settle(NIC);
    fake.tree.folder(&format!("sys/devices/pci0000:00/{NIC}/net/eno1"));
    fake.tree.link_up("class/net/eno1", &format!("devices/pci0000:00/{NIC}/net/eno1"));
    fake.tree.write("proc/net/route", "Iface\tDestination\tGateway\neno1\t00000000\t0\n");
    fake.take_writes();
    let report = hotplug(&mut fake, TEXT, NIC).expect("it is meant");
    assert_eq!(outcomes(&report), ["0000:00:19.0 refused"]);
    assert_says(&words(&report, NIC), &["the host uses it: eno1 has an address"]);
    assert_eq!(fake.take_writes(), []);
}

#[test]
fn a_device_that_goes_away_again_is_no_failure_of_others() {
    let (mut fake, _) = host(&desktop());
    assert_eq!(hotplug(&mut fake, TEXT, NIC), None, "before the program starts");
    for before in 0..3 {
        let (mut fake, nic) = host(&desktop());
        fake.add_device(nic);
        fake.settle(NIC);
        fake.fault(Fault::GoesAway { address: NIC.to_owned(), before });
        let report = hotplug(&mut fake, TEXT, NIC).expect("it is meant");
        let ends = outcomes(&report);
        let is_told = ends == ["0000:00:19.0 failed"] || ends == ["0000:00:19.0 bound"];
        assert!(is_told, "{before}: {ends:?}");
        if ends == ["0000:00:19.0 failed"] {
            assert_says(&words(&report, NIC), &["went away"]);
        }
        assert_eq!(fake.driver("0000:00:14.0").as_deref(), Some("vfio-pci"), "{before}");
    }
}

/// As a card behind Thunderbolt comes: all of them at once, each with a run of its own.
#[test]
fn ten_at_once_are_all_bound() {
    let nics = (0..10).map(|slot| {
        let address = format!("0000:05:{slot:02x}.0");
        Function::new(&address, "8086:15b8", 0x02_0000).host("e1000e")
    });
    let mut machine = desktop();
    machine.hot_added.extend(nics.clone());
    let mut fake = machine.boot();
    fake.nothing_comes_by_itself();
    fake.load("e1000e");
    let text = "vfio.devs=pci:8086:15b8";
    let nics: Vec<_> = nics.collect();
    for nic in &nics {
        fake.add_device(nic.clone());
        fake.settle(&nic.address);
    }
    for nic in &nics {
        let report = hotplug(&mut fake, text, &nic.address).expect("it is meant");
        assert_eq!(outcomes(&report), [format!("{} bound", nic.address)]);
    }
    assert!(nics.iter().all(|nic| fake.driver(&nic.address).as_deref() == Some("vfio-pci")));
}
