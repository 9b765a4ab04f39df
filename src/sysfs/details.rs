//! What only `list` asks of a device: nothing of it is read on the way to a binding.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Sysfs, link_name};
use crate::cmdline::Request;
use crate::pci::{Address, Choice, Id, Item};
use crate::sysfs::Machine;

/// An input device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The PCI device that it hangs on, as a keyboard on its USB controller.
    pub address: Address,
    /// As it calls itself.
    pub name: String,
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

    /// Keyboards, mice and the like by their names, but not the jacks of sound cards. Source:
    /// `/sys/class/input`.
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
            let name = self.text(path.join("name")).unwrap_or_default();
            if let Some(address) = input_device(&link) {
                let input = Input { address, name: name.trim().to_owned() };
                let at = inputs.partition_point(|there| there.name <= input.name);
                inputs.insert(at, input);
            }
        }
        inputs
    }
}

/// The innermost PCI device in the path of an input device that is none of a sound card.
fn input_device(path: &Path) -> Option<Address> {
    let mut parts = path.iter().rev();
    if path.iter().any(|part| part == "sound") {
        return None;
    }
    parts.find_map(|part| part.to_str()?.parse().ok())
}
