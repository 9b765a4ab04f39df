//! The record of what the host lives from, where an initrd or a run before has left it.

use std::io::ErrorKind;
use std::path::Path;

use super::{Device, Machine, Sysfs};
use crate::keep::{Entry, Kept, Kind, Record};
use crate::pci::{Address, Choice, Id, Place};

/// Where an initrd has it, and a host what its administrator adds to each.
pub const RECORD: &str = "etc/vfio-early/keep";
/// Where the initrd's is after the boot.
pub const RECORD_OF_BOOT: &str = "run/vfio-early/keep";

/// Of more wrong lines nothing is said.
const MOST_WRONG: usize = 8;

impl Sysfs {
    /// The lines of both files, as far as they are there; tells what is wrong with them.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut record = Record::default();
        for file in [RECORD, RECORD_OF_BOOT] {
            let read = self.record_in(file).unwrap_or_default();
            read.wrong.iter().take(MOST_WRONG).for_each(|why| log::warn!("{why}"));
            record.add(read.entries);
        }
        record
    }

    /// What a file has, and what is wrong with the rest of it; `None` where there is none.
    #[must_use]
    pub fn record_in(&self, file: &str) -> Option<Record> {
        let mut record = match self.text(file) {
            Ok(text) => Record::parse(&text),
            Err(why) if why.kind() == ErrorKind::NotFound => return None,
            Err(why) => Record { wrong: vec![format!("all of it: {why}")], ..Record::default() },
        };
        record.wrong.iter_mut().for_each(|why| *why = format!("/{file}, {why}; left out"));
        Some(record)
    }

    /// Adds to a machine what a record knows of it.
    pub fn know(&self, record: &Record, machine: &mut Machine) {
        for device in machine.devices.values_mut() {
            device.kept = self.kept(record, device);
        }
        machine.keyboards_elsewhere = self.keyboards_elsewhere(record, machine);
    }

    /// Only devices that are there count, and only where one of the machine's has a keyboard, too.
    fn keyboards_elsewhere(&self, record: &Record, machine: &Machine) -> usize {
        let has_keyboard =
            |device: &Device| device.kept.iter().any(|kept| kept.kind == Kind::Keyboard);
        if !machine.devices.values().any(has_keyboard) {
            return 0;
        }
        let is_elsewhere = |entry: &&Entry| {
            let Choice::Place(place) = &entry.item.choice else { return false };
            entry.kind == Kind::Keyboard
                && !self.is_of(entry, machine)
                && self
                    .id_at(place)
                    .is_some_and(|id| entry.item.guard.is_none_or(|it| it.matches(&id)))
        };
        record.entries.iter().filter(is_elsewhere).count()
    }

    /// Whether an entry of a record is one of the machine's devices.
    #[must_use]
    pub fn is_of(&self, entry: &Entry, machine: &Machine) -> bool {
        let alone = Record { entries: vec![entry.clone()], wrong: Vec::new() };
        machine.devices.values().any(|device| !self.kept(&alone, device).is_empty())
    }

    /// What a device is by a record.
    #[must_use]
    pub fn kept(&self, record: &Record, device: &Device) -> Vec<Kept> {
        record.find(&device.folder, device.id, |place| self.id_at(place))
    }

    /// The id of the device at a place, the first where it means several; `None` where none is.
    #[must_use]
    pub fn id_at(&self, place: &Place) -> Option<Id> {
        let [first, below @ ..] = &place.hops[..] else { return None };
        let functions = first.function.map_or(0..=7, |function| function..=function);
        let (domain, bus, device) = (place.domain, place.bus, first.device);
        let mut folders = functions
            .filter_map(|function| self.folder(Address { domain, bus, device, function }).ok());
        let mut folder = folders.next()?;
        for hop in below {
            let names = self.names(&Path::new("sys").join(&folder));
            let mut names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
            names.sort_unstable();
            let is_there = |name: &&str| Address::from_name(name).is_some_and(|at| hop.is_of(at));
            folder = format!("{folder}/{}", names.into_iter().find(is_there)?);
        }
        self.id_in(&folder)
    }
}
