//! Names of vendors, devices and classes from the list that lspci uses, `pci.ids`.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::pci::{Class, Id};
use crate::sysfs::{LONGEST, Sysfs};

/// Where distributions have it.
const FILES: [&str; 4] = [
    "usr/share/hwdata/pci.ids",
    "usr/share/misc/pci.ids",
    "usr/share/pci.ids",
    "run/current-system/sw/share/hwdata/pci.ids",
];
/// NixOS has it beside lspci, whose folder has no fixed name.
const NIXOS_LSPCI: &str = "run/current-system/sw/bin/lspci";

/// What is longer is no line of it.
const LONGEST_LINE: u64 = 1024;

/// What a line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Vendor(u16),
    Device(u16, u16),
    Class(u8),
    /// Base class and subclass.
    Subclass(u8, u8),
}

/// The names of what is on one machine; without the file, none.
#[derive(Debug, Default)]
pub struct Names(Vec<(Key, Option<String>)>);

impl Names {
    /// Of those ids and classes, from the first file that is below the root, and else from that of
    /// the machine that this runs on.
    #[must_use]
    pub fn find(sysfs: &Sysfs, devices: impl Iterator<Item = (Id, Class)>) -> Names {
        let mut names = Names::of(devices);
        for sysfs in [sysfs, &Sysfs::new("/")] {
            for path in files(sysfs.root()) {
                if let Ok(file) = sysfs.file(path) {
                    names.read(file.take(LONGEST));
                    return names;
                }
            }
        }
        names
    }

    fn of(devices: impl Iterator<Item = (Id, Class)>) -> Names {
        let mut names = Names::default();
        for (id, class) in devices {
            let [_, base, sub, _] = class.0.to_be_bytes();
            let device = Key::Device(id.vendor, id.device);
            let keys = [Key::Vendor(id.vendor), device, Key::Class(base), Key::Subclass(base, sub)];
            for key in keys {
                if let Err(at) = names.at(key) {
                    names.0.insert(at, (key, None));
                }
            }
        }
        names
    }

    /// One pass; what is no line of the format is skipped.
    fn read(&mut self, file: impl Read) {
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        let mut above = None;
        while next_line(&mut file, &mut line).is_ok_and(|more| more) {
            if line.is_empty() || line.starts_with(b"#") || line.starts_with(b"\t\t") {
                continue;
            }
            let is_below = line[0] == b'\t';
            let line = line.strip_prefix(b"\t").unwrap_or(&line);
            let Some((key, name)) = (if is_below { below(above, line) } else { top(line) }) else {
                // What is below something unreadable is nothing's.
                above = if is_below { above } else { None };
                continue;
            };
            if !is_below {
                above = Some(key);
            }
            if let Ok(at) = self.at(key) {
                self.0[at].1 = Some(String::from_utf8_lossy(name).trim().to_owned());
            }
        }
    }

    /// Where it is, or has to be.
    fn at(&self, key: Key) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn get(&self, key: Key) -> Option<&str> {
        self.0[self.at(key).ok()?].1.as_deref()
    }

    /// Of the vendor.
    #[must_use]
    pub fn vendor(&self, id: Id) -> Option<&str> {
        self.get(Key::Vendor(id.vendor))
    }

    /// Of the device.
    #[must_use]
    pub fn device(&self, id: Id) -> Option<&str> {
        self.get(Key::Device(id.vendor, id.device))
    }

    /// Of the subclass, as in "VGA compatible controller", else of the base class.
    #[must_use]
    pub fn class(&self, class: Class) -> Option<&str> {
        let [_, base, sub, _] = class.0.to_be_bytes();
        self.get(Key::Subclass(base, sub)).or_else(|| self.get(Key::Class(base)))
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = FILES.iter().map(|file| root.join(file)).collect();
    if let Ok(lspci) = fs::canonicalize(root.join(NIXOS_LSPCI)) {
        files.push(lspci.with_file_name("../share/pci.ids"));
    }
    files
}

/// The next line without its end; one that is too long is empty. False at the end of the file.
fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut is_whole = true;
    loop {
        if file.by_ref().take(LONGEST_LINE).read_until(b'\n', line)? == 0 {
            return Ok(!is_whole || !line.is_empty());
        }
        if line.ends_with(b"\n") {
            break;
        }
        if line.len() as u64 >= LONGEST_LINE {
            is_whole = false;
            line.clear();
        }
    }
    if !is_whole {
        line.clear();
    }
    line.truncate(line.trim_ascii_end().len());
    Ok(true)
}

/// A number of that many hex digits at the front, and the name behind two spaces.
fn number(line: &[u8], digits: usize) -> Option<(u16, &[u8])> {
    let (number, name) = line.split_at_checked(digits)?;
    let number = str::from_utf8(number).ok().filter(|text| !text.starts_with('+'))?;
    Some((u16::from_str_radix(number, 16).ok()?, name.strip_prefix(b"  ")?))
}

/// A line without a tab: a vendor or a base class.
fn top(line: &[u8]) -> Option<(Key, &[u8])> {
    if let Some(class) = line.strip_prefix(b"C ") {
        let (base, name) = number(class, 2)?;
        return Some((Key::Class(u8::try_from(base).ok()?), name));
    }
    let (vendor, name) = number(line, 4)?;
    Some((Key::Vendor(vendor), name))
}

/// A line with one tab, which is gone.
fn below(above: Option<Key>, line: &[u8]) -> Option<(Key, &[u8])> {
    match above? {
        Key::Vendor(vendor) => {
            let (device, name) = number(line, 4)?;
            Some((Key::Device(vendor, device), name))
        }
        Key::Class(base) => {
            let (sub, name) = number(line, 2)?;
            Some((Key::Subclass(base, u8::try_from(sub).ok()?), name))
        }
        Key::Device(..) | Key::Subclass(..) => None,
    }
}
