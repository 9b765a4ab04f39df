//! The machines that rules are asked on.

use crate::machine::topology::{Device, Iommu, Topology};

/// Plain endpoints that no driver is for.
pub(super) const EDU: &str = "0000:00:03.0";
pub(super) const SECOND_EDU: &str = "0000:00:04.0";
/// A network card, of e1000e.
pub(super) const NIC: &str = "0000:00:05.0";
/// Serial ports; their driver is built in.
pub(super) const SERIAL: &str = "0000:00:06.0";
pub(super) const SECOND_SERIAL: &str = "0000:00:07.0";
/// Two functions in one slot and one group: one that no driver is for, and one of e1000.
pub(super) const PAIR: &str = "0000:00:08.0";
pub(super) const PAIR_NIC: &str = "0000:00:08.1";
/// A bridge to a conventional bus, and two endpoints on that in the bridge's group.
pub(super) const BRIDGE: &str = "0000:00:09.0";
pub(super) const BEHIND: &str = "0000:02:01.0";
pub(super) const ALSO_BEHIND: &str = "0000:02:02.0";
/// A root port without ACS, and an endpoint below it in the port's group.
pub const PORT: &str = "0000:00:02.0";
/// See [`PORT`].
pub const BELOW_PORT: &str = "0000:01:00.0";
/// An endpoint that the IOMMU does not see.
pub const NO_GROUP: &str = "0000:41:01.0";
pub(super) const NOBODY: &str = "0000:00:1d.0";

/// The machine of [`Place::Plain`](super::rule::Place::Plain).
#[must_use]
pub fn plain() -> Topology {
    Topology::new([
        Device::new("pcie-root-port", "02.0").named("port").option("disable-acs=on"),
        Device::new("edu", "00.0").below("port"),
        Device::new("edu", "03.0"),
        Device::new("edu", "04.0"),
        Device::new("e1000e", "05.0"),
        Device::new("pci-serial", "06.0"),
        Device::new("pci-serial", "07.0"),
        Device::new("edu", "08.0"),
        Device::new("e1000", "08.1"),
        Device::new("pcie-pci-bridge", "09.0").named("bridge"),
        Device::new("e1000", "01.0").below("bridge"),
        Device::new("e1000", "02.0").below("bridge"),
    ])
}

/// Arguments for QEMU besides: [`NO_GROUP`], on a root bus of its own; and no ACPI slots below
/// bridges, which would keep shpchp away.
pub(super) const PLAIN: &[&str] = &[
    "-device",
    "pxb-pcie,id=apart,bus_nr=64,bus=pcie.0,addr=0a.0,bypass_iommu=on",
    "-device",
    "pcie-pci-bridge,id=apart-bridge,bus=apart,addr=00.0,msi=off",
    "-device",
    "edu,bus=apart-bridge,addr=01.0",
    "-global",
    "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
];

/// The machine of [`Place::Guest`](super::rule::Place::Guest), with a virtio-iommu.
#[must_use]
pub fn guest() -> Topology {
    let devices = [
        Device::new("edu", "03.0"),
        Device::new("edu", "04.0"),
        Device::new("edu", "08.0"),
        Device::new("e1000", "08.1"),
    ];
    Topology::new(devices).iommu(Iommu::Virtio)
}

/// The graphics card that the firmware draws on.
pub const FIRST_CARD: &str = "0000:00:01.0";
/// Another one, on the same bus.
pub const SECOND_CARD: &str = "0000:00:05.0";
/// A display of class 0380.
pub(super) const NO_VGA: &str = "0000:00:06.0";
/// A third card, below a root port.
pub(super) const CARD_BELOW: &str = "0000:01:00.0";

/// The machine of [`Place::TwoCards`](super::rule::Place::TwoCards); UEFI firmware starts it.
#[must_use]
pub fn two_cards() -> Topology {
    Topology::new([
        Device::new("VGA", "01.0"),
        Device::new("pcie-root-port", "02.0").named("port"),
        Device::new("VGA", "00.0").below("port"),
        Device::new("VGA", "05.0"),
        Device::new("secondary-vga", "06.0"),
    ])
}
