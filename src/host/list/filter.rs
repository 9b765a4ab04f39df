//! Which devices `list` is about.

use std::str::FromStr;

use crate::cmdline::Request;
use crate::pci::{Address, Choice, Class, Id, Item};
use crate::plan;
use crate::sysfs::Machine;

/// One argument of `list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A class code, and how many of its 24 bits do not count.
    Class(u32, u8),
    /// Whatever an item of `vfio.devs=` can mean; an id also without its `pci:`.
    Item(Item),
}

/// Kinds of devices: name, class, bits that do not count.
pub const KINDS: [(&str, u32, u8); 4] =
    [("gpu", 0x03, 16), ("usb", 0x0c03, 8), ("net", 0x02, 16), ("storage", 0x01, 16)];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, class, bits)) = KINDS.iter().find(|(kind, _, _)| *kind == text) {
            return Ok(Filter::Class(*class, *bits));
        }
        // Shorter ones look like a part of an address.
        if let Ok(id) = text.parse::<Id>()
            && text.len() >= "10de:1c03".len()
        {
            let choice = Choice::Id(id);
            return Ok(Filter::Item(Item { text: text.to_owned(), guard: None, choice }));
        }
        text.parse().map(Filter::Item).map_err(|why| {
            format!(
                "{text:?} is no filter: {}; or write gpu, usb, net or storage for all of a kind",
                why.reason
            )
        })
    }
}

impl Filter {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Filter::Class(wanted, _) => {
                KINDS.iter().find(|(_, class, _)| class == wanted).map_or("", |(kind, ..)| kind)
            }
            Filter::Item(item) => &item.text,
        }
    }

    fn has(&self, class: Class) -> bool {
        matches!(self, Filter::Class(wanted, bits) if class.0 >> bits == *wanted)
    }

    /// Adds the devices that it fits.
    pub fn choose(&self, machine: &Machine, chosen: &mut Vec<Address>) {
        match self {
            Filter::Class(..) => {
                let devices = machine.devices.iter();
                let fitting = devices.filter(|(_, device)| self.has(device.class));
                chosen.extend(fitting.map(|(address, _)| *address));
            }
            Filter::Item(item) if plan::guard_holds(item, machine) => {
                let request = Request { items: vec![item.clone()], ..Request::default() };
                chosen.extend(plan::requested(&request, machine));
            }
            Filter::Item(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_kind_an_id_or_an_item() {
        for (text, is_item) in [
            ("gpu", false),
            ("usb", false),
            ("net", false),
            ("storage", false),
            ("10de:1c03", true),
            ("pci:10de:1c03", true),
            ("01:00.0", true),
            ("0000:01:00.*", true),
            ("00:01.0/00.0", true),
            ("group:01:00.0", true),
            ("10de:1c03@01:00.0", true),
        ] {
            let filter = text.parse::<Filter>().expect(text);
            assert_eq!(matches!(filter, Filter::Item(_)), is_item, "{text}");
        }
        for text in ["", "GPU", "gpus", "0:0", "01:00", "de:1c03", "x"] {
            let why = text.parse::<Filter>().expect_err(text);
            assert!(why.contains(&format!("{text:?} is no filter")), "{why}");
        }
    }

    #[test]
    fn a_kind_is_a_class() {
        for (text, class, fits) in [
            ("gpu", 0x03_0000, true),
            ("gpu", 0x03_8000, true),
            ("gpu", 0x04_0300, false),
            ("usb", 0x0c_0330, true),
            ("usb", 0x0c_0500, false),
            ("net", 0x02_8000, true),
            ("storage", 0x01_0802, true),
        ] {
            let filter = text.parse::<Filter>().unwrap();
            assert_eq!(filter.has(Class(class)), fits, "{text} {class:06x}");
        }
    }
}
