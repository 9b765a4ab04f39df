//! What kind of machine this is, as far as a remedy depends on it. Read only where something is wrong.

use super::Sysfs;
use crate::cmdline::{self, Foreign};
use crate::console::Version;

/// Whose the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// This kernel's.
    #[default]
    Kernel,
    /// Xen's, and this is the domain that runs the host.
    XenHost,
    /// This kernel is a guest.
    Hypervisor,
    /// This is a container.
    Container,
}

/// Who made the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maker {
    /// Neither of the two, or not told.
    #[default]
    Other,
    /// Intel, whose IOMMU is VT-d.
    Intel,
    /// AMD, or Hygon, whose IOMMU is AMD-Vi.
    Amd,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Whose it is.
    pub owner: Owner,
    /// Who made its processors.
    pub maker: Maker,
    /// Who made it. Source: `sys_vendor` of DMI.
    pub vendor: String,
    /// The kernel's version.
    pub kernel: Version,
    /// What the kernel was told at its boot.
    pub booted: Foreign,
    /// The kernel's configuration; empty where it lies nowhere.
    config: String,
}

impl Platform {
    /// Whether the kernel has that option (`CONFIG_INTEL_IOMMU`), as a module or built in; `None` where
    /// it is not known.
    #[must_use]
    pub fn has(&self, option: &str) -> Option<bool> {
        let sets = |line: &str| line.strip_prefix(option).is_some_and(|rest| rest.starts_with('='));
        (!self.config.is_empty()).then(|| self.config.lines().any(sets))
    }
}

/// `XENFEAT_dom0` in `include/xen/interface/features.h`.
const XEN_HOST: u32 = 1 << 11;

impl Sysfs {
    /// Reads all of it.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let (maker, is_guest) = self.processor();
        let text = |path| self.text(path).unwrap_or_default();
        let release = self.kernel_release().unwrap_or_default();
        // Debian and Fedora; /proc/config.gz is packed.
        let config = self
            .text(format!("boot/config-{release}"))
            .or_else(|_| self.text(format!("lib/modules/{release}/config")));
        Platform {
            owner: self.owner(is_guest),
            maker,
            vendor: text("sys/class/dmi/id/sys_vendor").trim().to_owned(),
            kernel: self.kernel_version(),
            booted: cmdline::parse(&self.cmdline().unwrap_or_default()).foreign,
            config: config.unwrap_or_default(),
        }
    }

    /// Sources: what systemd, Docker and podman leave in a container, and Xen's features, which come in
    /// words of 32 bits, the last one first (`features_show()` in `drivers/xen/sys-hypervisor.c`).
    fn owner(&self, is_guest: bool) -> Owner {
        let marks = ["run/systemd/container", ".dockerenv", "run/.containerenv"];
        if marks.iter().any(|mark| self.is_there(mark)) {
            return Owner::Container;
        }
        let text = |path| self.text(path).unwrap_or_default();
        if text("sys/hypervisor/type").trim() == "xen" {
            let features = text("sys/hypervisor/properties/features");
            let last = features.trim();
            let last = last.get(last.len().saturating_sub(8)..).unwrap_or_default();
            let features = u32::from_str_radix(last, 16).unwrap_or(0);
            if features & XEN_HOST != 0 || text("proc/xen/capabilities").contains("control_d") {
                return Owner::XenHost;
            }
            return Owner::Hypervisor;
        }
        if is_guest { Owner::Hypervisor } else { Owner::Kernel }
    }

    /// Who made the processor, and whether it says that there is a hypervisor below. Source: the first
    /// of `/proc/cpuinfo` (x86).
    fn processor(&self) -> (Maker, bool) {
        let text = self.text("proc/cpuinfo").unwrap_or_default();
        let mut maker = Maker::Other;
        for line in text.lines() {
            let (name, value) = line.split_once(':').unwrap_or_default();
            match (name.trim_end(), value.trim_start()) {
                ("vendor_id", "GenuineIntel") => maker = Maker::Intel,
                ("vendor_id", "AuthenticAMD" | "HygonGenuine") => maker = Maker::Amd,
                ("flags", flags) => {
                    return (maker, flags.split(' ').any(|flag| flag == "hypervisor"));
                }
                _ => {}
            }
        }
        (maker, false)
    }
}
