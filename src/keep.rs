//! The record of what the host lives from, which an initrd brings along: text to [`Record`], and back.
//! Pure.
//!
//! One device a line: what it is to the host, an item with its guard, and behind a `#` why.
//!
//! ```text
//! disk 144d:a808@00:1d.0/00.0  # nvme0n1p2 is mounted on /
//! ```

use std::fmt;
use std::path::Path;

use crate::escape;
use crate::pci::{Address, Choice, Id, Item, Place, Rejected};

/// What a device is to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It runs from a disk below it.
    Disk,
    /// Its keyboards hang on it, or some of them.
    Keyboard,
    /// It has an address by it.
    Network,
}

const KINDS: [(&str, Kind); 3] =
    [("disk", Kind::Disk), ("keyboard", Kind::Keyboard), ("network", Kind::Network)];

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Where it is: a place, mostly with a guard, or an id alone.
    pub item: Item,
    /// The reason, in words; empty where the line has none.
    pub reason: String,
}

/// What the host lives from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// In the order of the lines.
    pub entries: Vec<Entry>,
    /// What is wrong with the other lines.
    pub wrong: Vec<String>,
}

/// A device of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it is.
    pub kind: Kind,
    /// Why, in words.
    pub words: String,
}

/// So many entries count: no host lives from more devices, and each device is held against each.
const MOST_ENTRIES: usize = 256;

impl Record {
    /// Reads lines; empty ones and comments are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Record {
        let mut record = Record::default();
        for (number, line) in text.lines().enumerate() {
            let (entry, reason) = line.split_once('#').unwrap_or((line, ""));
            if entry.trim().is_empty() {
                continue;
            }
            if record.entries.len() + record.wrong.len() == MOST_ENTRIES {
                record.wrong.push(format!("line {}: there are too many", number + 1));
                break;
            }
            match parse_entry(entry, reason) {
                Ok(entry) => record.entries.push(entry),
                Err(why) => record.wrong.push(format!("line {}: {why}", number + 1)),
            }
        }
        record
    }

    /// Adds entries that are not there yet.
    pub fn add(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            let is_same = |there: &Entry| (there.kind, &there.item) == (entry.kind, &entry.item);
            if !self.entries.iter().any(is_same) {
                self.entries.push(entry);
            }
        }
    }

    /// What a device is by this record, from its folder below `/sys` and its id. `id_at` tells which
    /// device is at a place now; it is asked only about a device that has the id of another place.
    pub fn find(&self, folder: &str, id: Id, id_at: impl Fn(&Place) -> Option<Id>) -> Vec<Kept> {
        let kept = |entry: &Entry| {
            let Entry { kind, item, reason } = entry;
            let mut words = if reason.is_empty() { &item.text } else { reason }.clone();
            match (&item.choice, item.guard) {
                (Choice::Place(place), Some(guard)) => {
                    if !guard.matches(&id) {
                        return None;
                    }
                    if !is_at(folder, place) {
                        // Its own place has it: this is a twin.
                        if id_at(place).is_some_and(|id| guard.matches(&id)) {
                            return None;
                        }
                        let place = item.text.rsplit('@').next().unwrap_or_default();
                        words = format!("{words}; it may have moved from {place}");
                    }
                }
                (Choice::Place(place), None) if is_at(folder, place) => {}
                (Choice::Id(wanted), _) if wanted.matches(&id) => {}
                _ => return None,
            }
            Some(Kept { kind: *kind, words })
        };
        self.entries.iter().filter_map(kept).collect()
    }
}

fn parse_entry(text: &str, reason: &str) -> Result<Entry, String> {
    let mut words = text.split_whitespace();
    let (kind, item, more) = (words.next().unwrap_or_default(), words.next(), words.next());
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    let (Some((_, kind)), Some(item), None) = (known, item, more) else {
        let text = escape::short(text.trim());
        return Err(format!("{text:?} is not as in: disk 144d:a808@00:1d.0/00.0"));
    };
    let item: Item = item.parse().map_err(|rejected: Rejected| {
        format!("{:?}: {}", escape::short(&rejected.text), rejected.reason)
    })?;
    if let Choice::Group(_) = item.choice {
        return Err(format!("{:?} is a group: name the device", escape::short(&item.text)));
    }
    Ok(Entry { kind: *kind, item, reason: escape::short(reason.trim()) })
}

/// Whether a device is at a place, by its folder, which tells of the bridges above it.
fn is_at(folder: &str, place: &Place) -> bool {
    let [first, below @ ..] = &place.hops[..] else { return false };
    let names = Path::new(folder).iter().rev();
    let mut upwards = names.map(|name| Address::from_name(name.to_str()?));
    let mut next = || upwards.next().flatten();
    below.iter().rev().all(|hop| next().is_some_and(|at| hop.is_of(at)))
        && next()
            .is_some_and(|at| (at.domain, at.bus) == (place.domain, place.bus) && first.is_of(at))
}

/// As it stands in the file.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name);
        write!(f, "{kind} {}", self.item.text)?;
        if self.reason.is_empty() {
            return Ok(());
        }
        write!(f, "  # {}", escape::line(&self.reason))
    }
}
