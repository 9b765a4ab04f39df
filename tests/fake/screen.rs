//! The host's screen: framebuffers, and the console on one of them.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::tree::Tree;
use crate::machine::{Function, Line, Machine};

/// The firmware's framebuffer, which a generic driver draws on.
#[derive(Debug)]
struct Firmware {
    kind: Kind,
    /// The graphics device that it is on; `None` in RAM.
    owner: Option<Function>,
}

/// How the kernel knows of the firmware's framebuffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// By the firmware's own words (`screen_info`), which sysfb makes a device of.
    #[default]
    Sysfb,
    /// By the device tree.
    DeviceTree,
}

impl Kind {
    /// The platform device, its driver, and what that calls the memory.
    fn names(self) -> [&'static str; 3] {
        match self {
            Kind::Sysfb => ["efi-framebuffer.0", "efi-framebuffer", "efifb"],
            Kind::DeviceTree => ["80000000.framebuffer", "simple-framebuffer", "simplefb"],
        }
    }
}

/// Where a framebuffer is that is in RAM.
const RAM: &str = "RAM";
/// The console driver over all framebuffers.
const FBCON: &str = "class/vtconsole/vtcon1";

/// What is drawn on, and by whom.
#[derive(Debug)]
pub struct Screen {
    line: Line,
    /// While it is there.
    firmware: Option<Firmware>,
    /// Number to the address of the graphics device that it is on.
    framebuffers: BTreeMap<u8, String>,
    /// The framebuffer that the consoles are on; `None` is the dummy console: a dark screen.
    console: Option<u8>,
    /// The framebuffer that the consoles are meant for: when one of that number comes, they are on
    /// it.
    mapped: u8,
    /// The default VGA device has had a framebuffer.
    has_had_primary: bool,
}

impl Screen {
    /// With the firmware's framebuffer where the machine has one.
    pub fn new(machine: &Machine) -> Self {
        let kind = machine.firmware_kind;
        let firmware = machine.firmware_on.as_deref().map(|on| match on {
            RAM => Firmware { kind, owner: None },
            address => Firmware { kind, owner: Some(machine.function(address).clone()) },
        });
        Screen {
            line: machine.line,
            firmware,
            framebuffers: BTreeMap::new(),
            console: None,
            mapped: 0,
            has_had_primary: false,
        }
    }

    /// When the devices are there.
    pub fn start(&mut self, tree: &Tree) {
        let Some(Firmware { kind, owner }) = &self.firmware else { return };
        let [device, driver, memory] = kind.names();
        // Below the graphics device since 6.9; before, its memory tells, and always of a device tree.
        let folder = match owner {
            Some(owner) if *kind == Kind::Sysfb && self.line >= Line::V6_12 => {
                format!("devices/{}/{device}", owner.folder())
            }
            _ => format!("devices/platform/{device}"),
        };
        tree.folder(&format!("sys/{folder}"));
        let around = match owner {
            Some(owner) => format!(
                "80000000-febfffff : PCI Bus 0000:00\n  80000000-80ffffff : {}\n  ",
                owner.address
            ),
            None => "80000000-803fffff : reserved\n".to_owned(),
        };
        let text =
            format!("00001000-0009ffff : System RAM\n{around}  80000000-803e7fff : {memory}\n");
        tree.write("proc/iomem", &text);
        tree.folder("sys/bus/platform/devices");
        tree.write(&format!("sys/bus/platform/drivers/{driver}/unbind"), "");
        tree.link(&format!("sys/bus/platform/devices/{device}"), &format!("../../../{folder}"));
        tree.link_up(&format!("{folder}/driver"), &format!("bus/platform/drivers/{driver}"));
        let address = owner.as_ref().map_or(RAM, |owner| &owner.address).to_owned();
        self.add(tree, &folder, &address);
    }

    fn next_number(&self) -> u8 {
        let number = (0..32).find(|number| !self.framebuffers.contains_key(number));
        number.expect("few framebuffers")
    }

    fn add(&mut self, tree: &Tree, device: &str, address: &str) {
        let number = self.next_number();
        self.framebuffers.insert(number, address.to_owned());
        let folder = format!("{device}/graphics/fb{number}");
        tree.folder(&format!("sys/{folder}"));
        tree.folder("sys/class/graphics");
        tree.link(&format!("sys/class/graphics/fb{number}"), &format!("../../{folder}"));
        tree.link_up(&format!("{folder}/device"), device);
        // The first one gets the console; further ones only where it is meant for them.
        if self.console.is_none() || self.mapped == number {
            self.put_console(tree, Some(number));
        }
    }

    fn remove(&mut self, tree: &Tree, number: u8) {
        self.framebuffers.remove(&number);
        tree.remove_linked(&format!("sys/class/graphics/fb{number}"));
        // The kernel does not look for another one.
        if self.console == Some(number) {
            self.put_console(tree, None);
        }
    }

    fn put_console(&mut self, tree: &Tree, number: Option<u8>) {
        self.console = number;
        tree.write("sys/class/vtconsole/vtcon0/name", "(S) dummy device\n");
        tree.write(&format!("sys/{FBCON}/name"), "(M) frame buffer device\n");
        let bound = u8::from(number.is_some());
        tree.write(&format!("sys/{FBCON}/bind"), &format!("{bound}\n"));
    }

    /// A driver of the host has made its framebuffer.
    pub fn driver_came(&mut self, tree: &Tree, function: &Function) {
        let on_it = self.keeps_memory_of(&function.address);
        let is_of_tree = self.firmware.as_ref().is_some_and(|it| it.kind == Kind::DeviceTree);
        // 6.1 evicts sysfb's for any graphics driver.
        if on_it || self.line == Line::V6_1 && !is_of_tree {
            self.evict(tree, self.line != Line::V5_10);
        }
        // `fbcon_select_primary()`.
        if function.boot_vga && !self.has_had_primary {
            self.has_had_primary = true;
            self.mapped = self.next_number();
        }
        self.add(tree, &format!("devices/{}", function.folder()), &function.address);
    }

    /// A driver of the host has let go.
    pub fn driver_went(&mut self, tree: &Tree, function: &Function) {
        let firmware = self.firmware_number();
        let own = self
            .framebuffers
            .iter()
            .find(|(number, address)| **address == function.address && Some(**number) != firmware);
        if let Some((number, _)) = own {
            let number = *number;
            self.remove(tree, number);
        }
    }

    /// `vfio_pci_vga_init()`.
    pub fn vfio_came(&mut self, tree: &Tree, function: &Function) {
        let Some(Firmware { kind, owner }) = &self.firmware else { return };
        let is_owner = owner.as_ref().is_some_and(|owner| owner.address == function.address);
        let evicts = match self.line {
            Line::V5_10 => false,
            _ if *kind == Kind::DeviceTree => is_owner,
            Line::V6_1 => is_owner || function.rom_shadow,
            // `sysfb_disable()`: what is nobody's, too.
            Line::V6_12 | Line::V7_2 => is_owner || owner.is_none(),
        };
        if function.class >> 8 == 0x0300 && evicts {
            self.evict(tree, true);
        }
    }

    /// The firmware's is always the first.
    fn firmware_number(&self) -> Option<u8> {
        self.firmware.is_some().then_some(0)
    }

    /// Its platform device goes, too, but for what a driver of the host does on 5.10.
    fn evict(&mut self, tree: &Tree, with_device: bool) {
        if let Some(number) = self.firmware_number()
            && let Some(Firmware { kind, .. }) = self.firmware.take()
        {
            self.remove(tree, number);
            if with_device {
                tree.remove_linked(&format!("sys/bus/platform/devices/{}", kind.names()[0]));
            }
            tree.write("proc/iomem", "00001000-0009ffff : System RAM\n");
        }
    }

    /// An attribute that is about the screen; `None` where it is not.
    pub fn store(
        &mut self,
        tree: &Tree,
        attribute: &str,
        value: &str,
    ) -> Option<Result<(), Errno>> {
        let device = self.firmware.as_ref().map_or("", |firmware| firmware.kind.names()[0]);
        if attribute == format!("bus/platform/devices/{device}/driver/unbind") {
            self.evict(tree, true);
            return Some(Ok(()));
        }
        if attribute == format!("{FBCON}/bind") {
            if value == "1" && self.console.is_none() {
                let first = self.framebuffers.keys().next().copied();
                self.put_console(tree, first);
            }
            return Some(Ok(()));
        }
        None
    }

    /// `FBIOPUT_CON2FBMAP`.
    pub fn map_consoles(&mut self, tree: &Tree, number: u8) -> Result<(), Errno> {
        if !self.framebuffers.contains_key(&number) {
            return Err(Errno::ENOENT);
        }
        self.mapped = number;
        self.put_console(tree, Some(number));
        Ok(())
    }

    /// The framebuffer that the consoles are on; `None` where it is dark.
    pub fn console_number(&self) -> Option<u8> {
        self.console
    }

    /// The graphics device that the console is drawn on; `None` where it is dark.
    pub fn console(&self) -> Option<&str> {
        Some(self.framebuffers.get(&self.console?)?.as_str())
    }

    /// All framebuffers by number, the one of the consoles, and whether the firmware's is there.
    pub fn state(&self) -> (&BTreeMap<u8, String>, Option<u8>, bool) {
        (&self.framebuffers, self.console, self.firmware.is_some())
    }

    /// Whether the firmware's framebuffer keeps memory of that device, so that a VM cannot have it.
    pub fn keeps_memory_of(&self, address: &str) -> bool {
        let owner = self.firmware.as_ref().and_then(|firmware| firmware.owner.as_ref());
        owner.is_some_and(|owner| owner.address == address)
    }
}
