//! What an initrd would do with the devices at the next boot, where that is not what `bind` would do
//! now: nothing is in use there, and only its record tells what the host lives from.
//!
//! Which record that is nobody can see: an initrd is packed. That of this boot's is in `/run`, and one
//! that is made now has what [`crate::host::keep`] finds.

use crate::cmdline::Request;
use crate::keep::{Kind, Record};
use crate::plan::{self, Decision, Plan, Target};
use crate::report::NextBoot;
use crate::sysfs::{Machine, RECORD_OF_BOOT, Sysfs};

/// Each such device, in address order; `now` is the plan of this moment, and `lives_from` the record that
/// an initrd would get that is made now.
#[must_use]
pub fn next_boot(
    request: &Request,
    machine: &Machine,
    now: &Plan,
    lives_from: &Record,
    sysfs: &Sysfs,
) -> Vec<NextBoot> {
    let by = |record: &Record| {
        let mut then = machine.clone();
        then.devices.values_mut().for_each(|device| device.usage = None);
        sysfs.know(record, &mut then);
        plan::plan(request, &then, false)
    };
    let anew = by(lives_from);
    // Where this boot's initrd asked for no device, it has left no record.
    let of_boot = sysfs.record_in(RECORD_OF_BOOT).map(|record| by(&record));
    let mut next_boot = Vec::new();
    for (address, target) in &now.targets {
        let Some(anew) = anew.targets.get(address) else { continue };
        let of_boot = of_boot.as_ref().and_then(|plan| plan.targets.get(address));
        if let Some(text) = words(target, anew, of_boot) {
            next_boot.push(NextBoot { address: *address, text });
        }
    }
    next_boot
}

/// `None` where nothing differs; `of_boot` is `None` where that record is not known.
fn words(now: &Target, anew: &Target, of_boot: Option<&Target>) -> Option<String> {
    let before = of_boot.and_then(refusal);
    let is_by_record = anew.device.kept.iter().any(|kept| kept.kind == Kind::Disk);
    match (refusal(now), refusal(anew)) {
        (_, None) if before.is_some() => Some(format!(
            "it would be refused by the initrd of this boot: {}; one that is made now would take it",
            before.unwrap_or_default()
        )),
        (_, Some(_)) if is_by_record && before.is_none() => Some(format!(
            "only the record in its initrd keeps it, which that of this boot {}: make the initrd anew, \
             unless that was done since, or it would be taken",
            if of_boot.is_some() { "does not have it in" } else { "is not known to have" }
        )),
        (Some(_), None) => {
            let said = "it would be taken: in an initrd nothing uses it yet";
            Some([&[said.to_owned()][..], &anew.warnings].concat().join("; "))
        }
        (None, Some(why)) => Some(format!("it would be refused: {why}")),
        _ => None,
    }
}

/// Why the host keeps it; `None` where it goes.
fn refusal(target: &Target) -> Option<&str> {
    match &target.decision {
        Decision::Refuse(why) => Some(&why.reason),
        Decision::Take(_) | Decision::Reserve(_) => None,
    }
}
