//! `vfio-early release`: gives devices back to the host's drivers, unless a VM has them.
//!
//! The order: who has it, a mark that it is released (or what comes later takes it back), the override
//! cleared, the unbind, the host's modules, the probe, and then what reads back.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use log::Level;
use nix::errno::Errno;

use super::released::{self, Released};
use super::verify;
use crate::cmdline::Request;
use crate::kernel::{Kernel, PROBE, Write};
use crate::modules::Needed;
use crate::others;
use crate::pci::Address;
use crate::plan::is_same_name;
use crate::sysfs::{Device, Machine, Sysfs};
use crate::variant;

/// What there is to say, in its order. Where something that was named is not with the host now, that is an
/// error.
pub type Lines = Vec<(Level, String)>;

/// How long the host's driver may take to make its framebuffer.
const FRAMEBUFFER: Duration = Duration::from_secs(2);

/// So often, a tenth of a second apart, a group is looked at again that is open in no process: the kernel closes
/// the files of one that ends after they are gone from its `/proc`, and a reset takes its time
/// (`exit_files()`, `vfio_pci_core_close_device()`).
const CLOSING: usize = 50;

/// Gives back what the request names; the marks are in that folder.
///
/// # Errors
/// When the PCI bus cannot be read, or the marks not written; nothing else was written then.
pub fn release<K: Kernel>(
    request: &Request,
    sysfs: &Sysfs,
    kernel: &mut K,
    folder: &Path,
) -> io::Result<Lines> {
    let machine = sysfs.whole_machine()?;
    // Nothing of what comes now is unheard.
    let _ = kernel.listen();
    let mut run = Run { sysfs, kernel, machine: &machine, lines: Lines::new() };
    let (chosen, missing) = verify::choose(&[], request, &machine);
    for text in missing {
        run.lines.push((Level::Error, format!("{text}: no device here is that")));
    }
    let is_kept = |driver: &str| {
        let asked = request.driver.as_deref();
        others::keeps(driver) || asked.is_some_and(|asked| is_same_name(asked, driver))
    };
    let (mut marks, mut left) = (Vec::new(), Vec::new());
    for address in chosen {
        let device = &machine.devices[&address];
        let host = device.driver.as_ref().filter(|driver| !is_kept(driver));
        if let Some(driver) = host {
            run.say(Level::Info, address, format_args!("{driver} has it already"));
        } else if let Some(holder) = run.held_by(device, address) {
            let text = format_args!("refused: {holder}; shut that VM down, and release it then");
            run.say(Level::Error, address, text);
            continue;
        } else {
            left.push(address);
        }
        marks.push(released::line(&address, &device.id));
    }
    Released::read(sysfs).change(&marks, true, folder)?;
    left.retain(|address| run.free(*address));
    for address in &left {
        run.load(*address);
    }
    for address in left {
        run.probe(address, &is_kept);
    }
    Ok(run.lines)
}

struct Run<'a, K> {
    sysfs: &'a Sysfs,
    kernel: &'a mut K,
    machine: &'a Machine,
    lines: Lines,
}

impl<K: Kernel> Run<'_, K> {
    fn say(&mut self, level: Level, address: Address, text: fmt::Arguments<'_>) {
        let id = self.machine.devices[&address].id;
        self.lines.push((level, format!("{address} {id}: {text}")));
    }

    /// Which process has the device, or its group: where one has, the kernel lets no driver of the host
    /// have any device of the group.
    fn held_by(&mut self, device: &Device, address: Address) -> Option<String> {
        let mut files: Vec<String> = Vec::new();
        // Without one there is no group of that number.
        let group = device.group.unwrap_or(u32::MAX);
        let others = self.machine.group(group).map(|(other, _)| other);
        for member in others.chain([address]) {
            let name = self.sysfs.device_file(member);
            files.extend(name.map(|name| format!("/dev/vfio/devices/{name}")));
        }
        let file = format!("/dev/vfio/{group}");
        // Of other users' processes, and of other containers', nothing may be seen.
        let path = file[1..].to_owned();
        files.push(file);
        for _ in 0..CLOSING {
            let is_open = self.sysfs.is_there(&path) && self.kernel.group_viable(group).is_none();
            if let Some((holders, file)) = self.sysfs.holders(&files) {
                return Some(format!("{} has {file} open", holders.join(", ")));
            }
            if !is_open {
                return None;
            }
            self.kernel.wait_for_uevent(Duration::from_millis(100));
        }
        Some("some process has its group open".to_owned())
    }

    fn store(&mut self, attribute: String, value: String) -> Result<(), Errno> {
        self.kernel.perform(&[Write::Store { attribute, value }]).pop().unwrap_or(Ok(()))
    }

    /// Clears the override, and takes it from the driver that keeps it; whether that went well.
    fn free(&mut self, address: Address) -> bool {
        let device = &self.machine.devices[&address];
        let attribute = format!("{}/driver_override", device.folder);
        if let Err(errno) = self.store(attribute, "\n".to_owned()) {
            let text = format_args!("failed: its override cannot be cleared: {}", errno.desc());
            self.say(Level::Error, address, text);
            return false;
        }
        let Some(driver) = &device.driver else { return true };
        let unbind = format!("bus/pci/drivers/{driver}/unbind");
        // Of other errors what reads back tells.
        let hangs = self.store(unbind, address.to_string()) == Err(Errno::ETIMEDOUT);
        if hangs {
            let holder = self.held_by(device, address);
            let holder = holder.as_deref().unwrap_or("some process has it open");
            let text = format_args!(
                "failed: the unbind hangs: {holder}; it goes on when that ends: release it again then"
            );
            self.say(Level::Error, address, text);
        }
        !hangs
    }

    /// Loads the host's modules for the device, as udev would; but none that is blacklisted.
    fn load(&mut self, address: Address) {
        for module in self.modules(address) {
            let needed = self.kernel.modules_for(&module).unwrap_or_default().into_iter();
            let insert = |Needed { name, needs }| Write::Insert { module: name, needs };
            let writes: Vec<Write> = needed.map(insert).collect();
            if let Some(errno) = self.kernel.perform(&writes).into_iter().find_map(Result::err) {
                self.say(Level::Warn, address, format_args!("loading {module}: {}", errno.desc()));
            }
        }
    }

    fn modules(&mut self, address: Address) -> Vec<String> {
        let device = &self.machine.devices[&address];
        let modalias = format!("pci:{}", variant::modalias(device.id, device.class));
        let modules = self.kernel.modules_for_alias(&modalias).into_iter();
        modules.filter(|module| !module.is_blacklisted).map(|module| module.name).collect()
    }

    /// Lets the kernel give it to a driver of the host, and tells which has it.
    fn probe(&mut self, address: Address, is_kept: &dyn Fn(&str) -> bool) {
        let probed = self.store(PROBE.to_owned(), address.to_string());
        let device = &self.machine.devices[&address];
        let driver = self.sysfs.driver_in(&device.folder).ok().flatten();
        match driver.as_deref() {
            // There is a link while it hangs.
            _ if probed == Err(Errno::ETIMEDOUT) => {
                self.say(Level::Error, address, format_args!("failed: the probe hangs; see dmesg"));
            }
            Some(driver) if is_kept(driver) => {
                let text = format_args!("failed: {driver} has it again, by its id: look for ids=");
                self.say(Level::Error, address, text);
            }
            Some(driver) => {
                self.say(Level::Info, address, format_args!("released to {driver}"));
                self.give_console_back(address, device);
            }
            None if self.modules(address).is_empty() => {
                let text = format_args!("released, and no driver of the host is for it");
                self.say(Level::Info, address, text);
            }
            None => {
                let text = format_args!("failed: the host's driver does not take it; see dmesg");
                self.say(Level::Error, address, text);
            }
        }
    }

    /// A display that the firmware chose had the host's console before it was given away; and where the
    /// host has none, any display will do.
    fn give_console_back(&mut self, address: Address, device: &Device) {
        let is_dark = || self.sysfs.vt_console("frame buffer device") == Some(false);
        if !device.display.is_some_and(|display| display.boot_vga || is_dark()) {
            return;
        }
        let end = Instant::now() + FRAMEBUFFER;
        loop {
            let screen = self.sysfs.screen();
            if let Some(framebuffer) = screen.and_then(|screen| screen.framebuffer_of(address)) {
                let framebuffer = framebuffer.number;
                let mapped = self.kernel.perform(&[Write::MapConsoles { framebuffer }]);
                if mapped == [Ok(())] {
                    let text = format_args!("the console is there again");
                    self.say(Level::Info, address, text);
                }
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.kernel.wait_for_uevent(left) {
                return;
            }
        }
    }
}
