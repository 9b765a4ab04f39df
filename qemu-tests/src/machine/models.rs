//! The PCI devices that QEMU emulates, as a guest sees them.
//!
//! A table of claims: the scenario "every model is what the table says" holds it against what
//! real kernels show.

/// What a function is to the PCI tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A device that a virtual machine can be given.
    Endpoint,
    /// A PCI Express port with one slot below it.
    RootPort,
    /// A bridge to a conventional bus: what is below shares the bridge's group.
    PciBridge,
}

/// One device model of QEMU.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// QEMU's name, for `-device`.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Vendor and device of the subsystem, as sysfs shows them.
    pub subsystem: (u16, u16),
    /// Class, subclass and programming interface, as in sysfs: 24 bits.
    pub class: u32,
    /// Endpoint or bridge.
    pub kind: Kind,
    /// The host's own driver, as the `driver` link names it.
    pub driver: Option<&'static str>,
    /// The kernel module of that driver.
    pub module: Option<&'static str>,
    /// Device and subsystem of a virtio device without its legacy half, that is, below a port.
    pub modern: Option<((u16, u16), (u16, u16))>,
    /// Functions of one slot cannot reach each other behind the IOMMU's back, by ACS or by what the
    /// kernel knows of the chip, so each is in a group of its own.
    pub acs: bool,
    /// The kernel can reset one function of it alone.
    pub resets: bool,
    /// It would bring an option ROM, which only costs time.
    pub rom: bool,
}

/// QEMU's default subsystem.
const QEMU: (u16, u16) = (0x1af4, 0x1100);

const fn endpoint(
    name: &'static str,
    title: &'static str,
    id: (u16, u16),
    class: u32,
    driver: &'static str,
    module: &'static str,
) -> Model {
    Model {
        name,
        title,
        id,
        subsystem: QEMU,
        class,
        kind: Kind::Endpoint,
        driver: Some(driver),
        module: Some(module),
        modern: None,
        acs: false,
        resets: false,
        rom: false,
    }
}

const fn network(
    name: &'static str,
    title: &'static str,
    id: (u16, u16),
    driver: &'static str,
) -> Model {
    Model { rom: true, ..endpoint(name, title, id, 0x02_0000, driver, driver) }
}

const fn virtio(
    name: &'static str,
    title: &'static str,
    legacy: (u16, u16),
    modern: u16,
    class: u32,
) -> Model {
    Model {
        subsystem: (0x1af4, legacy.1),
        modern: Some(((0x1af4, modern), QEMU)),
        ..endpoint(name, title, (0x1af4, legacy.0), class, "virtio-pci", "virtio_pci")
    }
}

const fn display(name: &'static str, title: &'static str, id: (u16, u16), class: u32) -> Model {
    Model { rom: true, ..endpoint(name, title, id, class, "bochs-drm", "bochs") }
}

const fn bridge(
    name: &'static str,
    title: &'static str,
    device: u16,
    kind: Kind,
    driver: Option<&'static str>,
) -> Model {
    Model {
        name,
        title,
        id: (0x1b36, device),
        subsystem: (0, 0),
        class: 0x06_0400,
        kind,
        driver,
        module: None,
        modern: None,
        acs: false,
        resets: false,
        rom: false,
    }
}

/// Every model that a [`Device`](crate::machine::topology::Device) can be.
pub static MODELS: &[Model] = &[
    Model {
        subsystem: (0x8086, 0x0000),
        acs: true,
        resets: true,
        ..network("e1000e", "Intel 82574L Gigabit Ethernet", (0x8086, 0x10d3), "e1000e")
    },
    network("e1000", "Intel 82540EM Gigabit Ethernet", (0x8086, 0x100e), "e1000"),
    Model {
        driver: None,
        module: None,
        ..endpoint("edu", "QEMU educational device", (0x1234, 0x11e8), 0x00_ff00, "", "")
    },
    Model {
        resets: true,
        ..endpoint("nvme", "QEMU NVMe controller", (0x1b36, 0x0010), 0x01_0802, "nvme", "nvme")
    },
    endpoint("ich9-ahci", "Intel ICH9 AHCI", (0x8086, 0x2922), 0x01_0601, "ahci", "ahci"),
    endpoint(
        "qemu-xhci",
        "QEMU USB 3 controller",
        (0x1b36, 0x000d),
        0x0c_0330,
        "xhci_hcd",
        "xhci_pci",
    ),
    endpoint(
        "intel-hda",
        "Intel ICH6 audio",
        (0x8086, 0x2668),
        0x04_0300,
        "snd_hda_intel",
        "snd_hda_intel",
    ),
    endpoint(
        "ich9-intel-hda",
        "Intel ICH9 audio",
        (0x8086, 0x293e),
        0x04_0300,
        "snd_hda_intel",
        "snd_hda_intel",
    ),
    // Its driver is built into every Debian kernel.
    Model {
        module: None,
        ..endpoint("pci-serial", "PCI serial port", (0x1b36, 0x0002), 0x07_0002, "serial", "")
    },
    virtio("virtio-rng-pci", "Virtio random numbers", (0x1005, 0x0004), 0x1044, 0x00_ff00),
    Model {
        rom: true,
        ..virtio("virtio-net-pci", "Virtio network card", (0x1000, 0x0001), 0x1041, 0x02_0000)
    },
    display("VGA", "QEMU graphics card", (0x1234, 0x1111), 0x03_0000),
    display("secondary-vga", "QEMU secondary display", (0x1234, 0x1111), 0x03_8000),
    Model {
        subsystem: (0x1b36, 0),
        acs: true,
        ..bridge("pcie-root-port", "PCIe root port", 0x000c, Kind::RootPort, Some("pcieport"))
    },
    bridge("pcie-pci-bridge", "PCIe to PCI bridge", 0x000e, Kind::PciBridge, None),
];

/// The model of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// A function that the machine `q35` has of itself.
#[derive(Debug)]
pub struct Own {
    /// Where it is.
    pub address: &'static str,
    /// Vendor and device.
    pub id: (u16, u16),
    /// 24 bits, as in sysfs.
    pub class: u32,
    /// The host's driver and its module.
    pub driver: Option<(&'static str, &'static str)>,
}

const fn own(
    address: &'static str,
    device: u16,
    class: u32,
    driver: Option<(&'static str, &'static str)>,
) -> Own {
    Own { address, id: (0x8086, device), class, driver }
}

/// The same of the machine `virt`.
pub static VIRT: &[Own] =
    &[Own { address: "0000:00:00.0", id: (0x1b36, 0x0008), class: 0x06_0000, driver: None }];

/// All of them.
pub static Q35: &[Own] = &[
    own("0000:00:00.0", 0x29c0, 0x06_0000, None),
    own("0000:00:1f.0", 0x2918, 0x06_0100, Some(("lpc_ich", "lpc_ich"))),
    own("0000:00:1f.2", 0x2922, 0x01_0601, Some(("ahci", "ahci"))),
    own("0000:00:1f.3", 0x2930, 0x0c_0500, Some(("i801_smbus", "i2c_i801"))),
];
