//! A machine of twelve devices, put together by chance.

use crate::checks::soak::random::Random;
use crate::machine::topology::{Device, Iommu, Topology};

/// Devices that are no bridges, besides those that a `q35` has of itself.
pub const DEVICES: usize = 12;

/// What can sit on the root bus and below a root port.
const EXPRESS: &[&str] = &[
    "e1000e",
    "e1000e",
    "nvme",
    "nvme",
    "qemu-xhci",
    "qemu-xhci",
    "e1000",
    "edu",
    "edu",
    "ich9-ahci",
    "virtio-rng-pci",
    "pci-serial",
    "intel-hda",
];

/// What can sit on a conventional bus.
const CONVENTIONAL: &[&str] = &["e1000", "e1000", "edu", "ich9-ahci", "pci-serial", "intel-hda"];

/// The kernels have four serial ports ready, of which the harness has two.
const SERIAL_PORTS: usize = 2;

/// The slots of the root bus that are given away; 1e stays empty, and 1f is the machine's own.
const SLOTS: std::ops::Range<u8> = 0x01..0x1e;

struct Builder<'r> {
    random: &'r mut Random,
    devices: Vec<Device>,
    /// Of the root bus.
    slots: Vec<u8>,
    /// Devices to come.
    left: usize,
    serial_ports: usize,
    iommu: Iommu,
}

/// The machine.
pub fn topology(random: &mut Random) -> Topology {
    let mut slots: Vec<u8> = SLOTS.collect();
    random.shuffle(&mut slots);
    let iommu = *random.of(&[Iommu::Intel, Iommu::Amd]);
    let (devices, left, serial_ports) = (Vec::new(), DEVICES, SERIAL_PORTS);
    let mut builder = Builder { random, devices, slots, left, serial_ports, iommu };
    while builder.left > 0 {
        builder.put_something();
    }
    let Builder { random, mut devices, .. } = builder;
    // QEMU wants bridges before what is below them, and else takes any order.
    random.shuffle(&mut devices);
    devices.sort_by_key(|device| depth(&device.id));
    let topology = Topology::new(devices).iommu(iommu);
    if random.once_in(6) { topology.without_interrupt_remapping() } else { topology }
}

/// Names are paths of names.
fn depth(id: &str) -> usize {
    id.matches('-').count()
}

impl Builder<'_> {
    fn put_something(&mut self) {
        let slot = self.slots.pop().expect("twelve devices need fewer slots than there are");
        match self.random.below(8) {
            0..3 => self.put_functions(None, slot, 1, EXPRESS),
            3 => {
                let functions = 2 + self.random.below(3);
                self.put_functions(None, slot, functions, EXPRESS);
            }
            4 | 5 => {
                let ports = 1 + self.random.below(2);
                for function in 0..ports {
                    let place = format!("{slot:02x}.{function}");
                    let port = self.put_bridge("pcie-root-port", &place, None);
                    let functions = 1 + self.random.below(3);
                    self.put_functions(Some(&port), 0, functions, EXPRESS);
                }
            }
            6 => self.put_conventional_bus(&format!("{slot:02x}.0"), None),
            _ => {
                let port = self.put_bridge("pcie-root-port", &format!("{slot:02x}.0"), None);
                self.put_conventional_bus("00.0", Some(&port));
            }
        }
    }

    /// Returns its name.
    fn put_bridge(&mut self, model: &str, place: &str, below: Option<&str>) -> String {
        let own = format!("n{}", place.replace('.', ""));
        let name = below.map_or(own.clone(), |below| format!("{below}-{own}"));
        let device = Device::new(model, place).named(&name);
        self.devices.push(match below {
            Some(below) => device.below(below),
            None => device,
        });
        name
    }

    fn put_conventional_bus(&mut self, place: &str, below: Option<&str>) {
        let bridge = self.put_bridge("pcie-pci-bridge", place, below);
        // Slot 0 of such a bus is the bridge's own hot-plug controller's.
        for slot in 1..=1 + self.random.below(3) {
            let slot = u8::try_from(slot).expect("a few");
            let functions = 1 + usize::from(self.random.once_in(4));
            self.put_functions(Some(&bridge), slot, functions, CONVENTIONAL);
        }
    }

    /// Fills a slot with so many functions, the first of which is 0, as far as there are devices
    /// left.
    fn put_functions(
        &mut self,
        below: Option<&str>,
        slot: u8,
        count: usize,
        models: &[&'static str],
    ) {
        let mut others: Vec<u8> = (1..8).collect();
        self.random.shuffle(&mut others);
        for function in [0].into_iter().chain(others).take(count.min(self.left)) {
            let model = match self.model(models) {
                // QEMU's amd-iommu takes DMA from behind a bridge for that of a device on the root
                // bus, and the kernel lets none of most of them through: nvme's probe fails.
                "nvme" if below.is_some() && self.iommu == Iommu::Amd => "edu",
                model => model,
            };
            let device = Device::new(model, &format!("{slot:02x}.{function}"));
            self.devices.push(match below {
                Some(below) => device.below(below),
                None => device,
            });
            self.left -= 1;
        }
    }

    fn model(&mut self, models: &[&'static str]) -> &'static str {
        let model = *self.random.of(models);
        if model != "pci-serial" {
            return model;
        }
        match self.serial_ports.checked_sub(1) {
            Some(left) => {
                self.serial_ports = left;
                model
            }
            None => "edu",
        }
    }
}

/// Modules of the host's drivers for these devices, each once.
#[must_use]
pub fn host_modules(topology: &Topology) -> Vec<&'static str> {
    let mut modules: Vec<&str> = topology.devices.iter().filter_map(|it| it.model.module).collect();
    modules.sort_unstable();
    modules.dedup();
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::models::{self, Kind};

    #[test]
    fn a_machine_has_twelve_devices_whatever_the_seed() {
        for seed in 0..500 {
            let topology = topology(&mut Random::new(seed));
            let is_endpoint = |device: &&Device| device.model.kind == Kind::Endpoint;
            assert_eq!(topology.devices.iter().filter(is_endpoint).count(), DEVICES, "{seed}");
            let mut places: Vec<_> = topology
                .devices
                .iter()
                .map(|device| (&device.below, device.slot, device.function))
                .collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), topology.devices.len(), "seed {seed}: two in one place");
        }
    }

    #[test]
    fn every_model_that_can_come_is_known() {
        for model in EXPRESS.iter().chain(CONVENTIONAL) {
            assert!(models::find(model).is_some(), "{model}");
        }
    }
}
