//! Chosen devices in the words of those who start VMs.

use super::{Availability, Entry, List, Place};
use crate::host::item::short;
use crate::keep;
use crate::pci::Address;

/// Who is to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `<hostdev>` elements of a domain.
    Libvirt,
    /// Arguments.
    Qemu,
    /// The list `devices` of the `NixOS` module.
    Nix,
    /// `permittedHostDevices`, by id.
    Kubevirt,
    /// Proxmox VE: `qm set`.
    Proxmox,
    /// `incus config device add`.
    Incus,
    /// Arguments.
    CloudHypervisor,
    /// Arguments.
    Crosvm,
}

/// Their names.
pub const FORMATS: [(&str, Format); 8] = [
    ("libvirt", Format::Libvirt),
    ("qemu", Format::Qemu),
    ("nix", Format::Nix),
    ("kubevirt", Format::Kubevirt),
    ("proxmox", Format::Proxmox),
    ("incus", Format::Incus),
    ("cloud-hypervisor", Format::CloudHypervisor),
    ("crosvm", Format::Crosvm),
];

/// A VM of Proxmox VE has room for so many (`$MAX_HOSTPCI_DEVICES` in `PVE/QemuServer/PCI.pm`).
const MOST_HOSTPCI: usize = 16;

/// Of more devices with one id only the number is told.
const MOST_NAMED: usize = 8;

/// What was printed, and what to say besides.
#[derive(Debug, Default)]
pub struct Handed {
    /// For standard output.
    pub text: String,
    /// What will be a problem.
    pub warnings: Vec<String>,
    /// Devices that were left out, and why.
    pub left_out: Vec<String>,
}

/// The chosen devices in that format; without filters, those that a vfio driver has, less what the
/// command line does not ask for, if it asks for any.
#[must_use]
pub fn hand_off(list: &List, format: Format, all: bool) -> Handed {
    let mut handed = Handed::default();
    let chosen = |entry: &&Entry| if all { entry.is_given() } else { entry.chosen };
    let mut chosen: Vec<_> = list.devices.iter().filter(chosen).collect();
    if all {
        for Entry { address, id, .. } in chosen.extract_if(.., |it| list.is_unasked(it)) {
            handed.warnings.push(format!(
                "{address} {id} is on a vfio driver, but vfio.devs= does not ask for it: name it if it \
                 is meant"
            ));
        }
    }
    let mut fit = Vec::new();
    // It was chosen with its group, as by group:01:00.0, and a VM can have the rest.
    let is_companion = |entry: &Entry| {
        let of_group = |other: &&Entry| other.group.is_some() && other.group == entry.group;
        let is_bridge = |entry: &Entry| entry.availability == Availability::Bridge;
        is_bridge(entry) && chosen.iter().any(|it| of_group(it) && !is_bridge(it))
    };
    for entry in chosen.iter().filter(|entry| !is_companion(entry)) {
        match why_not(entry, format) {
            Some(why) => handed.left_out.push(why),
            None => fit.push(*entry),
        }
    }
    if list.leaves_no_keyboard(&fit) {
        for entry in fit.extract_if(.., |entry| entry.keyboard) {
            handed.left_out.push(format!(
                "{}: the host would have no keyboard left ({}); if that is meant, vfio-early list has \
                 the item",
                entry.address,
                entry.inputs.join(", ")
            ));
        }
    }
    for entry in &fit {
        warn(&mut handed, entry, &chosen, &fit, format);
    }
    if fit.is_empty() {
        return handed;
    }
    if format == Format::Kubevirt {
        handed.warnings.extend(not_told_apart(&fit, list));
    }
    if format == Format::Proxmox {
        for entry in fit.drain(fit.len().min(MOST_HOSTPCI)..) {
            let why = format!("{}: a VM of Proxmox VE has at most 16 devices", entry.address);
            handed.left_out.push(why);
        }
    }
    let lines = |line: fn(usize, Address) -> String| {
        fit.iter().enumerate().map(|(index, entry)| line(index, entry.address)).collect()
    };
    handed.text = match format {
        Format::Libvirt => lines(|_, address| libvirt(address)),
        Format::Qemu => lines(|_, address| format!("-device vfio-pci,host={address}\n")),
        Format::Proxmox => {
            lines(|index, address| format!("qm set VMID -hostpci{index} {address}\n"))
        }
        Format::Incus => lines(incus),
        Format::CloudHypervisor => lines(|_, address| format!("--device path={FOLDER}{address}\n")),
        Format::Crosvm => lines(|_, address| format!("--vfio {FOLDER}{address}\n")),
        Format::Nix => nix(&fit, &list.record),
        Format::Kubevirt => kubevirt(&fit),
    };
    handed
}

/// Why it is left out.
fn why_not(entry: &Entry, format: Format) -> Option<String> {
    let Entry { address, .. } = entry;
    if entry.availability == Availability::Bridge {
        return Some(format!("{address} is a bridge, which no VM can have"));
    }
    if let Some(maker) = entry.made_by {
        return Some(format!("{address} is behind {maker}: no VM can have it without that"));
    }
    // Proxmox VE and Incus do not ask `bind`: they take a device from its driver when a VM starts. The
    // other formats are for this boot, in which `bind` refuses what is in use.
    if !matches!(format, Format::Nix | Format::Proxmox | Format::Incus) {
        return None;
    }
    if let Some(of) = entry.physical_function
        && format == Format::Nix
    {
        return Some(format!(
            "{address}, a virtual function of {}, is not there yet in the initrd: bind it when the \
             host has made it",
            short(of)
        ));
    }
    let usage = entry.in_use.as_ref().filter(|_| entry.lives_from)?;
    Some(format!(
        "{address}: the host uses it: {usage}; if it is meant, vfio-early list has the item"
    ))
}

fn warn(handed: &mut Handed, entry: &Entry, chosen: &[&Entry], fit: &[&Entry], format: Format) {
    let Entry { address, .. } = entry;
    if entry.availability == Availability::NoGroup {
        handed.warnings.push(format!("{address} has no IOMMU group: no VM can have it"));
    }
    if entry.availability == Availability::NotYet {
        handed.warnings.push(format!(
            "{address} has no IOMMU group yet: what shares it shows when it is bound"
        ));
    }
    if format != Format::Nix && !entry.is_given() {
        let on = entry.driver.as_deref().unwrap_or("no driver");
        handed.warnings.push(format!("{address} is on {on}: bind it before a VM starts"));
    }
    if format == Format::Nix && entry.boot_display && !entry.is_given() {
        handed.warnings.push(format!(
            "{address} is the boot display: vfio-early check tells whether the host keeps its \
             console without it; see vfio.console in vfio-early.cmdline(7)"
        ));
    }
    let is_in = |entries: &[&Entry], other| entries.iter().any(|entry| entry.address == other);
    let mut left = entry.shared_with.clone();
    left.retain(|other| !is_in(fit, *other));
    if !left.is_empty() {
        let hint = if left.iter().all(|other| is_in(chosen, *other)) {
            String::new()
        } else {
            format!("; group:{} chooses all of it", short(*address))
        };
        let left: Vec<_> = left.into_iter().map(short).collect();
        let left = left.join(", ");
        handed.warnings.push(format!(
            "{address} shares its IOMMU group with {left}: no host driver may have that while a VM \
             runs{hint}"
        ));
    }
}

fn libvirt(address: Address) -> String {
    let Address { domain, bus, device, function } = address;
    format!(
        "<hostdev mode='subsystem' type='pci' managed='no'>\n  <source>\n    <address \
         domain='{domain:#06x}' bus='{bus:#04x}' slot='{device:#04x}' function='{function:#x}'/>\n  \
         </source>\n</hostdev>\n"
    )
}

/// Of all devices.
const FOLDER: &str = "/sys/bus/pci/devices/";

/// Its name for the device is any, but not an address.
fn incus(_: usize, address: Address) -> String {
    let name = address.to_string().replace([':', '.'], "-");
    format!("incus config device add INSTANCE pci-{name} pci address={address}\n")
}

/// What `KubeVirt` cannot tell apart: it chooses by vendor and device alone, and knows a device by the
/// number of its group (`discoverPermittedHostPCIDevices()` and `NewPCIDevicePlugin()` in
/// `pkg/virt-handler/device-manager/pci_device.go`).
fn not_told_apart(fit: &[&Entry], list: &List) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, entry) in fit.iter().enumerate() {
        if fit[..index].iter().any(|before| before.id == entry.id) {
            continue;
        }
        let same: Vec<_> = list.ids.iter().filter(|other| other.id == entry.id).collect();
        let names = |places: &[&Place]| {
            let named = places.iter().take(MOST_NAMED).map(|it| it.address.to_string());
            let named = named.collect::<Vec<_>>().join(", ");
            match places.len().saturating_sub(MOST_NAMED) {
                0 => named,
                more => format!("{named} and {more} more"),
            }
        };
        if same.len() > 1 {
            let all = names(&same);
            warnings.push(format!(
                "{} is the id of {all}: a VM gets any of them that is on vfio-pci, as KubeVirt likes",
                entry.id
            ));
        }
        let mut groups: Vec<_> = same.iter().filter_map(|it| it.group).collect();
        groups.dedup();
        for group in groups {
            let of_group = |it: &&&Place| it.group == Some(group);
            let members: Vec<_> = same.iter().filter(of_group).copied().collect();
            if members.len() > 1 {
                let members = names(&members);
                warnings.push(format!(
                    "{members} have one id and one IOMMU group ({group}): they are one device to \
                     KubeVirt, and a VM gets one of them, which leaves the others idle"
                ));
            }
        }
    }
    warnings
}

/// Definitions for any module of the host's configuration. The initrd is not made on the host, so that
/// the record has to be written down.
fn nix(entries: &[&Entry], record: &[keep::Entry]) -> String {
    let items = entries.iter().filter_map(|entry| entry.item.clone()).collect::<Vec<_>>();
    let record: Vec<_> = record.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for (option, lines) in [("devices", items), ("keep", record)] {
        if lines.is_empty() {
            continue;
        }
        text.extend(["boot.initrd.vfio-early.", option, " = [\n"]);
        for line in lines {
            let line = line.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
            text.extend(["  \"", &line, "\"\n"]);
        }
        text.push_str("];\n");
    }
    text
}

/// For the object `KubeVirt`; one for each id, since a node's devices are chosen by it. The names
/// of the resources are made of the ids, so that they are the same on every node.
fn kubevirt(entries: &[&Entry]) -> String {
    let mut text = "permittedHostDevices:\n  pciHostDevices:\n".to_owned();
    for (index, entry) in entries.iter().enumerate() {
        if entries[..index].iter().any(|before| before.id == entry.id) {
            continue;
        }
        let id = entry.id.to_string();
        text.extend([
            "    - pciVendorSelector: \"",
            &id.to_ascii_uppercase(),
            "\"\n      resourceName: \"vfio-early/",
            &id.replace(':', "-"),
            "\"\n      externalResourceProvider: false\n",
        ]);
    }
    text
}
