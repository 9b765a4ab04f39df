//! What is to be said of a device although it is taken. Pure.

use super::MOST_PLACES;
use crate::escape;
use crate::keep::{Kept, Kind};
use crate::pci::{Address, Choice, Item};
use crate::sysfs::{Device, Machine};

/// An address can name another device after cards were moved, and an id its twin; for these that costs
/// a disk or the network.
pub(super) fn hints(
    address: Address,
    device: &Device,
    item: &Item,
    found: &[Address],
    machine: &Machine,
) -> Vec<String> {
    let mut hints = losses(device, machine);
    hints.extend(beyond_the_card(address, item, found, machine));
    let kind = match device.class {
        class if class.is_storage() => "storage",
        class if class.is_network() => "network",
        _ => return hints,
    };
    let id = device.id;
    match (&item.choice, item.guard) {
        (Choice::Id(_), _) => {
            // Said once.
            if found.len() > 1 && found.first() == Some(&address) {
                let places: Vec<_> =
                    found.iter().take(MOST_PLACES).map(Address::to_string).collect();
                hints.push(format!(
                    "{} takes each {kind} controller of that id, and there are {}: {}; if one of \
                     them is meant, write {id}@ and its address",
                    escape::short(&item.text),
                    found.len(),
                    places.join(", ")
                ));
            }
        }
        (_, Some(_)) => {}
        (_, None) => hints.push(format!(
            "a {kind} controller without a guard: is {id} the one that is meant? then write \
             {id}@{address}, so that another device at this address is left alone"
        )),
    }
    hints
}

/// What a slot has besides a card, said of its display, or of its first function: a slot of a
/// processor or a chipset has whatever that has.
fn beyond_the_card(
    address: Address,
    item: &Item,
    found: &[Address],
    machine: &Machine,
) -> Option<String> {
    let Choice::Place(place) = &item.choice else { return None };
    if found.len() < 2 || place.hops.last().is_some_and(|hop| hop.function.is_some()) {
        return None;
    }
    let of = |address: &Address| &machine.devices[address];
    let first = found.iter().find(|it| of(it).class.is_display()).or_else(|| found.first());
    if first != Some(&address) {
        return None;
    }
    let main = of(&address);
    let is_part = |device: &Device| {
        if main.class.is_display() {
            device.id.vendor == main.id.vendor && device.class.is_of_card()
        } else {
            device.class.0 >> 16 == main.class.0 >> 16
        }
    };
    let beyond: Vec<_> = found
        .iter()
        .filter(|it| !is_part(of(it)) && !of(it).class.is_pci_bridge())
        .map(|it| format!("{it} {} (class {})", of(it).id, of(it).class))
        .collect();
    (!beyond.is_empty()).then(|| {
        format!(
            "with it {} takes {}: a slot is not always one card; if only some of it is meant, list \
             that by itself",
            escape::short(&item.text),
            beyond.join(", ")
        )
    })
}

/// What the host loses with a device that it may have given away on purpose: a router in a VM gets the
/// network, a machine without a screen needs no keyboard.
fn losses(device: &Device, machine: &Machine) -> Vec<String> {
    let loss = |kept: &Kept| match kept.kind {
        // Only by vfio.host=release.
        Kind::Disk => Some(format!("the host is without this disk then: {}", kept.words)),
        Kind::Network => Some(format!("the host is without this network then: {}", kept.words)),
        Kind::Keyboard => Some(if machine.keyboards > 1 {
            format!("a keyboard of the host hangs on it: {}", kept.words)
        } else {
            format!(
                "the host's only keyboard hangs on it, also for a passphrase at boot: {}",
                kept.words
            )
        }),
    };
    device.kept.iter().filter_map(loss).collect()
}
