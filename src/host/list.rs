//! `vfio-early list`: the devices by IOMMU group, with what one has to know before giving one away.

pub mod filter;
pub mod formats;
mod paste;
pub mod tree;

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::cmdline;
use crate::host::item::item;
use crate::host::keep;
use crate::host::names::Names;
use crate::host::paste::length_without_lists;
use crate::host::vfs;
use crate::keep::Kind;
use crate::pci::{Address, Class, Id};
use crate::plan::{self, Targets, is_vfio_driver};
use crate::remedy::Why;
use crate::sysfs::{Device, Input, Iommu, Machine, RECORD, Sysfs, User};
use filter::Filter;

/// Whether a VM can have a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// It is alone in its group, bridges aside.
    Alone,
    /// With all endpoints of its group.
    Shared,
    /// A bridge, which stays with the host: a PCI bridge, or one without a driver.
    Bridge,
    /// No IOMMU group yet: the kernel makes it when a driver is first probed for the device.
    NotYet,
    /// No IOMMU group, so no VM.
    NoGroup,
}

/// One PCI function.
#[allow(clippy::struct_excessive_bools)] // independent facts, by their names in the JSON
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it is.
    pub address: Address,
    /// Vendor and device id.
    pub id: Id,
    /// Those of the subsystem; `None` where it has none.
    pub subsystem: Option<Id>,
    /// Class code.
    pub class: Class,
    /// From `pci.ids`.
    pub class_name: Option<String>,
    /// From `pci.ids`.
    pub vendor_name: Option<String>,
    /// From `pci.ids`.
    pub device_name: Option<String>,
    /// The driver that has it now.
    pub driver: Option<String>,
    /// Whether `vfio.devs=` on the command line asks for it, and a guard there holds.
    pub asked: bool,
    /// The number of its IOMMU group.
    pub group: Option<u32>,
    /// Whether a filter fits it; the others are there because they are in its group.
    pub chosen: bool,
    /// Whether the firmware chose it for the screen.
    pub boot_display: bool,
    /// The host's framebuffer on it, as `fb0`; `firmware` is what the firmware left. The console is
    /// on one of them.
    pub framebuffer: Option<String>,
    /// What the host would lose with it, in words: a mounted disk, a network link with an address.
    pub in_use: Option<String>,
    /// Whether the host lives from what uses it, or could not give it away at the next boot either.
    #[serde(skip)]
    pub lives_from: bool,
    /// Names of the keyboards, mice and the like that hang on it.
    pub inputs: Vec<String>,
    /// Whether somebody can type on one of them.
    pub keyboard: bool,
    /// How the kernel can reset it alone; `None` where it does not say how, and for a bridge that
    /// stays, which is not asked.
    pub reset_methods: Option<Vec<String>>,
    /// What is reset with it where it cannot be reset alone: all behind its bridge. Empty where that
    /// is nothing, or on a root bus: then there is no reset at all.
    pub resets_with: Vec<Address>,
    /// The device that it is a virtual function of.
    pub physical_function: Option<Address>,
    /// The device whose driver makes its bus, as Intel's VMD: a VM can have it only with that.
    pub made_by: Option<Address>,
    /// Whether a VM can have it.
    pub availability: Availability,
    /// The other members of the group that a VM has to get, too, or that no driver may have.
    pub shared_with: Vec<Address>,
    /// For `vfio.devs=`; `None` for a bridge that stays, for a virtio-iommu, and for what another
    /// device's driver makes.
    pub item: Option<String>,
}

impl Entry {
    /// Whether a vfio driver has it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.driver.as_deref().is_some_and(is_vfio_driver)
    }
}

/// What `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct List {
    /// Of the format: 1. New fields may come without a new version.
    pub version: u32,
    /// Whether an IOMMU works, and if not, why: `works`, `groups-at-probe`, `no-table`, `intel-off`,
    /// `amd-off`, `platform-off`, `virtio-off`, `no-platform`.
    pub iommu: &'static str,
    /// What to do about devices without a group.
    #[serde(skip)]
    pub no_group: Option<Why>,
    /// Whether the command line asks for any device.
    #[serde(skip)]
    pub asks: bool,
    /// Bytes of the command line without the lists on it.
    #[serde(skip)]
    pub command_line: usize,
    /// Where the host's keyboards are; `None` for one that is on no PCI device.
    #[serde(skip)]
    pub keyboards: Vec<Option<Address>>,
    /// The displays that are the host's, or could be.
    #[serde(skip)]
    pub displays: Vec<Address>,
    /// What the host lives from, for an initrd that is not made on it.
    #[serde(skip)]
    pub record: Vec<crate::keep::Entry>,
    /// Of all devices, whatever was chosen.
    #[serde(skip)]
    pub ids: Vec<Place>,
    /// By group, then by address; those without a group last.
    pub devices: Vec<Entry>,
}

/// Where a device of some id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Vendor and device id.
    pub id: Id,
    /// Its address.
    pub address: Address,
    /// The number of its IOMMU group.
    pub group: Option<u32>,
}

impl List {
    /// Whether a vfio driver has a device that the list on the command line leaves out.
    #[must_use]
    pub fn is_unasked(&self, entry: &Entry) -> bool {
        self.asks && entry.is_given() && !entry.asked
    }

    /// Whether the host has a display with its screen, and none without these.
    #[must_use]
    pub fn leaves_no_display(&self, given: &[&Entry]) -> bool {
        let has_screen = |entry: &&Entry| {
            let is_on_it = entry.boot_display || entry.framebuffer.is_some();
            entry.class.is_display() && !entry.is_given() && is_on_it
        };
        let goes = |at: &Address| given.iter().any(|entry| entry.address == *at);
        given.iter().any(has_screen) && self.displays.iter().all(goes)
    }

    /// Whether the host has a keyboard, and none without these.
    #[must_use]
    pub fn leaves_no_keyboard(&self, given: &[&Entry]) -> bool {
        let goes = |at: &Option<Address>| given.iter().any(|entry| Some(entry.address) == *at);
        !self.keyboards.is_empty() && self.keyboards.iter().all(goes)
    }
}

/// Reads the machine, with names from below the same root; the groups that a filter chooses something of, and without filters all.
///
/// # Errors
/// When the PCI bus cannot be read; the error names the file.
pub fn list(sysfs: &Sysfs, filters: &[Filter]) -> io::Result<List> {
    let mut machine = sysfs.whole_machine()?;
    sysfs.know(&sysfs.record(), &mut machine);
    let machine = machine;
    let ids = machine.devices.values().map(|device| (device.id, device.class));
    let names = Names::find(sysfs, ids);
    let inputs = sysfs.inputs();
    let mut keyboards: Vec<_> = sysfs.keyboards().iter().map(|keyboard| keyboard.address).collect();
    let has_keyboard = |device: &Device| device.kept.iter().any(|it| it.kind == Kind::Keyboard);
    let of_record = machine.devices.iter().filter(|(_, device)| has_keyboard(device));
    keyboards.extend(of_record.map(|(address, _)| Some(*address)));
    let mut chosen: Vec<Address> = Vec::new();
    for filter in filters {
        filter.choose(&machine, &mut chosen);
    }
    let text = sysfs.cmdline().unwrap_or_default();
    let request = cmdline::parse(&text);
    let asks = request.asks_for_devices();
    let asked = plan::asked(vfs::each_there(request, sysfs), &machine);
    let is_chosen = |address: &Address| filters.is_empty() || chosen.contains(address);
    let mut devices = Vec::new();
    let mut add = |address: Address| {
        let mut entry = entry(address, &machine, &names);
        entry.chosen = is_chosen(&address);
        entry.asked = asks && asked.contains(&address);
        look_closer(&mut entry, &machine, sysfs, &inputs);
        entry.keyboard = keyboards.contains(&Some(address));
        devices.push(entry);
    };
    for members in machine.groups.values() {
        if members.iter().any(is_chosen) {
            for address in members {
                add(*address);
            }
        }
    }
    for (address, device) in &machine.devices {
        if device.group.is_none() && is_chosen(address) {
            add(*address);
        }
    }
    let iommu = match machine.iommu {
        Iommu::Works => "works",
        Iommu::GroupsAtProbe => "groups-at-probe",
        Iommu::NoTable => "no-table",
        Iommu::IntelOff => "intel-off",
        Iommu::AmdOff => "amd-off",
        Iommu::PlatformOff => "platform-off",
        Iommu::VirtioOff => "virtio-off",
        Iommu::NoPlatform => "no-platform",
    };
    let no_group = devices.iter().find(|entry| entry.group.is_none()).map(|entry| {
        let booted = &machine.platform.booted;
        plan::no_group(&machine, booted, &machine.devices[&entry.address])
    });
    let mut record = sysfs.record_in(RECORD).unwrap_or_default();
    record.add(keep::of_host(sysfs, &machine));
    let record = record.entries;
    let none_goes = Targets::new();
    let displays = plan::displays_that_stay(&machine, &none_goes);
    let displays = displays.map(|(address, _)| address);
    // Those are not there yet when the host boots.
    let displays = displays.filter(|address| sysfs.physical_function(*address).is_none()).collect();
    let command_line = length_without_lists(&text);
    let place = |(address, device): (&Address, &Device)| Place {
        id: device.id,
        address: *address,
        group: device.group,
    };
    let ids = machine.devices.iter().map(place).collect();
    Ok(List {
        version: 1,
        iommu,
        no_group,
        asks,
        command_line,
        keyboards,
        displays,
        record,
        ids,
        devices,
    })
}

fn entry(address: Address, machine: &Machine, names: &Names) -> Entry {
    let device = &machine.devices[&address];
    let text = |name: Option<&str>| name.map(str::to_owned);
    let (id, class) = (device.id, device.class);
    let shared_with = companions(address, device, machine);
    let availability = match device.group {
        _ if stays(device) => Availability::Bridge,
        None if machine.has_groups_later() && !device.is_virtio_iommu() => Availability::NotYet,
        None => Availability::NoGroup,
        Some(_) if shared_with.is_empty() => Availability::Alone,
        Some(_) => Availability::Shared,
    };
    let screen = machine.screen.as_ref();
    let firmware = screen.and_then(|screen| screen.firmware.as_ref()?.owner);
    Entry {
        address,
        id,
        subsystem: id.has_subsystem().then_some(Id {
            vendor: id.subvendor,
            device: id.subdevice,
            subvendor: 0,
            subdevice: 0,
        }),
        class,
        class_name: text(names.class(class)),
        vendor_name: text(names.vendor(id)),
        device_name: text(names.device(id)),
        driver: device.driver.clone(),
        asked: false,
        group: device.group,
        chosen: true,
        boot_display: device.display.is_some_and(|display| display.boot_vga),
        framebuffer: match screen.and_then(|screen| screen.framebuffer_of(address)) {
            Some(framebuffer) => Some(format!("fb{}", framebuffer.number)),
            None => (firmware == Some(address)).then(|| "firmware".to_owned()),
        },
        in_use: None,
        lives_from: false,
        inputs: Vec::new(),
        keyboard: false,
        reset_methods: None,
        resets_with: Vec::new(),
        physical_function: None,
        made_by: device.made_by(),
        availability,
        shared_with,
        item: can_be_listed(device).then(|| item(address, machine)),
    }
}

fn can_be_listed(device: &Device) -> bool {
    !stays(device) && !device.is_virtio_iommu() && device.made_by().is_none()
}

/// PCI and `CardBus` bridges, and host and ISA bridges without a driver, which are harmless; other
/// ones (0680) can be what a VM wants, as an `NVSwitch`.
fn stays(device: &Device) -> bool {
    let class = device.class;
    let is_idle = device.driver.is_none() && class.0 >> 8 != 0x0680;
    class.is_pci_bridge() || class.is_bridge() && is_idle
}

/// The members of its group that a VM has to get with it, or that no driver may have. Host and ISA
/// bridges without a driver are harmless, and PCI bridges always are. What its own driver makes goes
/// with that.
fn companions(address: Address, device: &Device, machine: &Machine) -> Vec<Address> {
    let members = device.group.into_iter().flat_map(|number| machine.group(number));
    let others = members.filter(|(other, member)| {
        let is_idle_bridge = member.class.is_bridge() && member.driver.is_none();
        let is_made = member.made_by() == Some(address);
        *other != address && !member.class.is_pci_bridge() && !is_idle_bridge && !is_made
    });
    others.map(|(other, _)| other).collect()
}

/// What needs more reads.
fn look_closer(entry: &mut Entry, machine: &Machine, sysfs: &Sysfs, inputs: &[Input]) {
    if entry.availability == Availability::Bridge {
        return;
    }
    let address = entry.address;
    for input in inputs.iter().filter(|input| input.address == Some(address)) {
        // One mouse makes several, as "Mouse" and "Mouse Consumer Control".
        if !entry.inputs.iter().any(|there| input.name.starts_with(there.as_str())) {
            entry.inputs.push(input.name.clone());
        }
    }
    if !entry.is_given() {
        let usage = sysfs.usage(address);
        let lasts =
            |by: User| by.is_lasting() && by != User::Keyboard || by == User::VirtualFunctions;
        entry.lives_from = usage.as_ref().is_some_and(|usage| lasts(usage.by));
        entry.in_use = usage.map(|usage| usage.words);
        let mut kept = machine.devices[&address].kept.iter();
        if let Some(kept) = kept.find(|kept| kept.kind != Kind::Keyboard)
            && !entry.lives_from
        {
            entry.lives_from = true;
            entry.in_use = Some(format!("the host lives from it, by its record: {}", kept.words));
        }
    }
    entry.reset_methods = sysfs.reset_methods(address);
    if entry.reset_methods.as_ref().is_some_and(Vec::is_empty) {
        entry.resets_with = behind_same_bridge(address, machine);
    }
    entry.physical_function = sysfs.physical_function(address);
}

/// The other endpoints below the bridge right above it, which a reset of that bridge's bus takes
/// along; none on a root bus.
fn behind_same_bridge(address: Address, machine: &Machine) -> Vec<Address> {
    let device = &machine.devices[&address];
    let Some(parent) = device.parent().and_then(|parent| machine.devices.get(&parent)) else {
        return Vec::new();
    };
    let is_below = |other: &Device| Path::new(&other.folder).starts_with(&parent.folder);
    let others = machine.devices.iter().filter(|(other, below)| {
        **other != address && is_below(below) && !below.class.is_pci_bridge()
    });
    others.map(|(other, _)| *other).collect()
}
