//! What only `list` asks of a device: nothing of it is read on the way to a binding.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::usage::target;
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
    /// Whether nothing tells that it is something else, or cannot be typed on while the host boots.
    pub is_keyboard: bool,
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

    /// The virtual functions of a device, in their order, which is not that of their addresses where these
    /// wrap. Source: the links `virtfnN`.
    #[must_use]
    pub fn functions_of(&self, address: Address) -> Vec<Address> {
        let folder = self.device_folder(address);
        let function = |n: u16| link_name(&folder.join(format!("virtfn{n}"))).ok()??.parse().ok();
        (0..u16::MAX).map_while(function).collect()
    }

    /// A number in an attribute of a device; `None` where it is not there.
    #[must_use]
    pub fn number(&self, address: Address, name: &str) -> Option<u32> {
        self.text(self.device_folder(address).join(name)).ok()?.trim().parse().ok()
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
            let text = |name: &str| self.text(path.join(name)).unwrap_or_default();
            let mut link = target(&path);
            let has = |wanted: &str| link.iter().any(|part| part == wanted);
            let is_by_bluetooth = last_word(&text("id/bustype")) == BLUETOOTH;
            if is_by_bluetooth && has("uhid") {
                link = self.radio();
            } else if has("sound") || has("virtual") {
                continue;
            }
            let has_keys = last_word(&text("capabilities/key")) & KEYS == KEYS;
            let is_keyboard = has_keys
                && last_word(&text("capabilities/led")) != 0
                && !is_by_bluetooth
                && !self.is_token(&folder.join(&link));
            let input = Input {
                address: link.iter().rev().find_map(|part| part.to_str()?.parse().ok()),
                name: escape::short(text("name").trim()),
                has_keys,
                is_keyboard,
            };
            let at = inputs.partition_point(|there| there.name <= input.name);
            inputs.insert(at, input);
        }
        inputs
    }

    /// What somebody can type on while the host boots, as far as the kernel tells. Mice with many buttons
    /// have the keys of a keyboard, too, but no lights; security tokens that type have both, and are a
    /// smart card or a FIDO device besides; what comes by Bluetooth comes late. Where there is nothing
    /// else, all of these count: one of them may be the keyboard.
    #[must_use]
    pub fn keyboards(&self) -> Vec<Input> {
        let mut keyboards = self.inputs();
        keyboards.retain(|input| input.has_keys);
        if keyboards.iter().any(|input| input.is_keyboard) {
            keyboards.retain(|input| input.is_keyboard);
        }
        keyboards
    }

    /// Where the first radio of Bluetooth is: what feeds a keyboard through a program (`BlueZ`) tells nothing of it.
    /// Source: `/sys/class/bluetooth`.
    fn radio(&self) -> PathBuf {
        let folder = self.root.join("sys/class/bluetooth");
        let radio = self.names(&folder).into_iter().min();
        radio.map(|radio| target(&folder.join(radio))).unwrap_or_default()
    }

    /// Whether the USB device that this path is below has an interface for smart cards or FIDO. Sources:
    /// `bInterfaceClass`, and the begin of `report_descriptor`, which names what a HID device is for.
    fn is_token(&self, path: &Path) -> bool {
        // As 1-2:1.0.
        let is_interface = |path: &&Path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.split_once(':')
                .is_some_and(|(port, number)| port.contains('-') && number.contains('.'))
        };
        let Some(device) = path.ancestors().find(is_interface).and_then(Path::parent) else {
            return false;
        };
        self.names(device).iter().map(|name| device.join(name)).any(|interface| {
            is_interface(&interface.as_path())
                && (self
                    .text(interface.join("bInterfaceClass"))
                    .is_ok_and(|it| it.trim() == SMART_CARD)
                    || self.names(&interface).iter().any(|name| {
                        let descriptor = self.bytes(interface.join(name).join("report_descriptor"));
                        descriptor.is_ok_and(|it| it.starts_with(&FIDO))
                    }))
        })
    }
}

/// `BUS_BLUETOOTH` in `include/uapi/linux/input.h`.
const BLUETOOTH: u64 = 5;

/// `USB_CLASS_CSCID` in `include/uapi/linux/usb/ch9.h`, as sysfs writes it.
const SMART_CARD: &str = "0b";

/// "Usage Page (FIDO Alliance)", by which the descriptor of each FIDO device begins.
const FIDO: [u8; 3] = [0x06, 0xd0, 0xf1];

/// The first 32 keys but the reserved one, from escape to D (`include/uapi/linux/input-event-codes.h`):
/// udev takes a device with all of them for a keyboard.
const KEYS: u64 = 0xffff_fffe;

/// The lowest bits of a bitmap as `input_print_bitmap()` writes it: hexadecimal words, the lowest
/// last.
fn last_word(bitmap: &str) -> u64 {
    let word = bitmap.split_whitespace().last();
    word.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0)
}
