//! PCI devices of a virtual machine, and where they sit.
//!
//! One description serves two sides: QEMU's arguments, and a temporary sysfs tree for the fake
//! kernel. [`Topology::functions`] says what a guest will show: addresses with the bus numbers
//! that the firmware gives, ids, classes, IOMMU groups.

use std::collections::BTreeMap;

use crate::machine::models::{self, Kind, Model, Own, Q35};

/// The machine's IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Iommu {
    /// `intel-iommu`: a DMAR table, and nothing among the PCI devices.
    #[default]
    Intel,
    /// `amd-iommu`: an IVRS table, and a PCI function in the first free slot.
    Amd,
    /// None: no table, no groups.
    None,
}

/// The class of an AMD IOMMU's own function.
const AMD_IOMMU: u32 = 0x08_0600;

/// Arguments for QEMU without which an `nvme` has no virtual functions.
pub(crate) const SUBSYSTEM: [&str; 2] = ["-device", "nvme-subsys,id=subsystem"];

/// One emulated device function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub model: &'static Model,
    /// QEMU's id, by which devices below a bridge name it.
    pub id: String,
    /// Id of the bridge that it sits below; none: the root bus.
    pub below: Option<String>,
    /// Device number on its bus.
    pub slot: u8,
    /// Function number in its slot.
    pub function: u8,
    /// Further properties for QEMU, `key=value`.
    pub options: Vec<String>,
    /// It is not there at power-on, but plugged in later.
    pub hot_added: bool,
}

impl Device {
    /// A device on the root bus, at `slot.function` in hexadecimal: `Device::new("e1000e", "03.0")`.
    ///
    /// # Panics
    /// When the model is not in [`models::MODELS`], or the place is not a place: such a table is
    /// wrong.
    #[must_use]
    pub fn new(model: &str, place: &str) -> Self {
        let model = models::find(model)
            .unwrap_or_else(|| panic!("{model} is no known device model: add it to models.rs"));
        let (slot, function) = parse_place(place)
            .unwrap_or_else(|| panic!("{place} is no place: two hex digits, a dot, 0 to 7"));
        Self {
            model,
            id: default_id(slot, function),
            below: None,
            slot,
            function,
            options: Vec::new(),
            hot_added: false,
        }
    }

    /// Names it, for devices below it; by default `d` and its place, such as `d030`.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// Puts it below the bridge of that name.
    #[must_use]
    pub fn below(mut self, bridge: &str) -> Self {
        // The same place exists on every bus; a name that was given stays.
        if self.id == default_id(self.slot, self.function) {
            self.id = format!("{bridge}-{}", self.id);
        }
        self.below = Some(bridge.to_owned());
        self
    }

    /// Adds a property for QEMU, `key=value`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Lets an `nvme` show two virtual functions; the machine needs the device
    /// `nvme-subsys` of the id `subsystem` for it.
    #[must_use]
    pub fn virtual_functions(self) -> Self {
        // Each gets its share of queues and vectors.
        self.option("subsys=subsystem")
            .option("sriov_max_vfs=2")
            .option("sriov_vq_flexible=4")
            .option("sriov_vi_flexible=2")
            .option("max_ioqpairs=6")
            .option("msix_qsize=7")
    }

    /// Leaves it out at power-on; it is plugged in while the binary waits.
    #[must_use]
    pub fn hot_added(mut self) -> Self {
        self.hot_added = true;
        self
    }

    /// Everything that QEMU is told of it, in order; `driver` comes first.
    #[must_use]
    pub fn properties(&self, multifunction: bool) -> Vec<(String, String)> {
        let mut properties = vec![
            ("driver".to_owned(), self.model.name.to_owned()),
            ("id".to_owned(), qemu_id(&self.id)),
            ("bus".to_owned(), self.below.as_deref().map_or("pcie.0".to_owned(), qemu_id)),
            ("addr".to_owned(), format!("{:02x}.{}", self.slot, self.function)),
        ];
        let mut put = |key: &str, value: String| properties.push((key.to_owned(), value));
        if multifunction {
            put("multifunction", "on".to_owned());
        }
        if self.model.rom {
            put("romfile", String::new());
        }
        if self.model.name == "nvme" {
            put("serial", self.id.clone());
        }
        if self.model.kind == Kind::RootPort {
            // Physical slots must differ between ports, chassis and slot together.
            put("chassis", (u16::from(self.slot) * 8 + u16::from(self.function)).to_string());
        }
        for option in &self.options {
            let (key, value) = option.split_once('=').unwrap_or((option, "on"));
            put(key, value.to_owned());
        }
        properties
    }
}

/// QEMU crashes on an id that is the name of a property.
pub(crate) fn qemu_id(id: &str) -> String {
    format!("x-{id}")
}

fn default_id(slot: u8, function: u8) -> String {
    format!("d{slot:02x}{function}")
}

fn parse_place(place: &str) -> Option<(u8, u8)> {
    let (slot, function) = place.split_once('.')?;
    let slot = u8::from_str_radix(slot, 16).ok().filter(|slot| *slot < 32)?;
    let function = function.parse().ok().filter(|function| *function < 8)?;
    Some((slot, function))
}

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
    /// Its devices, without those that `q35` has of itself.
    pub devices: Vec<Device>,
    /// Its IOMMU.
    pub iommu: Iommu,
    /// Whether the IOMMU remaps interrupts, without which giving devices away is not safe.
    pub interrupt_remapping: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Self { devices: Vec::new(), iommu: Iommu::default(), interrupt_remapping: true }
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
        if self.iommu == Iommu::Intel {
            device(&mut arguments, format!("intel-iommu,intremap={remapping}"));
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
        let mut functions: Vec<Function> = Q35.iter().map(own_function).collect();
        if self.iommu == Iommu::Amd {
            let taken: Vec<u8> = self.on_bus(None).iter().map(|device| device.slot).collect();
            let slot = (1..31).find(|slot| !taken.contains(slot)).unwrap_or(31);
            functions.push(Function {
                address: format!("0000:00:{slot:02x}.0"),
                // QEMU gives it no device id of its own, but that of its place.
                id: (0x1022, u16::from(slot) << 3),
                class: AMD_IOMMU,
                ..own_function(&Q35[0])
            });
        }
        self.walk(None, 0, &mut 0, None, &mut functions);
        functions.sort_by(|one, other| one.address.cmp(&other.address));
        self.group(&mut functions);
        functions
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
            if function.class == AMD_IOMMU {
                continue; // The IOMMU itself does no DMA.
            }
            let bridge = function.parent.as_ref().and_then(|parent| {
                functions[..index].iter().find(|other| other.address == *parent)
            });
            // A conventional bus hides who asks: all below the bridge are one with it.
            let shared = bridge.filter(|bridge| is_pci_bridge(bridge)).and_then(|it| it.group);
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
