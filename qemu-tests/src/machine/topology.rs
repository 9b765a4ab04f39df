//! PCI devices of a virtual machine, and where they sit.
//!
//! One description serves two sides: QEMU's arguments, and a temporary sysfs tree for the fake
//! kernel. [`Topology::functions`] says what a guest will show: addresses with the bus numbers
//! that the firmware gives, ids, classes, IOMMU groups.

use std::collections::BTreeMap;

pub use super::device::Device;
pub(crate) use super::device::qemu_id;
pub use super::iommu::Iommu;
use crate::machine::models::{self, Kind, Own, Q35, VIRT};
use crate::machine::qemu;
use crate::supplies::arch::Arch;

/// The class of an AMD IOMMU's own function.
const AMD_IOMMU: u32 = 0x08_0600;

/// The id of a virtio-iommu.
const VIRTIO_IOMMU: (u16, u16) = (0x1af4, 0x1057);

/// Arguments for QEMU without which an `nvme` has no virtual functions.
pub(crate) const SUBSYSTEM: [&str; 2] = ["-device", "nvme-subsys,id=subsystem"];

/// One PCI function as the guest shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// `0000:01:00.0`.
    pub address: String,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Vendor and device of the subsystem.
    pub subsystem: (u16, u16),
    /// 24 bits, as in sysfs.
    pub class: u32,
    /// It has a bridge's header (type 1), so that vfio-pci refuses it.
    pub bridge: bool,
    /// Address of the bridge above; none on the root bus.
    pub parent: Option<String>,
    /// Functions of the same IOMMU group share this number; the kernel numbers differently. None
    /// without an IOMMU.
    pub group: Option<usize>,
    /// Its slot does not put it into a group with others.
    pub acs: bool,
    /// The host's driver for it, as the `driver` link names it.
    pub host_driver: Option<&'static str>,
    /// The module of that driver; none where it is built into every kernel.
    pub host_module: Option<&'static str>,
    /// It is not there at power-on.
    pub hot_added: bool,
    /// What a person calls it.
    pub title: &'static str,
}

impl Function {
    /// Whether the kernel can reset it alone, whatever else is in its slot.
    #[must_use]
    pub fn resets(&self) -> bool {
        models::MODELS.iter().any(|model| model.id == self.id && model.resets)
    }

    /// `8086:10d3`.
    #[must_use]
    pub fn id_text(&self) -> String {
        format!("{:04x}:{:04x}", self.id.0, self.id.1)
    }
}

/// An emulated machine's PCI devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Its devices, without those that the board has of itself.
    pub devices: Vec<Device>,
    /// Which decides about the board: `q35`, or `virt` for Arm.
    pub arch: Arch,
    /// Its IOMMU.
    pub iommu: Iommu,
    /// Whether interrupts are remapped, without which giving devices away is not safe: by the IOMMU, on
    /// Arm by the interrupt controller.
    pub interrupt_remapping: bool,
    /// Whether a device has its group only when a driver was first probed for it.
    pub groups_at_probe: bool,
    /// Whether ports keep apart what is below them (ACS), as they do unless the kernel learns of the
    /// IOMMU too late to turn it on: by a device tree before Linux 6.15.
    pub ports_keep_apart: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            arch: Arch::default(),
            iommu: Iommu::default(),
            interrupt_remapping: true,
            groups_at_probe: false,
            ports_keep_apart: true,
        }
    }
}

impl Topology {
    /// These devices with `intel-iommu`.
    #[must_use]
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Self {
        Self { devices: devices.into_iter().collect(), ..Self::default() }
    }

    /// The same machine with that IOMMU.
    #[must_use]
    pub fn iommu(mut self, iommu: Iommu) -> Self {
        self.iommu = iommu;
        self
    }

    /// The same machine, its IOMMU without interrupt remapping.
    #[must_use]
    pub fn without_interrupt_remapping(mut self) -> Self {
        self.interrupt_remapping = false;
        self
    }

    /// Arguments for QEMU: the IOMMU, and every device that is there at power-on.
    #[must_use]
    pub fn qemu_arguments(&self) -> Vec<String> {
        let remapping = if self.interrupt_remapping { "on" } else { "off" };
        let mut arguments = Vec::new();
        match self.iommu {
            Iommu::Intel => device(&mut arguments, format!("intel-iommu,intremap={remapping}")),
            Iommu::Virtio => {
                let slot = self.free_slot();
                device(&mut arguments, format!("virtio-iommu-pci,addr={slot:02x}"));
            }
            Iommu::Amd | Iommu::Smmu | Iommu::None => {}
        }
        for each in self.devices.iter().filter(|device| !device.hot_added) {
            let properties = each.properties(self.is_multifunction(each));
            let text = properties
                .iter()
                .map(|(key, value)| match key.as_str() {
                    "driver" => value.clone(),
                    _ => format!("{key}={value}"),
                })
                .collect::<Vec<_>>();
            device(&mut arguments, text.join(","));
        }
        // Its PCI function takes the first slot that is free, so it comes after the others.
        if self.iommu == Iommu::Amd {
            device(&mut arguments, format!("amd-iommu,intremap={remapping}"));
        }
        arguments
    }

    /// The board `virt`, for QEMU. Without interrupt remapping it has a controller whose messages any
    /// device can send (`GICv2m`).
    #[must_use]
    pub fn machine_options(&self) -> String {
        let gic = if self.interrupt_remapping { 3 } else { 2 };
        let iommu = if self.iommu == Iommu::Smmu { ",iommu=smmuv3" } else { "" };
        format!("virt,gic-version={gic}{iommu}")
    }

    /// Whether QEMU has to be told that the slot holds several functions.
    #[must_use]
    pub fn is_multifunction(&self, device: &Device) -> bool {
        self.devices
            .iter()
            .filter(|other| other.below == device.below && other.slot == device.slot)
            .count()
            > 1
    }

    /// Every function that a guest shows, in address order, hot-added ones included.
    ///
    /// Buses are numbered as the firmware numbers them: depth first, in the order of slots.
    #[must_use]
    pub fn functions(&self) -> Vec<Function> {
        let own = if self.arch == Arch::Amd64 { Q35 } else { VIRT };
        let mut functions: Vec<Function> = own.iter().map(own_function).collect();
        let slot = self.free_slot();
        let address = format!("0000:00:{slot:02x}.0");
        match self.iommu {
            Iommu::Amd => functions.push(Function {
                address,
                // Older ones of QEMU, as Debian 12's, give it none of its own, but that of its place.
                id: (0x1022, qemu::id_of_amd_iommu().unwrap_or(u16::from(slot) << 3)),
                class: AMD_IOMMU,
                ..own_function(&Q35[0])
            }),
            Iommu::Virtio => functions.push(Function {
                address,
                id: VIRTIO_IOMMU,
                class: 0x00_ff00,
                // Every kernel that has a driver for it has that built in.
                host_driver: Some("virtio-pci"),
                ..own_function(&Q35[0])
            }),
            Iommu::Intel | Iommu::Smmu | Iommu::None => {}
        }
        self.walk(None, 0, &mut 0, None, &mut functions);
        functions.sort_by(|one, other| one.address.cmp(&other.address));
        self.group(&mut functions);
        functions
    }

    /// The first slot of the root bus that no device has.
    fn free_slot(&self) -> u8 {
        let taken: Vec<u8> = self.on_bus(None).iter().map(|device| device.slot).collect();
        (1..31).find(|slot| !taken.contains(slot)).unwrap_or(31)
    }

    /// Address of the device with that id in QEMU.
    #[must_use]
    pub fn address(&self, id: &str) -> Option<String> {
        let wanted = self.devices.iter().find(|device| device.id == id)?;
        let mut buses = BTreeMap::new();
        self.number(None, 0, &mut 0, &mut buses);
        Some(address(*buses.get(&wanted.below)?, wanted))
    }

    fn on_bus(&self, bridge: Option<&str>) -> Vec<&Device> {
        let mut devices: Vec<&Device> =
            self.devices.iter().filter(|device| device.below.as_deref() == bridge).collect();
        devices.sort_by_key(|device| (device.slot, device.function));
        devices
    }

    fn number(
        &self,
        bridge: Option<&str>,
        bus: u8,
        last: &mut u8,
        buses: &mut BTreeMap<Option<String>, u8>,
    ) {
        buses.insert(bridge.map(str::to_owned), bus);
        for device in self.on_bus(bridge) {
            if device.model.kind != Kind::Endpoint {
                *last += 1;
                let below = *last;
                self.number(Some(&device.id), below, last, buses);
            }
        }
    }

    fn walk(
        &self,
        bridge: Option<&str>,
        bus: u8,
        last: &mut u8,
        parent: Option<&str>,
        functions: &mut Vec<Function>,
    ) {
        for device in self.on_bus(bridge) {
            let own = address(bus, device);
            // Below a port there is no legacy half.
            let modern = if parent.is_some() { device.model.modern } else { None };
            let (id, subsystem) = modern.unwrap_or((device.model.id, device.model.subsystem));
            functions.push(Function {
                address: own.clone(),
                id,
                subsystem,
                class: device.model.class,
                bridge: device.model.kind != Kind::Endpoint,
                parent: parent.map(str::to_owned),
                group: None,
                // What the kernel knows of Intel's chips is of those on a root bus
                // (`pci_quirk_rciep_acs()`).
                acs: device.model.acs && (parent.is_none() || device.model.kind != Kind::Endpoint),
                host_driver: device.model.driver,
                host_module: device.model.module,
                hot_added: device.hot_added,
                title: device.model.title,
            });
            if device.model.kind != Kind::Endpoint {
                *last += 1;
                let below = *last;
                self.walk(Some(&device.id), below, last, Some(&own), functions);
            }
        }
    }

    /// Gives every function its group, as the kernel's `pci_device_group` does.
    fn group(&self, functions: &mut [Function]) {
        if self.iommu == Iommu::None {
            return;
        }
        let is_pci_bridge = |function: &Function| function.id == (0x1b36, 0x000e);
        // In address order a bridge comes before what is below it.
        for index in 0..functions.len() {
            let function = &functions[index];
            if function.class == AMD_IOMMU || function.id == VIRTIO_IOMMU {
                continue; // The IOMMU itself does no DMA.
            }
            let bridge = function.parent.as_ref().and_then(|parent| {
                functions[..index].iter().find(|other| other.address == *parent)
            });
            // A conventional bus hides who asks: all below the bridge are one with it.
            let hides = |bridge: &&Function| !self.ports_keep_apart || is_pci_bridge(bridge);
            let shared = bridge.filter(hides).and_then(|it| it.group);
            // Functions of one slot can reach each other, unless ACS keeps them apart.
            let slot = |function: &Function| function.address[..10].to_owned();
            let sibling = functions[..index]
                .iter()
                .find(|other| slot(other) == slot(function) && !other.acs)
                .filter(|_| !function.acs)
                .and_then(|other| other.group);
            functions[index].group = shared.or(sibling).or(Some(index));
        }
    }
}

fn device(arguments: &mut Vec<String>, text: String) {
    arguments.extend(["-device".to_owned(), text]);
}

fn address(bus: u8, device: &Device) -> String {
    format!("0000:{bus:02x}:{:02x}.{}", device.slot, device.function)
}

fn own_function(own: &Own) -> Function {
    Function {
        address: own.address.to_owned(),
        id: own.id,
        subsystem: (0x1af4, 0x1100),
        class: own.class,
        bridge: false,
        parent: None,
        group: None,
        acs: false,
        host_driver: own.driver.map(|(driver, _)| driver),
        host_module: own.driver.map(|(_, module)| module),
        hot_added: false,
        title: "part of the machine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_of(topology: &Topology, address: &str) -> Option<usize> {
        let functions = topology.functions();
        functions.iter().find(|function| function.address == address).unwrap().group
    }

    #[test]
    fn buses_are_numbered_depth_first_in_the_order_of_slots() {
        let topology = Topology::new([
            Device::new("pcie-root-port", "04.0").named("late"),
            Device::new("edu", "00.0").below("late").named("last"),
            Device::new("pcie-root-port", "02.0").named("early"),
            Device::new("pcie-pci-bridge", "00.0").below("early").named("bridge"),
            Device::new("edu", "05.0").below("bridge").named("deep"),
        ]);
        for (id, address) in
            [("bridge", "0000:01:00.0"), ("deep", "0000:02:05.0"), ("last", "0000:03:00.0")]
        {
            assert_eq!(topology.address(id).as_deref(), Some(address));
        }
        let functions = topology.functions();
        let deep = functions.iter().find(|function| function.address == "0000:02:05.0").unwrap();
        assert_eq!(deep.parent.as_deref(), Some("0000:01:00.0"));
    }

    #[test]
    fn slots_and_conventional_buses_share_a_group() {
        let topology = Topology::new([
            Device::new("edu", "03.0"),
            Device::new("nvme", "03.1"),
            Device::new("edu", "04.0"),
            Device::new("pcie-pci-bridge", "05.0").named("bridge"),
            Device::new("e1000", "01.0").below("bridge"),
            Device::new("e1000", "02.0").below("bridge"),
            Device::new("e1000e", "06.0"),
            Device::new("edu", "06.1"),
            Device::new("pcie-root-port", "07.0").named("port"),
            Device::new("e1000e", "00.0").below("port"),
            Device::new("edu", "00.1").below("port"),
        ]);
        let group = |address| group_of(&topology, address);
        assert_eq!(group("0000:00:03.0"), group("0000:00:03.1"));
        assert_ne!(group("0000:00:03.0"), group("0000:00:04.0"));
        assert_eq!(group("0000:01:01.0"), group("0000:01:02.0"));
        assert_eq!(group("0000:01:01.0"), group("0000:00:05.0"));
        assert_ne!(group("0000:00:06.0"), group("0000:00:06.1"));
        assert_eq!(group("0000:02:00.0"), group("0000:02:00.1"));
    }

    #[test]
    fn an_amd_iommu_takes_the_first_free_slot_and_is_in_no_group() {
        let topology = Topology::new([Device::new("edu", "01.0"), Device::new("edu", "03.0")])
            .iommu(Iommu::Amd);
        assert_eq!(group_of(&topology, "0000:00:02.0"), None);
        assert!(topology.qemu_arguments().last().unwrap().starts_with("amd-iommu"));
    }

    #[test]
    fn a_device_that_comes_later_is_no_argument_of_qemu() {
        let topology = Topology::new([Device::new("edu", "01.0").hot_added()]);
        assert!(!topology.qemu_arguments().iter().any(|argument| argument.contains("edu")));
        assert!(topology.functions().iter().any(|function| function.hot_added));
    }
}
