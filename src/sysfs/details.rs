//! What only `list` asks of a device: nothing of it is read on the way to a binding.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Sysfs, link_name};
use crate::cmdline::Request;
use crate::escape;
use crate::pci::{Address, Choice, Id, Item};
use crate::sysfs::Machine;

/// An input device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The PCI device that it hangs on, as a keyboard on its USB controller; `None` for others, as one
    /// on a PS/2 port.
    pub address: Option<Address>,
    /// As it calls itself.
    pub name: String,
    /// Whether it has the keys of one; see [`Sysfs::keyboards`].
    pub has_keys: bool,
    /// Whether it has lights, as for the shift lock.
    pub has_lights: bool,
}

impl Sysfs {
    /// Every device, with the screen where there is a graphics device.
    ///
    /// # Errors
    /// When the PCI bus cannot be read; the error names the file.
    pub fn whole_machine(&self) -> io::Result<Machine> {
        let any = Id { vendor: 0, device: 0, subvendor: 0, subdevice: 0 };
        let all = Item { text: String::new(), guard: None, choice: Choice::Id(any) };
        self.machine(&Request { items: vec![all], ..Request::default() })
    }

    /// How the kernel can reset the device alone, in the order in which it tries; `None` where it
    /// can, but does not say how (before Linux 5.15). Sources: `reset_method`, `reset`.
    #[must_use]
    pub fn reset_methods(&self, address: Address) -> Option<Vec<String>> {
        let folder = self.device_folder(address);
        match self.text(folder.join("reset_method")) {
            Ok(methods) => Some(methods.split_whitespace().map(str::to_owned).collect()),
            Err(_) => (!self.is_there(folder.join("reset"))).then(Vec::new),
        }
    }

    /// The module of the driver that has the device; `None` where it is built in. Source: the link
    /// `driver/module`.
    #[must_use]
    pub fn module_of(&self, address: Address) -> Option<String> {
        link_name(&self.device_folder(address).join("driver/module")).ok()?
    }

    /// Whether a module is about to come up: its drivers probe their devices meanwhile. Source:
    /// `/sys/module/NAME/initstate`.
    #[must_use]
    pub fn is_coming(&self, module: &str) -> bool {
        let path = Path::new("sys/module").join(module).join("initstate");
        self.text(path).is_ok_and(|state| state.trim() == "coming")
    }

    /// The device that a virtual function (SR-IOV) is of. Source: the link `physfn`.
    #[must_use]
    pub fn physical_function(&self, address: Address) -> Option<Address> {
        link_name(&self.device_folder(address).join("physfn")).ok()??.parse().ok()
    }

    /// Keyboards, mice and the like by their names, but neither the jacks of sound cards nor what
    /// software makes. Source: `/sys/class/input`.
    #[must_use]
    pub fn inputs(&self) -> Vec<Input> {
        let folder = self.root.join("sys/class/input");
        let mut inputs: Vec<Input> = Vec::new();
        for name in self.names(&folder) {
            // The others there, as event0, are below one of these.
            if !name.as_bytes().starts_with(b"input") {
                continue;
            }
            let path = folder.join(name);
            let link = fs::read_link(&path).unwrap_or_default();
            if link.iter().any(|part| part == "sound" || part == "virtual") {
                continue;
            }
            let text = |name: &str| self.text(path.join(name)).unwrap_or_default();
            let input = Input {
                address: link.iter().rev().find_map(|part| part.to_str()?.parse().ok()),
                name: escape::short(text("name").trim()),
                has_keys: last_word(&text("capabilities/key")) & KEYS == KEYS,
                has_lights: last_word(&text("capabilities/led")) != 0,
            };
            let at = inputs.partition_point(|there| there.name <= input.name);
            inputs.insert(at, input);
        }
        inputs
    }

    /// What somebody can type on, as far as the kernel tells: mice with many buttons have the keys of a
    /// keyboard, too, but no lights.
    #[must_use]
    pub fn keyboards(&self) -> Vec<Input> {
        let mut keyboards = self.inputs();
        keyboards.retain(|input| input.has_keys);
        if keyboards.iter().any(|input| input.has_lights) {
            keyboards.retain(|input| input.has_lights);
        }
        keyboards
    }
}

/// The first 32 keys but the reserved one, from escape to D (`include/uapi/linux/input-event-codes.h`):
/// udev takes a device with all of them for a keyboard.
const KEYS: u64 = 0xffff_fffe;

/// The lowest bits of a bitmap as `input_print_bitmap()` writes it: hexadecimal words, the lowest
/// last.
fn last_word(bitmap: &str) -> u64 {
    let word = bitmap.split_whitespace().last();
    word.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0)
}
