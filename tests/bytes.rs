//! Whatever the command line holds.

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_early::cmdline;
use vfio_early::pci::{Address, Item};

use crate::machine::{Line, Machine, desktop};

/// A boot writes files; a command line longer than this is none that Linux can have.
const LONGEST: usize = 4096;

fn machine() -> Machine {
    desktop().line(Line::V6_12)
}

/// Pieces that a command line is made of, the well-formed ones often enough to get somewhere.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let well_formed = prop::sample::select(vec![
        "vfio.devs=",
        "vfio.wait=0",
        "vfio.strict",
        "vfio.off",
        "vfio.debug",
        "vfio.console=",
        "vfio.driver=",
        "vfio.dev=",
        "vfio_pci.ids=",
        "00:14.0",
        "0000:01:00.*",
        "01:00.1",
        "10de:1c03@",
        "8086:a12f@00:14.0",
        "pci:",
        "pci:8086:0",
        "group:",
        "group:01:00.0",
        "00:1c.0/00.0",
        "144d:a808@",
        "ffffffff:ff:1f.7",
        "/",
        "*",
        "@",
        ":",
        ".",
        ",",
        " ",
        "\"",
        "=",
        "--",
        " -- ",
        "\n",
        "\t",
        "\u{a0}",
        "\u{2028}",
        "ü",
        "0",
        "ffffffffff",
        "-",
        "_",
    ]);
    prop_oneof![
        8 => well_formed.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..16),
        1 => vec(any::<u8>(), 0..LONGEST),
    ]
}

fn command_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(piece(), 0..64).prop_map(|pieces| pieces.concat()),
        4 => vec(piece(), 0..64)
            .prop_map(|pieces| [b"vfio.devs=".to_vec(), pieces.concat()].concat()),
        1 => vec(any::<u8>(), 0..=LONGEST),
    ]
    .prop_map(|mut text| {
        text.truncate(LONGEST);
        text
    })
}

proptest! {
    #[test]
    fn a_command_line_of_any_bytes_is_parsed_planned_and_bound(text in command_line()) {
        let mut fake = machine().boot();
        let request = cmdline::parse(&text);
        let asked = request.items.len() + request.rejected.len();
        prop_assert_eq!(request.asks_for_devices(), asked > 0 && !request.off);
        let before = fake.tree.everything();
        let sysfs = fake.sysfs();
        let check = vfio_early::check(request, &sysfs, &mut fake).expect("the bus can be read");
        let plan = &check.plan;
        let planned = plan.to_string();
        let names_any = !plan.targets.is_empty() || !plan.absent.is_empty();
        prop_assert_eq!(!planned.is_empty(), names_any, "{}", planned);
        prop_assert_eq!(fake.tree.everything(), before, "a dry run wrote");

        let report = fake.try_bind(&text).expect("the bus can be read");
        // Every device is there once, every item without one once.
        let mut names: Vec<_> =
            report.devices.iter().map(|device| (device.address, &device.item)).collect();
        names.sort();
        let mut addresses: Vec<_> = names.iter().filter_map(|(address, _)| *address).collect();
        let count = addresses.len();
        addresses.dedup();
        prop_assert_eq!(addresses.len(), count);
        prop_assert_eq!(report.request.rejected.len() + report.request.items.len(), asked);
        for device in &report.devices {
            let bound = device.driver.is_some() && device.driver == device.driver_override;
            let is_bound = format!("{:?}", device.outcome) == "Bound";
            prop_assert_eq!(bound, is_bound, "{:?}", device);
            prop_assert_eq!(is_bound, device.reason.is_none(), "{:?}", device);
        }
        for (_, line) in report.lines() {
            prop_assert!(!line.is_empty());
        }
        let json = serde_json::to_vec(&report).expect("a report is JSON");
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        // What is not taken is not touched.
        prop_assert_eq!(fake.driver("0000:00:01.0"), Some("pcieport".to_owned()));
        for function in &machine().functions {
            let mut taken = report.devices.iter().filter(|it| it.driver_override.is_some());
            let is_taken = taken.any(|it| {
                it.address.is_some_and(|address| address.to_string() == function.address)
            });
            let found = fake.driver_override(&function.address);
            prop_assert_eq!(found.is_some(), is_taken, "{}", function.address);
        }
    }

    #[test]
    fn a_printed_address_is_read_as_the_same(
        domain: u32, bus: u8, device in 0..0x20u8, function in 0..8u8,
    ) {
        let address = Address { domain, bus, device, function };
        let text = address.to_string();
        prop_assert_eq!(text.parse::<Address>(), Ok(address));
        prop_assert_eq!(text.to_uppercase().parse::<Address>(), Ok(address));
        let item: Item = text.parse().expect("an address is an item");
        prop_assert_eq!(item.text, text);
    }

    #[test]
    fn every_word_of_the_list_becomes_an_item_or_is_rejected(
        words in vec("[^\\s,\"\u{0}]{0,20}", 0..40),
        separators in vec(prop::sample::select(vec![",", " ", ", ", "\t", ",,", "\n"]), 40),
    ) {
        let pairs = words.iter().zip(&separators);
        let list: Vec<_> = pairs.flat_map(|(word, separator)| [word, *separator]).collect();
        let list = list.concat();
        let text = format!("quiet vfio.devs=\"{list}\" splash");
        let request = cmdline::parse(text.as_bytes());
        let texts: Vec<_> = words.iter().filter(|word| !word.is_empty()).collect();
        prop_assert_eq!(request.items.len() + request.rejected.len(), texts.len());
        // In their order, letter by letter.
        let mut items = request.items.iter().map(|item| &item.text).peekable();
        let mut rejected = request.rejected.iter().map(|item| &item.text).peekable();
        for text in texts {
            let next = if items.peek() == Some(&text) { items.next() } else { rejected.next() };
            prop_assert_eq!(next, Some(text));
        }
    }
}
