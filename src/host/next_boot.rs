//! What an initrd would do with the devices at the next boot, where that is not what `bind` would do
//! now: nothing is in use there, and only its record tells what the host lives from.

use crate::cmdline::Request;
use crate::keep::{Kind, Record};
use crate::plan::{self, Decision, Plan};
use crate::report::NextBoot;
use crate::sysfs::{Machine, Sysfs};

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
    let mut then = machine.clone();
    then.devices.values_mut().for_each(|device| device.usage = None);
    sysfs.know(lives_from, &mut then);
    let then = plan::plan(request, &then, false);
    // Where this boot's initrd asked for no device, it has left no record.
    let of_boot = sysfs.record_of_boot();
    let mut texts = Vec::new();
    for (address, target) in &now.targets {
        let Some(next) = then.targets.get(address) else { continue };
        let is_known = || {
            let kept = |record| sysfs.kept(record, &target.device);
            let is_disk = |record| kept(record).iter().any(|kept| kept.kind == Kind::Disk);
            of_boot.as_ref().is_some_and(is_disk)
        };
        let is_by_record = next.device.kept.iter().any(|kept| kept.kind == Kind::Disk);
        let text = match (&target.decision, &next.decision) {
            (Decision::Refuse(_), Decision::Take(_) | Decision::Reserve(_)) => {
                let said = "it would be taken: in an initrd nothing uses it yet".to_owned();
                [&[said][..], &next.warnings].concat().join("; ")
            }
            (_, Decision::Refuse(_)) if is_by_record && !is_known() => format!(
                "only the record in its initrd keeps it, which {}: make the initrd anew, or it would be \
                 taken",
                if of_boot.is_some() {
                    "that of this boot does not have it in"
                } else {
                    "that of this boot is not known to have"
                }
            ),
            (Decision::Take(_) | Decision::Reserve(_), Decision::Refuse(why)) => {
                format!("it would be refused: {}", why.reason)
            }
            _ => continue,
        };
        texts.push(NextBoot { address: *address, text });
    }
    texts
}
