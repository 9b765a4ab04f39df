//! PCI addresses, ids, and the items of a device list: parse and print.
//!
//! The notation is the kernel's own, from `Documentation/admin-guide/kernel-parameters.txt`
//! (`pci=`): `[<domain>:]<bus>:<dev>.<func>[/<dev>.<func>]*` and
//! `pci:<vendor>:<device>[:<subvendor>:<subdevice>]`.

mod digits;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use static_assertions::assert_eq_size;

use crate::escape;
pub use digits::{Digits, number};

/// The address of one PCI function, as in `/sys/bus/pci/devices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// 32 bits: Intel VMD domains start at `0x1_0000`.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device (slot) on the bus, 0 to 0x1f.
    pub device: u8,
    /// Function of the device, 0 to 7.
    pub function: u8,
}
assert_eq_size!(Address, u64);

impl Address {
    /// In the order of addresses; one comparison where there would be one for each part.
    fn key(self) -> u64 {
        let Address { domain, bus, device, function } = self;
        u64::from(domain) << 32 | u64::from(u32::from_be_bytes([0, bus, device, function]))
    }
}

impl Ord for Address {
    // A machine of hundreds of devices has as many thousands of these.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Vendor and device, and those of the subsystem; in an item, 0 stands for any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// Subsystem vendor id; 0 where the device has none.
    pub subvendor: u16,
    /// Subsystem device id; 0 where the device has none.
    pub subdevice: u16,
}

/// The 24-bit class code: base class, subclass, programming interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class(pub u32);

impl Class {
    /// A bridge header, which vfio-pci does not take (`vfio_pci_core_register_device`):
    /// PCI-to-PCI and `CardBus` bridges. Known by their class, which costs no config access.
    #[must_use]
    pub fn is_pci_bridge(self) -> bool {
        matches!(self.0 >> 8, 0x0604 | 0x0607 | 0x0609)
    }

    /// Any device of base class 06: besides the above, host and ISA bridges, which are in many
    /// groups and rarely have a driver.
    #[must_use]
    pub fn is_bridge(self) -> bool {
        self.0 >> 16 == 0x06
    }

    /// Mass storage controllers, base class 01.
    #[must_use]
    pub fn is_storage(self) -> bool {
        self.0 >> 16 == 0x01
    }

    /// What disks hang on: mass storage, USB, and Fibre Channel.
    #[must_use]
    pub fn may_have_disks(self) -> bool {
        self.is_storage() || matches!(self.0 >> 8, 0x0c03 | 0x0c04)
    }

    /// Graphics devices, base class 03.
    #[must_use]
    pub fn is_display(self) -> bool {
        self.0 >> 16 == 0x03
    }

    /// What a graphics card has: itself, its audio, and for USB-C a controller and UCSI (a serial bus of
    /// no class of its own).
    #[must_use]
    pub fn is_of_card(self) -> bool {
        self.is_display() || matches!(self.0 >> 8, 0x0401 | 0x0403 | 0x0c03 | 0x0c80)
    }

    /// Network controllers, base class 02.
    #[must_use]
    pub fn is_network(self) -> bool {
        self.0 >> 16 == 0x02
    }
}

/// One `<dev>.<func>` of a place; no function stands for all, and only at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Device (slot) on its bus, 0 to 0x1f.
    pub device: u8,
    /// Function, 0 to 7; `None` is `*`.
    pub function: Option<u8>,
}

impl Hop {
    /// Whether the device there is on this hop, of whatever bus.
    #[must_use]
    pub fn is_of(self, address: Address) -> bool {
        address.device == self.device
            && self.function.is_none_or(|function| address.function == function)
    }
}

/// Where a device sits: an address, or a path of hops below bridges, which survives other
/// bus numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Domain of the bus that the path starts on.
    pub domain: u32,
    /// The bus that the path starts on.
    pub bus: u8,
    /// The first hop is on that bus, each other one below the bridge before; never empty.
    pub hops: Vec<Hop>,
}

impl Place {
    /// The address, where the place is one: a single hop with a function.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self.hops[..] {
            [Hop { device, function: Some(function) }] => {
                Some(Address { domain: self.domain, bus: self.bus, device, function })
            }
            _ => None,
        }
    }
}

/// Which devices an item of the list chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The function there, or all functions of a slot.
    Place(Place),
    /// Every device with that id.
    Id(Id),
    /// Every endpoint in the IOMMU group of the device there.
    Group(Place),
    /// The virtual functions (SR-IOV) of the device there, which its driver makes.
    Virtual {
        /// The device; one function.
        of: Place,
        /// So many are to be made, where there are none.
        count: Option<u16>,
    },
}

/// One item of `vfio.devs=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The item as it was written; what messages and the report call it by.
    pub text: String,
    /// What the device there must be; for a slot, its lowest function.
    pub guard: Option<Id>,
    /// The devices.
    pub choice: Choice,
}

/// An item that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The item as it was written.
    pub text: String,
    /// What is wrong with it, and the right form.
    pub reason: String,
}

const FORMS: &str = "write an address as 0000:01:00.0, a slot as 01:00.*, a path as \
                     00:01.0/00.0, an id as pci:10de:1c03, a group as group:01:00.0, virtual \
                     functions as vfs:03:00.0 or vfs:03:00.0=4";

/// 1 to `digits` hex digits, at most `max`; `what` names the number in the message.
fn hex(text: &str, digits: usize, max: u32, what: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Err(format!("the {what} is missing"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("the {what} {:?} is not a hexadecimal number", escape::short(text)));
    }
    u32::from_str_radix(text, 16)
        .ok()
        .filter(|number| text.len() <= digits && *number <= max)
        .ok_or_else(|| format!("the {what} {} is over {max:x}", escape::short(text)))
}

/// As [`hex`], for numbers of 8 bits.
fn hex8(text: &str, max: u8, what: &str) -> Result<u8, String> {
    let number = hex(text, 2, max.into(), what)?;
    Ok(u8::try_from(number).unwrap_or(max))
}

/// As [`hex`], for numbers of 16 bits.
fn hex16(text: &str, what: &str) -> Result<u16, String> {
    let number = hex(text, 4, 0xffff, what)?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

impl FromStr for Hop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((device, function)) = text.split_once('.') else {
            let text = escape::short(text);
            return Err(format!("{text:?} has no function: add .0, or .* for all"));
        };
        Ok(Hop {
            device: hex8(device, 0x1f, "device")?,
            function: match function {
                "*" => None,
                function => Some(hex8(function, 7, "function")?),
            },
        })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let first: Vec<_> = parts.next().unwrap_or_default().split(':').collect();
        let (domain, bus, slot) = match first[..] {
            [bus, slot] => ("0", bus, slot),
            [domain, bus, slot] => (domain, bus, slot),
            _ => return Err("not a PCI address".to_owned()),
        };
        let place = Place {
            domain: hex(domain, 8, u32::MAX, "domain")?,
            bus: hex8(bus, 0xff, "bus")?,
            hops: std::iter::once(slot).chain(parts).map(str::parse).collect::<Result<_, _>>()?,
        };
        match place.hops.split_last() {
            Some((_, bridges)) if bridges.iter().any(|hop| hop.function.is_none()) => {
                Err("only the last function of a path can be *".to_owned())
            }
            _ => Ok(place),
        }
    }
}

impl Address {
    /// A name in a folder of sysfs, where there is one form: `0000:01:00.0` (`pci_setup_device()`).
    /// `None` for any other name. Machines have hundreds of them.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (domain, rest) = name.as_bytes().split_last_chunk()?;
        let [b':', b1, b2, b':', d1, d2, b'.', f] = rest else { return None };
        // So many digits, and no more.
        let is_one_form = match domain.len() {
            4 => true,
            5..=8 => domain[0] != b'0',
            _ => false,
        };
        if !is_one_form || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        Some(Address {
            domain: number(domain)?,
            bus: u8::try_from(number(&[*b1, *b2])?).ok()?,
            device: u8::try_from(number(&[*d1, *d2])?).ok().filter(|device| *device < 32)?,
            function: u8::try_from(number(&[*f])?).ok().filter(|function| *function < 8)?,
        })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<Place>()?.address().ok_or_else(|| "not the address of one function".to_owned())
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        let (vendor, device, subvendor, subdevice) = match parts[..] {
            [vendor, device] => (vendor, device, "0", "0"),
            [vendor, device, subvendor, subdevice] => (vendor, device, subvendor, subdevice),
            _ => return Err("an id is vendor:device or vendor:device:subvendor:subdevice".into()),
        };
        let id = Id {
            vendor: hex16(vendor, "vendor")?,
            device: hex16(device, "device id")?,
            subvendor: hex16(subvendor, "subsystem vendor")?,
            subdevice: hex16(subdevice, "subsystem device id")?,
        };
        if id == (Id { vendor: 0, device: 0, subvendor: 0, subdevice: 0 }) {
            return Err("an id of zeros alone would take every device".to_owned());
        }
        Ok(id)
    }
}

impl Id {
    /// Whether the ids of the subsystem are known, or asked for.
    #[must_use]
    pub fn has_subsystem(&self) -> bool {
        self.subvendor != 0 || self.subdevice != 0
    }

    /// With the ids of the subsystem, where there are any.
    #[must_use]
    pub fn in_full(&self) -> String {
        let Id { subvendor, subdevice, .. } = self;
        if self.has_subsystem() {
            format!("{self}:{subvendor:04x}:{subdevice:04x}")
        } else {
            self.to_string()
        }
    }

    /// Whether this id, with 0 for any, is that of `device`.
    #[must_use]
    pub fn matches(&self, device: &Id) -> bool {
        let any_or_same = |ours: u16, theirs: u16| ours == 0 || ours == theirs;
        any_or_same(self.vendor, device.vendor)
            && any_or_same(self.device, device.device)
            && any_or_same(self.subvendor, device.subvendor)
            && any_or_same(self.subdevice, device.subdevice)
    }
}

/// The items of a list.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}

/// Vendor and device alone, with all their digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 9 && text.parse::<Id>().is_ok()
}

fn choice(text: &str) -> Result<(Option<Id>, Choice), String> {
    // More or other quotes than the kernel knows, and lists as others write them.
    let is_mark = |c: char| {
        matches!(c, '\\' | '"' | '\'' | '`' | '\u{2018}'..='\u{201f}' | ';' | '|' | '(' | '[' | '{')
    };
    match text.chars().find(|c| is_mark(*c)) {
        None => {}
        Some('\\') => {
            return Err(
                "it has a backslash, which is no escape to the kernel: write quotes without \
                        one, or commas alone and no quotes"
                    .to_owned(),
            );
        }
        Some(';' | '|' | '(' | '[' | '{') => {
            return Err("commas separate the items of a list, and nothing is around it".to_owned());
        }
        Some(_) => {
            return Err("the kernel knows no quotes but \", around all of a list".to_owned());
        }
    }
    let without = |text| str::strip_prefix(text, "pci:").unwrap_or(text);
    if let Some(id) = text.strip_prefix("pci:").filter(|id| !id.contains('@')) {
        return Ok((None, Choice::Id(id.parse()?)));
    }
    if is_id(text) {
        return Err(format!("an id needs a pci: in front, pci:{text}"));
    }
    let (before, rest) = match text.split_once(':') {
        Some((before @ ("group" | "vfs"), rest)) => (before, rest),
        _ => ("", text),
    };
    let (rest, count) = match rest.split_once('=') {
        Some((rest, count)) if before == "vfs" => (rest, Some(number_of_functions(count)?)),
        _ => (rest, None),
    };
    let (guard, place) = match rest.split_once('@') {
        Some((guard, place)) => {
            let is_in_order = guard.parse::<Place>().is_err();
            let (id, of) = if is_in_order { (guard, place) } else { (place, guard) };
            let id = without(id);
            if (id, of) != (guard, place) && id.parse::<Id>().is_ok() && of.parse::<Place>().is_ok()
            {
                let before = if before.is_empty() { "" } else { &text[..=before.len()] };
                let what =
                    if is_in_order { "a guard is the id alone" } else { "the id comes first" };
                return Err(format!("{what}: {before}{id}@{of}"));
            }
            (Some(guard.parse()?), place)
        }
        None => (None, rest),
    };
    let place: Place = place.parse()?;
    let choice = match before {
        "group" => Choice::Group(place),
        "vfs" if place.hops.last().is_some_and(|hop| hop.function.is_none()) => {
            return Err("virtual functions are those of one function".to_owned());
        }
        "vfs" => Choice::Virtual { of: place, count },
        _ => Choice::Place(place),
    };
    Ok((guard, choice))
}

/// Decimal, as in `sriov_numvfs`.
fn number_of_functions(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| *number > 0 && !text.starts_with('+'));
    number.ok_or_else(|| format!("{:?} is no number of virtual functions", escape::short(text)))
}

impl FromStr for Item {
    type Err = Rejected;

    fn from_str(text: &str) -> Result<Self, Rejected> {
        match choice(text) {
            Ok((guard, choice)) => Ok(Item { text: text.to_owned(), guard, choice }),
            Err(why) => Err(Rejected { text: text.to_owned(), reason: format!("{why}; {FORMS}") }),
        }
    }
}

impl Address {
    /// As [`Address`] is displayed, for less.
    #[must_use]
    pub fn digits(self) -> Digits {
        let Address { domain, bus, device, function } = self;
        let digits = Digits::default().hex(domain, 4).mark(b':').hex(bus.into(), 2).mark(b':');
        digits.hex(device.into(), 2).mark(b'.').hex(function.into(), 1)
    }
}

impl Id {
    /// Vendor and device; the subsystem is for matching.
    fn digits(self) -> Digits {
        Digits::default().hex(self.vendor.into(), 4).mark(b':').hex(self.device.into(), 4)
    }
}

impl Class {
    /// As it is displayed, for less.
    #[must_use]
    pub fn digits(self) -> Digits {
        Digits::default().hex(self.0, 6)
    }
}

macro_rules! print_digits {
    ($($name:ty),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.digits().as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.digits().as_str())
            }
        }
    )+};
}
print_digits!(Address, Id, Class);

#[cfg(test)]
mod tests {
    use super::*;

    fn place(domain: u32, bus: u8, hops: &[(u8, Option<u8>)]) -> Place {
        let hops = hops.iter().map(|&(device, function)| Hop { device, function }).collect();
        Place { domain, bus, hops }
    }

    fn virtual_of(of: Place, count: Option<u16>) -> Choice {
        Choice::Virtual { of, count }
    }

    fn id(vendor: u16, device: u16, subvendor: u16, subdevice: u16) -> Id {
        Id { vendor, device, subvendor, subdevice }
    }

    #[test]
    fn every_form_of_an_item_is_read() {
        let gtx = id(0x10de, 0x1c03, 0, 0);
        for (text, guard, choice) in [
            ("0000:01:00.0", None, Choice::Place(place(0, 1, &[(0, Some(0))]))),
            ("01:00.0", None, Choice::Place(place(0, 1, &[(0, Some(0))]))),
            ("1:0.0", None, Choice::Place(place(0, 1, &[(0, Some(0))]))),
            ("0000:AF:1F.7", None, Choice::Place(place(0, 0xaf, &[(0x1f, Some(7))]))),
            ("10000:e1:00.0", None, Choice::Place(place(0x10000, 0xe1, &[(0, Some(0))]))),
            ("ffffffff:00:00.0", None, Choice::Place(place(u32::MAX, 0, &[(0, Some(0))]))),
            ("01:00.*", None, Choice::Place(place(0, 1, &[(0, None)]))),
            ("00:01.0/00.0", None, Choice::Place(place(0, 0, &[(1, Some(0)), (0, Some(0))]))),
            (
                "1:00:1c.4/02.1/00.*",
                None,
                Choice::Place(place(1, 0, &[(0x1c, Some(4)), (2, Some(1)), (0, None)])),
            ),
            ("pci:10de:1c03", None, Choice::Id(gtx)),
            ("pci:10DE:0", None, Choice::Id(id(0x10de, 0, 0, 0))),
            ("pci:0:10:1af4:1100", None, Choice::Id(id(0, 0x10, 0x1af4, 0x1100))),
            ("pci:10de:1c03:1462:3282", None, Choice::Id(id(0x10de, 0x1c03, 0x1462, 0x3282))),
            ("group:01:00.0", None, Choice::Group(place(0, 1, &[(0, Some(0))]))),
            ("10de:1c03@01:00.0", Some(gtx), Choice::Place(place(0, 1, &[(0, Some(0))]))),
            ("10de:1c03@01:00.*", Some(gtx), Choice::Place(place(0, 1, &[(0, None)]))),
            (
                "10de:1c03@00:01.0/00.0",
                Some(gtx),
                Choice::Place(place(0, 0, &[(1, Some(0)), (0, Some(0))])),
            ),
            ("group:10de:1c03@01:00.0", Some(gtx), Choice::Group(place(0, 1, &[(0, Some(0))]))),
            ("vfs:03:00.0", None, virtual_of(place(0, 3, &[(0, Some(0))]), None)),
            ("vfs:03:00.1=64", None, virtual_of(place(0, 3, &[(0, Some(1))]), Some(64))),
            (
                "vfs:10de:1c03@00:01.0/00.0=65535",
                Some(gtx),
                virtual_of(place(0, 0, &[(1, Some(0)), (0, Some(0))]), Some(u16::MAX)),
            ),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Item { text: text.to_owned(), guard, choice }),
                "item {text:?}"
            );
        }
    }

    #[test]
    fn every_malformed_item_is_rejected_with_its_reason() {
        for (text, reason) in [
            ("01", "not a PCI address"),
            ("0:0:0:0.0", "not a PCI address"),
            ("01:00", "has no function: add .0, or .* for all"),
            (":00.0", "the bus is missing"),
            ("01:.0", "the device is missing"),
            ("01:00.", "the function is missing"),
            ("01:00.8", "the function 8 is over 7"),
            ("01:20.0", "the device 20 is over 1f"),
            ("100:00.0", "the bus 100 is over ff"),
            ("100000000:01:00.0", "the domain 100000000 is over ffffffff"),
            ("+1:00.0", "the bus \"+1\" is not a hexadecimal number"),
            ("01:0g.0", "the device \"0g\" is not a hexadecimal number"),
            ("0x1:00.0", "is not a hexadecimal number"),
            ("01:00.0/", "has no function"),
            ("01:00.*/00.0", "only the last function of a path can be *"),
            ("10de:1c03", "an id needs a pci: in front, pci:10de:1c03"),
            ("pci:10de", "an id is vendor:device"),
            ("pci:10de:1c03:1462", "an id is vendor:device"),
            ("pci:0:0", "would take every device"),
            ("pci:10de:1c030", "the device id 1c030 is over ffff"),
            ("pci:10de:1c03@01:00.0", "a guard is the id alone: 10de:1c03@01:00.0"),
            ("group:pci:10de:1c03@01:00.0", "a guard is the id alone: group:10de:1c03@01:00.0"),
            ("pci:10de:1c03@x", "an id is vendor:device"),
            ("@01:00.0", "an id is vendor:device"),
            ("10de:1c03@", "not a PCI address"),
            ("01:00.0@10de:1c03", "the id comes first: 10de:1c03@01:00.0"),
            ("01:00.0@pci:10de:1c03", "the id comes first: 10de:1c03@01:00.0"),
            ("group:00:01.0/00.*@10de:1c03", "the id comes first: group:10de:1c03@00:01.0/00.*"),
            (r#"\"01:00.0"#, "it has a backslash, which is no escape to the kernel"),
            (r#"02:00.0\""#, "write quotes without one, or commas alone and no quotes"),
            ("'01:00.0", "the kernel knows no quotes but \", around all of a list"),
            ("01:00.0;02:00.0", "commas separate the items of a list, and nothing is around it"),
            ("(01:00.0)(02:00.0)", "commas separate the items of a list"),
            ("“01:00.0”", "the kernel knows no quotes but \""),
            ("10de:1c03@pci:10de:1c03", "the domain \"pci\" is not"),
            ("group:", "not a PCI address"),
            ("vfs:", "not a PCI address"),
            ("vfs:03:00.*", "virtual functions are those of one function"),
            ("vfs:03:00.0=", "\"\" is no number of virtual functions"),
            ("vfs:03:00.0=0", "\"0\" is no number of virtual functions"),
            ("vfs:03:00.0=+1", "\"+1\" is no number of virtual functions"),
            ("vfs:03:00.0=65536", "\"65536\" is no number of virtual functions"),
            ("vfs:03:00.0=4=4", "\"4=4\" is no number of virtual functions"),
            ("vfs:03:00.0@8086:10c9", "the id comes first: vfs:8086:10c9@03:00.0"),
            ("vfs:group:03:00.0", "the domain \"group\" is not"),
            ("03:00.0=4", "the function \"0=4\" is not"),
            ("group:pci:10de:1c03", "the domain \"pci\" is not"),
            ("../../etc/passwd", "not a PCI address"),
            ("ａ:00.0", "is not a hexadecimal number"),
        ] {
            let rejected = text.parse::<Item>().expect_err(text);
            assert_eq!(rejected.text, text);
            assert!(
                rejected.reason.contains(reason),
                "item {text:?} was rejected because {:?}, not {reason:?}",
                rejected.reason
            );
        }
    }

    #[test]
    fn addresses_print_as_the_kernel_names_them() {
        for text in ["0000:01:00.0", "0000:ff:1f.7", "10000:e1:00.0", "ffffffff:00:00.0"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_owned()));
            assert_eq!(Address::from_name(text), text.parse().ok(), "{text}");
        }
        for name in ["", "01:00.0", "0000:1:00.0", "0000:01:00.8", "0000:01:20.0", "0000:01:00.00"]
            .into_iter()
            .chain([
                "0000:01:00",
                "0000:01:00.0:0",
                "100000000:01:00.0",
                "0000:FF:00.0",
                "pci0000:00",
                "00000:01:00.0",
            ])
        {
            assert_eq!(Address::from_name(name), None, "{name:?}");
        }
        assert!("01:00.*".parse::<Address>().is_err());
        assert!("00:01.0/00.0".parse::<Address>().is_err());
    }

    #[test]
    fn zero_matches_any_id() {
        let card = id(0x10de, 0x1c03, 0x1462, 0x3282);
        for (pattern, same) in [
            ("10de:1c03", true),
            ("10de:0", true),
            ("10de:1c03:1462:3282", true),
            ("10de:1c03:1462:0", true),
            ("10de:1c03:1462:3283", false),
            ("10de:1c04", false),
            ("8086:1c03", false),
        ] {
            assert_eq!(pattern.parse::<Id>().map(|p| p.matches(&card)), Ok(same), "{pattern}");
        }
    }
}
