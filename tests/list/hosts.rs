//! Running hosts that `list` is shown on, made device by device.

use crate::fake::Fake;
use crate::machine::{Function, Machine};

/// Names of what is in these hosts, as in the `pci.ids` of a distribution.
const PCI_IDS: &str = include_str!("pci.ids");

/// One function: its place (below bridges as `00:01.0/01:00.0`), id, class, group, and driver, if
/// it has one.
pub type Row = (&'static str, &'static str, u32, u32, &'static str);

pub fn address(place: &str) -> String {
    let last = place.rsplit('/').next().expect("a place has a part");
    if last.matches(':').count() == 2 { last.to_owned() } else { format!("0000:{last}") }
}

/// Below `/sys/devices`: each root bus has a folder, also that of a domain that a device makes.
fn folder(place: &str) -> String {
    let mut folder = String::new();
    let mut above = None;
    for part in place.split('/').map(address) {
        let domain = part.split(':').next().expect("an address has a domain").to_owned();
        if above.as_ref() != Some(&domain) {
            let (bus, _) = part.rsplit_once(':').expect("an address has a bus");
            folder.extend(["pci", bus, "/"]);
        }
        folder.extend([&part, "/"]);
        above = Some(domain);
    }
    let (above, _) = folder.trim_end_matches('/').rsplit_once('/').expect("a root bus is above");
    above.to_owned()
}

/// Without a driver.
pub fn bare_function((place, id, class, group, _): &Row) -> Function {
    let function = Function::new(&address(place), id, *class).in_folder(&folder(place));
    function.group(*group)
}

fn function(row: &Row) -> Function {
    let (function, driver) = (bare_function(row), row.4);
    if driver.is_empty() { function } else { function.built_in(driver) }
}

fn host(rows: &[Row]) -> Machine {
    Machine::new(rows.iter().map(function))
}

fn boot(machine: &Machine) -> Fake {
    let fake = machine.boot();
    dress(&fake);
    fake
}

/// Files that every running host has.
pub fn dress(fake: &Fake) {
    fake.tree.write("usr/share/misc/pci.ids", PCI_IDS);
    for (file, text) in [
        ("proc/self/mountinfo", "1 1 0:2 / / rw - rootfs rootfs rw\n"),
        ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n"),
        ("proc/net/route", "Iface\tDestination\tGateway\n"),
        ("proc/net/if_inet6", ""),
    ] {
        fake.tree.write(file, text);
    }
}

impl Fake {
    /// A value in a device's folder.
    fn attribute(&self, place: &str, name: &str, value: &str) {
        let path = format!("sys/bus/pci/devices/{}/{name}", address(place));
        self.tree.write(&path, &format!("{value}\n"));
    }

    /// Methods in the order in which the kernel tries them.
    fn resets(&self, methods: &str, places: &[&str]) {
        for place in places {
            self.attribute(place, "reset_method", methods);
        }
    }

    /// Something of a class below a device, as `usb1/1-2/input/input3`.
    pub fn below(&self, place: &str, class: &str, path: &str) -> String {
        let name = path.rsplit('/').next().expect("a path has a name");
        let folder = format!("devices/{}/{}/{path}", folder(place), address(place));
        self.tree.folder(&format!("sys/{folder}"));
        self.tree.link_up(&format!("class/{class}/{name}"), &folder);
        format!("sys/{folder}")
    }

    pub fn input(&self, place: &str, path: &str, name: &str) {
        let folder = self.below(place, "input", path);
        self.tree.write(&format!("{folder}/name"), &format!("{name}\n"));
    }

    /// A disk that is mounted there.
    pub fn disk(&self, place: &str, path: &str, mounted: &str) {
        let folder = self.below(place, "block", path);
        self.tree.write(&format!("{folder}/dev"), "8:2\n");
        self.tree.folder(&format!("{folder}/holders"));
        self.tree.link_up("dev/block/8:2", folder.trim_start_matches("sys/"));
        let line = format!("22 1 8:2 / {mounted} rw - ext4 /dev/disk rw\n");
        self.tree.write("proc/self/mountinfo", &line);
    }

    /// A network link with an address.
    pub fn link(&self, place: &str, name: &str) {
        self.below(place, "net", &format!("net/{name}"));
        let line = format!("Iface\tDestination\n{name}\t0000A8C0\t00000000\n");
        self.tree.write("proc/net/route", &line);
    }
}

/// Two graphics cards: the processor's own has the host's screen, the other is for a VM.
pub fn desktop() -> Fake {
    let mut machine = host(&[
        ("00:00.0", "8086:3ec2", 0x06_0000, 0, ""),
        ("00:01.0", "8086:1901", 0x06_0400, 1, "pcieport"),
        ("00:01.0/01:00.0", "10de:1c03", 0x03_0000, 1, "nouveau"),
        ("00:01.0/01:00.1", "10de:10f1", 0x04_0300, 1, "snd_hda_intel"),
        ("00:02.0", "8086:3e92", 0x03_0000, 2, "i915"),
        ("00:14.0", "8086:a36d", 0x0c_0330, 3, "xhci_hcd"),
        ("00:14.2", "8086:a36f", 0x05_0000, 3, ""),
        ("00:17.0", "8086:a352", 0x01_0601, 4, "ahci"),
        ("00:1d.0", "8086:a330", 0x06_0400, 5, "pcieport"),
        ("00:1f.0", "8086:a305", 0x06_0100, 6, ""),
        ("00:1f.3", "8086:a348", 0x04_0300, 6, "snd_hda_intel"),
        ("00:1f.4", "8086:a323", 0x0c_0500, 6, "i801_smbus"),
        ("00:1f.5", "8086:a324", 0x0c_8000, 6, ""),
        ("00:1f.6", "8086:15bc", 0x02_0000, 6, "e1000e"),
        ("00:1d.0/02:00.0", "144d:a808", 0x01_0802, 7, "nvme"),
    ]);
    for function in &mut machine.functions {
        function.boot_vga = function.address == "0000:00:02.0";
    }
    let fake = boot(&machine.firmware_on("0000:00:02.0"));
    fake.resets("flr", &["00:02.0", "00:1f.6"]);
    fake.resets("pm bus", &["00:14.0"]);
    fake.resets("flr bus", &["02:00.0"]);
    fake.disk("00:17.0", "ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2", "/");
    fake.link("00:1f.6", "eno1");
    fake.input("00:14.0", "usb1/1-2/1-2:1.0/input/input3", "Logitech USB Receiver");
    fake.input("00:14.0", "usb1/1-2/1-2:1.1/input/input4", "Logitech USB Receiver Mouse");
    fake.input("00:14.0", "usb1/1-3/1-3:1.0/input/input5", "Cherry Keyboard");
    fake.input("00:1f.3", "sound/card0/input6", "HDA Intel PCH Headphone");
    fake
}

/// Two cards of one kind: the first drives the host, the second is with vfio-pci since the boot.
pub fn twins() -> Fake {
    let mut machine = host(&[
        ("00:00.0", "1022:1480", 0x06_0000, 0, ""),
        ("00:01.0", "1022:1482", 0x06_0000, 1, ""),
        ("00:01.1", "1022:1483", 0x06_0400, 2, "pcieport"),
        ("00:01.3", "1022:1483", 0x06_0400, 3, "pcieport"),
        ("00:01.1/01:00.0", "10de:2204", 0x03_0000, 4, "nouveau"),
        ("00:01.1/01:00.1", "10de:1aef", 0x04_0300, 4, "snd_hda_intel"),
        ("00:01.3/02:00.0", "10de:2204", 0x03_0000, 5, ""),
        ("00:01.3/02:00.1", "10de:1aef", 0x04_0300, 5, ""),
    ]);
    machine.table = Some("IVRS");
    for function in &mut machine.functions {
        function.boot_vga = function.address == "0000:01:00.0";
    }
    let mut fake = boot(&machine);
    let report = fake.bind("vfio.devs=10de:2204@00:01.3/00.0,10de:1aef@00:01.3/00.1");
    assert_eq!(report.exit_status, 0);
    fake
}

/// A laptop whose disks hide behind Intel's Volume Management Device, in a PCI domain of its own.
pub fn laptop() -> Fake {
    let vmd = "00:0e.0/10000:e0:06.0/10000:e1:00.0";
    let mut machine = host(&[
        ("00:00.0", "8086:9a14", 0x06_0000, 0, ""),
        ("00:02.0", "8086:9a49", 0x03_0000, 1, "i915"),
        ("00:07.0", "8086:9a23", 0x06_0400, 2, "pcieport"),
        ("00:0d.0", "8086:9a13", 0x0c_0330, 3, "xhci_hcd"),
        ("00:0d.2", "8086:9a1b", 0x0c_0340, 3, "thunderbolt"),
        ("00:0e.0", "8086:9a0b", 0x01_0400, 4, "vmd"),
        ("00:14.0", "8086:a0ed", 0x0c_0330, 5, "xhci_hcd"),
        ("00:14.2", "8086:a0ef", 0x05_0000, 5, ""),
        ("00:14.3", "8086:a0f0", 0x02_8000, 6, "iwlwifi"),
        ("00:1f.0", "8086:a082", 0x06_0100, 7, ""),
        ("00:1f.3", "8086:a0c8", 0x04_0100, 7, "snd_hda_intel"),
        ("00:0e.0/10000:e0:06.0", "8086:9a09", 0x06_0400, 4, "pcieport"),
        (vmd, "15b7:5006", 0x01_0802, 4, "nvme"),
    ]);
    for function in &mut machine.functions {
        function.boot_vga = function.address == "0000:00:02.0";
    }
    let fake = boot(&machine);
    fake.resets("flr pm", &["00:02.0", "00:14.0", "00:1f.3"]);
    fake.resets("flr", &["00:14.3"]);
    fake.resets("flr bus", &["10000:e1:00.0"]);
    fake.disk(vmd, "nvme/nvme0/nvme0n1/nvme0n1p2", "/");
    fake.link("00:14.3", "wlp0s20f3");
    fake.input("00:14.0", "usb3/3-5/3-5:1.0/input/input9", "Integrated Camera: Integrated C");
    fake
}

/// The chipset of an AMD board is one group, with all that hangs on it.
pub fn amd() -> Fake {
    let mut machine = host(&[
        ("00:00.0", "1022:1480", 0x06_0000, 0, ""),
        ("00:01.0", "1022:1482", 0x06_0000, 1, ""),
        ("00:01.3", "1022:1483", 0x06_0400, 2, "pcieport"),
        ("00:03.1", "1022:1483", 0x06_0400, 3, "pcieport"),
        ("00:07.1", "1022:1484", 0x06_0400, 4, "pcieport"),
        ("00:14.0", "1022:790b", 0x0c_0500, 5, "piix4_smbus"),
        ("00:14.3", "1022:790e", 0x06_0100, 5, ""),
        ("00:18.0", "1022:1440", 0x06_0000, 6, ""),
        ("00:18.1", "1022:1441", 0x06_0000, 6, ""),
        ("00:01.3/03:00.0", "1022:43d5", 0x0c_0330, 7, "xhci_hcd"),
        ("00:01.3/03:00.1", "1022:43c8", 0x01_0601, 7, "ahci"),
        ("00:01.3/03:00.2", "1022:43c6", 0x06_0400, 7, "pcieport"),
        ("00:01.3/03:00.2/20:00.0", "1022:43c7", 0x06_0400, 7, "pcieport"),
        ("00:01.3/03:00.2/20:04.0", "1022:43c7", 0x06_0400, 7, "pcieport"),
        ("00:01.3/03:00.2/20:08.0", "1022:43c7", 0x06_0400, 7, "pcieport"),
        ("00:01.3/03:00.2/20:09.0", "1022:43c7", 0x06_0400, 7, "pcieport"),
        ("00:01.3/03:00.2/20:00.0/22:00.0", "10ec:8168", 0x02_0000, 7, "r8169"),
        ("00:01.3/03:00.2/20:04.0/23:00.0", "10de:1c03", 0x03_0000, 7, "nouveau"),
        ("00:01.3/03:00.2/20:04.0/23:00.1", "10de:10f1", 0x04_0300, 7, "snd_hda_intel"),
        ("00:01.3/03:00.2/20:08.0/24:00.0", "144d:a808", 0x01_0802, 7, "nvme"),
        ("00:01.3/03:00.2/20:09.0/25:00.0", "8086:2723", 0x02_8000, 7, "iwlwifi"),
        ("00:01.3/03:00.2/20:09.0/25:00.1", "1b21:2142", 0x0c_0330, 7, "xhci_hcd"),
        ("00:03.1/26:00.0", "1002:1478", 0x06_0400, 8, "pcieport"),
        ("00:03.1/26:00.0/27:00.0", "1002:1479", 0x06_0400, 9, "pcieport"),
        ("00:03.1/26:00.0/27:00.0/28:00.0", "1002:731f", 0x03_0000, 10, "amdgpu"),
        ("00:03.1/26:00.0/27:00.0/28:00.1", "1002:ab38", 0x04_0300, 11, "snd_hda_intel"),
        ("00:07.1/2a:00.0", "1022:1485", 0x13_0000, 12, ""),
        ("00:07.1/2a:00.3", "1022:149c", 0x0c_0330, 13, "xhci_hcd"),
        ("00:07.1/2a:00.4", "1022:1487", 0x04_0300, 14, "snd_hda_intel"),
    ]);
    machine.table = Some("IVRS");
    for function in &mut machine.functions {
        function.boot_vga = function.address == "0000:28:00.0";
    }
    let fake = boot(&machine);
    fake.resets("pm", &["28:00.1", "2a:00.3"]);
    fake.resets("pm bus", &["22:00.0"]);
    fake.resets("flr bus", &["24:00.0", "25:00.0"]);
    fake.disk("00:01.3/03:00.1", "ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2", "/");
    fake.link("00:01.3/03:00.2/20:00.0/22:00.0", "enp34s0");
    fake.input("00:07.1/2a:00.3", "usb1/1-2/1-2:1.0/input/input3", "Gaming Mouse");
    fake
}

/// Two ports of a network card with 64 virtual functions each, most of them in VMs.
pub fn server() -> Fake {
    let mut machine = host(&[
        ("00:00.0", "8086:2020", 0x06_0000, 0, ""),
        ("3a:00.0", "8086:2030", 0x06_0400, 1, "pcieport"),
        ("3a:00.0/3b:00.0", "8086:1572", 0x02_0000, 2, "i40e"),
        ("3a:00.0/3b:00.1", "8086:1572", 0x02_0000, 3, "i40e"),
    ]);
    let port = machine.function("0000:3a:00.0").clone();
    for number in 0..128_u32 {
        let address = format!("0000:3b:{:02x}.{:x}", 2 + number / 8, number % 8);
        let function = Function::new(&address, "8086:154c", 0x02_0000).below(&port);
        machine.functions.push(function.group(100 + number).built_in("iavf"));
    }
    let fake = boot(&machine);
    for number in 0..128_u32 {
        let place = format!("3b:{:02x}.{:x}", 2 + number / 8, number % 8);
        let of = format!("../0000:3b:00.{}", number / 64);
        fake.tree.link(&format!("sys/bus/pci/devices/0000:{place}/physfn"), &of);
        fake.resets("flr", &[&place]);
    }
    for place in ["3b:00.0", "3b:00.1"] {
        fake.resets("flr bus", &[place]);
        fake.attribute(place, "sriov_numvfs", "64");
    }
    fake
}

/// Three disks of one id, two of them functions of a slot.
pub fn disks() -> Fake {
    boot(&host(&[
        ("40:01.0", "1022:1483", 0x06_0400, 1, "pcieport"),
        ("40:01.0/41:00.0", "144d:a80a", 0x01_0802, 2, ""),
        ("40:01.0/41:00.1", "144d:a80a", 0x01_0802, 2, ""),
        ("40:01.1", "1022:1483", 0x06_0400, 3, "pcieport"),
        ("40:01.1/42:00.0", "144d:a80a", 0x01_0802, 4, ""),
    ]))
}

/// VT-d is off on the kernel command line.
pub fn without_iommu() -> Fake {
    let machine = host(&[
        ("00:00.0", "8086:0c00", 0x06_0000, 0, ""),
        ("00:02.0", "8086:0412", 0x03_0000, 1, "i915"),
        ("00:14.0", "8086:8c31", 0x0c_0330, 2, "xhci_hcd"),
        ("00:1f.2", "8086:8c02", 0x01_0601, 3, "ahci"),
        ("00:19.0", "8086:ffff", 0xff_0000, 4, ""),
    ]);
    let fake = boot(&machine.without_iommu(Some("DMAR")));
    fake.attribute("00:14.0", "reset", "");
    fake.disk("00:1f.2", "ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1", "/");
    fake
}

/// A card whose virtual function has a bus of its own, as far as the bus number goes.
pub fn server_with_two_buses() -> Fake {
    boot(&host(&[
        ("3a:00.0", "8086:2030", 0x06_0400, 1, "pcieport"),
        ("3a:00.0/3b:00.0", "8086:1572", 0x02_0000, 2, "i40e"),
        ("3a:00.0/3c:00.0", "8086:154c", 0x02_0000, 3, "iavf"),
    ]))
}
