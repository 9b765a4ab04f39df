//! [`Request`] and [`Machine`] to [`Plan`]: which device is to end where, and the steps.

mod hints;
mod whole;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::cmdline::{Console, Foreign, Host, Request};
use crate::escape;
use crate::keep::Kind;
use crate::pci::{Address, Choice, Id, Item, Place};
use crate::remedy::{self, Cause, Sight, Why};
use crate::sysfs::{Device, IOMMU_TYPE1, Iommu, Machine, Usage, User, VFIO_PCI};

/// The driver that a device is to get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// The driver of that name, which is its module's name, too.
    Named(String),
    /// The driver that was asked for by its own or its module's name; which of them it is, is
    /// known once the module is loaded.
    Asked(String),
    /// The driver of that module, a variant of vfio-pci, or plain vfio-pci where that does not do.
    Variant(String),
}

impl Driver {
    /// What goes into `driver_override` before any module is loaded.
    #[must_use]
    pub fn first_override(&self) -> &str {
        match self {
            Driver::Named(name) | Driver::Asked(name) => name,
            Driver::Variant(_) => RESERVED,
        }
    }

    /// The module to load.
    #[must_use]
    pub fn module(&self) -> &str {
        let (Driver::Named(module) | Driver::Asked(module) | Driver::Variant(module)) = self;
        module
    }
}

/// What is to become of one requested device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give it to the vfio driver.
    Take(Driver),
    /// Keep it from every driver until a later `bind`.
    Reserve(Why),
    /// Leave it to the host.
    Refuse(Why),
}

/// One requested device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first item that asks for it, as written; where another one has it refused, that one.
    pub item: String,
    /// As it was before.
    pub device: Device,
    /// What is to become of it.
    pub decision: Decision,
    /// Hints for a device that is taken.
    pub warnings: Vec<String>,
}

impl Target {
    /// Whether the host does not have it any more.
    fn goes(&self) -> bool {
        !matches!(self.decision, Decision::Refuse(_))
    }
}

/// An item for which there is no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// As written.
    pub item: String,
    /// That, and what to do about it.
    pub why: Why,
    /// It comes in the real root, where it is taken.
    pub is_later: bool,
}

/// A graphics device that stays with the host, and the modules that drive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherDisplay {
    /// Where it is.
    pub address: Address,
    /// To be loaded; empty where a driver has it already.
    pub modules: Vec<String>,
}

/// One write, or a few that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the driver's name to `driver_override`: no other driver gets the device.
    Override(Address, String),
    /// Move the consoles to the first of these displays that gets a framebuffer.
    HandOver {
        /// In the order in which they are tried.
        to: Vec<OtherDisplay>,
        /// The devices that are reserved where none does.
        from: Vec<Address>,
    },
    /// Tell on the screen that it stops here.
    Announce(Address),
    /// Load the modules by which the IOMMU works, without which no driver is probed.
    LoadIommu(Vec<String>),
    /// Load the module (or the driver's module) of that name.
    Load(String),
    /// Write the name of the module's driver, known by now, to `driver_override`.
    Rename(Address, String),
    /// Take the device from the host driver that has it.
    Unbind(Address, String),
    /// Let the kernel bind the device by its override.
    Probe(Address),
}

impl Step {
    /// The part of a run that it belongs to, for who measures.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self {
            Step::Override(..) | Step::Rename(..) => "override",
            Step::HandOver { .. } | Step::Announce(_) => "console",
            Step::LoadIommu(_) | Step::Load(_) => "modules",
            Step::Unbind(..) => "unbind",
            Step::Probe(_) => "probe",
        }
    }
}

/// What `bind` is going to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The requested devices.
    pub targets: Targets,
    /// The items that ask for others.
    pub absent: Vec<Absent>,
    /// The steps. Overrides come first, before any module is loaded; the console is safe before
    /// a vfio module is loaded, since that binds.
    pub steps: Vec<Step>,
    /// What concerns the machine as a whole.
    pub warnings: Vec<String>,
    /// What may become of the host's console.
    pub console: Console,
    /// What may become of what the host lives from.
    pub host: Host,
    /// Whether devices came while this was waiting for them.
    pub late: bool,
    /// What the kernel and its modules are told.
    pub foreign: Foreign,
}

/// What it means that [`IOMMU_TYPE1`] is not there, but [`IOMMUFD`](crate::sysfs::IOMMUFD) is.
pub const ONLY_BY_IOMMUFD: &str = "only a VM that goes by iommufd can use the devices without it";

/// In `driver_override`, keeps a device from every driver: none has this name.
pub const RESERVED: &str = "vfio-early-reserved";

/// Makes the plan; `late` as in [`Plan::late`].
#[must_use]
pub fn plan(request: &Request, machine: &Machine, late: bool) -> Plan {
    let (mut targets, absent) = targets(request, machine);
    whole::keep_together(&mut targets);
    let mut step = keep_the_console(request, machine, &mut targets);
    whole::keep_together(&mut targets);
    if let Some(Step::HandOver { from, .. }) = &mut step {
        from.retain(|address| matches!(targets[address].decision, Decision::Take(_)));
    }
    let step = step.filter(|step| !matches!(step, Step::HandOver { from, .. } if from.is_empty()));
    whole::tell_of_halves(&mut targets);
    hints::tell_of_items(&mut targets, request, machine);
    hints::tell_of_keyboards(&mut targets, machine);
    let (steps, warnings) = (steps(&targets, step, machine), Vec::new());
    let (console, host, foreign) = (request.console, request.host, request.foreign.clone());
    Plan { targets, absent, steps, warnings, console, host, late, foreign }
}

impl Plan {
    /// Whether a device is asked for, and not refused.
    #[must_use]
    pub fn is_for_vfio(&self, address: &Address) -> bool {
        self.targets.get(address).is_some_and(Target::goes)
    }

    /// The devices that are to get a vfio driver.
    pub fn taken(&self) -> impl Iterator<Item = (Address, &Device, &Driver)> {
        taken(&self.targets)
    }
}

impl Plan {
    /// Whether udev may start once the overrides are written, beside the rest of the steps. While a host
    /// driver has one of the devices it may not: udev would have it used, as by LVM or RAID. Nor while
    /// devices are waited for, or where it is not known yet which ones an item means.
    #[must_use]
    pub fn can_go_on_beside_udev(&self, request: &Request, machine: &Machine) -> bool {
        let is_harmless = |step: &Step| !matches!(step, Step::Unbind(..) | Step::LoadIommu(_));
        let is_group = |item: &Item| matches!(item.choice, Choice::Group(_));
        let is_open = machine.has_groups_later() && request.items.iter().any(is_group);
        request.wait == 0 && !is_open && self.steps.iter().all(is_harmless)
    }

    /// The overrides that come before all else.
    #[must_use]
    pub fn first_overrides(&self) -> &[Step] {
        let is_other = |step: &Step| !matches!(step, Step::Override(..));
        let end = self.steps.iter().position(is_other).unwrap_or(self.steps.len());
        &self.steps[..end]
    }
}

/// What is requested, by address.
pub type Targets = BTreeMap<Address, Target>;

fn taken(targets: &Targets) -> impl Iterator<Item = (Address, &Device, &Driver)> {
    targets.iter().filter_map(|(address, target)| match &target.decision {
        Decision::Take(driver) => Some((*address, &target.device, driver)),
        _ => None,
    })
}

/// The devices that the request means, whatever becomes of them, in address order.
#[must_use]
pub fn requested(request: &Request, machine: &Machine) -> Vec<Address> {
    let mut found = BTreeSet::new();
    for item in &request.items {
        found.extend(resolve(item, machine));
    }
    found.into_iter().collect()
}

/// Whether some item asks for a device that is not there (yet).
#[must_use]
pub fn misses_a_device(request: &Request, machine: &Machine) -> bool {
    let is_here = |item: &&Item| !matches!(item.choice, Choice::Virtual { .. });
    request.items.iter().filter(is_here).any(|item| resolve(item, machine).is_empty())
}

/// Whether some item asks for a device that has no IOMMU group (yet), though an IOMMU works.
#[must_use]
pub fn misses_a_group(request: &Request, machine: &Machine) -> bool {
    let has_none = |address: &Address| machine.devices[address].group.is_none();
    machine.iommu == Iommu::Works && requested(request, machine).iter().any(has_none)
}

/// The addresses that an item means on this machine.
fn resolve(item: &Item, machine: &Machine) -> Vec<Address> {
    match &item.choice {
        Choice::Place(place) => resolve_place(place, machine),
        Choice::Id(id) => matching(*id, machine),
        Choice::Group(place) => {
            let named = resolve_place(place, machine);
            let group_of = |address: &Address| machine.devices[address].group;
            let endpoints: Vec<_> = named
                .iter()
                .filter_map(group_of)
                .flat_map(|number| machine.group(number))
                .filter(|(_, device)| !device.class.is_pci_bridge())
                .map(|(address, _)| address)
                .collect();
            // Without a group, or with bridges alone in it, there is the named device to refuse.
            if endpoints.is_empty() { named } else { endpoints }
        }
        // In the initrd there are none; on the host each that is there is an item of its own by then.
        Choice::Virtual { .. } => Vec::new(),
    }
}

fn matching(id: Id, machine: &Machine) -> Vec<Address> {
    let devices = machine.devices.iter();
    devices.filter(|(_, device)| id.matches(&device.id)).map(|(address, _)| *address).collect()
}

fn resolve_place(place: &Place, machine: &Machine) -> Vec<Address> {
    let [first, below @ ..] = &place.hops[..] else { return Vec::new() };
    let at =
        |function| Address { domain: place.domain, bus: place.bus, device: first.device, function };
    let functions = at(first.function.unwrap_or(0))..=at(first.function.unwrap_or(7));
    let mut found: Vec<_> = machine.devices.range(functions).map(|(at, _)| *at).collect();
    for hop in below {
        let Some(bridge) = found.first().copied() else { break };
        let is_there = |address: &Address, device: &Device| {
            hop.is_of(*address) && device.parent() == Some(bridge)
        };
        let devices = machine.devices.iter();
        found = devices.filter(|(a, d)| is_there(a, d)).map(|(address, _)| *address).collect();
    }
    found
}

fn targets(request: &Request, machine: &Machine) -> (Targets, Vec<Absent>) {
    let mut targets = Targets::new();
    let mut absent = Vec::new();
    for item in &request.items {
        let found = resolve(item, machine);
        if found.is_empty() {
            let is_later = matches!(item.choice, Choice::Virtual { .. });
            let why = if is_later {
                Why::new(
                    "virtual functions are made when the driver of their device is up",
                    "vfio-early-finish.service takes them then",
                )
            } else {
                Why::new("no such device", absent_remedy(item, request, machine))
            };
            absent.push(Absent { item: item.text.clone(), why, is_later });
        }
        let mismatch = guard_mismatch(item, machine);
        for &address in &found {
            // A list can name a device over and over.
            if mismatch.is_none() && item.guard.is_none() && targets.contains_key(&address) {
                continue;
            }
            let device = &machine.devices[&address];
            let decision = match &mismatch {
                Some(refusal) => refusal.clone(),
                None => decide(device, request, machine),
            };
            let refused = matches!(decision, Decision::Refuse(_));
            let target = Target {
                item: item.text.clone(),
                device: device.clone(),
                warnings: if refused { Vec::new() } else { hints::hints(address, device, item) },
                decision,
            };
            match targets.entry(address) {
                Entry::Vacant(entry) => {
                    entry.insert(target);
                }
                // The device is listed twice: in doubt it stays with the host, and a guard in
                // either item is a guard.
                Entry::Occupied(mut entry) if refused => {
                    entry.insert(target);
                }
                // This item has a guard, or it would not come so far: no hint is needed.
                Entry::Occupied(mut entry) => entry.get_mut().warnings = target.warnings,
            }
        }
    }
    (targets, absent)
}

fn absent_remedy(item: &Item, request: &Request, machine: &Machine) -> String {
    let waited = match request.wait {
        0 => "if it appears late, add vfio.wait=10".to_owned(),
        seconds => format!("waited {seconds} s for it"),
    };
    match (&item.choice, item.guard) {
        (_, Some(guard)) => format!("{}; {waited}", where_now(guard, machine)),
        (Choice::Id(_), _) => format!("check the id with lspci -nn; {waited}"),
        _ => format!("check the address with lspci -D; {waited}"),
    }
}

/// A message names no more: with wildcards an id can be everywhere, and each item has its message.
const MOST_PLACES: usize = 8;

fn where_now(guard: Id, machine: &Machine) -> String {
    let found = matching(guard, machine);
    let guard = guard.in_full();
    if found.is_empty() {
        return format!("{guard} is nowhere on this machine");
    }
    let now: Vec<_> = found.iter().take(MOST_PLACES).map(Address::to_string).collect();
    let more = match found.len() - now.len() {
        0 => String::new(),
        more => format!(" and {more} other places"),
    };
    format!("{guard} is now at {}{more}", now.join(", "))
}

/// Whether the guard of an item, if it has one, holds: it is for the device at that place; in a slot,
/// for its lowest function.
#[must_use]
pub fn guard_holds(item: &Item, machine: &Machine) -> bool {
    guard_mismatch(item, machine).is_none()
}

/// What a request asks for, without what the guards keep.
#[must_use]
pub fn asked(mut request: Request, machine: &Machine) -> Vec<Address> {
    request.items.retain(|item| guard_holds(item, machine));
    requested(&request, machine)
}

/// The first device at the place that an item names.
#[must_use]
pub fn named(item: &Item, machine: &Machine) -> Option<Address> {
    let (Choice::Place(place) | Choice::Group(place) | Choice::Virtual { of: place, .. }) =
        &item.choice
    else {
        return None;
    };
    resolve_place(place, machine).first().copied()
}

/// Why an item's guard keeps what it names with the host; `None` where it does not.
#[must_use]
pub fn guarded(item: &Item, machine: &Machine) -> Option<Why> {
    match guard_mismatch(item, machine)? {
        Decision::Refuse(why) | Decision::Reserve(why) => Some(why),
        Decision::Take(_) => None,
    }
}

fn guard_mismatch(item: &Item, machine: &Machine) -> Option<Decision> {
    let guard = item.guard?;
    let address = named(item, machine)?;
    let found = machine.devices[&address].id;
    (!guard.matches(&found)).then(|| {
        let found = if guard.has_subsystem() { found.in_full() } else { found.to_string() };
        Decision::Refuse(Why::new(
            format!("the guard wants {}, but {address} is {found}", guard.in_full()),
            format!("{}; correct the item", where_now(guard, machine)),
        ))
    })
}

fn decide(device: &Device, request: &Request, machine: &Machine) -> Decision {
    if device.class.is_pci_bridge() {
        return Decision::Refuse(Why::new(
            format!("class {} is a PCI bridge, which vfio-pci does not take", device.class),
            "list the devices behind it instead",
        ));
    }
    if device.is_virtio_iommu() {
        return Decision::Refuse(Why::new(
            "it is the IOMMU (virtio-iommu), by which devices can be given away",
            "take it off the list",
        ));
    }
    if device.group.is_none() && !machine.has_groups_later() {
        return Decision::Refuse(no_group(machine, &request.foreign, device));
    }
    if let Some(maker) = device.made_by() {
        return Decision::Refuse(behind(maker, device, machine));
    }
    let usage = device.usage.as_ref().filter(|usage| !is_released(usage, request.host));
    if let Some(usage) = usage {
        return Decision::Refuse(Why::new(
            format!("the host uses it: {}", usage.words),
            remedy_for(usage.by),
        ));
    }
    if let (Some(why), Host::Keep) = (kept(device), request.host) {
        return Decision::Refuse(why);
    }
    Decision::Take(match (&request.driver, &device.driver, &device.variant) {
        (Some(name), Some(driver), _) if is_same_name(name, driver) => {
            Driver::Named(driver.clone())
        }
        (Some(name), _, _) if is_same_name(name, VFIO_PCI) => Driver::Named(VFIO_PCI.to_owned()),
        (Some(name), _, _) if machine.drivers.contains(name) => Driver::Named(name.clone()),
        // Modules are often called other than their drivers.
        (Some(name), _, _) => Driver::Asked(name.clone()),
        // Whichever it is, it was chosen before, and a VM may be using it.
        (None, Some(name), _) if is_vfio_driver(name) => Driver::Named(name.clone()),
        (None, _, Some(module)) => Driver::Variant(module.clone()),
        (None, _, None) => Driver::Named(VFIO_PCI.to_owned()),
    })
}

/// Whether that is given away on purpose: a keyboard. What is mounted or drawn on breaks instead.
#[must_use]
pub fn is_released(usage: &Usage, host: Host) -> bool {
    usage.by == User::Keyboard && host == Host::Release
}

/// Why the host keeps a disk that it lives from, by the record in the initrd.
fn kept(device: &Device) -> Option<Why> {
    // A VM may have it by now, whatever the record says.
    if device.driver.as_deref().is_some_and(is_vfio_driver) {
        return None;
    }
    let disk = device.kept.iter().find(|kept| kept.kind == Kind::Disk)?;
    Some(Why::new(
        format!("the host lives from this disk, by the record in its initrd: {}", disk.words),
        "take it off the list, or, if that is meant, add vfio.host=release",
    ))
}

/// What the host would lose with a device that it uses or lives from, in words.
#[must_use]
pub fn use_by_host(device: &Device) -> Option<&str> {
    let usage = device.usage.as_ref().filter(|usage| usage.by.is_lasting());
    let kept = || device.kept.first().map(|kept| kept.words.as_str());
    usage.map(|usage| usage.words.as_str()).or_else(kept)
}

/// How what uses a device comes to its end. A boot with a disk listed does without it, and stops
/// where it is asked for.
#[must_use]
pub fn remedy_for(user: User) -> &'static str {
    match user {
        User::Host => "the host runs from it, so take it off the list",
        User::Boot | User::Storage => {
            "stop that first, and let no boot ask for it again (/etc/fstab, /etc/crypttab)"
        }
        User::Network => {
            "take the link down first, or boot with the device listed: the host has no such link then"
        }
        User::Screen => {
            "stop that first (a desktop: systemctl stop display-manager), or boot with the device \
             listed"
        }
        User::Sound => "stop what plays or records, or boot with the device listed",
        User::Keyboard => "plug that in elsewhere, or boot with the device listed",
        User::VirtualFunctions => {
            "stop that first, or boot with the device listed, so that it never comes into use"
        }
    }
}

/// The kernel takes `-` and `_` for the same in the names of modules.
#[must_use]
pub fn is_same_name(one: &str, other: &str) -> bool {
    one.replace('-', "_") == other.replace('-', "_")
}

/// vfio-pci or a variant of it; they all have it in their names.
#[must_use]
pub fn is_vfio_driver(name: &str) -> bool {
    name.contains("vfio")
}

/// Why a device has no IOMMU group.
#[must_use]
pub fn no_group(machine: &Machine, foreign: &Foreign, device: &Device) -> Why {
    let Device { id, class, .. } = *device;
    let sight = Sight { id, class, ..Sight::of(foreign, &machine.platform) };
    remedy::why(Cause::NoGroup(machine.iommu), &sight, "")
}

/// Why a device stays whose root bus another one's driver makes.
fn behind(maker: Address, device: &Device, machine: &Machine) -> Why {
    let of = machine.devices.get(&maker);
    let driver = of.and_then(|device| device.driver.as_deref()).unwrap_or("the host's driver");
    let reason = format!(
        "it is behind {maker} (VMD), in whose IOMMU group it is, and is there only while {driver} has \
         that: no VM can have it by itself"
    );
    let remedy = match of.and_then(use_by_host).or_else(|| use_by_host(device)) {
        Some(words) => format!(
            "turn VMD off in the firmware; that cannot be given away as a whole, since the host lives \
             from what is behind it ({words})"
        ),
        None => {
            "turn VMD off in the firmware, or list that instead, with all that is behind it".into()
        }
    };
    Why::new(reason, remedy)
}

/// Reserves or refuses what would take the host's console, unless another display can have it;
/// the step that saves or gives up the console, where one is due.
fn keep_the_console(request: &Request, machine: &Machine, targets: &mut Targets) -> Option<Step> {
    let screen = machine.screen.as_ref()?;
    let owner = screen.firmware.as_ref().and_then(|firmware| firmware.owner);
    // What is refused stays with the host and can have the console of the next one: first those
    // that the console is on now.
    let has_it = |a: &Address| owner == Some(*a) || screen.framebuffer_of(*a).is_some();
    let (mut endangering, others): (Vec<_>, Vec<_>) = taken(targets)
        .filter(|(_, device, _)| !device.driver.as_deref().is_some_and(is_vfio_driver))
        .filter(|(address, device, _)| {
            let display = device.display.unwrap_or_default();
            screen.is_endangered_by(*address, device.class, display)
        })
        .map(|(address, _, _)| address)
        .partition(has_it);
    endangering.extend(others);
    if request.console == Console::Release {
        return endangering.first().map(|address| Step::Announce(*address));
    }
    let mut from = Vec::new();
    let mut to = Vec::new();
    for address in endangering {
        let others = other_displays(machine, targets, owner);
        let can_have_it: Vec<_> = others.iter().filter_map(other_display).collect();
        let decision = if !can_have_it.is_empty() {
            from.push(address);
            to = can_have_it;
            continue;
        } else if let Some((other, device)) = others.first() {
            // Any other one would do.
            let blacklisted: Vec<_> = device.modules.iter().map(|it| it.name.clone()).collect();
            let (why_not, remedy) = if blacklisted.is_empty() {
                ("not in this initrd".to_owned(), "add that driver to the initrd")
            } else {
                (format!("blacklisted ({})", blacklisted.join(", ")), "take it off the blacklist")
            };
            Decision::Reserve(Why::new(
                format!(
                    "binding it now would take the console, and the driver of the other display, \
                     {other} {}, is {why_not}",
                    device.id
                ),
                format!(
                    "vfio-early bind, run when that driver has come up, finishes it; or {remedy}"
                ),
            ))
        } else {
            let is_in_ram = screen.firmware.as_ref().is_some_and(|it| it.is_in_ram);
            Decision::Refuse(Why::new(
                if is_in_ram && !has_it(&address) {
                    "the kernel would end the host's console for it, and no other display stays with \
                     the host"
                } else {
                    "the host's console is on it, and no other display stays with the host"
                },
                "take it off the list, or add vfio.console=release to give it away",
            ))
        };
        targets.entry(address).and_modify(|target| target.decision = decision);
    }
    (!from.is_empty()).then_some(Step::HandOver { to, from })
}

/// The displays that stay with the host. A 3D controller (class 0302) has no outputs, and the vfio
/// drivers and pci-stub draw nothing.
pub fn displays_that_stay<'m>(
    machine: &'m Machine,
    targets: &Targets,
) -> impl Iterator<Item = (Address, &'m Device)> {
    let stays = |address: &Address, device: &Device| {
        let target = targets.get(address);
        let is_taken = target.is_some_and(|it| matches!(it.decision, Decision::Take(_)));
        let draws = |driver: &str| !is_vfio_driver(driver) && driver != "pci-stub";
        let has_outputs = device.class.is_display() && device.class.0 >> 8 != 0x0302;
        has_outputs && !is_taken && device.driver.as_deref().is_none_or(draws)
    };
    let displays = machine.devices.iter().filter(move |(address, device)| stays(address, device));
    displays.map(|(address, device)| (*address, device))
}

/// The same, the one that has the console now first.
fn other_displays<'m>(
    machine: &'m Machine,
    targets: &Targets,
    owner: Option<Address>,
) -> Vec<(Address, &'m Device)> {
    let displays = displays_that_stay(machine, targets);
    let (mut first, others): (Vec<_>, Vec<_>) =
        displays.partition(|(address, device)| match owner {
            Some(owner) => owner == *address,
            None => device.display.is_some_and(|display| display.boot_vga),
        });
    first.extend(others);
    first
}

/// As one that can have the console now: its driver is there, or can be loaded.
fn other_display((address, device): &(Address, &Device)) -> Option<OtherDisplay> {
    let usable = device.modules.iter().filter(|module| !module.is_blacklisted);
    let modules: Vec<_> = usable.map(|module| module.name.clone()).collect();
    let is_driven = device.driver.is_some() || !modules.is_empty();
    is_driven.then_some(OtherDisplay { address: *address, modules })
}

fn steps(targets: &Targets, console: Option<Step>, machine: &Machine) -> Vec<Step> {
    let mut steps = Vec::new();
    // With the console on them they must not be bound, whoever loads the vfio driver meanwhile.
    let last: &[Address] = match &console {
        Some(Step::HandOver { from, .. }) => from,
        _ => &[],
    };
    let mut later = Vec::new();
    for (address, target) in targets {
        let name = match &target.decision {
            Decision::Take(driver) if last.contains(address) => {
                let name = driver.first_override();
                if name != RESERVED {
                    later.push(Step::Override(*address, name.to_owned()));
                }
                RESERVED
            }
            // Also for a device that is bound already: it may have come there by its id alone.
            Decision::Take(driver) => driver.first_override(),
            Decision::Reserve(_) => RESERVED,
            Decision::Refuse(_) => continue,
        };
        steps.push(Step::Override(*address, name.to_owned()));
    }
    steps.extend(console);
    steps.extend(later);
    if !machine.iommu_modules.is_empty() && taken(targets).next().is_some() {
        steps.push(Step::LoadIommu(machine.iommu_modules.clone()));
    }
    let mut modules = Vec::new();
    if !machine.iommu_type1 && taken(targets).next().is_some() {
        modules.push(IOMMU_TYPE1);
    }
    for (_, _, driver) in taken(targets) {
        let is_there = machine.drivers.iter().any(|there| there == driver.module());
        if !is_there && !modules.contains(&driver.module()) {
            modules.push(driver.module());
        }
    }
    steps.extend(modules.into_iter().map(|module| Step::Load(module.to_owned())));
    for (address, _, driver) in taken(targets) {
        if let Driver::Asked(module) | Driver::Variant(module) = driver {
            steps.push(Step::Rename(address, module.clone()));
        }
    }
    let is_bound = |device: &Device, driver: &Driver| match driver {
        Driver::Named(name) => device.driver.as_ref() == Some(name),
        Driver::Asked(_) | Driver::Variant(_) => false,
    };
    // After the modules, so that a host without them keeps what it has.
    for (address, device, driver) in taken(targets) {
        if let Some(host) = device.driver.as_ref().filter(|_| !is_bound(device, driver)) {
            steps.push(Step::Unbind(address, host.clone()));
        }
    }
    for (address, device, driver) in taken(targets) {
        if !is_bound(device, driver) {
            steps.push(Step::Probe(address));
        }
    }
    steps
}

/// One line a device that is not taken and one a step: what `--dry-run` prints.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (address, target) in &self.targets {
            let (word, Why { reason, remedy }) = match &target.decision {
                Decision::Take(_) => continue,
                Decision::Reserve(why) => ("reserve", why),
                Decision::Refuse(why) => ("refuse", why),
            };
            let line = format!("{word} {address} {}: {reason}; {remedy}", target.device.id);
            writeln!(f, "{}", escape::line(&line))?;
        }
        for Absent { item, why: Why { reason, remedy }, .. } in &self.absent {
            writeln!(f, "absent {}: {reason}; {remedy}", escape::short(item))?;
        }
        let mut steps = self.steps.iter();
        steps.try_for_each(|step| writeln!(f, "{}", escape::line(&step.to_string())))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Override(address, driver) => {
                write!(f, "write {driver} to driver_override of {address}")
            }
            Step::HandOver { to, .. } => {
                write!(f, "move the console to")?;
                for (index, OtherDisplay { address, modules }) in to.iter().enumerate() {
                    let or = if index == 0 { "" } else { ", or else" };
                    write!(f, "{or} {address}")?;
                    if !modules.is_empty() {
                        write!(f, " (load {})", modules.join(", "))?;
                    }
                }
                Ok(())
            }
            Step::Announce(address) => write!(f, "tell on the screen that {address} goes"),
            Step::LoadIommu(modules) => write!(f, "load {} for the IOMMU", modules.join(", ")),
            Step::Load(module) => write!(f, "load {module} with its dependencies"),
            Step::Rename(address, module) => {
                write!(f, "write the name of {module}'s driver to driver_override of {address}")
            }
            Step::Unbind(address, driver) => write!(f, "unbind {address} from {driver}"),
            Step::Probe(address) => write!(f, "write {address} to drivers_probe"),
        }
    }
}
