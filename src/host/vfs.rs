//! Items for virtual functions (SR-IOV): which of them there are, and those that are made.
//!
//! The kernel has the driver of a device make them, and takes no other number than 0 where there are any
//! (`sriov_numvfs_store()` in `drivers/pci/iov.c`). While the device's `sriov_drivers_autoprobe` is 0, a new
//! function gets no driver but the one that its override names (`pci_device_can_probe()`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;

use super::finish::alone;
use super::item::short;
use crate::cmdline::Request;
use crate::escape;
use crate::kernel::{Kernel, Write};
use crate::pci::{Address, Choice, Id, Item};
use crate::plan;
use crate::remedy::Why;
use crate::report::{Outcome, Report, exit_status};
use crate::sysfs::{Machine, Sysfs};

/// How long the host's driver of the device may take to come up, and then to make them, where the write
/// itself takes longer than others may.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long that may take for all devices together: with a minute for the writes it is less than the
/// `TimeoutStartSec=` of `vfio-early-finish.service`.
const LONGEST: Duration = Duration::from_mins(1);

/// What there is for the items of a request.
#[derive(Debug, Default)]
pub struct Functions {
    /// With an item for each function that is there, in the place of the one that means them all.
    pub request: Request,
    /// As they were.
    items: Vec<Item>,
    /// What became of an item for which there is none, by its text.
    without: BTreeMap<String, (Outcome, Why)>,
    /// Those that were there before, which the request means.
    before: Vec<Address>,
    /// Those that were made now.
    made: Vec<Address>,
    /// Their devices, where `sriov_drivers_autoprobe` was 1.
    autoprobe: Vec<Address>,
    warnings: Vec<String>,
    /// When all waiting has to be over, once there was any.
    end: Option<Instant>,
}

/// Whether a request has such an item.
#[must_use]
pub fn asks(request: &Request) -> bool {
    request.items.iter().any(|item| matches!(item.choice, Choice::Virtual { .. }))
}

fn attribute(address: Address, name: &str) -> String {
    format!("bus/pci/devices/{address}/{name}")
}

fn store(address: Address, name: &str, value: u16, kernel: &mut impl Kernel) -> Result<(), Errno> {
    let write = Write::Store { attribute: attribute(address, name), value: value.to_string() };
    kernel.perform(&[write]).pop().unwrap_or(Ok(()))
}

/// An item for each function, guarded by what it is.
fn each(item: &Item, functions: &[Address], sysfs: &Sysfs) -> Vec<Item> {
    let one = |address: &Address| {
        let id = sysfs.id_in(&format!("bus/pci/devices/{address}"));
        alone(item, *address, id.map(|id| Id { subvendor: 0, subdevice: 0, ..id }))
    };
    functions.iter().map(one).collect()
}

/// A request with an item for each function that is there, in the place of the one that means them all.
#[must_use]
pub fn each_there(mut request: Request, sysfs: &Sysfs) -> Request {
    if !asks(&request) {
        return request;
    }
    let machine = sysfs.whole_machine().unwrap_or_default();
    let there = |item: &Item| match (&item.choice, device_of(item, &machine)) {
        (Choice::Virtual { .. }, Ok(device)) => {
            let each = each(item, &sysfs.functions_of(device), sysfs);
            if each.is_empty() { vec![item.clone()] } else { each }
        }
        _ => vec![item.clone()],
    };
    request.items = request.items.iter().flat_map(there).collect();
    request
}

impl Functions {
    /// Looks for them; with `makes`, has those made that an item gives a number of, where there are none.
    ///
    /// # Errors
    /// When the PCI bus cannot be read; nothing was written then.
    pub fn find(
        request: Request,
        makes: bool,
        sysfs: &Sysfs,
        kernel: &mut impl Kernel,
    ) -> io::Result<Functions> {
        let items = request.items.clone();
        let mut found = Functions { request, items, ..Functions::default() };
        if !asks(&found.request) {
            return Ok(found);
        }
        let machine = sysfs.whole_machine()?;
        if makes {
            // Nothing of what comes now is unheard.
            let _ = kernel.listen();
        }
        // A list can name them over and over.
        let mut known = BTreeSet::new();
        for item in std::mem::take(&mut found.request.items) {
            if let Choice::Virtual { count, .. } = item.choice {
                if !known.insert(item.text.clone()) {
                    continue;
                }
                match device_of(&item, &machine) {
                    Ok(device) => found.look(item, device, count, makes, sysfs, kernel),
                    Err(why) => found.miss(item, (Outcome::Absent, why)),
                }
            } else {
                found.request.items.push(item);
            }
        }
        Ok(found)
    }

    /// Looks for those of a device.
    fn look(
        &mut self,
        item: Item,
        device: Address,
        count: Option<u16>,
        makes: bool,
        sysfs: &Sysfs,
        kernel: &mut impl Kernel,
    ) {
        let before = sysfs.functions_of(device);
        self.before.extend(&before);
        if !before.is_empty() {
            if let Some(count) = count {
                self.compare(device, before.len(), count);
            }
            self.request.items.extend(each(&item, &before, sysfs));
            return;
        }
        let without = match count {
            Some(count) => self.make(device, count, makes, sysfs, kernel),
            None => none_there(device, makes, sysfs),
        };
        let made = sysfs.functions_of(device);
        self.made.extend(&made);
        if made.is_empty() {
            self.miss(item, without);
        } else {
            self.request.items.extend(each(&item, &made, sysfs));
        }
    }

    fn miss(&mut self, item: Item, why: (Outcome, Why)) {
        self.without.insert(item.text.clone(), why);
        self.request.items.push(item);
    }

    fn compare(&mut self, device: Address, there: usize, count: u16) {
        if there != usize::from(count) {
            self.warnings.push(format!(
                "{device} has {there} virtual functions already, which stay as they are: {count} are \
                 asked for"
            ));
        }
    }

    /// Has them made, unless something is in the way; what to say where none is there then.
    fn make(
        &mut self,
        device: Address,
        count: u16,
        makes: bool,
        sysfs: &Sysfs,
        kernel: &mut impl Kernel,
    ) -> (Outcome, Why) {
        let Some(total) = sysfs.number(device, "sriov_totalvfs").filter(|total| *total > 0) else {
            return none_there(device, makes, sysfs);
        };
        let absent = |reason: String, remedy: &str| (Outcome::Absent, Why::new(reason, remedy));
        if u32::from(count) > total {
            let reason = format!("{device} can have no more than {total} virtual functions");
            return absent(reason, "ask for fewer");
        }
        if !makes {
            let reason = format!("{count} of at most {total} virtual functions of {device}");
            return (
                Outcome::Later,
                Why::new(reason, "vfio-early-finish.service has them made after the boot"),
            );
        }
        let Some(driver) = driver_of(device, self.patience(), sysfs, kernel) else {
            return absent(
                format!("{device} has no driver, which alone can make its virtual functions"),
                "load the host's driver of it, and run vfio-early finish",
            );
        };
        if sysfs.number(device, "sriov_drivers_autoprobe") == Some(1) {
            if let Err(errno) = store(device, "sriov_drivers_autoprobe", 0, kernel) {
                let reason = format!("sriov_drivers_autoprobe of {device}: {}", errno.desc());
                return absent(reason, "see dmesg");
            }
            self.autoprobe.push(device);
        }
        match store(device, "sriov_numvfs", count, kernel) {
            Ok(()) => none_there(device, makes, sysfs),
            Err(Errno::ETIMEDOUT) => {
                let last = attribute(device, &format!("virtfn{}", count - 1));
                let end = self.patience();
                while !sysfs.is_there(format!("sys/{last}")) {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() || !kernel.wait_for_uevent(left) {
                        // What comes yet must have no driver of the host.
                        self.autoprobe.retain(|it| *it != device);
                        break;
                    }
                }
                absent(format!("{driver} hangs while it makes them for {device}"), "see dmesg")
            }
            Err(Errno::ENOENT) => absent(
                format!("{driver}, the driver of {device}, makes no virtual functions"),
                "take it off the list, or look for a driver that does",
            ),
            Err(errno) => {
                let reason = format!("sriov_numvfs of {device}, {count}: {}", errno.desc());
                absent(reason, "see dmesg")
            }
        }
    }

    /// By when what is waited for now has to be there.
    fn patience(&mut self) -> Instant {
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + LONGEST);
        end.min(now + PATIENCE)
    }

    /// A report less what it has of functions that are others by now.
    #[must_use]
    pub fn without_made(&self, report: &Value) -> Value {
        let mut report = report.clone();
        let is_other = |device: &Value| {
            let address = device["address"].as_str().and_then(|it| it.parse().ok());
            !address.is_some_and(|address| self.made.contains(&address))
        };
        if let Some(devices) = report["devices"].as_array_mut() {
            devices.retain(is_other);
        }
        report
    }

    /// Takes those out of the request that were there before and that a driver of the host has: who made
    /// them may have meant that.
    pub fn leave_to_host(&mut self, request: &mut Request, machine: &Machine) {
        let is_left = |item: &Item| {
            let address = plan::named(item, machine).filter(|it| self.before.contains(it))?;
            let driver = machine.devices.get(&address)?.driver.as_deref()?;
            (!plan::is_vfio_driver(driver)).then(|| (address, driver.to_owned()))
        };
        let mut left = Vec::new();
        request.items.retain(|item| {
            let host = is_left(item);
            let is_kept = host.is_none();
            left.extend(host);
            is_kept
        });
        for (address, driver) in left {
            self.warnings.push(format!(
                "{address}, a virtual function, was with {} already, and stays there: vfio-early bind {} \
                 takes it",
                escape::short(&driver),
                short(address)
            ));
        }
    }

    /// Whether there is more to say than what became of devices.
    #[must_use]
    pub fn are_told(&self) -> bool {
        !self.without.is_empty() || !self.warnings.is_empty()
    }

    /// As it was: each function has its override by now.
    pub fn put_back(&self, kernel: &mut impl Kernel) -> Vec<String> {
        let failed = |device: &Address| {
            let errno = store(*device, "sriov_drivers_autoprobe", 1, kernel).err()?;
            Some(format!("sriov_drivers_autoprobe of {device} is still 0: {}", errno.desc()))
        };
        self.autoprobe.iter().filter_map(failed).collect()
    }

    /// Puts back what was changed meanwhile, and tells.
    ///
    /// # Errors
    /// Those of `report`.
    pub fn over(
        self,
        report: io::Result<Report>,
        sysfs: &Sysfs,
        kernel: &mut impl Kernel,
    ) -> io::Result<Report> {
        let failed = self.put_back(kernel);
        let mut report = report?;
        report.warnings.extend(failed);
        self.tell(&mut report, sysfs);
        Ok(report)
    }

    /// Tells what became of the items without a function, and which of the absent addresses can only be
    /// virtual functions.
    pub fn tell(self, report: &mut Report, sysfs: &Sysfs) {
        if asks(&Request { items: self.items.clone(), ..Request::default() }) {
            report.request.items = self.items;
        }
        let mut makers = None;
        for device in &mut report.devices {
            let why = match (device.outcome, self.without.get(&device.item)) {
                (Outcome::Later, Some((outcome, why))) => {
                    device.outcome = *outcome;
                    why.clone()
                }
                (Outcome::Absent, _) => {
                    let makers = makers.get_or_insert_with(|| Maker::all(sysfs));
                    match only_virtual(&device.item, makers) {
                        Some(why) => why,
                        None => continue,
                    }
                }
                _ => continue,
            };
            device.reason = Some(why.reason);
            device.remedy = Some(why.remedy);
        }
        report.warnings.extend(self.warnings);
        let unmet = !report.request.rejected.is_empty()
            || report.devices.iter().any(|device| !device.outcome.is_well());
        report.exit_status = exit_status(unmet, report.request.strict);
    }
}

/// The device whose functions an item means.
fn device_of(item: &Item, machine: &Machine) -> Result<Address, Why> {
    let absent = || Why::new("the device that makes them is not there", "check it with lspci -D");
    let device = plan::named(item, machine).ok_or_else(absent)?;
    plan::guarded(item, machine).map_or(Ok(device), Err)
}

/// The driver that has it, once one has.
fn driver_of(
    device: Address,
    end: Instant,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> Option<String> {
    loop {
        let driver = sysfs.driver(device).ok().flatten();
        let left = end.saturating_duration_since(Instant::now());
        if driver.is_some() || left.is_zero() || !kernel.wait_for_uevent(left) {
            return driver;
        }
    }
}

/// Without a number that is to be made.
fn none_there(device: Address, makes: bool, sysfs: &Sysfs) -> (Outcome, Why) {
    let total = sysfs.number(device, "sriov_totalvfs").filter(|total| *total > 0);
    let Some(total) = total else {
        let reason = format!("{device} can have no virtual functions");
        return (Outcome::Absent, Why::new(reason, "take it off the list"));
    };
    let why = Why::new(
        format!("{device} has no virtual functions yet"),
        format!(
            "they are taken when somebody makes them; with = and a number of at most {total} behind the \
             item, so many are made"
        ),
    );
    (if makes { Outcome::Absent } else { Outcome::Later }, why)
}

/// A device that can have virtual functions, and where these are, counted in functions of buses.
struct Maker {
    address: Address,
    total: u32,
    offset: u32,
    stride: u32,
}

/// As a routing id counts: eight functions in a device, 32 devices on a bus.
fn routing(address: Address) -> u32 {
    u32::from(u16::from_be_bytes([address.bus, address.device << 3 | address.function]))
}

impl Maker {
    fn all(sysfs: &Sysfs) -> Vec<Maker> {
        let of = |address: Address| {
            let total = sysfs.number(address, "sriov_totalvfs").filter(|total| *total > 0)?;
            let offset = sysfs.number(address, "sriov_offset").filter(|offset| *offset > 0)?;
            Some(Maker { address, total, offset, stride: sysfs.number(address, "sriov_stride")? })
        };
        let machine = sysfs.whole_machine().unwrap_or_default();
        machine.devices.into_keys().filter_map(of).collect()
    }

    /// Whether it would give that address to one of its functions.
    fn has(&self, address: Address) -> bool {
        let first = routing(self.address) + self.offset;
        let Some(beyond) = routing(address).checked_sub(first) else { return false };
        let at = match (beyond, self.stride) {
            (0, _) => Some(0),
            // With one function there is no stride.
            (_, 0) => None,
            (beyond, stride) => (beyond % stride == 0).then_some(beyond / stride),
        };
        self.address.domain == address.domain && at.is_some_and(|at| at < self.total)
    }
}

/// What to say of an absent address that a device would give to a virtual function.
fn only_virtual(item: &str, makers: &[Maker]) -> Option<Why> {
    let Ok(Item { choice: Choice::Place(place), .. }) = item.parse() else { return None };
    let address = place.address()?;
    let Maker { address, total, .. } = makers.iter().find(|maker| maker.has(address))?;
    let name = short(*address);
    Some(Why::new(
        format!("no such device: it can only be a virtual function of {address}"),
        format!(
            "write vfs:{name} for all that are made of it, or with a number of at most {total} behind it, \
             as vfs:{name}=1, to have so many made"
        ),
    ))
}
