//! What others may do while `bind` runs.

use std::fmt;

use vfio_early::kernel::Write;
use vfio_early::plan::is_vfio_driver;

use super::case::Case;
use super::world::World;
use crate::machine::Function;

/// One thing that somebody else does, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// udev, or an administrator, loads a module with what it needs: its driver registers and gets
    /// every free device that it matches.
    Load(&'static str),
    /// A device is there and announced; drivers cannot bind to it yet.
    Plug(String, (u16, u16)),
    /// `pci_bus_add_device()`: now they can.
    Settle(String),
    /// It is pulled.
    Unplug(String),
    /// A write to `drivers_probe`.
    Probe(String),
    /// A write to a driver's `bind`.
    Bind(String, String),
    /// An administrator takes a device from its driver.
    Unbind(String),
    /// Another tool writes `driver_override`; empty clears it.
    Override(String, &'static str),
    /// A file system on the disk is mounted.
    Mount(String),
    /// `vfio-early release`, or libvirt: the override cleared, the unbind from a vfio driver, the probe.
    Release(String),
    /// A VM opens the group of the device, and what it has of it.
    Open(String),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Load(module) => write!(f, "load {module}"),
            Act::Plug(address, (vendor, device)) => {
                write!(f, "plug {vendor:04x}:{device:04x} in at {address}")
            }
            Act::Settle(address) => write!(f, "let drivers bind to {address}"),
            Act::Unplug(address) => write!(f, "pull {address}"),
            Act::Probe(address) => write!(f, "probe {address}"),
            Act::Bind(driver, address) => write!(f, "bind {address} to {driver}"),
            Act::Unbind(address) => write!(f, "unbind {address}"),
            Act::Override(address, "") => write!(f, "clear the override of {address}"),
            Act::Override(address, name) => write!(f, "write {name} to the override of {address}"),
            Act::Mount(address) => write!(f, "mount the disk of {address}"),
            Act::Release(address) => write!(f, "release {address}"),
            Act::Open(address) => write!(f, "start a VM with {address}"),
        }
    }
}

fn store(attribute: impl Into<String>, value: &str) -> Write {
    Write::Store { attribute: attribute.into(), value: value.to_owned() }
}

/// What is possible now and would change something.
pub fn possible(case: &Case, world: &World) -> Vec<Act> {
    let fake = &world.fake;
    let mut acts = Vec::new();
    let coldplug = if world.claimed { case.coldplug } else { &[] };
    let loads = case.loads.iter().chain(coldplug);
    acts.extend(loads.filter(|module| !fake.is_loaded(module)).map(|module| Act::Load(module)));
    for (function, _) in &world.away {
        let is_free = !fake.devices().any(|device| device.address == function.address);
        // After a card has come, the kernel waits 100 ms before it first looks at it (PCI Express Base
        // Specification, "Conventional Reset"): not between two reads, nor while overrides are written.
        let pulled = world.away.iter().filter(|(other, _)| other.address == function.address);
        let is_late = pulled.filter_map(|(_, pulled)| *pulled).all(|pulled| pulled < world.slow);
        if is_free && is_late {
            acts.push(Act::Plug(function.address.clone(), function.id));
        }
    }
    for device in fake.devices().filter(|device| case.rival_at.contains(&device.address)) {
        let address = || device.address.to_owned();
        if !device.attachable {
            acts.push(Act::Settle(address()));
        }
        let is_mounted = world.mounted.contains(device.address);
        if case.pulls.contains(&device.address) && !is_mounted {
            acts.push(Act::Unplug(address()));
        }
        let is_given = device.driver.is_some_and(is_vfio_driver);
        let is_open = fake.is_open(device.address);
        if case.releases && device.driver_override.is_some() && !is_open {
            acts.push(Act::Release(address()));
        }
        if case.releases && is_given && !is_open {
            acts.push(Act::Open(address()));
        }
        match device.driver {
            Some(_) if is_mounted || is_open => {}
            Some(driver) => {
                acts.push(Act::Unbind(address()));
                if case.disks.contains(&driver) {
                    acts.push(Act::Mount(address()));
                }
            }
            None => {
                let matches = |driver: &&str| fake.would_match(driver, device.address);
                // The first that matches is the one that a probe gives.
                for (index, driver) in fake.drivers().filter(matches).enumerate() {
                    acts.push(match index {
                        0 => Act::Probe(address()),
                        _ => Act::Bind(driver.to_owned(), address()),
                    });
                }
            }
        }
        for &value in case.overrides {
            if device.driver_override.unwrap_or_default() != value {
                acts.push(Act::Override(address(), value));
            }
        }
    }
    acts
}

/// Does it.
pub fn perform(act: &Act, world: &mut World) {
    let fake = &mut world.fake;
    match act {
        Act::Load(module) => fake.load(module),
        Act::Plug(address, id) => {
            let is_it = |f: &Function| f.address == *address && f.id == *id;
            let place = world.away.iter().position(|(function, _)| is_it(function));
            fake.add_device(world.away.remove(place.expect("it can come")).0);
            world.uevents += 1;
        }
        Act::Settle(address) => {
            fake.settle(address);
            world.uevents += 1;
        }
        Act::Unplug(address) => {
            let function = fake.remove_device(address);
            world.away.push((function, Some(world.slow)));
        }
        Act::Probe(address) => fake.answer(&store("bus/pci/drivers_probe", address)).unwrap(),
        Act::Bind(driver, address) => {
            fake.answer(&store(format!("bus/pci/drivers/{driver}/bind"), address)).unwrap();
        }
        Act::Unbind(address) => {
            let driver = fake.driver(address).expect("it has one");
            fake.answer(&store(format!("bus/pci/drivers/{driver}/unbind"), address)).unwrap();
        }
        Act::Override(address, value) => {
            let value = if value.is_empty() { "\n" } else { value };
            let attribute = format!("bus/pci/devices/{address}/driver_override");
            fake.answer(&store(attribute, value)).unwrap();
        }
        Act::Mount(address) => world.mount(address),
        Act::Release(address) => {
            let attribute = format!("bus/pci/devices/{address}/driver_override");
            fake.answer(&store(attribute, "\n")).unwrap();
            if let Some(driver) = fake.driver(address).filter(|driver| is_vfio_driver(driver)) {
                fake.answer(&store(format!("bus/pci/drivers/{driver}/unbind"), address)).unwrap();
            }
            fake.answer(&store("bus/pci/drivers_probe", address)).unwrap();
        }
        Act::Open(address) => fake.open(address),
    }
}
