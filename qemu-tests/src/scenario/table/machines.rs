//! Machines that several scenarios have.

use crate::machine::topology::Device;
use crate::scenario::{Scenario, scenario};

const HOST: [&str; 3] = ["e1000e", "nvme", "xhci_pci"];

/// A network card, a disk controller and a USB controller, each in a slot of its own.
pub(super) fn desktop(name: &'static str) -> Scenario {
    scenario(name)
        .device("e1000e", "03.0")
        .device("nvme", "04.0")
        .device("qemu-xhci", "05.0")
        .host_modules(HOST)
}

/// A root port, to put things below.
pub(super) fn port(name: &str, place: &str) -> Device {
    Device::new("pcie-root-port", place).named(name)
}
