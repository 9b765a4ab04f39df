//! `pci.ids`, the names of vendors, devices and classes.

use std::cell::LazyCell;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use vfio_early::host::list::{self, tree};
use vfio_early::host::names::Names;
use vfio_early::host::page::Look;
use vfio_early::pci::{Class, Id};
use vfio_early::sysfs::Sysfs;

use super::{assert_harmless, assert_json};

const FILE: &str = "usr/share/misc/pci.ids";

/// Id and class of each device, whose names are looked for.
const DEVICES: [(&str, u32); 3] =
    [("10de:1c03", 0x03_0000), ("8086:a12f", 0x0c_0330), ("10de:10f1", 0x04_0300)];

thread_local! {
    static HOST: LazyCell<TempDir> = const { LazyCell::new(host) };
}

/// A tree of `/sys` with these devices.
fn host() -> TempDir {
    let root = super::folder();
    for folder in ["sys/bus/pci/drivers", "usr/share/misc"] {
        fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    for ((id, class), slot) in devices().zip(1..) {
        let folder = format!("sys/bus/pci/devices/0000:00:{slot:02x}.0");
        let folder = root.path().join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        let modalias = vfio_early::variant::modalias(id, class);
        fs::write(folder.join("modalias"), format!("pci:{modalias}\n")).expect("a file");
    }
    root
}

fn devices() -> impl Iterator<Item = (Id, Class)> {
    DEVICES.iter().map(|(id, class)| (id.parse().expect("an id"), Class(*class)))
}

/// The input is a `pci.ids`.
pub fn check(text: &[u8]) {
    HOST.with(|host| check_in(host.path(), text));
}

/// Of each device: vendor, device, class.
fn found(root: &Path, text: &[u8]) -> Vec<[Option<String>; 3]> {
    fs::write(root.join(FILE), text).expect("a file");
    let names = Names::find(&Sysfs::new(root), devices());
    let owned = |name: Option<&str>| name.map(str::to_owned);
    let names_of =
        |(id, class)| [owned(names.vendor(id)), owned(names.device(id)), owned(names.class(class))];
    devices().map(names_of).collect()
}

fn check_in(root: &Path, text: &[u8]) {
    let names = found(root, text);
    let whole = String::from_utf8_lossy(text);
    for name in names.iter().flatten().flatten() {
        assert!(whole.contains(name.as_str()), "{name:?} is made up");
        assert!(!name.contains('\n') && name.len() <= 3 * 1024, "{name:?}");
        assert_eq!(name.trim(), name);
    }
    let list = list::list(&Sysfs::new(root), &[]).expect("the bus can be read");
    assert_eq!(list.devices.len(), DEVICES.len());
    assert_json(&list, 8192 + 40 * text.len());
    for width in [40, usize::MAX] {
        let look = Look { width, ..Look::PLAIN };
        assert_harmless(&tree::tree(&list, look, true));
    }

    // What was found, written anew, is found again. An empty name, of spaces that are not ASCII, has
    // no way to be written; one that is no text is longer then, and a line can be too long.
    let is_lossy = |name: &String| name.is_empty() || name.contains(char::REPLACEMENT_CHARACTER);
    if names.iter().flatten().flatten().any(is_lossy) {
        return;
    }
    let mut anew = Vec::new();
    for ((id, class), [vendor, device, kind]) in devices().zip(&names) {
        assert!(vendor.is_some() || device.is_none(), "a device is below its vendor");
        if let Some(vendor) = vendor {
            anew.push(format!("{:04x}  {vendor}\n", id.vendor));
        }
        if let Some(device) = device {
            anew.push(format!("\t{:04x}  {device}\n", id.device));
        }
        if let Some(kind) = kind {
            let (base, sub) = (class.0 >> 16, class.0 >> 8 & 0xff);
            anew.push(format!("C {base:02x}  above\n\t{sub:02x}  {kind}\n"));
        }
    }
    assert_eq!(found(root, anew.concat().as_bytes()), names, "{anew:?}");
}
