//! A list of items, written by chance, and what has to come of it.
//!
//! What an item means is worked out here once more, from the machine that was put together and not
//! from a `/sys`, and in the other direction than the binary does it: the devices come first, and
//! then an item that names them.

use std::collections::BTreeMap;

use crate::checks::soak::random::Random;
use crate::machine::topology::{Function, Topology};
use crate::scenario::Scenario;

/// An item, and what it asks for.
#[derive(Debug, Clone)]
struct Item {
    text: String,
    /// Addresses of the devices that it names.
    named: Vec<String>,
    /// An id stands in it: nobody has to be told to write a guard.
    by_id: bool,
    guard: Guard,
    /// It is no item at all.
    malformed: bool,
}

/// What stands in front of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    None,
    Holds,
    DoesNotHold,
}

impl Item {
    fn naming(text: String, named: Vec<String>) -> Self {
        Self { text, named, by_id: false, guard: Guard::None, malformed: false }
    }
}

/// An id that no device of the table of models has.
const NOBODY: &str = "dead:beef";

/// Adds a command line to the scenario, and what has to become of each device.
pub fn add(mut scenario: Scenario, random: &mut Random) -> Scenario {
    let functions = scenario.topology.functions();
    let own = own_addresses(&scenario.topology);
    let items = items(&functions, &own, random);
    let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
    scenario = scenario.cmdline(&command_line(&texts, random));
    expect(scenario, &functions, &items)
}

/// Of the devices that are no bridges and not the machine's own.
fn own_addresses(topology: &Topology) -> Vec<String> {
    let bridges: Vec<String> = topology
        .functions()
        .into_iter()
        .filter(|function| function.bridge)
        .map(|function| function.address)
        .collect();
    let addresses = topology.devices.iter().filter_map(|device| topology.address(&device.id));
    addresses.filter(|address| !bridges.contains(address)).collect()
}

/// In one parameter or several; with commas, or in quotes with spaces.
fn command_line(texts: &[&str], random: &mut Random) -> String {
    let cut = random.below(texts.len() + 1);
    let (one, other) = texts.split_at(cut);
    let parameters: Vec<String> = [one, other]
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| {
            if random.once_in(3) {
                format!("vfio.devs=\"{}\"", part.join("  "))
            } else {
                format!("vfio.devs={}", part.join(","))
            }
        })
        .collect();
    parameters.join(" quiet ")
}

fn items(functions: &[Function], own: &[String], random: &mut Random) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..=random.below(8) {
        let address = random.of(own);
        let function = at(functions, address);
        items.push(match random.below(12) {
            0..3 => address_item(function, random),
            3 => slot_item(function, functions, random),
            4 | 5 => path_item(function, functions, random),
            6 => id_item(function, functions),
            7 | 8 => group_item(function, functions),
            9 => {
                let text = format!("{NOBODY}@{address}");
                Item { guard: Guard::DoesNotHold, ..Item::naming(text, vec![address.clone()]) }
            }
            10 => other_item(functions, random),
            _ => {
                let text = (*random.of(&["zz:00.0", "00:20.0", "01:00.9", "group:"])).to_owned();
                Item { malformed: true, ..Item::naming(text, Vec::new()) }
            }
        });
    }
    // The same once more changes nothing.
    if random.once_in(4) {
        let again = random.of(&items).clone();
        items.push(again);
    }
    // But what names no device is told of each time: such lists are a matter of the table's.
    let mut told = Vec::new();
    items.retain(|item| {
        let is_new = !item.named.is_empty() || !told.contains(&item.text);
        told.push(item.text.clone());
        is_new
    });
    random.shuffle(&mut items);
    items
}

fn at<'f>(functions: &'f [Function], address: &str) -> &'f Function {
    functions.iter().find(|other| other.address == address).expect("a device of this machine")
}

/// With or without its domain, in digits of either case.
fn written(address: &str, random: &mut Random) -> String {
    let short = if random.once_in(2) { address.trim_start_matches("0000:") } else { address };
    if random.once_in(4) { short.to_uppercase() } else { short.to_owned() }
}

/// Puts a guard in front, or not.
fn guard(item: Item, of: &Function, random: &mut Random) -> Item {
    if random.once_in(2) {
        return item;
    }
    Item { text: format!("{}@{}", of.id_text(), item.text), guard: Guard::Holds, ..item }
}

fn address_item(function: &Function, random: &mut Random) -> Item {
    let text = written(&function.address, random);
    guard(Item::naming(text, vec![function.address.clone()]), function, random)
}

/// Domain, bus and device.
fn slot(address: &str) -> &str {
    address.rsplit_once('.').map_or(address, |(slot, _)| slot)
}

fn slot_item(function: &Function, functions: &[Function], random: &mut Random) -> Item {
    let slot_of_it = slot(&function.address);
    let of_slot: Vec<&Function> =
        functions.iter().filter(|other| slot(&other.address) == slot_of_it).collect();
    let named = of_slot.iter().map(|other| other.address.clone()).collect();
    let text = written(&format!("{slot_of_it}.*"), random);
    guard(Item::naming(text, named), of_slot[0], random)
}

fn path_item(function: &Function, functions: &[Function], random: &mut Random) -> Item {
    let mut hops = Vec::new();
    let mut top = function;
    while let Some(parent) = &top.parent {
        let (_, last) = top.address.rsplit_once(':').expect("an address has a bus");
        hops.push(last.to_owned());
        top = at(functions, parent);
    }
    let top = written(&top.address, random);
    let text = [top].into_iter().chain(hops.into_iter().rev()).collect::<Vec<_>>().join("/");
    guard(Item::naming(text, vec![function.address.clone()]), function, random)
}

fn id_item(function: &Function, functions: &[Function]) -> Item {
    let same = functions.iter().filter(|other| other.id == function.id);
    let named = same.map(|other| other.address.clone()).collect();
    Item { by_id: true, ..Item::naming(format!("pci:{}", function.id_text()), named) }
}

fn group_item(function: &Function, functions: &[Function]) -> Item {
    let members = functions.iter().filter(|other| other.group == function.group && !other.bridge);
    let named = members.map(|other| other.address.clone()).collect();
    Item::naming(format!("group:{}", function.address), named)
}

/// A bridge, or nothing.
fn other_item(functions: &[Function], random: &mut Random) -> Item {
    let bridges: Vec<&Function> = functions.iter().filter(|function| function.bridge).collect();
    if bridges.is_empty() || random.once_in(2) {
        let nowhere = ["00:1e.0", "7f:00.0", "00:1e.*", "pci:dead:beef", "0001:00:03.0"];
        return Item::naming((*random.of(&nowhere)).to_owned(), Vec::new());
    }
    let bridge = random.of(&bridges).address.clone();
    Item::naming(bridge.clone(), vec![bridge])
}

/// What has to be said of a device.
#[derive(Debug, Default)]
struct Fate<'i> {
    items: Vec<&'i Item>,
}

impl Fate<'_> {
    fn is_refused(&self) -> bool {
        self.items.iter().any(|item| item.guard == Guard::DoesNotHold)
    }
}

fn expect(mut scenario: Scenario, functions: &[Function], items: &[Item]) -> Scenario {
    let mut fates: BTreeMap<&str, Fate<'_>> = BTreeMap::new();
    for item in items {
        if item.malformed {
            scenario = scenario.rejected(leak(item.text.clone()));
        } else if item.named.is_empty() {
            scenario = scenario.absent(&item.text);
        }
        for address in &item.named {
            fates.entry(address).or_default().items.push(item);
        }
    }
    let is_bound = |function: &Function| {
        let fate = fates.get(function.address.as_str());
        !function.bridge && fate.is_some_and(|fate| !fate.is_refused())
    };
    for (address, fate) in &fates {
        let function = at(functions, address);
        if !is_bound(function) {
            scenario = scenario.refused_by_any(address);
            let text = if fate.is_refused() { NOBODY } else { "bridge" };
            scenario = scenario.saying(text);
            continue;
        }
        scenario = scenario.bound_by_any(address);
        if is_hinted(function, fate) {
            let id = function.id_text();
            let text = format!(
                "without a guard: is {id} the one that is meant? then write {id}@{address}"
            );
            scenario = scenario.saying(leak(text));
        }
        let goes = |address: &str| is_bound(at(functions, address));
        let item = fate.items.first().filter(|item| is_first_of(item, address, &fates, &goes));
        if item.is_some_and(|item| has_others(item, functions, &goes)) {
            scenario = scenario.saying("a slot is not always one card");
        }
        let is_of_twins = item.is_some_and(|item| item.by_id && item.named.len() > 1);
        if is_of_twins && is_disk_or_network(function) {
            scenario = scenario.saying("controller of that id, and there are");
        }
        // Function 1 is looked for, and 0 by any other one.
        let own = &function.address;
        let first = format!("{}.{}", slot(own), u8::from(own.ends_with(".0")));
        let is_card = functions.iter().any(|other| other.address == first);
        for other in functions.iter().filter(|other| !is_bound(other)) {
            let text = || leak(format!("{} {}", other.address, other.id_text()));
            if other.group != function.group {
                if is_card && slot(&other.address) == slot(own) && !function.resets() {
                    scenario = scenario.saying("can reset it only together with");
                }
            } else if has_driver(other, &scenario) {
                scenario = scenario.unusable(text());
            } else if !other.bridge && other.class >> 16 != 6 {
                scenario = scenario.saying(text());
            }
        }
        if !scenario.topology.interrupt_remapping {
            scenario = scenario.unusable("allow_unsafe_interrupts");
        }
    }
    scenario
}

/// Host drivers that can come beside `bind` without another word in its report: none of them takes
/// a device that shares a group with one that is given away.
#[must_use]
pub fn beside(scenario: &Scenario) -> Vec<&'static str> {
    let functions = scenario.topology.functions();
    let is_bound = |function: &&Function| {
        let address = Some(function.address.as_str());
        let mut wanted = scenario.wanted.iter().filter(|it| it.address.as_deref() == address);
        wanted.any(|it| it.outcome == "bound")
    };
    let groups: Vec<_> = functions.iter().filter(is_bound).map(|function| function.group).collect();
    let is_told_of = |module: &str| {
        functions.iter().any(|function| {
            function.host_module == Some(module)
                && !is_bound(&function)
                && groups.contains(&function.group)
        })
    };
    let modules = scenario.host_modules.iter().copied();
    modules.filter(|module| !is_told_of(module)).collect()
}

fn is_disk_or_network(function: &Function) -> bool {
    matches!(function.class >> 16, 1 | 2)
}

fn has_guard(fate: &Fate<'_>) -> bool {
    fate.items.iter().any(|item| item.guard == Guard::Holds)
}

/// A disk or a network card that nothing but a place says something of.
fn is_hinted(function: &Function, fate: &Fate<'_>) -> bool {
    let first_is_id = fate.items.first().is_some_and(|item| item.by_id);
    is_disk_or_network(function) && !first_is_id && !has_guard(fate)
}

/// Whether it is the first device that goes by an item which is not of one device; that is the first item
/// that names it.
fn is_first_of(
    item: &Item,
    address: &str,
    fates: &BTreeMap<&str, Fate<'_>>,
    is_bound: &dyn Fn(&str) -> bool,
) -> bool {
    let is_its = |named: &&String| {
        let first = fates.get(named.as_str()).and_then(|fate| fate.items.first());
        is_bound(named) && first.is_some_and(|first| first.text == item.text)
    };
    item.named.iter().filter(is_its).min().is_some_and(|first| first == address)
}

/// A slot that was asked for whole has what is no part of its display's card, or other than its first
/// function.
fn has_others(item: &Item, functions: &[Function], is_bound: &dyn Fn(&str) -> bool) -> bool {
    let of_slot: Vec<&Function> = item.named.iter().map(|other| at(functions, other)).collect();
    let is_display = |other: &&&Function| other.class >> 16 == 3;
    let Some(first) = of_slot.iter().find(is_display).or(of_slot.first()) else { return false };
    let is_part = |other: &Function| {
        if first.class >> 16 == 3 {
            let of_card = [0x0401, 0x0403, 0x0c03, 0x0c80].contains(&(other.class >> 8));
            other.id.0 == first.id.0 && (other.class >> 16 == 3 || of_card)
        } else {
            other.class >> 16 == first.class >> 16
        }
    };
    item.text.ends_with(".*") && of_slot.iter().any(|it| !is_part(it) && is_bound(&it.address))
}

/// Whether the host has it, which leaves its group to no VM. Bridges to PCI buses do not count.
fn has_driver(function: &Function, scenario: &Scenario) -> bool {
    let loaded_before =
        function.host_module.is_some_and(|module| scenario.before.contains(&module));
    !function.bridge && (loaded_before || scenario.bound_at_power_on(function))
}

/// A scenario's texts live as long as the program, as those of the table do.
#[must_use]
pub fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
