//! Whether binding a graphics card takes the host's console, on this kernel. Pure.
//!
//! Since Linux 6.0 `vfio_pci_vga_init()` evicts the firmware's framebuffer when it binds a device
//! of class 0300 (`aperture_remove_conflicting_pci_devices()`); which cards do is a matter of the
//! kernel's version. The console then goes to the dummy console: the screen freezes.

use crate::pci::{Address, Class};

/// The kernel's version, of the original release where a distribution names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// As in 6.
    pub major: u16,
    /// As in 1.
    pub minor: u16,
    /// As in 47; 0 where unknown, which reads as the oldest.
    pub patch: u16,
}

impl Version {
    /// From `uname -r` and `uname -v`: Debian's release has no patch level, but its version has,
    /// as in `#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-10-05)`.
    #[must_use]
    pub fn read(release: &str, version: &str) -> Version {
        let debian = version.split_once("Debian ").map(|(_, rest)| Version::parse(rest));
        debian.filter(|debian| debian.major > 0).unwrap_or_else(|| Version::parse(release))
    }

    fn parse(text: &str) -> Version {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        let mut number = || numbers.next().flatten().unwrap_or(0);
        Version { major: number(), minor: number(), patch: number() }
    }

    fn is_before(self, major: u16, minor: u16, patch: u16) -> bool {
        self < Version { major, minor, patch }
    }
}

/// What of a graphics device matters to the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// The kernel's default VGA device. Source: `boot_vga`.
    pub boot_vga: bool,
    /// Its option ROM is the copy at 0xc0000 (`IORESOURCE_ROM_SHADOW`). Source: line 7 of
    /// `resource`.
    pub rom_shadow: bool,
}

/// One framebuffer that a driver of the host made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// As in `/dev/fb0`.
    pub number: u8,
    /// The graphics device whose driver made it; `None` for the firmware's.
    pub owner: Option<Address>,
}

/// What the firmware set up and a generic driver (efifb, vesafb, simpledrm, vgacon) draws on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// The platform device, as in `efi-framebuffer.0`, or `10000000.framebuffer` of a device tree;
    /// `None` for VGA text mode.
    pub device: Option<String>,
    /// The graphics device whose memory it is in; `None` where this kernel does not say, or
    /// [`Firmware::is_in_ram`].
    pub owner: Option<Address>,
    /// It is in the host's own memory, and so in no graphics device's.
    pub is_in_ram: bool,
}

impl Firmware {
    /// Whether it stands in the device tree: such a one goes only with the memory that it is in. All
    /// others are made by the kernel (`drivers/firmware/sysfb.c`), one at most.
    fn is_of_device_tree(&self) -> bool {
        self.device.as_ref().is_some_and(|name| !name.contains(SYSFB))
    }
}

/// What the names of the platform devices have that sysfb makes.
const SYSFB: &str = "-framebuffer.";

/// The host's screen; a machine with only serial consoles has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// The kernel, which decides about eviction.
    pub kernel: Version,
    /// The firmware's, while a generic driver still draws on it.
    pub firmware: Option<Firmware>,
    /// All of them, in the order of their numbers.
    pub framebuffers: Vec<Framebuffer>,
}

const VGA: u32 = 0x0300;

impl Screen {
    /// The framebuffer that the device's own driver made.
    #[must_use]
    pub fn framebuffer_of(&self, address: Address) -> Option<Framebuffer> {
        self.framebuffers.iter().find(|framebuffer| framebuffer.owner == Some(address)).copied()
    }

    /// Whether giving this device away takes the console, or leaves it on a device that is gone.
    #[must_use]
    pub fn is_endangered_by(&self, address: Address, class: Class, display: Display) -> bool {
        if !class.is_display() {
            return false;
        }
        if self.framebuffer_of(address).is_some() {
            return true;
        }
        let Some(firmware) = &self.firmware else { return false };
        match firmware.owner {
            Some(owner) if owner == address => true,
            // Any display can be the one.
            None if !firmware.is_in_ram => true,
            _ => class.0 >> 8 == VGA && self.evicts_of_others(firmware, display),
        }
    }

    /// Whether binding a VGA device evicts a framebuffer that is another one's, or none's.
    fn evicts_of_others(&self, firmware: &Firmware, display: Display) -> bool {
        let kernel = self.kernel;
        if firmware.is_of_device_tree() {
            return false;
        }
        // Since then the kernel asks whose it is, and what is nobody's goes (`sysfb_disable()`).
        if !kernel.is_before(6, 12, 0) {
            return firmware.is_in_ram;
        }
        if kernel.is_before(6, 0, 0) {
            false
        } else if kernel.is_before(6, 1, 47)
            || !kernel.is_before(6, 2, 0) && kernel.is_before(6, 5, 0)
        {
            true
        } else if kernel.is_before(6, 2, 0) {
            display.rom_shadow
        } else {
            display.boot_vga
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_original_release() {
        let version = |major, minor, patch| Version { major, minor, patch };
        for (release, text, expected) in [
            ("6.1.0-56-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-10-05)", (6, 1, 192)),
            ("6.1.0-56-amd64", "#1 SMP", (6, 1, 0)),
            ("6.12.107", "#1-NixOS SMP PREEMPT_DYNAMIC", (6, 12, 107)),
            ("7.2-rc3", "", (7, 2, 0)),
            ("5.15.0-91-generic", "#101-Ubuntu SMP Tue", (5, 15, 0)),
            ("", "Debian ", (0, 0, 0)),
        ] {
            let (major, minor, patch) = expected;
            assert_eq!(Version::read(release, text), version(major, minor, patch), "{release}");
        }
    }

    #[test]
    fn which_cards_take_the_console_is_a_matter_of_the_kernel() {
        let boot: Address = "00:01.0".parse().unwrap();
        let second: Address = "00:05.0".parse().unwrap();
        let plain = Display::default();
        let shadow = Display { rom_shadow: true, ..plain };
        let boot_vga = Display { boot_vga: true, ..plain };
        let vga = Class(0x03_0000);
        let other = Class(0x03_8000);
        for (kernel, address, class, display, expected) in [
            // Whose memory the framebuffer is in, can never go without it.
            ("5.10.223", boot, vga, boot_vga, true),
            ("6.1.192", boot, vga, boot_vga, true),
            ("6.12.107", boot, vga, boot_vga, true),
            ("6.12.107", boot, other, plain, true),
            // Another card's.
            ("5.10.223", second, vga, shadow, false),
            ("6.0.1", second, vga, plain, true),
            ("6.1.46", second, vga, plain, true),
            ("6.1.47", second, vga, plain, false),
            ("6.1.192", second, vga, shadow, true),
            ("6.2.0", second, vga, plain, true),
            ("6.4.16", second, vga, plain, true),
            ("6.5.0", second, vga, shadow, false),
            ("6.5.0", second, vga, boot_vga, true),
            ("6.11.11", second, vga, boot_vga, true),
            ("6.12.107", second, vga, plain, false),
            ("6.12.107", second, vga, boot_vga, false),
            // No class but 0300 evicts anything.
            ("6.1.0", second, other, shadow, false),
            ("6.1.0", second, Class(0x03_0200), shadow, false),
            ("6.1.0", second, Class(0x0c_0330), plain, false),
        ] {
            let firmware = Firmware { owner: Some(boot), ..Firmware::default() };
            let screen = Screen {
                kernel: Version::read(kernel, ""),
                firmware: Some(firmware),
                framebuffers: vec![Framebuffer { number: 0, owner: None }],
            };
            let case = format!("{kernel} {address} {class} {display:?}");
            assert_eq!(screen.is_endangered_by(address, class, display), expected, "{case}");
        }
    }

    #[test]
    fn a_console_on_a_drivers_own_framebuffer_is_only_that_devices() {
        let (mine, other) = ("00:02.0".parse().unwrap(), "01:00.0".parse().unwrap());
        let screen = Screen {
            kernel: Version::read("6.1.0", ""),
            firmware: None,
            framebuffers: vec![Framebuffer { number: 0, owner: Some(mine) }],
        };
        let display = Display { boot_vga: true, rom_shadow: true };
        assert!(screen.is_endangered_by(mine, Class(0x03_0000), display));
        assert!(!screen.is_endangered_by(other, Class(0x03_0000), display));
    }

    #[test]
    fn a_framebuffer_in_ram_is_no_devices_but_goes_with_some() {
        let address: Address = "00:05.0".parse().unwrap();
        let plain = Display::default();
        let boot_vga = Display { boot_vga: true, ..plain };
        let (sysfb, tree) = ("efi-framebuffer.0", "7f000000.framebuffer");
        let (vga, other, no_outputs) = (0x03_0000, 0x03_8000, 0x03_0200);
        for (kernel, device, class, display, expected) in [
            ("5.10.223", sysfb, vga, boot_vga, false),
            ("6.1.192", sysfb, vga, plain, false),
            ("6.4.16", sysfb, vga, plain, true),
            ("6.6.0", sysfb, vga, plain, false),
            ("6.6.0", sysfb, vga, boot_vga, true),
            ("6.12.117", sysfb, vga, plain, true),
            ("7.2.13", sysfb, vga, plain, true),
            ("6.12.117", sysfb, other, plain, false),
            ("6.12.117", sysfb, no_outputs, plain, false),
            ("6.4.16", tree, vga, boot_vga, false),
            ("6.12.117", tree, vga, boot_vga, false),
        ] {
            let device = Some(device.to_owned());
            let screen = Screen {
                kernel: Version::read(kernel, ""),
                firmware: Some(Firmware { device, owner: None, is_in_ram: true }),
                framebuffers: vec![Framebuffer { number: 0, owner: None }],
            };
            let found = screen.is_endangered_by(address, Class(class), display);
            assert_eq!(found, expected, "{screen:?} {class:x} {display:?}");
        }
    }

    #[test]
    fn with_an_unknown_owner_every_display_may_be_the_one() {
        let screen = Screen { firmware: Some(Firmware::default()), ..Screen::default() };
        let address = "01:00.0".parse().unwrap();
        for (class, expected) in [(0x03_0000, true), (0x03_8000, true), (0x04_0300, false)] {
            let found = screen.is_endangered_by(address, Class(class), Display::default());
            assert_eq!(found, expected, "class {class:x}");
        }
    }
}
