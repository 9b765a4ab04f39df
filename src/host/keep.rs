//! `vfio-early keep`: the record of what this host lives from, for an initrd that is made on it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::host::item::item;
use crate::keep::{Entry, Kind, Record};
use crate::pci::Address;
use crate::sysfs::{Machine, RECORD, Sysfs, Usage, User};

/// The number of the first namespace for processes (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// What begins the file.
pub const HEADING: &str = "\
# What this host lives from, by vfio-early keep. In an initrd that has this, vfio-early leaves the
# disks to the host, unless vfio.host=release is given, and warns of the rest.
";

/// Why what is in use here is not what the root of this process will live from: it is a container, or a
/// folder in which somebody makes an image for another machine, or installs one.
#[must_use]
pub fn elsewhere() -> Option<&'static str> {
    let namespace = fs::read_link("/proc/self/ns/pid");
    if !namespace.is_ok_and(|name| name == Path::new(FIRST_NAMESPACE)) {
        return Some("this is a container, or has no /proc");
    }
    let of = |root: &str| fs::metadata(root).map(|root| (root.dev(), root.ino())).ok();
    match (of("/"), of("/proc/1/root")) {
        (Some(ours), Some(of_init)) if ours == of_init => None,
        (_, None) => Some("/proc/1/root cannot be read, which tells a chroot from a host"),
        _ => Some("this is a chroot"),
    }
}

/// What the administrator wrote, and what a host that runs from this root lives from now; `None` where
/// it does not run from it.
///
/// # Errors
/// When the PCI bus cannot be read; the error names the file.
pub fn record(sysfs: &Sysfs, runs_here: bool) -> io::Result<Record> {
    let mut record = sysfs.record_in(RECORD).unwrap_or_default();
    if runs_here {
        record.add(of_host(sysfs, &sysfs.whole_machine()?));
    }
    Ok(record)
}

/// Those entries that are none of the devices here: at boot they would keep nothing.
///
/// # Errors
/// As [`record`].
pub fn of_nothing<'r>(record: &'r Record, sysfs: &Sysfs) -> io::Result<Vec<&'r Entry>> {
    let machine = sysfs.whole_machine()?;
    Ok(record.entries.iter().filter(|entry| !sysfs.is_of(entry, &machine)).collect())
}

/// What of the host is on nothing that could be told, in words; none where all is.
#[must_use]
pub fn untold(sysfs: &Sysfs) -> Option<String> {
    let untold = sysfs.untold();
    let more = untold.len().saturating_sub(MOST_UNTOLD);
    let mut named: Vec<_> = untold.into_iter().take(MOST_UNTOLD).collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    (!named.is_empty()).then(|| {
        format!(
            "no disk could be told for {}: where it is on one, write that into /{RECORD}, which puts it \
             into each initrd that is made",
            named.join(", ")
        )
    })
}

/// A message names no more.
const MOST_UNTOLD: usize = 8;

/// What the host lives from now: disks first, each in the order of their addresses.
#[must_use]
pub fn of_host(sysfs: &Sysfs, machine: &Machine) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |kind, address: Address, reason: String| {
        if let Ok(item) = item(address, machine).parse() {
            entries.push(Entry { kind, item, reason });
        }
    };
    let devices = machine.devices.iter().filter(|(_, device)| !device.class.is_pci_bridge());
    let addresses: Vec<Address> = devices.map(|(address, _)| *address).collect();
    for address in &addresses {
        let usage = sysfs.disks_usage(*address).or_else(|| sysfs.links_usage(*address));
        if let Some(Usage { words, by: User::Host | User::Boot }) = usage {
            add(Kind::Disk, *address, words);
        }
    }
    let keyboards = sysfs.keyboards();
    // One that is on no PCI device stays whatever is given away.
    if keyboards.iter().all(|keyboard| keyboard.address.is_some()) {
        for address in &addresses {
            let mut of_device = keyboards.iter().filter(|it| it.address == Some(*address));
            if let Some(keyboard) = of_device.next() {
                add(Kind::Keyboard, *address, keyboard.name.clone());
            }
        }
    }
    for address in &addresses {
        if let Some(Usage { words, by: User::Network }) = sysfs.links_usage(*address) {
            add(Kind::Network, *address, words);
        }
    }
    entries
}
