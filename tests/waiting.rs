//! `vfio.wait`: devices that come late.

use std::time::{Duration, Instant};

use crate::fake::Fault;
use crate::journal;
use crate::machine::{Function, Line, desktop};
use crate::outcome::{assert_says, outcomes, words};

const LATE: &str = "0000:05:00.0";

fn late() -> Function {
    Function::new(LATE, "1b21:2142", 0x0c_0330).group(30).host("xhci_hcd")
}

#[test]
fn a_device_that_comes_during_the_wait_is_bound() {
    for line in Line::ALL {
        for already_loaded in [None, Some("vfio-pci"), Some("xhci_hcd")] {
            let mut fake = desktop().line(line).boot();
            if let Some(module) = already_loaded {
                fake.load(module);
            }
            fake.unrelated_uevents(3);
            fake.plug_in_later(late());
            journal::start();
            let report = fake.bind("vfio.devs=05:00.0,00:14.0 vfio.wait=30");
            assert_eq!(
                outcomes(&report),
                ["0000:00:14.0 bound", &format!("{LATE} bound")],
                "{already_loaded:?} on {line:?}"
            );
            let said: Vec<_> = journal::take().into_iter().map(|(_, text)| text).collect();
            let waiting = said.iter().filter(|line| line.contains("waiting for")).count();
            assert_eq!(waiting, 1, "once, however many uevents come: {said:?}");
        }
    }
}

#[test]
fn a_device_that_does_not_come_is_absent_and_the_others_are_bound() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=05:00.0,00:14.0 vfio.wait=30");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "05:00.0 absent"]);
    assert_says(&words(&report, "05:00.0"), &["waited 30 s"]);
    assert_eq!(report.exit_status, 1);
}

#[test]
fn the_wait_ends_in_time_however_many_uevents_come() {
    let mut fake = desktop().boot();
    fake.unrelated_uevents(usize::MAX);
    let start = Instant::now();
    let report = fake.bind("vfio.devs=05:00.0,00:14.0 vfio.wait=1");
    let took = start.elapsed();
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "05:00.0 absent"]);
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn for_a_group_there_is_one_second_whatever_else_is_heard() {
    let mut machine = desktop();
    machine.functions.push(Function { group: None, ..late() });
    let mut fake = machine.boot();
    fake.unrelated_uevents(3);
    let report = fake.bind("vfio.devs=05:00.0,00:14.0 vfio.wait=60");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", &format!("{LATE} refused")]);
    let waits = &fake.waits[..4];
    assert!(waits[0] <= Duration::from_secs(1), "{waits:?}");
    assert!(waits.is_sorted_by(|one, next| one > next), "what is left of it: {waits:?}");
}

#[test]
fn nothing_is_waited_for_when_all_devices_are_there() {
    let mut fake = desktop().boot();
    fake.unrelated_uevents(1);
    journal::start();
    let report = fake.bind("vfio.devs=00:14.0,pci:8086:15b8 vfio.wait=30");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:00:19.0 bound"]);
    assert_eq!(journal::take(), []);
}

#[test]
fn without_a_wait_an_absent_device_is_told_of_it() {
    let mut fake = desktop().boot();
    fake.plug_in_later(late());
    let report = fake.bind("vfio.devs=05:00.0");
    assert_eq!(outcomes(&report), ["05:00.0 absent"]);
    assert_says(&words(&report, "05:00.0"), &["vfio.wait=10"]);
}

#[test]
fn a_device_that_comes_and_goes_is_absent_or_failed_but_spoils_nothing() {
    let mut fake = desktop().boot();
    fake.plug_in_later(late());
    fake.fault(Fault::GoesAway { address: LATE.into(), before: 1 });
    let report = fake.bind("vfio.devs=05:00.0,00:14.0 vfio.wait=30");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", &format!("{LATE} failed")]);
}

#[test]
fn without_netlink_nothing_is_waited_for_and_what_is_there_is_bound() {
    let mut fake = desktop().boot();
    fake.fault(Fault::NoNetlink);
    journal::start();
    let report = fake.bind("vfio.devs=05:00.0,00:14.0 vfio.wait=30");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "05:00.0 absent"]);
    assert!(journal::take().iter().any(|(_, line)| line.contains("cannot be heard")));
}
