//! One item of `vfio.devs=`, and what else reads addresses and ids.

use vfio_early::cmdline::Request;
use vfio_early::host::list::filter::Filter;
use vfio_early::pci::{Address, Choice, Class, Id, Item, Place};
use vfio_early::plan;
use vfio_early::sysfs::{Device, Machine};

/// The input is an item.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<Item>() {
        Ok(item) => check_item(&text, &item),
        Err(rejected) => {
            assert_eq!(rejected.text, text);
            assert!(rejected.reason.contains("; write "), "{}", rejected.reason);
            assert!(rejected.reason.len() < 1024, "{}", rejected.reason);
        }
    }
    if let Ok(address) = text.parse::<Address>() {
        let printed = address.to_string();
        assert_eq!(printed.parse(), Ok(address), "{text:?} printed as {printed}");
        assert!(text.parse::<Item>().is_ok(), "an address is an item");
    }
    if let Ok(id) = text.parse::<Id>() {
        assert_eq!(id_text(id).parse(), Ok(id), "{text:?}");
        assert!(id.matches(&id));
    }
    match text.parse::<Filter>() {
        Ok(filter) => filter.choose(&machine(), &mut Vec::new()),
        Err(why) => {
            assert!(text.parse::<Item>().is_err(), "an item is a filter: {why}");
            // It is one argument, and says it once.
            assert!(why.len() < 2048 + 10 * text.len(), "{} bytes", why.len());
        }
    }
}

fn check_item(text: &str, item: &Item) {
    assert_eq!(item.text, text);
    assert!(text.is_ascii() && !text.contains([' ', ',', '"']), "{text:?}");
    let printed = printed(item);
    let again: Item = printed.parse().expect("a printed item is one");
    assert_eq!((again.guard, &again.choice), (item.guard, &item.choice), "{text:?}: {printed}");
    // Digits may be in either case.
    let upper = ["pci:", "group:", "vfs:"]
        .iter()
        .find_map(|kind| Some((*kind).to_owned() + &text.strip_prefix(kind)?.to_ascii_uppercase()));
    let upper = upper.unwrap_or_else(|| text.to_ascii_uppercase());
    let upper: Item = upper.parse().expect("digits in the other case are an item, too");
    assert_eq!((upper.guard, &upper.choice), (item.guard, &item.choice), "{text:?}");

    let machine = machine();
    let request = Request { items: vec![item.clone()], ..Request::default() };
    let found = plan::requested(&request, &machine);
    // Those come in the real root, and nobody waits for them.
    let is_here = !matches!(item.choice, Choice::Virtual { .. });
    let is_missing = found.is_empty() && is_here;
    assert_eq!(is_missing, plan::misses_a_device(&request, &machine), "{text:?}");
    let id = |address: &Address| machine.devices[address].id;
    match &item.choice {
        Choice::Id(wanted) => assert!(found.iter().all(|found| wanted.matches(&id(found)))),
        Choice::Place(place) => {
            if let Some(address) = place.address() {
                let expected: &[_] =
                    if machine.devices.contains_key(&address) { &[address] } else { &[] };
                assert_eq!(found, expected, "{text:?}");
            }
        }
        Choice::Group(_) => {
            let groups = found.iter().map(|found| machine.devices[found].group);
            assert!(groups.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
        }
        Choice::Virtual { .. } => assert!(found.is_empty()),
    }
    let plan = plan::plan(&request, &machine, false);
    assert_eq!(plan.targets.keys().copied().collect::<Vec<_>>(), found, "{text:?}");
    assert_eq!(plan.absent.len(), usize::from(found.is_empty()), "{text:?}");
    let holds = plan::guard_holds(item, &machine);
    let taken = plan.taken().count();
    assert!(holds || taken == 0, "a guard that does not hold keeps all: {text:?}");
}

fn id_text(id: Id) -> String {
    let Id { vendor, device, subvendor, subdevice } = id;
    format!("{vendor:x}:{device:x}:{subvendor:x}:{subdevice:x}")
}

fn place_text(place: &Place) -> String {
    let hops = place.hops.iter().map(|hop| {
        let function = hop.function.map_or("*".to_owned(), |function| format!("{function:x}"));
        format!("{:x}.{function}", hop.device)
    });
    let hops: Vec<_> = hops.collect();
    format!("{:x}:{:x}:{}", place.domain, place.bus, hops.join("/"))
}

/// The item written anew, from what it was read as.
fn printed(item: &Item) -> String {
    let guard = item.guard.map_or(String::new(), |id| id_text(id) + "@");
    match &item.choice {
        Choice::Id(id) => format!("pci:{}", id_text(*id)),
        Choice::Place(place) => guard + &place_text(place),
        Choice::Group(place) => format!("group:{guard}{}", place_text(place)),
        Choice::Virtual { of, count } => {
            let count = count.map_or(String::new(), |count| format!("={count}"));
            format!("vfs:{guard}{}{count}", place_text(of))
        }
    }
}

/// Two cards of two functions each, one behind a bridge and one in a long domain.
fn machine() -> Machine {
    let mut machine = Machine::default();
    for (address, id, class, group, above) in [
        ("0000:00:01.0", "8086:1901", 0x06_0400, Some(1), "pci0000:00"),
        ("0000:01:00.0", "10de:1c03:1462:3282", 0x02_0000, Some(1), "pci0000:00/0000:00:01.0"),
        ("0000:01:00.1", "10de:10f1", 0x04_0300, Some(1), "pci0000:00/0000:00:01.0"),
        ("10000:e1:00.0", "144d:a808", 0x01_0802, Some(7), "pci10000:e1"),
        ("10000:e1:00.7", "144d:a808", 0x01_0802, None, "pci10000:e1"),
    ] {
        let at: Address = address.parse().expect("an address");
        let device = Device {
            id: id.parse().expect("an id"),
            class: Class(class),
            group,
            folder: format!("devices/{above}/{address}"),
            ..Device::default()
        };
        if let Some(group) = group {
            machine.groups.entry(group).or_insert_with(Vec::new).push(at);
        }
        machine.devices.insert(at, device);
    }
    machine
}
