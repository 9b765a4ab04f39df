//! Machines to boot the fake kernel on: from the VM harness' topologies, or by hand where QEMU
//! has no such device.

use nix::errno::Errno;
use qemu_tests::machine::topology::{self, Topology};
use qemu_tests::scenario::Scenario;
use qemu_tests::supplies::arch::Arch;

use crate::fake::Fake;
use crate::fake::modules::{Module, name_of};
use crate::fake::screen::Kind;

/// A line of kernels, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    V5_10,
    #[default]
    V6_1,
    V6_12,
    V7_2,
}

impl Line {
    pub const ALL: [Line; 4] = [Line::V5_10, Line::V6_1, Line::V6_12, Line::V7_2];

    /// The release that was measured.
    pub fn release(self) -> &'static str {
        match self {
            Line::V5_10 => "5.10.223",
            Line::V6_1 => "6.1.192",
            Line::V6_12 => "6.12.107",
            Line::V7_2 => "7.2.13",
        }
    }

    /// As the VM harness writes it.
    pub fn of(text: &str) -> Self {
        Line::ALL
            .into_iter()
            .find(|line| line.text() == text)
            .unwrap_or_else(|| panic!("the fake kernel has no line {text}: add it to Line"))
    }

    pub fn text(self) -> &'static str {
        match self {
            Line::V5_10 => "5.10",
            Line::V6_1 => "6.1",
            Line::V6_12 => "6.12",
            Line::V7_2 => "7.2",
        }
    }
}

/// How a kernel has vfio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vfio {
    #[default]
    Modules,
    /// With vfio-pci and `vfio_iommu_type1`.
    BuiltIn,
    /// In modules, and with iommufd (`CONFIG_VFIO_GROUP=n`).
    WithoutGroups,
}

/// How a kernel learns of the IOMMU, and so when it makes groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// By a DMAR or IVRS table: at boot.
    #[default]
    AtBoot,
    /// By a device tree or an IORT table, as of an SMMU: when a device comes, and before Linux 6.15
    /// when a driver is first probed for it.
    OfDevices,
    /// A virtio-iommu, by a VIOT table or a device tree: the same, once its module is loaded.
    Virtio,
}

/// The host's driver of a function.
#[derive(Clone, Debug)]
pub struct HostDriver {
    pub driver: String,
    /// `None` where it is built in, and so has the function at power-on.
    pub module: Option<String>,
}

/// One PCI function.
#[allow(clippy::struct_excessive_bools)] // independent facts
#[derive(Clone, Debug)]
pub struct Function {
    pub address: String,
    pub id: (u16, u16),
    pub subsystem: (u16, u16),
    pub class: u32,
    /// A bridge's header, which vfio drivers refuse.
    pub bridge: bool,
    /// Folder below `/sys/devices`, without the function's own.
    pub above: String,
    pub group: Option<u32>,
    pub host: Option<HostDriver>,
    /// What a vfio driver's probe says for a reason of the device's own.
    pub refusal: Option<Errno>,
    /// The kernel's default VGA device.
    pub boot_vga: bool,
    /// Its option ROM is the copy at 0xc0000.
    pub rom_shadow: bool,
    /// The kernel can reset it alone.
    pub resets: bool,
    /// So many at most, if its driver makes them.
    pub virtual_functions: u8,
    /// The device that it is a virtual function of.
    pub of: Option<String>,
}

/// `/proc/cpuinfo` in a QEMU.
pub const GUEST: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor lm\n";

fn id(text: &str) -> (u16, u16) {
    let (vendor, device) = text.split_once(':').expect("an id is vendor:device");
    let number = |text| u16::from_str_radix(text, 16).expect("an id is hexadecimal");
    (number(vendor), number(device))
}

impl Function {
    /// On a root bus, in a group that has the number of its slot.
    pub fn new(address: &str, id_text: &str, class: u32) -> Self {
        let (bus, slot) = address.rsplit_once(':').expect("an address has a bus");
        let slot = slot.split_once('.').expect("an address has a function").0;
        Function {
            address: address.to_owned(),
            id: id(id_text),
            subsystem: (0, 0),
            class,
            bridge: class >> 8 == 0x0604,
            above: format!("pci{bus}"),
            group: u32::from_str_radix(slot, 16).ok(),
            host: None,
            refusal: None,
            boot_vga: false,
            rom_shadow: false,
            resets: false,
            virtual_functions: 0,
            of: None,
        }
    }

    pub fn virtual_functions(mut self, most: u8) -> Self {
        self.virtual_functions = most;
        self
    }

    pub fn boot_vga(mut self) -> Self {
        self.boot_vga = true;
        self.rom_shadow = true;
        self
    }

    pub fn rom_shadow(mut self) -> Self {
        self.rom_shadow = true;
        self
    }

    pub fn below(mut self, bridge: &Function) -> Self {
        self.above = bridge.folder();
        self
    }

    /// Below a root bus that sits in that folder of `/sys/devices`.
    pub fn in_folder(mut self, folder: &str) -> Self {
        folder.clone_into(&mut self.above);
        self
    }

    pub fn group(mut self, number: impl Into<Option<u32>>) -> Self {
        self.group = number.into();
        self
    }

    /// A host driver in a module of nearly the same name.
    pub fn host(mut self, driver: &str) -> Self {
        self.host = Some(HostDriver { driver: driver.to_owned(), module: Some(name_of(driver)) });
        self
    }

    /// A host driver that has it at power-on.
    pub fn built_in(mut self, driver: &str) -> Self {
        self.host = Some(HostDriver { driver: driver.to_owned(), module: None });
        self
    }

    pub fn refused_with(mut self, errno: Errno) -> Self {
        self.refusal = Some(errno);
        self
    }

    /// Below `/sys/devices`.
    pub fn folder(&self) -> String {
        format!("{}/{}", self.above, self.address)
    }
}

/// A machine before power-on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub functions: Vec<Function>,
    /// They are not there at power-on.
    pub hot_added: Vec<Function>,
    pub line: Line,
    pub vfio: Vfio,
    /// Name of the ACPI table that tells of an IOMMU.
    pub table: Option<&'static str>,
    /// Whether the kernel uses that IOMMU; without it there are no groups.
    pub iommu: bool,
    /// How the kernel comes to use it.
    pub told: Told,
    /// Whether the interrupt chips remap; `None` without `/proc/interrupts`.
    pub remapping: Option<bool>,
    /// Whether it is an Arm machine: one has other interrupt chips.
    pub arm: bool,
    pub command_line: String,
    /// In the initrd, besides vfio's.
    pub modules: Vec<Module>,
    pub left_out: Vec<String>,
    pub blacklisted: Vec<String>,
    /// The graphics device that the firmware's framebuffer is on, or `RAM`; `None` without a screen.
    pub firmware_on: Option<String>,
    /// How the kernel knows of that framebuffer.
    pub firmware_kind: Kind,
    /// Further files, with their paths below the root.
    pub files: Vec<(&'static str, &'static str)>,
}

impl Machine {
    pub fn new(functions: impl IntoIterator<Item = Function>) -> Self {
        Machine {
            functions: functions.into_iter().collect(),
            hot_added: Vec::new(),
            line: Line::default(),
            vfio: Vfio::default(),
            table: Some("DMAR"),
            iommu: true,
            told: Told::default(),
            remapping: Some(true),
            arm: false,
            command_line: String::new(),
            modules: Vec::new(),
            left_out: Vec::new(),
            blacklisted: Vec::new(),
            firmware_on: None,
            firmware_kind: Kind::default(),
            files: Vec::new(),
        }
    }

    pub fn file(mut self, path: &'static str, content: &'static str) -> Self {
        self.files.push((path, content));
        self
    }

    pub fn firmware_on(mut self, address: &str) -> Self {
        self.firmware_on = Some(address.to_owned());
        self
    }

    /// The framebuffer that it has stands in the device tree.
    pub fn by_device_tree(mut self) -> Self {
        self.firmware_kind = Kind::DeviceTree;
        self
    }

    pub fn function(&self, address: &str) -> &Function {
        let mut functions = self.functions.iter();
        functions
            .find(|function| function.address == address)
            .unwrap_or_else(|| panic!("the machine has no {address}"))
    }

    pub fn line(mut self, line: Line) -> Self {
        self.line = line;
        self
    }

    pub fn vfio(mut self, vfio: Vfio) -> Self {
        self.vfio = vfio;
        self
    }

    pub fn left_out(mut self, module: &str) -> Self {
        self.left_out.push(module.to_owned());
        self
    }

    /// As the administrator does with one of the host's.
    pub fn blacklisted(mut self, module: &str) -> Self {
        self.blacklisted.push(module.to_owned());
        self
    }

    pub fn module(mut self, module: Module) -> Self {
        self.modules.push(module);
        self
    }

    pub fn command_line(mut self, text: &str) -> Self {
        text.clone_into(&mut self.command_line);
        self
    }

    /// The driver of bridges to a conventional bus, built in.
    pub fn bridges_have(mut self, driver: &str) -> Self {
        for function in self.functions.iter_mut().filter(|it| it.bridge && it.host.is_none()) {
            *function = function.clone().built_in(driver);
        }
        self
    }

    /// As with an IOMMU that is off in the firmware (no table) or in the kernel.
    pub fn without_iommu(mut self, table: Option<&'static str>) -> Self {
        self.iommu = false;
        self.table = table;
        for function in &mut self.functions {
            function.group = None;
        }
        self
    }

    /// With an Arm SMMU.
    pub fn with_smmu(mut self) -> Self {
        (self.table, self.told, self.arm) = (Some("IORT"), Told::OfDevices, true);
        self
    }

    /// With a virtio-iommu, whose driver is in the initrd where the kernel has one.
    pub fn with_virtio_iommu(mut self) -> Self {
        (self.table, self.told, self.remapping) = (Some("VIOT"), Told::Virtio, Some(false));
        let has_driver = self.line >= Line::V6_12;
        self.modules.extend(has_driver.then(|| Module::new("virtio_iommu", &[])));
        self
    }

    /// The machine that QEMU would make of it.
    pub fn of(topology: &Topology) -> Self {
        let mut machine = Machine::new([]);
        let shown = topology.functions();
        for function in &shown {
            let number = function.group.map(|group| u32::try_from(group).expect("few groups"));
            let above = function.parent.as_ref().map(|parent| {
                let there = machine.functions.iter().find(|other| other.address == *parent);
                there.expect("a bridge comes before what is below it").folder()
            });
            let ours = Function {
                address: function.address.clone(),
                id: function.id,
                subsystem: function.subsystem,
                class: function.class,
                bridge: function.bridge,
                above: above.unwrap_or_else(|| format!("pci{}", &function.address[..7])),
                group: number,
                host: function.host_driver.map(|driver| HostDriver {
                    driver: driver.to_owned(),
                    module: function.host_module.map(str::to_owned),
                }),
                refusal: None,
                boot_vga: false,
                rom_shadow: false,
                resets: function.resets(),
                virtual_functions: 0,
                of: None,
            };
            if function.hot_added {
                machine.hot_added.push(ours);
            } else {
                machine.functions.push(ours);
            }
        }
        machine.arm = topology.arch == Arch::Arm64;
        if !machine.arm {
            machine.files.push(("proc/cpuinfo", GUEST));
        }
        machine.iommu = topology.iommu != topology::Iommu::None;
        machine.remapping = Some(machine.iommu && topology.interrupt_remapping);
        (machine.table, machine.told) = match topology.iommu {
            topology::Iommu::Intel => (Some("DMAR"), Told::AtBoot),
            topology::Iommu::Amd => (Some("IVRS"), Told::AtBoot),
            topology::Iommu::Virtio => (Some("VIOT"), Told::Virtio),
            topology::Iommu::Smmu => (Some("IORT"), Told::OfDevices),
            topology::Iommu::None => (None, Told::AtBoot),
        };
        if topology.iommu == topology::Iommu::Virtio {
            machine.remapping = Some(false);
            machine.modules.push(Module::new("virtio_iommu", &[]));
        }
        machine
    }

    /// The machine of a scenario, and its initrd.
    pub fn of_scenario(scenario: &Scenario, line: Line) -> Self {
        let mut machine = Machine::of(&scenario.topology).line(line);
        if scenario.iommu_off {
            let table = machine.table;
            machine = machine.without_iommu(table);
        }
        for function in machine.functions.iter_mut().chain(&mut machine.hot_added) {
            let Some(host) = &mut function.host else { continue };
            let built_in = |module: &mut String| scenario.built_in.contains(&module.as_str());
            host.module.take_if(built_in);
        }
        machine.left_out = scenario.left_out.iter().map(|&module| module.to_owned()).collect();
        machine.command_line.clone_from(&scenario.command_line);
        machine
    }

    /// The kernel as it is when the initrd's first program starts.
    pub fn boot(&self) -> Fake {
        Fake::boot(self)
    }
}

/// A host bridge, a graphics card with its audio function behind a root port, a USB controller, a
/// network card, a disk controller behind another port. No host driver is loaded yet.
pub fn desktop() -> Machine {
    let port = Function::new("0000:00:01.0", "8086:1901", 0x06_0400).built_in("pcieport");
    let other = Function::new("0000:00:1c.0", "8086:a110", 0x06_0400).built_in("pcieport");
    Machine::new([
        Function::new("0000:00:00.0", "8086:591f", 0x06_0000),
        Function::new("0000:01:00.0", "10de:1c03", 0x03_0200).below(&port).group(2).host("nouveau"),
        Function::new("0000:01:00.1", "10de:10f1", 0x04_0300)
            .below(&port)
            .group(2)
            .host("snd_hda_intel"),
        Function::new("0000:00:14.0", "8086:a12f", 0x0c_0330).host("xhci_hcd"),
        Function::new("0000:00:19.0", "8086:15b8", 0x02_0000).host("e1000e"),
        Function::new("0000:02:00.0", "144d:a808", 0x01_0802).below(&other).group(9).host("nvme"),
        port,
        other,
    ])
}
