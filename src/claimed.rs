//! What `claim` leaves for the `bind` that goes on from there: what it read of the devices, and the
//! overrides that it wrote. Pure.
//!
//! It spares a second look at each device, and it is how the report tells of before: by then the
//! drivers that the host has loaded are there. Nothing depends on it: without it `bind` looks at the
//! machine as it finds it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::pci::{Address, Class, Digits, Id, number};
use crate::sysfs::Device;

/// What `claim` read and wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Microseconds that it took.
    pub took_us: u64,
    /// Of each device what is the same at any time, the driver that had it, and what was written to its
    /// `driver_override`.
    pub devices: BTreeMap<Address, Device>,
}

/// What `claim` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// The overrides are written; the rest is for `bind`.
    Claimed(Claimed),
    /// All of it, with this exit status: `bind` has nothing left to do.
    Done(u8),
}

/// In the place of a field that has nothing.
const NONE: &str = "-";

/// Between fields: names of drivers may have blanks.
const TAB: char = '\t';

impl Claimed {
    /// How many overrides were written.
    #[must_use]
    pub fn count(&self) -> usize {
        self.devices.values().filter(|device| device.claimed.is_some()).count()
    }
}

impl Left {
    /// As text: `done STATUS`, or `claimed MICROSECONDS` and a line for each device.
    #[must_use]
    pub fn text(&self) -> String {
        let claimed = match self {
            Left::Done(status) => return format!("done {status}\n"),
            Left::Claimed(claimed) => claimed,
        };
        let mut text = format!("claimed {}\n", claimed.took_us);
        for (address, device) in &claimed.devices {
            let Device { id, class, group, driver, claimed, folder, .. } = device;
            // A device with such a name is read again.
            let is_field = |text: &str| !text.contains([TAB, '\n']) && text != NONE;
            let names = [driver, claimed].map(|name| name.as_deref());
            if !names.into_iter().flatten().chain([folder.as_str()]).all(is_field) {
                continue;
            }
            text += address.digits().as_str();
            text.push(TAB);
            text += full(*id).as_str();
            text.push(TAB);
            text += class.digits().as_str();
            text.push(TAB);
            match group {
                // Writing into a String does not fail.
                Some(number) => write!(text, "{number}").unwrap_or_default(),
                None => text += NONE,
            }
            for field in [names[0].unwrap_or(NONE), names[1].unwrap_or(NONE), folder] {
                text.push(TAB);
                text += field;
            }
            text.push('\n');
        }
        text
    }

    /// Reads [`Left::text`]; `None` where it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Left> {
        let (first, rest) = text.split_once('\n')?;
        if let Some(status) = first.strip_prefix("done ") {
            return Some(Left::Done(status.parse().ok()?));
        }
        let took_us = first.strip_prefix("claimed ")?.parse().ok()?;
        let mut devices = BTreeMap::new();
        for line in rest.lines() {
            let (address, device) = device(line)?;
            devices.insert(address, device);
        }
        Some(Left::Claimed(Claimed { took_us, devices }))
    }
}

/// All of its digits.
fn full(id: Id) -> Digits {
    [id.vendor, id.device, id.subvendor, id.subdevice]
        .into_iter()
        .fold(Digits::default(), |digits, part| digits.hex(part.into(), 4))
}

fn id(digits: &str) -> Option<Id> {
    let part = |from: usize| {
        let part = number(digits.as_bytes().get(from..from + 4)?)?;
        u16::try_from(part).ok()
    };
    Some(Id { vendor: part(0)?, device: part(4)?, subvendor: part(8)?, subdevice: part(12)? })
}

fn device(line: &str) -> Option<(Address, Device)> {
    let mut fields = line.split(TAB);
    let mut next = || fields.next();
    let (address, id, class) = (Address::from_name(next()?)?, id(next()?)?, next()?);
    let mut optional = || next().map(|text| Some(text).filter(|text| *text != NONE));
    let (group, driver, claimed) = (optional()?, optional()?, optional()?);
    let device = Device {
        id,
        class: Class(number(class.as_bytes())?),
        group: group.map(str::parse).transpose().ok()?,
        driver: driver.map(str::to_owned),
        claimed: claimed.map(str::to_owned),
        folder: next()?.to_owned(),
        ..Device::default()
    };
    next().is_none().then_some((address, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(claimed: Option<&str>, folder: &str) -> Device {
        Device {
            id: "10de:1c03:1462:3282".parse().unwrap(),
            class: Class(0x03_0000),
            group: Some(12),
            driver: None,
            claimed: claimed.map(str::to_owned),
            folder: folder.to_owned(),
            ..Device::default()
        }
    }

    #[test]
    fn what_is_left_is_read_as_it_was_written() {
        let (card, audio): (Address, Address) =
            ("0000:01:00.0".parse().unwrap(), "10000:01:00.1".parse().unwrap());
        let devices = [
            (card, known(Some("vfio-pci"), "devices/pci0000:00/0000:00:01.0/0000:01:00.0")),
            (
                audio,
                Device {
                    id: "8086:1".parse().unwrap(),
                    group: None,
                    driver: Some("a driver".to_owned()),
                    ..known(None, "devices/pci10000:00/10000:01:00.1")
                },
            ),
        ];
        let took_us = 1842;
        let claimed = Left::Claimed(Claimed { took_us, devices: devices.into() });
        let text = claimed.text();
        let expected = "claimed 1842\n\
            0000:01:00.0\t10de1c0314623282\t030000\t12\t-\tvfio-pci\t\
            devices/pci0000:00/0000:00:01.0/0000:01:00.0\n\
            10000:01:00.1\t8086000100000000\t030000\t-\ta driver\t-\t\
            devices/pci10000:00/10000:01:00.1\n";
        assert_eq!(text, expected);
        assert_eq!(Left::parse(&text), Some(claimed));
        for status in [0, 1, 3] {
            assert_eq!(Left::parse(&Left::Done(status).text()), Some(Left::Done(status)));
        }
        let part = &text[..text.len() - "/10000:01:00.1\n".len() - 40];
        for text in ["", "claimed", "claimed x\n", "done\n", "done 256\n", part, "claimed 1\n\n"] {
            assert_eq!(Left::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_device_with_a_name_that_is_no_field_is_left_out() {
        let address: Address = "0000:01:00.0".parse().unwrap();
        for driver in ["a\tb", "a\nb", "-"] {
            let known = Device { driver: Some(driver.to_owned()), ..known(None, "devices/x") };
            let left = Left::Claimed(Claimed { took_us: 0, devices: [(address, known)].into() });
            assert_eq!(left.text(), "claimed 0\n", "{driver:?}");
        }
    }
}
