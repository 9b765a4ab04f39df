//! Whether a VM could have what vfio has, and if not, why: that a vfio driver has a device is not all
//! that a VM needs.

use std::collections::BTreeMap;

use crate::apply::Applied;
use crate::cmdline::Foreign;
use crate::console::Version;
use crate::pci::{Address, Class, Id};
use crate::plan::{Plan, is_vfio_driver, use_by_host};
use crate::remedy::{self, Cause, Sight, Why};
use crate::sysfs::{Device, IOMMU_TYPE1, IOMMUFD, Machine, Platform, Sysfs};

/// Since this kernel no driver but a [harmless](is_harmless) one may have a bridge of the group, either
/// (`iommu_group_claim_dma_owner()`); before, bridges did not count (`vfio_dev_viable()`).
const BRIDGES_COUNT: Version = Version { major: 5, minor: 19, patch: 0 };

/// Since this kernel memory that the firmware keeps is in the way with every IOMMU (`require_direct` in
/// `drivers/iommu/iommu.c`); before, with Intel's alone.
const MEMORY_COUNTS: Version = Version { major: 6, minor: 6, patch: 0 };

/// The option of [`IOMMU_TYPE1`] and of [`IOMMUFD`] that lets VMs start without remapped interrupts.
pub const ALLOW_UNSAFE: &str = "allow_unsafe_interrupts";

/// What it takes to judge.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// As it was read at first.
    pub machine: &'a Machine,
    /// What the kernel and its modules are told.
    pub foreign: &'a Foreign,
    /// The plan, where there is one.
    pub plan: Option<&'a Plan>,
    /// The devices that vfio has, or is going to have.
    pub given: &'a [Address],
    /// Whether a VM could use a group, by the kernel's own account, where that was asked.
    pub viable: &'a BTreeMap<u32, Option<bool>>,
    /// Whether modules that are still to be loaded let VMs start without remapped interrupts.
    pub unsafe_interrupts: bool,
    /// Why no VM can start, whatever devices it gets.
    pub no_interface: Option<&'a Why>,
}

/// Why no VM can have a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Of that group, or of any.
    pub obstacles: Vec<(Option<u32>, Why)>,
    /// What a VM that gets the device has to put up with.
    pub warnings: Vec<(Address, String)>,
}

impl Verdict {
    /// What keeps a device of that group on that driver from a VM; nothing where one can have it.
    #[must_use]
    pub fn obstacles(&self, group: Option<u32>, driver: &str) -> Vec<Why> {
        let mut obstacles = Vec::new();
        for (of, why) in &self.obstacles {
            if of.is_none() || *of == group {
                obstacles.push(why.clone());
            }
        }
        if !is_vfio_driver(driver) {
            obstacles.push(Why::new(
                format!("{driver} is no vfio driver"),
                "take vfio.driver= off the kernel command line",
            ));
        }
        obstacles
    }

    /// What is to be said of that device.
    pub fn warnings(&self, address: Address) -> impl Iterator<Item = String> {
        let warnings = self.warnings.iter().filter(move |(of, _)| *of == address);
        warnings.map(|(_, warning)| warning.clone())
    }
}

/// Whether that driver may have a member of a group that a VM has (`driver_managed_dma`).
#[must_use]
pub fn is_harmless(driver: &str) -> bool {
    is_vfio_driver(driver) || matches!(driver, "pci-stub" | "pcieport")
}

/// Looks at what the drivers of the given devices themselves do not tell.
#[must_use]
pub fn judge(question: &Question<'_>, sysfs: &Sysfs) -> Verdict {
    let Question { machine, given, .. } = question;
    let mut verdict = Verdict::default();
    let mut add = |group, why: Option<Why>| verdict.obstacles.extend(why.map(|why| (group, why)));
    if !given.is_empty() {
        add(None, question.no_interface.cloned());
    }
    if machine.interrupt_remapping == Some(false) && !given.is_empty() && !question.is_unsafe(sysfs)
    {
        let sight = Sight::of(question.foreign, &machine.platform);
        let by_firmware = machine.remaps_by_firmware;
        add(None, Some(remedy::why(Cause::Interrupts { by_firmware }, &sight, "")));
    }
    let is_without_iommu = sysfs.is_without_iommu();
    for (number, members) in &machine.groups {
        if !members.iter().any(|member| given.contains(member)) {
            continue;
        }
        if is_without_iommu && sysfs.is_noiommu_group(*number) {
            let why = Why::new(
                "it is with vfio without an IOMMU (vfio.enable_unsafe_noiommu_mode=1)",
                "that is for programs such as DPDK; a VM needs an IOMMU",
            );
            add(Some(*number), Some(why));
        } else {
            add(Some(*number), question.firmware_memory(*number, sysfs));
        }
        add(Some(*number), question.not_viable(*number, sysfs));
    }
    for address in *given {
        if let Some(device) = machine.devices.get(address) {
            question.split_card(*address, device, sysfs, &mut verdict.warnings);
        }
    }
    verdict
}

/// What to do about other members of a group, where it is not just to list them, too.
#[must_use]
pub fn advice(
    members: &[Address],
    machine: &Machine,
    plan: Option<&Plan>,
    sysfs: Option<&Sysfs>,
) -> Option<String> {
    let (mut used, mut listed) = (Vec::new(), Vec::new());
    for address in members {
        let Some(device) = machine.devices.get(address) else { continue };
        let known = use_by_host(device).map(str::to_owned);
        let asked = || sysfs?.usage(*address).filter(|usage| usage.by.is_lasting());
        let words = known.or_else(|| Some(asked()?.words));
        if let Some(words) = words {
            used.push(format!("{address} ({words})"));
        } else if plan.is_some_and(|plan| plan.targets.contains_key(address)) {
            listed.push(address.to_string());
        }
    }
    if !used.is_empty() {
        return Some(format!(
            "the host lives from {}: this slot cannot be given away on this board; another slot may \
             have a group of its own",
            used.join(" and ")
        ));
    }
    (!listed.is_empty())
        .then(|| format!("{} is listed, and stays with the host: see there", listed.join(" and ")))
}

impl<'a> Question<'a> {
    /// About what was done, or would be.
    #[must_use]
    pub fn of(
        machine: &'a Machine,
        plan: &'a Plan,
        applied: &'a Applied,
        given: &'a [Address],
        unsafe_interrupts: bool,
    ) -> Self {
        let (viable, no_interface) = (&applied.viable, applied.no_interface.as_ref());
        let (foreign, plan) = (&plan.foreign, Some(plan));
        Question { machine, foreign, plan, given, viable, unsafe_interrupts, no_interface }
    }

    fn is_unsafe(&self, sysfs: &Sysfs) -> bool {
        let allows = |module| sysfs.parameter(module, ALLOW_UNSAFE) == Some(true);
        // Where devices have files and groups have none, the other one is not asked.
        let by_type1 = || !sysfs.has_no_groups() && allows(IOMMU_TYPE1);
        self.unsafe_interrupts || allows(IOMMUFD) || by_type1()
    }

    fn firmware_memory(&self, group: u32, sysfs: &Sysfs) -> Option<Why> {
        let memory = sysfs.firmware_memory_of(group)?;
        if !sysfs.is_intel_iommu() && sysfs.kernel_version() < MEMORY_COUNTS {
            return None;
        }
        let platform = sysfs.platform();
        let reason = format!(
            "the firmware keeps memory for a device of its IOMMU group {group} ({memory}), which a VM \
             would cut off"
        );
        Some(remedy::why(Cause::FirmwareMemory, &Sight::of(self.foreign, &platform), &reason))
    }

    /// By whom a group cannot be a VM's now. Where the kernel says that it could, its members are not
    /// looked at.
    fn not_viable(&self, group: u32, sysfs: &Sysfs) -> Option<Why> {
        let viable = self.viable.get(&group).copied().flatten();
        if viable == Some(true) {
            return None;
        }
        let (mut found, mut addresses) = (Vec::new(), Vec::new());
        for (address, device) in self.machine.group(group) {
            // What a given device's driver made goes with that driver.
            let goes = device.made_by().is_some_and(|maker| self.given.contains(&maker));
            if goes || self.given.contains(&address) {
                continue;
            }
            let Ok(Some(driver)) = sysfs.driver(address) else { continue };
            let is_bridge = device.class.is_pci_bridge();
            if is_harmless(&driver) || is_bridge && sysfs.kernel_version() < BRIDGES_COUNT {
                continue;
            }
            found.push(format!("{driver} has {address} {}", device.id));
            addresses.push(address);
        }
        if found.is_empty() && viable.is_none() {
            return None;
        }
        if found.is_empty() {
            found.push("so the kernel says".to_owned());
        }
        let reason = format!("its IOMMU group {group} is not viable: {}", found.join(", "));
        let remedy = advice(&addresses, self.machine, self.plan, Some(sysfs)).unwrap_or_else(|| {
            "while a VM runs no driver of the host may have that; where the host can do without it, \
             list it, too"
                .to_owned()
        });
        Some(Why { reason, remedy })
    }

    /// Functions of one card are with different owners.
    fn split_card(
        &self,
        address: Address,
        device: &Device,
        sysfs: &Sysfs,
        warnings: &mut Vec<(Address, String)>,
    ) {
        let mut others = sysfs.other_functions(&device.folder, address);
        // Those in its group go with it, and a group of several can be reset as a whole.
        others
            .retain(|other| !self.given.contains(other) && sysfs.group_of(*other) != device.group);
        if others.is_empty() {
            return;
        }
        let others: Vec<_> = others.iter().map(Address::to_string).collect();
        let others = others.join(", ");
        if sysfs.reset_methods(address).is_some_and(|methods| methods.is_empty()) {
            let text = format!(
                "the kernel can reset it only together with {others}, which the host keeps: a VM gets \
                 it as the last one left it"
            );
            warnings.push((address, text));
        }
        if self.foreign.told("pcie_acs_override").next().is_some() {
            let text = format!(
                "pcie_acs_override= made its IOMMU group: nothing keeps a VM with it from {others}, \
                 which the host keeps"
            );
            warnings.push((address, text));
        }
    }
}

impl<'a> Sight<'a> {
    /// Of no device or module in particular.
    #[must_use]
    pub fn of(foreign: &'a Foreign, platform: &'a Platform) -> Sight<'a> {
        Sight { foreign, platform, id: Id::default(), class: Class(0), module: "" }
    }
}
