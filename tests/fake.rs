//! A small driver core on a temporary `/sys`: it answers writes as Linux does, and shows in its
//! files what came of them.
//!
//! It is a claim about Linux; the rules (`docs/kernel-rules.md`) and the scenarios that it shares with
//! the VM harness hold that claim against real kernels. Where they disagree, the kernel is right.
//!
//! A new attribute is one arm in [`Fake::store`], a new way to go wrong one [`Fault`].

pub mod modules;
pub mod screen;
pub mod tree;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use vfio_early::Claim;
use vfio_early::claimed::{Claimed, Left};
use vfio_early::cmdline;
use vfio_early::kernel::{Kernel, Write};
use vfio_early::modules::Needed;
use vfio_early::pci::Address;
use vfio_early::report::Report;
use vfio_early::sysfs::{HostModule, Sysfs};
use vfio_early::variant::Variants;

use crate::machine::{Function, Line, Machine, Told, Vfio};
use modules::{Module, Modules};
use screen::Screen;
use tree::Tree;

/// `driver_override` takes less than a page, with room for a newline.
const LONGEST_OVERRIDE: usize = 4095;

/// What others wait for does not wait for itself.
const VIRTIO_IOMMU: (u16, u16) = (0x1af4, 0x1057);

#[derive(Debug)]
struct Device {
    function: Function,
    driver: Option<String>,
    driver_override: Option<String>,
    /// Its group can be seen.
    in_group: bool,
    /// Not so between the uevent of a new device and `pci_bus_add_device()`.
    attachable: bool,
    /// A driver hangs in its probe or its removal, with the device's lock held.
    stuck: bool,
}

/// A device as it is now; see [`Fake::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen<'f> {
    pub address: &'f str,
    pub id: (u16, u16),
    pub driver: Option<&'f str>,
    pub driver_override: Option<&'f str>,
    pub in_group: bool,
    pub attachable: bool,
}

#[derive(Clone, Debug)]
struct Driver {
    name: String,
    ids: Vec<(u16, u16)>,
    vfio: bool,
}

/// What a netlink socket hears, and what has happened then.
#[derive(Debug)]
enum Uevent {
    /// One of another device, after which a device is there that has no group yet.
    Other(Box<Function>),
    /// A device is there and has its group, but no driver can bind to it yet.
    Added(Box<Function>),
    /// Now they can.
    Settled(String),
    /// The driver of a graphics device has made its framebuffer.
    Framebuffer(String),
}

/// When a device gets its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Groups {
    /// When it comes.
    AtOnce,
    /// When a driver is first probed for it.
    AtProbe,
    /// Until the IOMMU's driver comes, no driver is probed.
    WithIommu,
    /// This kernel has no driver for the IOMMU.
    Never,
}

/// A way to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `/sys` is mounted read-only.
    ReadOnly,
    /// The driver's removal never ends.
    UnbindHangs { driver: String },
    /// The write to `unbind` fails.
    UnbindFails { driver: String, errno: Errno },
    /// A driver does not take any device.
    DriverRefuses { driver: String, errno: Errno },
    /// The probe of that device never ends.
    ProbeHangs { address: String },
    /// `finit_module` fails; with `ETIMEDOUT` it never ends.
    InsertFails { module: String, errno: Errno },
    /// There is no netlink.
    NoNetlink,
    /// Graphics drivers make their framebuffers a while after they are loaded.
    SlowDisplays,
    /// They make none.
    NoFramebuffers,
    /// Somebody else is loading the module, and it comes up during the first wait.
    Coming { module: String },
    /// Who had groups open has ended, and they are closed during the first wait.
    GroupCloses,
    /// No device makes virtual functions.
    NoFunctions,
    /// The device is pulled right before the write of that number, from 0.
    GoesAway { address: String, before: usize },
}

/// What [`Fake::bind_until_killed`] unwinds with.
struct Killed;

/// The kernel.
#[derive(Debug)]
pub struct Fake {
    pub tree: Tree,
    pub screen: Screen,
    line: Line,
    vfio: Vfio,
    groups: Groups,
    devices: BTreeMap<String, Device>,
    /// In the order of their registration, in which they are tried.
    drivers: Vec<Driver>,
    modules: Modules,
    blacklisted: Vec<String>,
    /// Of modules, from modprobe.d.
    pub options: BTreeMap<String, String>,
    /// Groups that a VM has, and the devices of them.
    open: BTreeSet<u32>,
    /// Ids that the host's drivers match.
    host_ids: Vec<(String, (u16, u16))>,
    uevents: VecDeque<Uevent>,
    /// So many of other buses come first.
    unrelated: usize,
    listening: bool,
    /// How long each wait may take.
    pub waits: Vec<Duration>,
    faults: Vec<Fault>,
    writes: Vec<(Write, Result<(), Errno>)>,
    writes_left: Option<usize>,
}

impl Groups {
    /// Of an IOMMU that is told of by a device tree, IORT or VIOT.
    fn of_devices(line: Line) -> Self {
        // Since 6.15.
        if line < Line::V7_2 { Groups::AtProbe } else { Groups::AtOnce }
    }
}

impl Fake {
    /// As the first program of the initrd finds it.
    pub fn boot(machine: &Machine) -> Self {
        let all: Vec<_> = machine.functions.iter().chain(&machine.hot_added).collect();
        let hosts = || all.iter().filter_map(|function| Some((function, function.host.as_ref()?)));
        let of_hosts = hosts().filter_map(|(_, host)| {
            Some(Module::new(host.module.as_ref()?, &[]).driver(&host.driver))
        });
        let further = of_hosts.chain(machine.modules.iter().cloned());
        let mut fake = Fake {
            tree: Tree::new(machine),
            screen: Screen::new(machine),
            line: machine.line,
            vfio: machine.vfio,
            groups: match machine.told {
                Told::Virtio if machine.line >= Line::V6_12 => Groups::WithIommu,
                Told::Virtio => Groups::Never,
                Told::OfDevices => Groups::of_devices(machine.line),
                Told::AtBoot => Groups::AtOnce,
            },
            devices: BTreeMap::new(),
            drivers: Vec::new(),
            modules: Modules::new(machine.line, machine.vfio, further, &machine.left_out),
            blacklisted: machine.blacklisted.clone(),
            options: BTreeMap::new(),
            open: BTreeSet::new(),
            host_ids: hosts().map(|(function, host)| (host.driver.clone(), function.id)).collect(),
            uevents: VecDeque::new(),
            unrelated: 0,
            listening: false,
            waits: Vec::new(),
            faults: Vec::new(),
            writes: Vec::new(),
            writes_left: None,
        };
        let built_in: Vec<_> = hosts()
            .filter(|(_, host)| host.module.is_none())
            .map(|(_, host)| host.driver.clone())
            .collect();
        for driver in built_in {
            if !fake.drivers.iter().any(|there| there.name == driver) {
                fake.register(&driver, false, None).expect("there is no device yet");
            }
        }
        if machine.vfio == Vfio::BuiltIn {
            fake.load("vfio_pci");
            fake.load("vfio_iommu_type1");
        }
        for function in &machine.functions {
            fake.add_device(function.clone());
        }
        // Before any driver: the firmware was there first.
        fake.screen.start(&fake.tree);
        for function in &machine.functions {
            fake.settle(&function.address);
        }
        for function in &machine.hot_added {
            fake.plug_in_later(function.clone());
        }
        fake
    }

    /// The device appears during the next waits: the first hears of another and can see it already,
    /// the second hears of it, the third that drivers can bind to it.
    pub fn plug_in_later(&mut self, function: Function) {
        let settled = Uevent::Settled(function.address.clone());
        let other = Uevent::Other(Box::new(Function { group: None, ..function.clone() }));
        self.uevents.extend([other, Uevent::Added(Box::new(function)), settled]);
    }

    /// The next waits hear something that is none of ours.
    pub fn unrelated_uevents(&mut self, count: usize) {
        self.unrelated = count;
    }

    pub fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Somebody else writes into an attribute of a device.
    pub fn store_in(&mut self, address: &str, name: &str, value: &str) {
        let written = self.store(&format!("bus/pci/devices/{address}/{name}"), value);
        written.unwrap_or_else(|errno| panic!("{name} of {address}: {errno}"));
    }

    /// From now on all goes well.
    pub fn no_more_faults(&mut self) {
        self.faults.clear();
    }

    /// The real root has a module that the initrd has not.
    pub fn provide(&mut self, module: &str) {
        self.modules.provide(module);
    }

    /// Loads a module with its dependencies, as the host would.
    pub fn load(&mut self, module: &str) {
        let modules = self
            .modules
            .with_dependencies(module)
            .unwrap_or_else(|| panic!("{module} is not in this initrd"));
        for module in modules {
            let name = module.name;
            self.insert(&name).unwrap_or_else(|errno| panic!("loading {name}: {errno}"));
        }
    }

    pub fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.tree.root())
    }

    /// The main job with this text for a command line.
    pub fn bind(&mut self, text: &str) -> Report {
        self.try_bind(text.as_bytes()).expect("the PCI bus can be read")
    }

    /// As [`Fake::bind`].
    pub fn try_bind(&mut self, text: &[u8]) -> io::Result<Report> {
        let sysfs = self.sysfs();
        vfio_early::bind(cmdline::parse(text), &sysfs, self)
    }

    /// What has to come before udev.
    pub fn claim(&mut self, text: &str) -> Claim {
        let sysfs = self.sysfs();
        let claim = vfio_early::claim(cmdline::parse(text.as_bytes()), &sysfs, self);
        claim.expect("the PCI bus can be read")
    }

    /// The rest of it, by what was left, which goes through a file.
    pub fn go_on(&mut self, text: &str, claimed: Claimed) -> Report {
        let Some(Left::Claimed(claimed)) = Left::parse(&Left::Claimed(claimed).text()) else {
            panic!("what is left can be read")
        };
        let sysfs = self.sysfs().knowing(claimed.devices);
        let report = vfio_early::bind(cmdline::parse(text.as_bytes()), &sysfs, self);
        report.expect("the PCI bus can be read")
    }

    /// The process is killed right before the write of that number, from 0; whether it got there.
    pub fn bind_until_killed(&mut self, text: &str, writes: usize) -> bool {
        self.writes_left = Some(writes);
        let run = panic::catch_unwind(AssertUnwindSafe(|| self.bind(text)));
        self.writes_left = None;
        // Its socket is closed with it.
        self.listening = false;
        match run {
            Ok(_) => false,
            Err(why) if why.is::<Killed>() => true,
            Err(why) => panic::resume_unwind(why),
        }
    }

    /// All writes since the boot or the last call, and what came of them.
    pub fn take_writes(&mut self) -> Vec<(Write, Result<(), Errno>)> {
        std::mem::take(&mut self.writes)
    }

    /// As [`Fake::take_writes`], one line each: the end of the attribute and the value, or `load`
    /// and the module.
    pub fn take_lines(&mut self) -> Vec<String> {
        let line = |write| match write {
            Write::Store { attribute, value } => {
                let short = match device_attribute(&attribute) {
                    Some((address, name)) => format!("{address}/{name}"),
                    None => attribute.trim_start_matches("bus/pci/").to_owned(),
                };
                format!("{short} {value}")
            }
            Write::Insert { module, .. } => format!("load {module}"),
            Write::MapConsoles { framebuffer } => format!("map consoles to fb{framebuffer}"),
            Write::Announce { text } => format!("announce {text}"),
        };
        self.take_writes().into_iter().map(|(write, _)| line(write)).collect()
    }

    /// As the link shows it.
    pub fn driver(&self, address: &str) -> Option<String> {
        self.tree.link_name(&format!("sys/bus/pci/devices/{address}/driver"))
    }

    pub fn driver_override(&self, address: &str) -> Option<String> {
        self.devices[address].driver_override.clone()
    }

    /// Every device that is there: its address, its id, its driver, its override, and whether
    /// drivers can bind to it.
    pub fn devices(&self) -> impl Iterator<Item = Seen<'_>> {
        self.devices.iter().map(|(address, device)| Seen {
            address,
            id: device.function.id,
            driver: device.driver.as_deref(),
            driver_override: device.driver_override.as_deref(),
            in_group: device.in_group,
            attachable: device.attachable,
        })
    }

    /// Registered, in their order.
    pub fn drivers(&self) -> impl Iterator<Item = &str> {
        self.drivers.iter().map(|driver| driver.name.as_str())
    }

    /// Whether that driver could have the device, by its override or its id.
    pub fn would_match(&self, driver: &str, address: &str) -> bool {
        let mut drivers = self.drivers.iter().filter(|there| there.name == driver);
        drivers.any(|driver| Self::matches(driver, &self.devices[address]))
    }

    pub fn is_loaded(&self, module: &str) -> bool {
        self.modules.is_loaded(module)
    }

    pub fn loaded(&self) -> impl Iterator<Item = &str> {
        self.modules.loaded()
    }

    /// A VM starts that has the group of the device, and what vfio has of it.
    pub fn open(&mut self, address: &str) {
        self.open.extend(self.devices[address].function.group);
    }

    /// Whether a VM has the group of the device.
    pub fn is_open(&self, address: &str) -> bool {
        let device = self.devices.get(address);
        device.and_then(|device| device.function.group).is_some_and(|it| self.open.contains(&it))
    }

    /// What is to be plugged in later is not: somebody else does it.
    pub fn nothing_comes_by_itself(&mut self) {
        self.uevents.clear();
    }

    /// The override goes without a write, as if it had never been there.
    pub fn forget_override(&mut self, address: &str) {
        let device = self.devices.get_mut(address).expect("the device is there");
        device.driver_override = None;
        self.tree.write_override(&device.function, None);
    }

    pub fn remove_device(&mut self, address: &str) -> Function {
        let device = self.devices.remove(address).expect("the device is there");
        if let Some(driver) = &device.driver {
            self.screen.driver_went(&self.tree, &device.function);
            self.tree.unlink_driver(&device.function, driver);
        }
        self.tree.remove_device(&device.function);
        device.function
    }

    /// Between its uevent and [`Fake::settle`] no driver can bind to it.
    pub fn add_device(&mut self, function: Function) {
        self.tree.add_device(&function);
        let address = function.address.clone();
        let (driver, driver_override) = (None, None);
        let (in_group, attachable, stuck) = (false, false, false);
        let device = Device { function, driver, driver_override, in_group, attachable, stuck };
        self.devices.insert(address.clone(), device);
        if self.groups == Groups::AtOnce {
            self.add_to_group(&address);
        }
    }

    /// `iommu_probe_device()`.
    fn add_to_group(&mut self, address: &str) {
        // It may have been pulled again.
        let Some(device) = self.devices.get_mut(address) else { return };
        if !device.in_group && device.function.group.is_some() {
            device.in_group = true;
            self.tree.add_to_group(&device.function);
        }
    }

    /// The driver of the virtio-iommu comes: what waited for it is probed.
    fn start_virtio_iommu(&mut self) {
        self.groups = Groups::of_devices(self.line);
        self.tree.add_iommu("0000:00:02.0");
        let addresses: Vec<_> = self.devices.keys().cloned().collect();
        for address in &addresses {
            if self.groups == Groups::AtOnce {
                self.add_to_group(address);
            }
        }
        for address in &addresses {
            let _ = self.device_attach(address);
        }
    }

    pub fn settle(&mut self, address: &str) {
        // It may have been pulled again.
        if let Some(device) = self.devices.get_mut(address) {
            device.attachable = true;
            let _ = self.device_attach(address);
        }
    }

    fn has(&self, fault: &Fault) -> bool {
        self.faults.contains(fault)
    }

    /// The device's lock; what waits for it may wait for ever.
    fn lock(&mut self, address: &str) -> Result<&mut Device, Errno> {
        let device = self.devices.get_mut(address).ok_or(Errno::ENODEV)?;
        if device.stuck { Err(Errno::ETIMEDOUT) } else { Ok(device) }
    }

    /// `pci_bus_match()`.
    fn matches(driver: &Driver, device: &Device) -> bool {
        device.attachable
            && match &device.driver_override {
                Some(name) => *name == driver.name,
                None => driver.ids.contains(&device.function.id),
            }
    }

    /// `driver_register()`: it gets every matching device that has no driver.
    fn register(&mut self, name: &str, vfio: bool, module: Option<&str>) -> Result<(), Errno> {
        self.tree.add_driver(name, module);
        let own = self.host_ids.iter().filter(|(driver, _)| driver == name);
        let driver = Driver { name: name.to_owned(), ids: own.map(|(_, id)| *id).collect(), vfio };
        self.drivers.push(driver.clone());
        self.driver_attach(&driver)
    }

    /// `driver_attach()`.
    fn driver_attach(&mut self, driver: &Driver) -> Result<(), Errno> {
        let addresses: Vec<_> = self.devices.keys().cloned().collect();
        for address in addresses {
            let device = &self.devices[&address];
            if Self::matches(driver, device)
                && (device.stuck || device.driver.is_none())
                && self.probe(&address, driver) == Err(Errno::ETIMEDOUT)
            {
                return Err(Errno::ETIMEDOUT);
            }
        }
        Ok(())
    }

    /// `device_attach()`: the first driver that matches and whose probe succeeds; that none did is
    /// no failure, a probe without an end is.
    fn device_attach(&mut self, address: &str) -> Result<(), Errno> {
        // Looked at without the lock, which a driver that hangs has.
        if self.devices.get(address).is_some_and(|device| device.driver.is_some()) {
            return Ok(());
        }
        self.lock(address)?;
        for driver in self.drivers.clone() {
            if Self::matches(&driver, &self.devices[address]) {
                match self.probe(address, &driver) {
                    Err(Errno::ETIMEDOUT) => return Err(Errno::ETIMEDOUT),
                    // `-EPROBE_DEFER`, which `bus_rescan_devices_helper()` makes that of.
                    Err(Errno::EAGAIN) => return Err(Errno::EINVAL),
                    Err(_) => {}
                    Ok(()) => break,
                }
            }
        }
        Ok(())
    }

    /// `really_probe()`.
    fn probe(&mut self, address: &str, driver: &Driver) -> Result<(), Errno> {
        let hangs = self.has(&Fault::ProbeHangs { address: address.to_owned() });
        for fault in &self.faults {
            if let Fault::DriverRefuses { driver: refusing, errno } = fault
                && *refusing == driver.name
            {
                return Err(*errno);
            }
        }
        self.lock(address)?;
        // `pci_device_can_probe()`.
        let device = &self.devices[address];
        if let (Some(of), None) = (&device.function.of, &device.driver_override) {
            let path = format!("sys/bus/pci/devices/{of}/sriov_drivers_autoprobe");
            if self.tree.read(&path) == "0\n" {
                return Err(Errno::ENODEV);
            }
        }
        match self.groups {
            Groups::WithIommu if self.devices[address].function.id != VIRTIO_IOMMU => {
                return Err(Errno::EAGAIN);
            }
            Groups::AtProbe => self.add_to_group(address),
            Groups::AtOnce | Groups::WithIommu | Groups::Never => {}
        }
        // `iommu_device_use_default_domain()`.
        if !driver.vfio && self.is_open(address) {
            return Err(Errno::EBUSY);
        }
        let device = self.lock(address)?;
        let refusal = match device.function.refusal {
            _ if !driver.vfio => None,
            _ if device.function.bridge || !device.in_group => Some(Errno::EINVAL),
            refusal => refusal,
        };
        if let (Some(errno), false) = (refusal, hangs) {
            return Err(errno);
        }
        device.driver = Some(driver.name.clone());
        device.stuck = hangs;
        // The links come before the driver's own probe.
        self.tree.link_driver(&self.devices[address].function, &driver.name);
        if hangs {
            return Err(Errno::ETIMEDOUT);
        }
        let function = self.devices[address].function.clone();
        if driver.vfio {
            self.screen.vfio_came(&self.tree, &function);
        } else if matches!(function.class >> 8, 0x0300 | 0x0380) {
            if self.has(&Fault::SlowDisplays) {
                self.uevents.push_back(Uevent::Framebuffer(address.to_owned()));
            } else if !self.has(&Fault::NoFramebuffers) {
                self.screen.driver_came(&self.tree, &function);
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: &str) -> Result<(), Errno> {
        for fault in &self.faults {
            if let Fault::InsertFails { module, errno } = fault
                && module == name
            {
                return Err(*errno);
            }
        }
        let Some(module) = self.modules.insert(name)? else { return Ok(()) };
        self.tree.add_module(name);
        self.tree.add_classes_of(name, self.vfio != Vfio::WithoutGroups);
        if name == "virtio_iommu" && self.groups == Groups::WithIommu {
            self.start_virtio_iommu();
        }
        match &module.driver {
            Some(driver) => self.register(driver, module.vfio, Some(name)),
            None => Ok(()),
        }
    }

    fn store(&mut self, attribute: &str, value: &str) -> Result<(), Errno> {
        if !self.tree.root().join("sys").join(attribute).exists() {
            return Err(Errno::ENOENT);
        }
        if self.has(&Fault::ReadOnly) {
            return Err(Errno::EROFS);
        }
        // sysfs does not hand an empty write on.
        if value.is_empty() {
            return Ok(());
        }
        if let Some(answer) = self.screen.store(&self.tree, attribute, value) {
            return answer;
        }
        // As `sysfs_streq()` has it.
        let address = value.strip_suffix('\n').unwrap_or(value);
        match attribute.split('/').collect::<Vec<_>>()[..] {
            ["bus", "pci", "drivers_probe"] => self.device_attach(address),
            ["bus", "pci", "drivers", driver, "bind"] => self.store_bind(driver, address),
            ["bus", "pci", "drivers", driver, "unbind"] => self.store_unbind(driver, address),
            ["bus", "pci", "drivers", driver, "new_id"] => self.store_new_id(driver, value),
            _ => self.store_device(attribute, value),
        }
    }

    fn store_device(&mut self, attribute: &str, value: &str) -> Result<(), Errno> {
        let (address, name) = device_attribute(attribute).unwrap_or_default();
        match name {
            "driver_override" => self.store_override(address, value),
            "enable" => self.store_enable(address),
            "sriov_drivers_autoprobe" => {
                self.tree.write(&format!("sys/{attribute}"), &format!("{value}\n"));
                Ok(())
            }
            "sriov_numvfs" => self.store_numvfs(address, value),
            "driver/unbind" => {
                let link = format!("sys/bus/pci/devices/{address}/driver");
                let driver = self.tree.link_name(&link).ok_or(Errno::ENOENT)?;
                self.store_unbind(&driver, value)
            }
            _ => panic!("the fake kernel has no {attribute} yet: add it to Fake::store"),
        }
    }

    fn store_override(&mut self, address: &str, value: &str) -> Result<(), Errno> {
        if value.len() >= LONGEST_OVERRIDE {
            return Err(Errno::EINVAL);
        }
        let name = value.split(['\n', '\0']).next().filter(|name| !name.is_empty());
        // Since 7.1, and in 6.12 by its 118th release, it has a lock of its own.
        if self.line < Line::V6_12 {
            self.lock(address)?;
        }
        let device = self.devices.get_mut(address).ok_or(Errno::ENODEV)?;
        device.driver_override = name.map(str::to_owned);
        self.tree.write_override(&self.devices[address].function, name);
        Ok(())
    }

    /// `sriov_numvfs_store()`.
    fn store_numvfs(&mut self, address: &str, value: &str) -> Result<(), Errno> {
        let number: u8 = value.parse().map_err(|_| Errno::EINVAL)?;
        let path = |name: &str| format!("sys/bus/pci/devices/{address}/{name}");
        let there: u8 = self.tree.read(&path("sriov_numvfs")).trim().parse().expect("a number");
        if number > self.devices[address].function.virtual_functions {
            return Err(Errno::ERANGE);
        }
        if number == there {
            return Ok(());
        }
        let driver = self.lock(address)?.driver.clone();
        let is_host = |it: &Driver| driver.as_ref() == Some(&it.name) && !it.vfio;
        if !self.drivers.iter().any(is_host) {
            return Err(Errno::ENOENT);
        }
        if number > 0 && there > 0 {
            return Err(Errno::EBUSY);
        }
        if self.has(&Fault::NoFunctions) {
            return Err(Errno::ENOMEM);
        }
        for function in there..number {
            self.add_virtual_function(address, function);
        }
        for function in number..there {
            let name = self.tree.link_name(&path(&format!("virtfn{function}")));
            self.remove_device(&name.expect("it is there"));
            self.tree.unlink(&path(&format!("virtfn{function}")));
        }
        self.tree.write(&path("sriov_numvfs"), &format!("{number}\n"));
        Ok(())
    }

    /// `pci_iov_add_virtfn()`, with an offset and a stride of 1, on the bus of its device.
    fn add_virtual_function(&mut self, of: &str, number: u8) {
        let parent = self.devices[of].function.clone();
        let place: Address = of.parse().expect("an address");
        let at = (place.device << 3 | place.function) + 1 + number;
        let place = Address { device: at >> 3, function: at & 7, ..place };
        let function = Function {
            address: place.to_string(),
            group: parent.group.map(|group| 100 * (group + 1) + u32::from(number)),
            virtual_functions: 0,
            of: Some(of.to_owned()),
            ..parent
        };
        self.add_device(function);
        self.tree.link_function(of, number, &place.to_string());
        self.settle(&place.to_string());
    }

    /// `enable_store()`, of a device that is not enabled.
    fn store_enable(&mut self, address: &str) -> Result<(), Errno> {
        let bound = self.lock(address)?.driver.is_some();
        Err(if bound { Errno::EBUSY } else { Errno::EIO })
    }

    fn driver_named(&self, name: &str) -> Driver {
        let driver = self.drivers.iter().find(|driver| driver.name == name);
        driver.expect("its folder is there").clone()
    }

    /// `new_id_store()`, with vendor and device alone.
    fn store_new_id(&mut self, name: &str, value: &str) -> Result<(), Errno> {
        let mut numbers = value.split_whitespace().map(|word| u16::from_str_radix(word, 16));
        let (Some(Ok(vendor)), Some(Ok(device))) = (numbers.next(), numbers.next()) else {
            return Err(Errno::EINVAL);
        };
        let drivers = self.drivers.iter_mut();
        for driver in drivers.filter(|driver| driver.name == name) {
            // 5.10 takes an id twice.
            if driver.ids.contains(&(vendor, device)) && self.line > Line::V5_10 {
                return Err(Errno::EEXIST);
            }
            driver.ids.push((vendor, device));
        }
        self.driver_attach(&self.driver_named(name))
    }

    fn store_bind(&mut self, driver: &str, address: &str) -> Result<(), Errno> {
        let driver = self.driver_named(driver);
        let device = self.devices.get(address).ok_or(Errno::ENODEV)?;
        if !Self::matches(&driver, device) {
            return Err(Errno::ENODEV);
        }
        // There the driver is looked at without the lock.
        if device.driver.is_some() && self.line == Line::V5_10 {
            return Err(Errno::ENODEV);
        }
        let bound = self.lock(address)?.driver.is_some();
        let answer = if bound { Err(Errno::EBUSY) } else { self.probe(address, &driver) };
        match answer {
            // Until 5.10 the core kept the errno of a probe to itself.
            Err(errno) if errno != Errno::ETIMEDOUT && self.line == Line::V5_10 => {
                Err(Errno::ENODEV)
            }
            answer => answer,
        }
    }

    fn store_unbind(&mut self, driver: &str, address: &str) -> Result<(), Errno> {
        for fault in &self.faults {
            if let Fault::UnbindFails { driver: held, errno } = fault
                && held == driver
            {
                return Err(*errno);
            }
        }
        // `vfio_unregister_group_dev()` waits for whoever has the device.
        let hangs = self.has(&Fault::UnbindHangs { driver: driver.to_owned() })
            || self.is_open(address) && self.drivers.iter().any(|it| it.vfio && it.name == driver);
        let device = self.devices.get(address).ok_or(Errno::ENODEV)?;
        if device.driver.as_deref() != Some(driver) {
            return Err(Errno::ENODEV);
        }
        let device = self.lock(address)?;
        device.stuck = hangs;
        if !hangs {
            device.driver = None;
        }
        // The links go before the driver's own removal.
        let function = &self.devices[address].function;
        self.tree.unlink_driver(function, driver);
        if hangs {
            return Err(Errno::ETIMEDOUT);
        }
        self.screen.driver_went(&self.tree, function);
        // With vmd goes the root bus that it made (`vmd_remove()`).
        let bus = format!("{}/pci", function.folder());
        let is_below = |(_, it): &(&String, &Device)| it.function.above.starts_with(&bus);
        let below = self.devices.iter().filter(is_below).map(|(address, _)| address.clone());
        let mut below: Vec<_> = below.collect();
        // What is below others first.
        below.sort_by_key(|address| Reverse(self.devices[address].function.above.len()));
        for address in below {
            self.remove_device(&address);
        }
        Ok(())
    }

    pub fn answer(&mut self, write: &Write) -> Result<(), Errno> {
        match write {
            Write::Store { attribute, value } => self.store(attribute, value),
            Write::Insert { module, .. } => self.insert(module),
            Write::MapConsoles { framebuffer } => {
                self.screen.map_consoles(&self.tree, *framebuffer)
            }
            Write::Announce { .. } => Ok(()),
        }
    }
}

/// The error of a module that the write needs, where it was to be inserted before and was not.
pub fn failed_before(
    writes: &[Write],
    results: &[Result<(), Errno>],
    write: &Write,
) -> Option<Errno> {
    let Write::Insert { needs, .. } = write else { return None };
    let is_needed =
        |write: &Write| matches!(write, Write::Insert { module, .. } if needs.contains(module));
    let mut needed = writes.iter().zip(results).filter(|(write, _)| is_needed(write));
    needed.find_map(|(_, result)| result.err())
}

/// The device and the name, where the attribute is in a device's folder.
pub fn device_attribute(attribute: &str) -> Option<(&str, &str)> {
    let is_address = |part: &str| part.parse::<Address>().is_ok();
    attribute.rmatch_indices('/').find_map(|(at, _)| {
        let part = attribute[..at].rsplit('/').next()?;
        is_address(part).then_some((part, &attribute[at + 1..]))
    })
}

impl Kernel for Fake {
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>> {
        let mut results = Vec::new();
        for write in writes {
            match &mut self.writes_left {
                // Past the panic hook: nothing is wrong.
                Some(0) => panic::resume_unwind(Box::new(Killed)),
                Some(left) => *left -= 1,
                None => {}
            }
            for fault in self.faults.clone() {
                if let Fault::GoesAway { address, before } = fault
                    && before == self.writes.len()
                {
                    self.remove_device(&address);
                }
            }
            let needed = failed_before(&writes[..results.len()], &results, write);
            let result = needed.map_or_else(|| self.answer(write), Err);
            self.writes.push((write.clone(), result));
            results.push(result);
        }
        results
    }

    fn modules_for(&mut self, module: &str) -> Option<Vec<Needed>> {
        self.modules.with_dependencies(module)
    }

    fn modules_for_alias(&mut self, modalias: &str) -> Vec<HostModule> {
        let fits =
            |id: (u16, u16)| modalias.starts_with(&format!("pci:v{:08X}d{:08X}", id.0, id.1));
        let ids = self.host_ids.iter().filter(|(_, id)| fits(*id));
        let drivers: Vec<_> = ids.map(|(driver, _)| driver.as_str()).collect();
        let modules = self.modules.of_drivers(&drivers).into_iter();
        let is_blacklisted = |name: &String| self.blacklisted.contains(name);
        modules.map(|name| HostModule { is_blacklisted: is_blacklisted(&name), name }).collect()
    }

    fn variants(&mut self) -> Variants {
        Variants::read(&self.modules.aliases())
    }

    fn options_of(&mut self, module: &str) -> String {
        self.options.get(module).cloned().unwrap_or_default()
    }

    fn group_viable(&mut self, group: u32) -> Option<bool> {
        if self.vfio == Vfio::WithoutGroups || self.open.contains(&group) {
            return None;
        }
        let is_vfio =
            |name: &str| self.drivers.iter().any(|driver| driver.vfio && driver.name == name);
        let members = || {
            let devices = self.devices.values();
            devices.filter(|device| device.in_group && device.function.group == Some(group))
        };
        // /dev/vfio/N is there while a vfio driver has a member.
        if !members().any(|device| device.driver.as_deref().is_some_and(is_vfio)) {
            return None;
        }
        // Since 5.19 a driver that does not say that it does no DMA owns the group's, a bridge's
        // included; before, bridges did not count.
        let allowed = |device: &Device| match device.driver.as_deref() {
            None | Some("pci-stub" | "pcieport") => true,
            Some(_) if device.function.bridge && self.line == Line::V5_10 => true,
            Some(driver) => is_vfio(driver),
        };
        Some(members().all(allowed))
    }

    fn listen(&mut self) -> io::Result<()> {
        if self.has(&Fault::NoNetlink) {
            return Err(Errno::EPROTONOSUPPORT.into());
        }
        self.listening = true;
        Ok(())
    }

    fn wait_for_uevent(&mut self, at_most: Duration) -> bool {
        self.waits.push(at_most);
        if !self.listening {
            return false;
        }
        if self.has(&Fault::GroupCloses) {
            self.open.clear();
            return false;
        }
        let is_coming = |fault: &Fault| matches!(fault, Fault::Coming { .. });
        if let Some(at) = self.faults.iter().position(is_coming) {
            let Fault::Coming { module } = self.faults.remove(at) else { return false };
            self.tree.write(&format!("sys/module/{module}/initstate"), "live\n");
            return false;
        }
        if self.unrelated > 0 {
            self.unrelated -= 1;
            // As often as a busy machine has them.
            thread::sleep(Duration::from_millis(1));
            return true;
        }
        match self.uevents.pop_front() {
            None => return false,
            Some(Uevent::Other(function)) => self.add_device(*function),
            Some(Uevent::Added(function)) => {
                // It may have been pulled again.
                if let Some(device) = self.devices.get_mut(&function.address) {
                    device.function = *function.clone();
                }
                if self.groups == Groups::AtOnce {
                    self.add_to_group(&function.address);
                }
            }
            Some(Uevent::Settled(address)) => self.settle(&address),
            Some(Uevent::Framebuffer(address)) => {
                let function = &self.devices[&address].function;
                self.screen.driver_came(&self.tree, function);
            }
        }
        true
    }
}
