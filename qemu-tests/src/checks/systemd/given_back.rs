//! What is given back to the host, or comes later, in the real root.

use crate::check::real_root::{DISK, NETWORK, OTHER_NETWORK, Seen, USB, Wrong};

/// What libvirt has given back is the host's, however often the unit is started, until somebody says
/// otherwise. Nothing changes, not even the report.
pub(super) fn holds(seen: &Seen, wrong: &mut Wrong) {
    let found = |moment: &str| {
        let told = seen.given_back.lines().find_map(|line| line.strip_prefix(moment));
        told.and_then(|told| told.strip_prefix(": ")?.split_once(", "))
    };
    let report = found("before").map(|(_, report)| report);
    wrong.unless(report.is_some(), format!("nobody gave it back: {}", seen.given_back));
    for (moment, driver) in [
        ("before", "vfio-pci"),
        ("given back", "e1000e"),
        ("restarted", "e1000e"),
        ("started where it had failed", "e1000e"),
        ("stopped and started", "e1000e"),
    ] {
        let is_so = found(moment) == report.map(|report| (driver, report));
        wrong.unless(is_so, format!("{moment}: not {driver}: {}", seen.given_back));
    }
    let is_back = found("taken back").is_some_and(|(driver, _)| driver == "vfio-pci");
    wrong.unless(is_back, format!("it is not taken back: {}", seen.given_back));
    let said = "0000:00:03.0 was bound at boot and is with e1000e now: it is left there";
    came_again(seen, wrong, &found);
    let times = seen.given_back.matches(said).count();
    wrong.unless(times == 3, format!("told {times} times, of 3 starts: {}", seen.given_back));
}

/// What is listed is bound whenever it comes, and what was released or is not listed is the host's.
fn came_again<'s>(
    seen: &Seen,
    wrong: &mut Wrong,
    found: &dyn Fn(&str) -> Option<(&'s str, &'s str)>,
) {
    let mut is_on = |moment: &str, driver: &str| {
        let is_so = found(moment).is_some_and(|(found, _)| found == driver);
        wrong.unless(is_so, format!("{moment}: not {driver}: {}", seen.given_back));
    };
    for turn in 1..=3 {
        is_on(&format!("came again with its driver loaded, {turn}"), "vfio-pci");
        is_on(&format!("came again without its driver loaded, {turn}"), "vfio-pci");
        for address in [NETWORK, DISK, USB] {
            is_on(&format!("all came at once, {turn}, {address}"), "vfio-pci");
        }
        is_on(&format!("all came at once, {turn}, {OTHER_NETWORK}"), "e1000e");
    }
    is_on("released, and came again", "e1000e");
    is_on("taken by its name", "vfio-pci");
}
