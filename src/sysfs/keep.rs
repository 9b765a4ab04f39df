//! The record of what the host lives from, where an initrd or a run before has left it.

use std::path::Path;

use super::Sysfs;
use crate::keep::Record;
use crate::pci::{Address, Id, Place};

/// Where an initrd has it, and a host what its administrator adds to each.
pub const RECORD: &str = "etc/vfio-early/keep";
/// Where the initrd's is after the boot.
pub const RECORD_OF_BOOT: &str = "run/vfio-early/keep";

impl Sysfs {
    /// The lines of both files, as far as they are there.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut record = Record::default();
        for file in [RECORD, RECORD_OF_BOOT] {
            let Ok(text) = self.text(file) else { continue };
            let read = Record::parse(&text);
            record.wrong.extend(read.wrong.into_iter().map(|why| format!("/{file}, {why}")));
            for entry in read.entries {
                if !record.entries.contains(&entry) {
                    record.entries.push(entry);
                }
            }
        }
        record
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
