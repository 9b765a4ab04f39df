//! A card goes to a VM whole, and so does a group that was asked for as one. Pure.

use std::collections::BTreeMap;

use super::{Decision, Target, Targets, Why, use_by_host};
use crate::pci::Address;

/// Leaves to the host what is of no use to a VM: where a display stays, the functions of its card that
/// the same item chose, and where a device of a group stays, what an item chose with that group.
pub(super) fn keep_together(targets: &mut Targets) {
    let (mut displays, mut members) = (BTreeMap::new(), BTreeMap::new());
    for (address, target) in targets.iter().filter(|(_, target)| !target.goes()) {
        if target.device.class.is_display() {
            displays.entry((&target.item, slot(*address))).or_insert(*address);
        }
        if let (true, Some(group)) = (target.item.starts_with("group:"), target.device.group) {
            members.entry((&target.item, group)).or_insert(*address);
        }
    }
    if displays.is_empty() && members.is_empty() {
        return;
    }
    let mut companions = Vec::new();
    for (address, target) in targets.iter().filter(|(_, target)| target.goes()) {
        let display = displays.get(&(&target.item, slot(*address)));
        let member = target.device.group.and_then(|group| members.get(&(&target.item, group)));
        let reason = match (display, member) {
            (Some(display), _) => format!(
                "{display}, the display of its card, stays with the host, and no VM has a use for the \
                 rest"
            ),
            (None, Some(member)) => match use_by_host(&targets[member].device) {
                Some(words) => format!(
                    "{member} of its IOMMU group stays with the host ({words}), so that no VM can \
                     have the group: this slot cannot be given away on this board"
                ),
                None => format!(
                    "{member} of its IOMMU group stays with the host, so that no VM can have the group"
                ),
            },
            (None, None) => continue,
        };
        let remedy = format!("see there; to have it all the same, list {address} by itself");
        companions.push((*address, Why::new(reason, remedy)));
    }
    for (address, why) in companions {
        if let Some(target) = targets.get_mut(&address) {
            target.decision = Decision::Refuse(why);
            target.warnings.clear();
        }
    }
}

/// Tells of a part of a card that goes by an item of its own while the display, which was listed, too,
/// stays.
pub(super) fn tell_of_halves(targets: &mut Targets) {
    let stay =
        |(_, target): &(&Address, &Target)| target.device.class.is_display() && !target.goes();
    let displays: Vec<_> = targets
        .iter()
        .filter(stay)
        .map(|(address, target)| (*address, target.device.id.vendor))
        .collect();
    for (display, vendor) in displays {
        for (address, target) in targets.iter_mut() {
            let is_of_card = slot(*address) == slot(display)
                && target.device.id.vendor == vendor
                && target.device.class.is_of_card();
            if is_of_card && target.goes() {
                target.warnings.push(format!(
                    "{display}, the display of its card, is listed, too, and stays with the host: the \
                     card is torn apart, and what is left of it is of little use to a VM; see there, or \
                     take {address} off the list"
                ));
            }
        }
    }
}

fn slot(address: Address) -> (u32, u8, u8) {
    (address.domain, address.bus, address.device)
}
