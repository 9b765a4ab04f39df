//! The files of `/sys` and `/proc`, as the kernel would show them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::machine::{Function, Machine, Told};

/// A temporary root folder.
#[derive(Debug)]
pub struct Tree(TempDir);

/// `../` as often as it takes from a folder below `/sys` to `/sys`.
fn up(folder: &str) -> String {
    "../".repeat(folder.split('/').count())
}

/// As `modalias_show()` writes it.
fn modalias(function: &Function) -> String {
    let Function { id: (vendor, device), subsystem: (subvendor, subdevice), class, .. } = function;
    let (base, sub, interface) = (class >> 16, class >> 8 & 0xff, class & 0xff);
    format!(
        "pci:v{vendor:08X}d{device:08X}sv{subvendor:08X}sd{subdevice:08X}bc{base:02X}sc{sub:02X}\
         i{interface:02X}\n"
    )
}

/// `show_interrupts()`.
fn interrupts(arm: bool, remapping: bool) -> String {
    let lines = match (arm, remapping) {
        (false, true) => {
            "  0:  42   IO-APIC   2-edge  timer\n 24:  0   IR-PCI-MSI 442368-edge  PCIe PME"
        }
        (false, false) => {
            "  0:  42   IO-APIC   2-edge  timer\n 24:  0   PCI-MSI 442368-edge  PCIe PME"
        }
        // No device has an interrupt of its own yet.
        (true, true) => " 11:  738     GICv3  27 Level     arch_timer",
        (true, false) => " 11:  764 GIC-0  27 Level     arch_timer",
    };
    format!("           CPU0\n{lines}\nNMI:          0\n")
}

impl Tree {
    /// What is there at power-on, without devices and drivers.
    pub fn new(machine: &Machine) -> Self {
        let mut name = tempfile::Builder::new();
        name.prefix("vfio-early-fake-");
        // A test writes thousands of small files: in memory that is twenty times as fast.
        let root = name.tempdir_in("/dev/shm").or_else(|_| name.tempdir());
        let tree = Tree(root.expect("a temporary folder"));
        for folder in [
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers",
            "sys/class/iommu",
            "sys/devices",
            "sys/firmware/acpi/tables",
            "sys/kernel/iommu_groups",
            "sys/module",
        ] {
            tree.folder(folder);
        }
        tree.write("sys/bus/pci/drivers_probe", "");
        if let Some(table) = machine.table {
            tree.write(&format!("sys/firmware/acpi/tables/{table}"), table);
        }
        if machine.iommu && machine.told != Told::Virtio {
            tree.add_iommu(match (machine.told, machine.table) {
                (Told::AtBoot, Some("IVRS")) => "ivhd0",
                (Told::AtBoot, _) => "dmar0",
                _ => "smmu3.0x0000000009050000",
            });
        }
        tree.write("proc/cmdline", &format!("{}\n", machine.command_line));
        // As Debian has them: the patch level is only in the version.
        let release = format!("{}.0-fake-amd64\n", machine.line.text());
        tree.write("proc/sys/kernel/osrelease", &release);
        let version = format!("#1 SMP PREEMPT_DYNAMIC Debian {}-1\n", machine.line.release());
        tree.write("proc/sys/kernel/version", &version);
        if let Some(remapping) = machine.remapping {
            tree.write("proc/interrupts", &interrupts(machine.arm, remapping));
        }
        for (path, content) in &machine.files {
            tree.write(path, content);
        }
        tree
    }

    /// `iommu_device_sysfs_add()`.
    pub fn add_iommu(&self, name: &str) {
        self.folder(&format!("sys/class/iommu/{name}"));
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn folder(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
    }

    /// Makes the folders above it, too.
    pub fn write(&self, path: &str, content: &str) {
        let write = || fs::write(self.path(path), content);
        let mut result = write();
        if result.as_ref().is_err_and(|why| why.kind() == ErrorKind::NotFound)
            && let Some((folder, _)) = path.rsplit_once('/')
        {
            self.folder(folder);
            result = write();
        }
        result.unwrap_or_else(|why| panic!("{path}: {why}"));
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
    }

    pub fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
    }

    /// A link from one place below `/sys` to another.
    pub fn link_up(&self, path: &str, target: &str) {
        let (folder, _) = path.rsplit_once('/').expect("a link is in a folder");
        self.folder(&format!("sys/{folder}"));
        self.link(&format!("sys/{path}"), &format!("{}{target}", up(folder)));
    }

    /// A link, and the folder that it leads to.
    pub fn remove_linked(&self, path: &str) {
        let folder =
            fs::canonicalize(self.path(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
        fs::remove_dir_all(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        self.unlink(path);
    }

    pub fn unlink(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
    }

    /// The last part of a link's target.
    pub fn link_name(&self, path: &str) -> Option<String> {
        match fs::read_link(self.path(path)) {
            Ok(target) => Some(target.file_name()?.to_str()?.to_owned()),
            Err(why) if why.kind() == ErrorKind::NotFound => None,
            Err(why) => panic!("{path}: {why}"),
        }
    }

    pub fn add_device(&self, function: &Function) {
        let Function { address, id, subsystem, class, .. } = function;
        let folder = format!("devices/{}", function.folder());
        self.folder(&format!("sys/{folder}"));
        for (name, value) in [
            ("vendor", id.0),
            ("device", id.1),
            ("subsystem_vendor", subsystem.0),
            ("subsystem_device", subsystem.1),
        ] {
            self.write(&format!("sys/{folder}/{name}"), &format!("0x{value:04x}\n"));
        }
        self.write(&format!("sys/{folder}/class"), &format!("0x{class:06x}\n"));
        self.write(&format!("sys/{folder}/modalias"), &modalias(function));
        self.write_override(function, None);
        self.write(&format!("sys/{folder}/enable"), "0\n");
        self.write_uevent(function, None);
        if function.virtual_functions > 0 {
            for (name, value) in [
                ("totalvfs", function.virtual_functions),
                ("numvfs", 0),
                ("offset", 1),
                ("stride", 1),
                ("drivers_autoprobe", 1),
            ] {
                self.write(&format!("sys/{folder}/sriov_{name}"), &format!("{value}\n"));
            }
        }
        if function.resets {
            self.write(&format!("sys/{folder}/reset_method"), "pm\n");
        }
        if class >> 8 == 0x0300 {
            let boot_vga = u8::from(function.boot_vga);
            self.write(&format!("sys/{folder}/boot_vga"), &format!("{boot_vga}\n"));
        }
        // Six regions, then the expansion ROM.
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let rom = if function.rom_shadow {
            "0x00000000000c0000 0x00000000000dffff 0x0000000000000212\n"
        } else {
            none
        };
        self.write(&format!("sys/{folder}/resource"), &(none.repeat(6) + rom));
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../{folder}"));
    }

    /// `pci_iov_sysfs_link()`.
    pub fn link_function(&self, of: &str, number: u8, address: &str) {
        self.link(&format!("sys/bus/pci/devices/{of}/virtfn{number}"), &format!("../{address}"));
        self.link(&format!("sys/bus/pci/devices/{address}/physfn"), &format!("../{of}"));
    }

    /// `iommu_group_add_device()`.
    pub fn add_to_group(&self, function: &Function) {
        let Function { address, group, .. } = function;
        let folder = format!("devices/{}", function.folder());
        if let Some(group) = group {
            let groups = format!("kernel/iommu_groups/{group}");
            self.folder(&format!("sys/{groups}/devices"));
            self.link(&format!("sys/{groups}/devices/{address}"), &format!("../../../../{folder}"));
            self.link(&format!("sys/{folder}/iommu_group"), &format!("{}{groups}", up(&folder)));
        }
    }

    pub fn remove_device(&self, function: &Function) {
        let Function { address, group, .. } = function;
        self.unlink(&format!("sys/bus/pci/devices/{address}"));
        let link = |group: &u32| format!("sys/kernel/iommu_groups/{group}/devices/{address}");
        if let Some(group) = group.filter(|group| self.path(&link(group)).is_symlink()) {
            self.unlink(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"));
        }
        let folder = self.path("sys/devices").join(function.folder());
        fs::remove_dir_all(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    }

    /// As `pci_uevent()` and `dev_uevent()` write it.
    fn write_uevent(&self, function: &Function, driver: Option<&str>) {
        let Function { address, id, subsystem, class, .. } = function;
        let ((vendor, device), (subvendor, subdevice)) = (id, subsystem);
        let driver = driver.map_or(String::new(), |driver| format!("DRIVER={driver}\n"));
        let modalias = modalias(function);
        self.write(
            &format!("sys/devices/{}/uevent", function.folder()),
            &format!(
                "{driver}PCI_CLASS={class:04X}\nPCI_ID={vendor:04X}:{device:04X}\n\
                 PCI_SUBSYS_ID={subvendor:04X}:{subdevice:04X}\nPCI_SLOT_NAME={address}\n\
                 MODALIAS={modalias}"
            ),
        );
    }

    pub fn write_override(&self, function: &Function, name: Option<&str>) {
        let path = format!("sys/devices/{}/driver_override", function.folder());
        self.write(&path, &format!("{}\n", name.unwrap_or("(null)")));
    }

    /// `driver_sysfs_add()`.
    pub fn link_driver(&self, function: &Function, driver: &str) {
        let folder = format!("devices/{}", function.folder());
        let drivers = format!("bus/pci/drivers/{driver}");
        self.link(&format!("sys/{folder}/driver"), &format!("{}{drivers}", up(&folder)));
        self.link(
            &format!("sys/{drivers}/{}", function.address),
            &format!("{}{folder}", up(&drivers)),
        );
        self.write_uevent(function, Some(driver));
    }

    /// `driver_sysfs_remove()`.
    pub fn unlink_driver(&self, function: &Function, driver: &str) {
        self.unlink(&format!("sys/devices/{}/driver", function.folder()));
        self.unlink(&format!("sys/bus/pci/drivers/{driver}/{}", function.address));
        self.write_uevent(function, None);
    }

    pub fn add_driver(&self, driver: &str, module: Option<&str>) {
        let folder = format!("sys/bus/pci/drivers/{driver}");
        self.folder(&folder);
        for attribute in ["bind", "unbind", "new_id", "remove_id", "uevent"] {
            self.write(&format!("{folder}/{attribute}"), "");
        }
        if let Some(module) = module {
            self.folder(&format!("sys/module/{module}/drivers"));
            self.link(
                &format!("sys/module/{module}/drivers/pci:{driver}"),
                &format!("../../../bus/pci/drivers/{driver}"),
            );
            self.link(&format!("{folder}/module"), &format!("../../../../module/{module}"));
        }
    }

    pub fn add_module(&self, module: &str) {
        let folder = format!("sys/module/{module}");
        self.write(&format!("{folder}/initstate"), "live\n");
        let parameters: &[(&str, &str)] = match module {
            // There is `ids`, too, which nobody may read.
            "vfio_pci" => &[("disable_idle_d3", "N"), ("disable_vga", "N")],
            "vfio_iommu_type1" => &[("allow_unsafe_interrupts", "N")],
            _ => &[],
        };
        for (name, value) in parameters {
            self.write(&format!("{folder}/parameters/{name}"), &format!("{value}\n"));
        }
    }

    /// The classes that the module makes.
    pub fn add_classes_of(&self, module: &str, groups: bool) {
        match module {
            "vfio" => {
                self.folder("sys/class/vfio-dev");
                if groups {
                    self.folder("sys/class/vfio");
                }
            }
            "iommufd" => self.folder("sys/class/misc/iommu"),
            _ => {}
        }
    }

    /// Every file below the root with its content, every link with its target.
    pub fn everything(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut folders = vec![self.root().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of the tree") {
                let path = entry.expect("an entry of the tree").path();
                let name = path.strip_prefix(self.root()).expect("below the root");
                let name = name.display().to_string();
                if path.is_symlink() {
                    let target = fs::read_link(&path).expect("a link of the tree");
                    found.push((name, format!("-> {}", target.display())));
                } else if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((name, fs::read_to_string(&path).expect("a file of the tree")));
                }
            }
        }
        found.sort();
        found
    }
}
