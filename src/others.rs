//! What others give to vfio-pci or pci-stub: by the option `ids=`, which takes every device of an id, or by
//! an override or a `new_id` that somebody wrote.

use std::collections::BTreeSet;
use std::path::Path;
use std::slice;

use crate::cmdline::{self, Foreign, parameters};
use crate::pci::{Address, Class, Id};
use crate::plan::{self, is_same_name, is_vfio_driver};
use crate::sysfs::{Sysfs, VFIO_PCI};

/// The drivers that keep a device from the host and whose modules have an option `ids=`.
pub const DRIVERS: [&str; 2] = [VFIO_PCI, "pci-stub"];

/// A message names no more devices.
const MOST_NAMED: usize = 8;

/// A device that is not asked for.
#[derive(Clone, Copy, Debug)]
struct Unasked {
    address: Address,
    id: Id,
    class: Class,
    /// Whether a vfio driver or pci-stub has it.
    is_given: bool,
    /// Whether it has a `driver_override`, so that somebody meant just this device, and no id counts.
    is_meant: bool,
}

/// Where an option `ids=` stands.
struct Source {
    place: String,
    remedy: &'static str,
    ids: Vec<Entry>,
}

/// What one entry of an option `ids=` takes.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    id: Id,
    class: u32,
    /// The bits of the class that count.
    mask: u32,
}

/// Whether a driver keeps its devices from the host.
#[must_use]
pub fn keeps(driver: &str) -> bool {
    is_vfio_driver(driver) || driver == DRIVERS[1]
}

/// The devices that vfio drivers and pci-stub have.
#[must_use]
pub fn given(sysfs: &Sysfs) -> BTreeSet<Address> {
    let mut given = BTreeSet::new();
    for driver in sysfs.names(Path::new("sys/bus/pci/drivers")) {
        if let Some(driver) = driver.to_str().filter(|driver| keeps(driver)) {
            // Not collected, which would build a tree in another way: 2 kB of the program.
            given.extend(sysfs.devices_of(driver));
        }
    }
    given
}

/// Who has given those of them away that are not asked for.
#[must_use]
pub fn told(
    given: &BTreeSet<Address>,
    foreign: &Foreign,
    sysfs: &Sysfs,
    is_asked: &dyn Fn(&Address) -> bool,
) -> Vec<String> {
    if given.iter().all(is_asked) {
        return Vec::new();
    }
    let mut unasked = unasked(sysfs, is_asked);
    unasked.retain(|it| it.is_given);
    warnings(unasked, foreign, sysfs)
}

/// The same, and what an option `ids=` is going to give away.
#[must_use]
pub fn foretold(
    foreign: &Foreign,
    sysfs: &Sysfs,
    is_asked: &dyn Fn(&Address) -> bool,
) -> Vec<String> {
    warnings(unasked(sysfs, is_asked), foreign, sysfs)
}

fn unasked(sysfs: &Sysfs, is_asked: &dyn Fn(&Address) -> bool) -> Vec<Unasked> {
    let machine = sysfs.whole_machine().unwrap_or_default();
    // Another run may have been asked for other devices than this one.
    let boot = cmdline::parse(&sysfs.cmdline().unwrap_or_default());
    let of_boot = plan::asked(boot, &machine);
    let mut unasked = Vec::new();
    for (address, device) in &machine.devices {
        if is_asked(address) || device.class.is_pci_bridge() {
            continue;
        }
        let is_given = device.driver.as_deref().is_some_and(keeps);
        unasked.push(Unasked {
            address: *address,
            id: device.id,
            class: device.class,
            is_given: is_given && !of_boot.contains(address),
            is_meant: sysfs.has_override(&device.folder),
        });
    }
    unasked
}

fn warnings(mut unasked: Vec<Unasked>, foreign: &Foreign, sysfs: &Sysfs) -> Vec<String> {
    let mut warnings = Vec::new();
    for Source { place, remedy, ids } in sources(foreign, sysfs).iter().flatten() {
        let is_theirs = |it: &Unasked| !it.is_meant && ids.iter().any(|entry| entry.takes(it));
        warnings.extend(warning(place, &unasked, &is_theirs, remedy));
        unasked.retain(|it| !is_theirs(it));
    }
    let is_meant = |it: &Unasked| it.is_given && it.is_meant;
    let is_by_id = |it: &Unasked| it.is_given && !it.is_meant;
    let remedy = "find who wrote it (driverctl, libvirt, a script), or list the device";
    warnings.extend(warning("a driver_override", &unasked, &is_meant, remedy));
    let remedy = "find who wrote its id there, or loads the driver with ids=, or list the device";
    warnings.extend(warning("a new_id", &unasked, &is_by_id, remedy));
    warnings
}

fn warning(
    who: &str,
    unasked: &[Unasked],
    is_theirs: &dyn Fn(&Unasked) -> bool,
    remedy: &str,
) -> Option<String> {
    let mut list = String::new();
    let mut count = 0;
    for Unasked { address, id, .. } in unasked.iter().filter(|it| is_theirs(it)) {
        count += 1;
        if count <= MOST_NAMED {
            list.extend([", ", &address.to_string(), " ", &id.to_string()]);
        }
    }
    if count > MOST_NAMED {
        list.extend([" and ", &(count - MOST_NAMED).to_string(), " more"]);
    }
    let list = list.get(2..)?;
    Some([who, " gives away what vfio.devs= does not ask for: ", list, "; ", remedy].concat())
}

/// Of each driver's option the last one, which is the one that counts.
fn sources(foreign: &Foreign, sysfs: &Sysfs) -> [Option<Source>; 2] {
    let mut sources: [Option<Source>; 2] = [None, None];
    sysfs.modprobe_commands(&mut |file, words| {
        let (modules, options) = match words {
            ["options", modules, options @ ..] => (slice::from_ref(modules), options),
            // A command, which may load another module than its own.
            ["install", command @ ..] => (command, command),
            _ => return,
        };
        let is_one = |known: &&str| modules.iter().any(|module| is_same_name(known, module));
        let Some(index) = DRIVERS.iter().position(is_one) else { return };
        // The kernel reads them by its rules for the command line.
        for (name, list) in parameters(options.join(" ").as_bytes()) {
            if let (b"ids", Some(list)) = (name, list) {
                sources[index] = Some(Source {
                    place: ["ids= of ", DRIVERS[index], " in /", &file.to_string_lossy()].concat(),
                    remedy: "remove it, which takes every device of an id, and make the initrd anew, \
                             or list the device",
                    ids: ids(&String::from_utf8_lossy(list)),
                });
            }
        }
    });
    for (index, name) in ["vfio_pci.ids", "pci_stub.ids"].into_iter().enumerate() {
        if let Some(list) = foreign.told(name).last() {
            sources[index] = Some(Source {
                place: [name, "= on the kernel command line"].concat(),
                remedy: "remove it, which takes every device of an id, or list the device",
                ids: ids(list),
            });
        }
    }
    sources
}

impl Entry {
    fn takes(&self, it: &Unasked) -> bool {
        self.id.matches(&it.id) && (self.class ^ it.class.0) & self.mask == 0
    }
}

/// The entries of an option: vendor and device, then maybe those of the subsystem, a class and the mask of
/// it (`vfio_pci_fill_ids()` in `drivers/vfio/pci/vfio_pci.c`).
fn ids(list: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for text in list.split(',') {
        let mut numbers = text.trim_start().split(':').map(number);
        if let (Some(Some(vendor)), Some(Some(device))) = (numbers.next(), numbers.next()) {
            let mut next = || numbers.next().flatten();
            let mut part = || next().and_then(of_id).unwrap_or_default();
            let (Some(vendor), Some(device)) = (of_id(vendor), of_id(device)) else { continue };
            let id = Id { vendor, device, subvendor: part(), subdevice: part() };
            let class = next().unwrap_or_default();
            entries.push(Entry { id, class, mask: next().unwrap_or_default() });
        }
    }
    entries
}

/// As `%x` reads it.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let end = digits.bytes().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(digits.len());
    u32::from_str_radix(&digits[..end], 16).ok()
}

/// 0 for any, which is `PCI_ANY_ID` there; `None` for what no device has.
fn of_id(number: u32) -> Option<u16> {
    match number {
        u32::MAX => Some(0),
        0 => None,
        number => number.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_the_modules_do() {
        let class = "ffffffff:ffffffff:ffffffff:ffffffff:030000:ff0000";
        let [Entry { class: 0x03_0000, mask: 0xff_0000, .. }] = ids(class)[..] else {
            panic!("{:?}", ids(class))
        };
        for (list, expected) in [
            ("10de:1c03", "10de:1c03"),
            ("10de:1c03, 0X10de:0X10f1", "10de:1c03 10de:10f1"),
            ("10de:1c03,10de:10f1", "10de:1c03 10de:10f1"),
            ("0x8086:0x10d3:ffffffff:ffffffff:020000:ff0000", "8086:10d3"),
            ("8086:10d3:8086:1", "8086:10d3:8086:0001"),
            ("8086:ffffffff", "8086:0000"),
            ("8086:10d3;,8086:10d4 x", "8086:10d3 8086:10d4"),
            ("", ""),
            (",x,8086:,8086,8086:0,8086:10d30,01:00.0,8086:z", ""),
        ] {
            let found: Vec<_> = ids(list).iter().map(|entry| entry.id.in_full()).collect();
            assert_eq!(found.join(" "), expected, "{list:?}");
        }
    }
}
