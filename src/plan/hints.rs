//! What is to be said of a device although it is taken. Pure.

use super::{MOST_PLACES, Target, Targets, resolve};
use crate::cmdline::Request;
use crate::escape;
use crate::keep::{Kept, Kind};
use crate::pci::{Address, Choice, Item};
use crate::sysfs::{Device, Machine};

/// An address can name another device after cards were moved, which for these costs a disk or the network.
pub(super) fn hints(address: Address, device: &Device, item: &Item) -> Vec<String> {
    let mut hints = losses(device);
    if let (Some(kind), None, false) = (kind(device), item.guard, is_id(item)) {
        let id = device.id;
        hints.push(format!(
            "a {kind} controller without a guard: is {id} the one that is meant? then write \
             {id}@{address}, so that another device at this address is left alone"
        ));
    }
    hints
}

fn is_id(item: &Item) -> bool {
    matches!(item.choice, Choice::Id(_))
}

fn kind(device: &Device) -> Option<&'static str> {
    match device.class {
        class if class.is_storage() => Some("storage"),
        class if class.is_network() => Some("network"),
        _ => None,
    }
}

/// Tells what an item takes besides the device that may be meant: once, of the first that it takes.
pub(super) fn tell_of_items(targets: &mut Targets, request: &Request, machine: &Machine) {
    for item in &request.items {
        let is_slot = matches!(&item.choice, Choice::Place(place)
            if place.hops.last().is_none_or(|hop| hop.function.is_none()));
        if !is_slot && !is_id(item) {
            continue;
        }
        let found = resolve(item, machine);
        let is_its = |address: &&Address| {
            targets.get(*address).is_some_and(|target| target.goes() && target.item == item.text)
        };
        let Some(first) = found.iter().find(is_its) else { continue };
        let hint = if is_slot {
            beyond_the_card(item, &found, targets)
        } else {
            twins(item, &found, kind(&machine.devices[first]))
        };
        if let (Some(hint), Some(target)) = (hint, targets.get_mut(first))
            && !target.warnings.contains(&hint)
        {
            target.warnings.push(hint);
        }
    }
}

/// An id is its twin's, too, and of disks and networks that can be the host's own.
fn twins(item: &Item, found: &[Address], kind: Option<&str>) -> Option<String> {
    let kind = kind.filter(|_| found.len() > 1)?;
    let places: Vec<_> = found.iter().take(MOST_PLACES).map(Address::to_string).collect();
    let text = escape::short(&item.text);
    Some(format!(
        "{text} takes each {kind} controller of that id, and there are {}: {}; if one of them is meant, \
         write {}@ and its address",
        found.len(),
        places.join(", "),
        text.trim_start_matches("pci:")
    ))
}

/// What a slot has besides its display, or what else there is first: a slot of a processor or a chipset
/// has whatever that has.
fn beyond_the_card(item: &Item, found: &[Address], targets: &Targets) -> Option<String> {
    let found: Vec<_> =
        found.iter().filter_map(|address| Some((address, targets.get(address)?))).collect();
    let display = found.iter().find(|(_, target)| target.device.class.is_display());
    let main = &display.or_else(|| found.first())?.1.device;
    let is_part = |device: &Device| {
        if main.class.is_display() {
            device.id.vendor == main.id.vendor && device.class.is_of_card()
        } else {
            device.class.0 >> 16 == main.class.0 >> 16
        }
    };
    let beyond: Vec<_> = found
        .iter()
        .filter(|(_, target)| target.goes() && !is_part(&target.device))
        .map(|(it, target)| format!("{it} {} (class {})", target.device.id, target.device.class))
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

/// What the host loses with a device that it may have given away on purpose, as a router in a VM gets the
/// network.
fn losses(device: &Device) -> Vec<String> {
    let loss = |kept: &Kept| match kept.kind {
        // Only by vfio.host=release.
        Kind::Disk => Some(format!("the host is without this disk then: {}", kept.words)),
        Kind::Network => Some(format!("the host is without this network then: {}", kept.words)),
        Kind::Keyboard => None,
    };
    device.kept.iter().filter_map(loss).collect()
}

/// Tells of each device that goes with a keyboard whether the host is left one: a machine without a screen
/// needs none, and one with LUKS does.
pub(super) fn tell_of_keyboards(targets: &mut Targets, machine: &Machine) {
    let keyboard = |device: &Device| {
        let mut kept = device.kept.iter();
        kept.find(|kept| kept.kind == Kind::Keyboard).map(|kept| kept.words.clone())
    };
    let goes = |address: &Address| targets.get(address).is_some_and(Target::goes);
    let having = machine.devices.iter().filter(|(_, device)| keyboard(device).is_some());
    let (given, left): (Vec<Address>, Vec<_>) = having.map(|(address, _)| *address).partition(goes);
    let is_last = left.is_empty() && machine.keyboards_elsewhere == 0;
    for address in &given {
        let Some(target) = targets.get_mut(address) else { continue };
        let Some(name) = keyboard(&target.device) else { continue };
        let others: Vec<_> =
            given.iter().filter(|it| *it != address).map(Address::to_string).collect();
        target.warnings.push(match (is_last, others.as_slice()) {
            (false, _) => format!("a keyboard of the host hangs on it: {name}"),
            (true, []) => format!(
                "the host's only keyboard hangs on it, also for a passphrase at boot: {name}"
            ),
            (true, others) => format!(
                "the host's keyboards hang on it and on {}, and none is left to it, also for a \
                 passphrase at boot: {name}",
                others.join(", ")
            ),
        });
    }
}
