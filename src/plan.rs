//! [`Request`] and [`Machine`] to [`Plan`]: which device is to end where, and the steps.

use std::collections::BTreeMap;
use std::fmt;

use crate::cmdline::Request;
use crate::pci::{Address, Choice, Hop, Id, Item, Place};
use crate::sysfs::{Device, Iommu, Machine, VFIO_PCI};

/// What is to become of one requested device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give it to the vfio driver.
    Take {
        /// The driver's name.
        driver: String,
    },
    /// Leave it to the host.
    Refuse {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// There is no such device.
    Absent {
        /// What to do about it.
        remedy: String,
    },
}

/// One requested device, or an item for which there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first item that asks for it, as written.
    pub item: String,
    /// Where it is; `None` where it is absent.
    pub device: Option<(Address, Device)>,
    /// What is to become of it.
    pub decision: Decision,
    /// Hints for a device that is taken.
    pub warnings: Vec<String>,
}

/// One write, or the loading of one module with all that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the driver's name to `driver_override`: no other driver gets the device.
    Override(Address, String),
    /// Load the module (or the driver's module) of that name.
    Load(String),
    /// Take the device from the host driver that has it.
    Unbind(Address, String),
    /// Let the kernel bind the device by its override.
    Probe(Address),
}

/// What `bind` is going to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The devices, in the order of the items that ask for them.
    pub targets: Vec<Target>,
    /// The steps. Overrides come first, before any module is loaded. The hand-over of the
    /// console belongs between them and the vfio modules.
    pub steps: Vec<Step>,
    /// What concerns the machine as a whole.
    pub warnings: Vec<String>,
    /// Whether devices came while this was waiting for them.
    pub late: bool,
}

/// The module that a VM needs to use a group; only a soft dependency of vfio, which nobody
/// requests later.
pub const IOMMU_TYPE1: &str = "vfio_iommu_type1";

/// Makes the plan; `late` as in [`Plan::late`].
#[must_use]
pub fn plan(request: &Request, machine: &Machine, late: bool) -> Plan {
    let driver = request.driver.as_deref().unwrap_or(VFIO_PCI);
    let targets = targets(request, machine, driver);
    let (steps, warnings) = (steps(&targets, machine, driver), Vec::new());
    let mut plan = Plan { targets, steps, warnings, late };
    if machine.interrupt_remapping == Some(false) && plan.taken().next().is_some() {
        plan.warnings.push(
            "the kernel does not remap interrupts: the start of a VM will fail with EPERM; turn \
             interrupt remapping on in the firmware, or, where every VM is trusted, add \
             vfio_iommu_type1.allow_unsafe_interrupts=1"
                .to_owned(),
        );
    }
    plan
}

impl Plan {
    /// The devices that are to get a vfio driver.
    pub fn taken(&self) -> impl Iterator<Item = (Address, &Device, &str)> {
        self.targets.iter().filter_map(|target| match (&target.device, &target.decision) {
            (Some((address, device)), Decision::Take { driver }) => {
                Some((*address, device, driver.as_str()))
            }
            _ => None,
        })
    }
}

/// Whether some item asks for a device that is not there (yet).
#[must_use]
pub fn misses_a_device(request: &Request, machine: &Machine) -> bool {
    request.items.iter().any(|item| resolve(item, machine).is_empty())
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
                .map(|(address, _)| *address)
                .collect();
            // Without a group, or with bridges alone in it, there is the named device to refuse.
            if endpoints.is_empty() { named } else { endpoints }
        }
    }
}

fn matching(id: Id, machine: &Machine) -> Vec<Address> {
    let devices = machine.devices.iter();
    devices.filter(|(_, device)| id.matches(&device.id)).map(|(address, _)| *address).collect()
}

fn resolve_place(place: &Place, machine: &Machine) -> Vec<Address> {
    let mut bridge = None;
    let mut found = Vec::new();
    for (depth, hop) in place.hops.iter().enumerate() {
        let is_there = |address: &Address, device: &Device| {
            let above = if depth == 0 {
                (address.domain, address.bus) == (place.domain, place.bus)
            } else {
                device.parent == bridge
            };
            above && is_at(*address, *hop)
        };
        found = machine
            .devices
            .iter()
            .filter(|(address, device)| is_there(address, device))
            .map(|(address, _)| *address)
            .collect();
        bridge = found.first().copied();
        if bridge.is_none() {
            break;
        }
    }
    found
}

fn is_at(address: Address, hop: Hop) -> bool {
    address.device == hop.device && hop.function.is_none_or(|function| address.function == function)
}

fn targets(request: &Request, machine: &Machine, driver: &str) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut index_of = BTreeMap::new();
    for item in &request.items {
        let found = resolve(item, machine);
        if found.is_empty() {
            let decision = Decision::Absent { remedy: absent_remedy(item, request, machine) };
            let warnings = Vec::new();
            targets.push(Target { item: item.text.clone(), device: None, decision, warnings });
        }
        let mismatch = guard_mismatch(item, machine);
        for address in found {
            let device = &machine.devices[&address];
            let decision = match &mismatch {
                Some(refusal) => refusal.clone(),
                None => decide(device, machine, driver),
            };
            let refused = matches!(decision, Decision::Refuse { .. });
            let target = Target {
                item: item.text.clone(),
                device: Some((address, device.clone())),
                warnings: if refused { Vec::new() } else { hints(address, device, item) },
                decision,
            };
            match index_of.get(&address) {
                None => {
                    index_of.insert(address, targets.len());
                    targets.push(target);
                }
                // The device is listed twice: in doubt it stays with the host, and a guard in
                // either item is a guard.
                Some(&at) if refused => targets[at] = target,
                Some(&at) if item.guard.is_some() => targets[at].warnings = target.warnings,
                Some(_) => {}
            }
        }
    }
    targets
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

fn where_now(guard: Id, machine: &Machine) -> String {
    let now: Vec<_> = matching(guard, machine).iter().map(Address::to_string).collect();
    if now.is_empty() {
        return format!("{guard} is nowhere on this machine");
    }
    format!("{guard} is now at {}", now.join(", "))
}

/// A guard is for the device at that place; in a slot, for its lowest function.
fn guard_mismatch(item: &Item, machine: &Machine) -> Option<Decision> {
    let guard = item.guard?;
    let (Choice::Place(place) | Choice::Group(place)) = &item.choice else { return None };
    let address = *resolve_place(place, machine).first()?;
    let found = machine.devices[&address].id;
    (!guard.matches(&found)).then(|| Decision::Refuse {
        reason: format!("the guard wants {guard}, but {address} is {found}"),
        remedy: format!("{}; correct the item", where_now(guard, machine)),
    })
}

fn decide(device: &Device, machine: &Machine, driver: &str) -> Decision {
    if device.class.is_pci_bridge() {
        return Decision::Refuse {
            reason: format!("class {} is a PCI bridge, which vfio-pci does not take", device.class),
            remedy: "list the devices behind it instead".to_owned(),
        };
    }
    if device.group.is_none() {
        return no_group(machine.iommu);
    }
    Decision::Take { driver: driver.to_owned() }
}

fn no_group(iommu: Iommu) -> Decision {
    let (reason, remedy) = match iommu {
        Iommu::Works => (
            "the IOMMU works, but the kernel left this device out of it",
            "for an Intel graphics device add intel_iommu=on to the kernel command line",
        ),
        Iommu::NoTable => (
            "no IOMMU: ACPI has neither a DMAR (Intel) nor an IVRS (AMD) table",
            "turn on VT-d (Intel), or AMD-Vi, also called IOMMU or SVM (AMD), in the firmware",
        ),
        Iommu::IntelOff => (
            "no IOMMU group: the machine has an Intel IOMMU (VT-d), but the kernel has it off",
            "add intel_iommu=on to the kernel command line and remove iommu=off",
        ),
        Iommu::AmdOff => (
            "no IOMMU group: the machine has an AMD IOMMU (AMD-Vi), but the kernel has it off",
            "remove amd_iommu=off and iommu=off from the kernel command line",
        ),
    };
    Decision::Refuse { reason: reason.to_owned(), remedy: remedy.to_owned() }
}

/// An address can name another device after cards were moved; for these that costs a disk or
/// the network.
fn hints(address: Address, device: &Device, item: &Item) -> Vec<String> {
    let kind = match device.class {
        class if class.is_storage() => "storage",
        class if class.is_network() => "network",
        _ => return Vec::new(),
    };
    if item.guard.is_some() || matches!(item.choice, Choice::Id(_)) {
        return Vec::new();
    }
    vec![format!(
        "a {kind} controller without a guard: write {}@{address}, so that another device at this \
         address is left alone",
        device.id
    )]
}

fn steps(targets: &[Target], machine: &Machine, driver: &str) -> Vec<Step> {
    let taken: Vec<_> = targets
        .iter()
        .filter(|target| matches!(target.decision, Decision::Take { .. }))
        .filter_map(|target| target.device.as_ref())
        .collect();
    let mut steps = Vec::new();
    if taken.is_empty() {
        return steps;
    }
    let unbound = || taken.iter().filter(|(_, device)| device.driver.as_deref() != Some(driver));
    // Also for a device that is bound already: it may have come there by its id alone.
    steps.extend(taken.iter().map(|(address, _)| Step::Override(*address, driver.to_owned())));
    if !machine.iommu_type1 {
        steps.push(Step::Load(IOMMU_TYPE1.to_owned()));
    }
    if !machine.drivers.iter().any(|there| there == driver) {
        steps.push(Step::Load(driver.to_owned()));
    }
    // After the modules, so that a host without them keeps what it has.
    steps.extend(
        unbound()
            .filter_map(|(address, device)| Some(Step::Unbind(*address, device.driver.clone()?))),
    );
    steps.extend(unbound().map(|(address, _)| Step::Probe(*address)));
    steps
}

/// One line a device that is not taken and one a step: what `--dry-run` prints.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Target { item, device, decision, .. } in &self.targets {
            let name = match device {
                Some((address, device)) => format!("{address} {}", device.id),
                None => item.clone(),
            };
            match decision {
                Decision::Take { .. } => {}
                Decision::Refuse { reason, remedy } => {
                    writeln!(f, "refuse {name}: {reason}; {remedy}")?;
                }
                Decision::Absent { remedy } => writeln!(f, "absent {name}: {remedy}")?,
            }
        }
        for step in &self.steps {
            match step {
                Step::Override(address, driver) => {
                    writeln!(f, "write {driver} to driver_override of {address}")?;
                }
                Step::Load(module) => writeln!(f, "load {module} with its dependencies")?,
                Step::Unbind(address, driver) => writeln!(f, "unbind {address} from {driver}")?,
                Step::Probe(address) => writeln!(f, "write {address} to drivers_probe")?,
            }
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}
