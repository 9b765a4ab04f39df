//! What the host's console is on: reads for [`Screen`].

use std::fs;
use std::path::Path;

use super::files::reading;
use super::{Sysfs, link_name};
use crate::console::{Display, Firmware, Framebuffer, Screen, Version};
use crate::pci::Address;

/// The console driver of VGA's text mode (`drivers/video/console/vgacon.c`).
pub const VGACON: &str = "VGA+";

/// `FB_MAX` in `include/uapi/linux/fb.h`.
const FRAMEBUFFERS: u8 = 32;

/// How the generic drivers name their memory in `/proc/iomem`: efifb, vesafb, simplefb,
/// simpledrm (whose memory sysfb calls BOOTFB, and a device tree nothing).
const FIRMWARE_MEMORY: [&str; 5] = ["efifb", "vesafb", "simplefb", "simpledrm", "BOOTFB"];

/// `IORESOURCE_ROM_SHADOW` in `include/linux/ioport.h`.
const ROM_SHADOW: u64 = 1 << 1;
/// Where the shadow of the boot device's option ROM lies on x86.
const SHADOW_START: u64 = 0xc_0000;

impl Sysfs {
    /// The host's screen; `None` where its consoles are all serial or there are none.
    #[must_use]
    pub fn screen(&self) -> Option<Screen> {
        let framebuffers = self.framebuffers();
        let firmware = self.firmware().or_else(|| {
            let text_mode = framebuffers.is_empty() && self.vt_console(VGACON) == Some(true);
            text_mode.then(|| Firmware { owner: self.boot_vga(), ..Firmware::default() })
        });
        (firmware.is_some() || !framebuffers.is_empty()).then(|| Screen {
            kernel: self.kernel_version(),
            firmware,
            framebuffers,
        })
    }

    pub(crate) fn kernel_version(&self) -> Version {
        let text = |name| self.text(Path::new("proc/sys/kernel").join(name)).unwrap_or_default();
        Version::read(&text("osrelease"), &text("version"))
    }

    /// Source: `/sys/class/graphics/fbN/device`. The firmware's is a platform device, which lies
    /// below the graphics device since Linux 6.9.
    fn framebuffers(&self) -> Vec<Framebuffer> {
        let folder = self.root.join("sys/class/graphics");
        let framebuffers = (0..FRAMEBUFFERS).filter_map(|number| {
            let device = folder.join(format!("fb{number}/device"));
            let name = link_name(&device).ok()??;
            let owner = if is_firmware(&name) { None } else { pci_device_of(&device) };
            Some(Framebuffer { number, owner })
        });
        framebuffers.collect()
    }

    /// A generic driver's platform device, known by its framebuffer: on 5.10 it stays, with its
    /// driver, when a host driver has taken that (`do_remove_conflicting_framebuffers()`). Its
    /// owner's sources: the folder that it lies in (since Linux 6.9), or what its memory is nested in
    /// in `/proc/iomem`.
    fn firmware(&self) -> Option<Firmware> {
        let folder = self.root.join("sys/bus/platform/devices");
        let draws = |name: &String| {
            let has = |class| !self.names(&folder.join(name).join(class)).is_empty();
            has("graphics") || has("drm")
        };
        let names = self.utf8_names(&folder).into_iter();
        let device = names.filter(|name| is_firmware(name)).find(draws)?;
        let owner = pci_device_of(&folder.join(&device));
        let place = if owner.is_some() { None } else { self.firmware_place() };
        let is_in_ram = place == Some(Place::Ram);
        Some(Firmware { device: Some(device), owner: owner.or_else(|| place?.device()), is_in_ram })
    }

    /// The device whose memory is set apart for the firmware's framebuffer. Source: `/proc/iomem`.
    #[must_use]
    pub fn firmware_memory(&self) -> Option<Address> {
        self.firmware_place()?.device()
    }

    fn firmware_place(&self) -> Option<Place> {
        iomem_place(&self.text("proc/iomem").unwrap_or_default())
    }

    fn boot_vga(&self) -> Option<Address> {
        let addresses = self.addresses(&self.pci().join("devices")).ok()?;
        addresses
            .into_iter()
            .find(|address| self.display(&format!("bus/pci/devices/{address}")).boot_vga)
    }

    /// Sources: `boot_vga` and line 7 of `resource`, the expansion ROM.
    pub(super) fn display(&self, folder: &str) -> Display {
        let folder = self.root.join("sys").join(folder);
        let text = |name| self.text(folder.join(name)).unwrap_or_default();
        let resource = text("resource");
        let mut rom =
            resource.lines().nth(6).unwrap_or("").split(' ').map(|number| {
                u64::from_str_radix(number.trim_start_matches("0x"), 16).unwrap_or(0)
            });
        let (start, _end, flags) = (rom.next(), rom.next(), rom.next().unwrap_or(0));
        Display {
            boot_vga: text("boot_vga").trim() == "1",
            rom_shadow: start == Some(SHADOW_START) && flags & ROM_SHADOW != 0,
        }
    }

    /// Whether the console driver whose name has this part drives the virtual terminals; `None`
    /// where there is no such. Source: `/sys/class/vtconsole`.
    #[must_use]
    pub fn vt_console(&self, name: &str) -> Option<bool> {
        let folder = self.vt_console_folder(name)?;
        let bind = self.text(Path::new("sys").join(folder).join("bind")).ok()?;
        Some(bind.trim() == "1")
    }

    /// Whether the display's driver knows of no monitor on any of its outputs. Then it makes no
    /// framebuffer before one is connected (`drm_fb_helper_single_fb_probe()`). Source:
    /// `drm/cardN/cardN-OUTPUT/status`.
    #[must_use]
    pub fn has_no_monitor(&self, address: Address) -> bool {
        let folder = self.pci().join("devices").join(address.to_string()).join("drm");
        let mut has_outputs = false;
        for card in self.names(&folder) {
            let card = folder.join(card);
            for output in self.names(&card) {
                let status = card.join(output).join("status");
                match self.text(status) {
                    Ok(status) if status.trim() != "disconnected" => return false,
                    Ok(_) => has_outputs = true,
                    Err(_) => {}
                }
            }
        }
        has_outputs
    }

    fn utf8_names(&self, folder: &Path) -> Vec<String> {
        self.names(folder).into_iter().filter_map(|name| name.into_string().ok()).collect()
    }

    /// Its folder below `/sys`.
    #[must_use]
    pub fn vt_console_folder(&self, name: &str) -> Option<String> {
        let folder = self.root.join("sys/class/vtconsole");
        let has_name = |entry: &String| {
            self.text(folder.join(entry).join("name")).is_ok_and(|n| n.contains(name))
        };
        self.utf8_names(&folder)
            .iter()
            .find(|entry| has_name(entry))
            .map(|e| format!("class/vtconsole/{e}"))
    }
}

/// The names of the platform devices that `drivers/firmware/sysfb*.c` makes (`efi-framebuffer.0`), or
/// that a device tree has (`10000000.framebuffer`, `chosen:framebuffer`).
fn is_firmware(name: &str) -> bool {
    name.contains("framebuffer")
}

/// The innermost PCI device in the real path of a device.
fn pci_device_of(device: &Path) -> Option<Address> {
    reading("resolve", device);
    let path = fs::canonicalize(device).ok()?;
    path.iter().rev().find_map(|part| part.to_str()?.parse().ok())
}

/// Where the firmware's framebuffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the memory of that PCI device.
    Device(Address),
    /// In the host's own.
    Ram,
}

impl Place {
    fn device(self) -> Option<Address> {
        match self {
            Place::Device(address) => Some(address),
            Place::Ram => None,
        }
    }
}

/// What is around the firmware's framebuffer in the text of `/proc/iomem`, which nests by two spaces a
/// level; `None` where that does not tell. The host's memory is there as it is used, or as set apart by
/// the firmware.
fn iomem_place(text: &str) -> Option<Place> {
    let mut around: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        let name = line.split_once(" : ").map_or("", |(_, name)| name);
        around.retain(|(outer, _)| *outer < depth);
        if FIRMWARE_MEMORY.contains(&name) {
            let device = around.iter().rev().find_map(|(_, name)| name.parse().ok());
            let is_memory = |name: &str| matches!(name, "System RAM" | "reserved" | "Reserved");
            let is_in_ram = !around.is_empty() && around.iter().all(|(_, name)| is_memory(name));
            return device.map(Place::Device).or(is_in_ram.then_some(Place::Ram));
        }
        around.push((depth, name));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmwares_memory_lies_in_its_owners() {
        let owned = "\
00001000-0009ffff : System RAM
80000000-febfffff : PCI Bus 0000:00
  80000000-80ffffff : 0000:00:01.0
    80000000-803e7fff : BOOTFB
  81000000-81ffffff : 0000:00:05.0
";
        let behind = "\
80000000-febfffff : PCI Bus 0000:00
  c0000000-d1ffffff : PCI Bus 0000:01
    c0000000-cfffffff : 0000:01:00.0
      c0000000-c02fffff : efifb
";
        let not_in_a_device = "80000000-80ffffff : 0000:00:01.0\n90000000-903e7fff : efifb\n";
        let of_device_tree = "\
10000000-3efeffff : pcie@10000000
  10000000-10ffffff : 0000:00:05.0
    10000000-102fffff : simplefb
40000000-7fffffff : System RAM
";
        let unclaimed = "10000000-3efeffff : pcie@10000000\n  10000000-102fffff : simplefb\n";
        let in_ram = "\
40000000-7c13ffff : System RAM
7c140000-7c72ffff : reserved
  7c430000-7c604fff : efifb
";
        for (text, expected) in [
            (owned, Some("0000:00:01.0")),
            (behind, Some("0000:01:00.0")),
            (of_device_tree, Some("0000:00:05.0")),
            (in_ram, Some("RAM")),
            (unclaimed, None),
            (not_in_a_device, None),
            ("", None),
            ("efifb", None),
        ] {
            let place = |text: &str| text.parse().map_or(Place::Ram, Place::Device);
            let expected = expected.map(place);
            assert_eq!(iomem_place(text), expected, "{text}");
        }
    }
}
