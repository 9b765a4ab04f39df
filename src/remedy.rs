//! Remedies: what is the matter, how it is seen on this machine, what to do. One table; pure.
//!
//! A remedy that does not look at the machine sends people to a firmware that has no such switch, or
//! has them add what is there already.

use serde::Serialize;

use crate::cmdline::Foreign;
use crate::pci::{Class, Id};
use crate::sysfs::{IOMMU_TYPE1, Iommu, Maker, Owner, Platform};

/// Why a device is not bound, or no VM can have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// What is the matter, with the errno where there was one.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Why {
    /// From two texts.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Why {
        Why { reason: reason.into(), remedy: remedy.into() }
    }
}

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A device has no IOMMU group.
    NoGroup(Iommu),
    /// The kernel does not keep the interrupts of devices apart.
    Interrupts {
        /// Whether the firmware can turn that on.
        by_firmware: bool,
    },
    /// The firmware keeps memory for a device, which it has to reach at the same address in a VM.
    FirmwareMemory,
    /// The firmware's framebuffer keeps a given card's memory.
    Framebuffer,
    /// vfio-pci's probe said EINVAL.
    Refused,
    /// A module is not there.
    NoModule,
    /// The kernel does not take a module.
    ModuleFails,
    /// `/sys` cannot be written.
    ReadOnly,
}

/// What a remedy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The command line.
    pub foreign: &'a Foreign,
    /// The machine.
    pub platform: &'a Platform,
    /// The device in question; zeros where it does not matter.
    pub id: Id,
    /// Its class.
    pub class: Class,
    /// The module in question.
    pub module: &'a str,
}

/// Each cause has its rows side by side, and the first that is seen counts; the last one of a cause is
/// seen always.
#[derive(Debug)]
pub struct Row {
    is_for: fn(Cause) -> bool,
    is_seen: fn(&Sight<'_>) -> bool,
    /// Empty where it is told by who asks.
    pub reason: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

fn is_no_group(cause: Cause) -> bool {
    matches!(cause, Cause::NoGroup(_))
}

fn is_off(cause: Cause) -> bool {
    matches!(cause, Cause::NoGroup(Iommu::IntelOff | Iommu::AmdOff))
}

fn is_left_out(cause: Cause) -> bool {
    cause == Cause::NoGroup(Iommu::Works)
}

fn always(_: &Sight<'_>) -> bool {
    true
}

/// vfio-pci's own list (`vfio_pci_dev_in_denylist()` in `drivers/vfio/pci/vfio_pci.c`): QAT, DSA, IAX.
const DENYLIST: [u16; 8] = [0x0435, 0x0443, 0x0b25, 0x0cfe, 0x19e2, 0x19e3, 0x37c8, 0x37c9];

const INTEL: u16 = 0x8086;

const INTEL_OFF: &str =
    "no IOMMU group: the machine has an Intel IOMMU (VT-d), but the kernel has it off";
const AMD_OFF: &str =
    "no IOMMU group: the machine has an AMD IOMMU (AMD-Vi), but the kernel has it off";
const LEFT_OUT: &str = "the IOMMU works, but the kernel left this device out of it";
const IN_THE_LOG: &str =
    "the kernel log tells why it is off (dmesg | grep -e DMAR -e AMD-Vi -e IOMMU)";

/// The table.
pub static ROWS: [Row; 38] = [
    Row {
        is_for: is_no_group,
        is_seen: |it| it.platform.owner == Owner::Container,
        reason: "no IOMMU group can be seen: this is a container",
        remedy: "run vfio-early on the host itself",
    },
    Row {
        is_for: is_no_group,
        is_seen: |it| it.platform.owner == Owner::XenHost,
        reason: "no IOMMU group: Xen has the IOMMU, and this is its host domain",
        remedy: "boot without Xen for vfio-pci, or have Xen give the device away \
                 (xen-pciback.hide=, then xl pci-attach)",
    },
    Row {
        is_for: |cause| is_off(cause) || is_left_out(cause),
        is_seen: |it| it.is_of_another_boot(),
        reason: "no IOMMU group under the command line of this boot, which is another one",
        remedy: "boot with this one, and check again",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::IntelOff),
        is_seen: |it| it.intel_iommu() == Some(false),
        reason: INTEL_OFF,
        remedy: "remove intel_iommu=off from the kernel command line",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::AmdOff),
        is_seen: |it| it.has("amd_iommu", "off"),
        reason: AMD_OFF,
        remedy: "remove amd_iommu=off from the kernel command line",
    },
    Row {
        is_for: is_off,
        is_seen: |it| it.has("iommu", "off"),
        reason: "no IOMMU group: the machine has an IOMMU, but iommu=off has the kernel leave it",
        remedy: "remove iommu=off from the kernel command line",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::IntelOff),
        is_seen: |it| it.platform.has("CONFIG_INTEL_IOMMU") == Some(false),
        reason: INTEL_OFF,
        remedy: "boot a kernel with CONFIG_INTEL_IOMMU, which this one is built without",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::IntelOff),
        is_seen: |it| it.intel_iommu() == Some(true),
        reason: "no IOMMU group: the machine has an Intel IOMMU (VT-d), which is off in spite of \
                 intel_iommu=on",
        remedy: IN_THE_LOG,
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::IntelOff),
        is_seen: always,
        reason: INTEL_OFF,
        remedy: "add intel_iommu=on to the kernel command line",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::AmdOff),
        is_seen: |it| it.platform.has("CONFIG_AMD_IOMMU") == Some(false),
        reason: AMD_OFF,
        remedy: "boot a kernel with CONFIG_AMD_IOMMU, which this one is built without",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::AmdOff),
        is_seen: always,
        reason: AMD_OFF,
        remedy: IN_THE_LOG,
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::NoTable),
        is_seen: |it| it.platform.owner == Owner::Hypervisor,
        reason: "no IOMMU: this is a guest, and its hypervisor gives it none",
        remedy: "give this guest one (QEMU: -device intel-iommu,intremap=on; libvirt: <iommu \
                 model='intel'/>)",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::NoTable),
        is_seen: |it| it.platform.maker == Maker::Intel,
        reason: "no IOMMU: ACPI has no DMAR table",
        remedy: "turn on VT-d in the firmware",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::NoTable),
        is_seen: |it| it.platform.maker == Maker::Amd,
        reason: "no IOMMU: ACPI has no IVRS table",
        remedy: "turn on AMD-Vi, also called IOMMU, in the firmware",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::NoTable),
        is_seen: always,
        reason: "no IOMMU: ACPI has neither a DMAR (Intel) nor an IVRS (AMD) table",
        remedy: "turn on VT-d (Intel), or AMD-Vi, also called IOMMU or SVM (AMD), in the firmware",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::GroupsAtProbe),
        is_seen: always,
        reason: "it has no IOMMU group yet: this kernel makes it when a driver is first probed for the \
                 device",
        remedy: "list it, and vfio-early has it made",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::PlatformOff),
        is_seen: always,
        reason: "no IOMMU group: the machine has an IOMMU (on Arm an SMMU), but no driver of this kernel \
                 has it",
        remedy: "boot a kernel with its driver built in (CONFIG_ARM_SMMU_V3, CONFIG_ARM_SMMU), and let \
                 nothing on the command line keep that off",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::VirtioOff),
        is_seen: always,
        reason: "no IOMMU group: the machine has a virtio-iommu, but no driver for it is here",
        remedy: "add virtio_iommu to the initrd, and virtio_pci where that is a module; a kernel without \
                 CONFIG_VIRTIO_IOMMU cannot give devices away here",
    },
    Row {
        is_for: |cause| cause == Cause::NoGroup(Iommu::NoPlatform),
        is_seen: always,
        reason: "no IOMMU: neither ACPI nor the device tree shows one (on Arm an SMMU)",
        remedy: "turn it on in the firmware, if the machine has one; a virtual machine gets it from its \
                 monitor",
    },
    Row {
        is_for: is_left_out,
        is_seen: |it| it.is_intel_display() && it.has("intel_iommu", "igfx_off"),
        reason: LEFT_OUT,
        remedy: "remove igfx_off from intel_iommu= on the kernel command line",
    },
    Row {
        is_for: is_left_out,
        is_seen: |it| it.is_intel_display() && it.intel_iommu().is_none(),
        reason: LEFT_OUT,
        remedy: "add intel_iommu=on to the kernel command line",
    },
    Row {
        is_for: is_left_out,
        is_seen: always,
        reason: LEFT_OUT,
        remedy: "the kernel log tells of what it leaves out (dmesg | grep -e DMAR -e AMD-Vi)",
    },
    Row {
        is_for: |cause| cause == REMAPPED,
        is_seen: |it| it.has("intremap", "off") || it.has("nointremap", ""),
        reason: INTERRUPTS,
        remedy: "remove intremap=off (or nointremap) from the kernel command line",
    },
    Row {
        is_for: |cause| cause == REMAPPED,
        is_seen: |it| it.platform.owner == Owner::Hypervisor,
        reason: INTERRUPTS,
        remedy: "have this guest's IOMMU remap them (QEMU: intremap=on), or, where every VM is \
                 trusted, add vfio_iommu_type1.allow_unsafe_interrupts=1 (for a VM that goes by \
                 iommufd: iommufd.allow_unsafe_interrupts=1)",
    },
    Row {
        is_for: |cause| cause == REMAPPED,
        is_seen: always,
        reason: INTERRUPTS,
        remedy: "turn interrupt remapping on in the firmware, or, where every VM is trusted, add \
                 vfio_iommu_type1.allow_unsafe_interrupts=1 (for a VM that goes by iommufd: \
                 iommufd.allow_unsafe_interrupts=1)",
    },
    Row {
        is_for: |cause| cause == Cause::Interrupts { by_firmware: false },
        is_seen: always,
        reason: "the kernel cannot keep the interrupts of devices apart here: the start of a VM fails \
                 with EPERM",
        remedy: "where every VM is trusted, add vfio_iommu_type1.allow_unsafe_interrupts=1 (for a VM \
                 that goes by iommufd: iommufd.allow_unsafe_interrupts=1)",
    },
    Row {
        is_for: |cause| cause == Cause::FirmwareMemory,
        is_seen: |it| matches!(&*it.platform.vendor, "HP" | "HPE"),
        reason: "",
        remedy: "exclude its slot from HPE's shared memory (RMRDS in conrep), or use another slot",
    },
    Row {
        is_for: |cause| cause == Cause::FirmwareMemory,
        is_seen: always,
        reason: "",
        remedy: "look in the firmware's settings for what manages this device (RMRR, shared memory, \
                 option ROM), or use another slot",
    },
    Row {
        is_for: |cause| cause == Cause::Framebuffer,
        is_seen: |it| it.has("initcall_blacklist", "sysfb_init"),
        reason: "",
        remedy: "/proc/iomem tells what has it in spite of initcall_blacklist=sysfb_init; a kernel \
                 without CONFIG_KALLSYMS does not follow that",
    },
    Row {
        is_for: |cause| cause == Cause::Framebuffer,
        is_seen: always,
        reason: "",
        remedy: "add initcall_blacklist=sysfb_init, which leaves the screen dark until a graphics \
                 driver of the host comes up",
    },
    Row {
        is_for: |cause| cause == Cause::Refused,
        is_seen: |it| is_denied(it.id) && !it.foreign.is_told("vfio_pci.disable_denylist"),
        reason: "",
        remedy: "vfio-pci has it on its denylist, as a danger to the host: where every VM is \
                 trusted, add vfio-pci.disable_denylist=1",
    },
    Row {
        is_for: |cause| cause == Cause::Refused,
        is_seen: always,
        reason: "",
        remedy: "a device without cache coherency, or on the denylist of this vfio-pci; see the \
                 kernel log (dmesg)",
    },
    Row {
        is_for: |cause| matches!(cause, Cause::NoModule | Cause::ModuleFails),
        is_seen: |it| it.foreign.is_blacklisted(it.module),
        reason: "",
        remedy: "take it off module_blacklist= on the kernel command line",
    },
    Row {
        is_for: |cause| cause == Cause::NoModule,
        is_seen: |it| it.module == IOMMU_TYPE1,
        reason: "",
        remedy: "add it to the initrd",
    },
    Row {
        is_for: |cause| cause == Cause::NoModule,
        is_seen: always,
        reason: "",
        remedy: "add it to the initrd, and vfio_iommu_type1 where the kernel has it",
    },
    Row {
        is_for: |cause| cause == Cause::ModuleFails,
        is_seen: always,
        reason: "",
        remedy: "see the kernel log (dmesg)",
    },
    Row {
        is_for: |cause| cause == Cause::ReadOnly,
        is_seen: |it| it.platform.owner == Owner::Container,
        reason: "",
        remedy: "this is a container: run vfio-early on the host itself",
    },
    Row {
        is_for: |cause| cause == Cause::ReadOnly,
        is_seen: always,
        reason: "",
        remedy: "/sys must be writable, and vfio-early run as root",
    },
];

const REMAPPED: Cause = Cause::Interrupts { by_firmware: true };

const INTERRUPTS: &str = "the kernel does not remap interrupts: the start of a VM fails with EPERM";

/// Whether vfio-pci has that device on its denylist.
#[must_use]
pub fn is_denied(id: Id) -> bool {
    id.vendor == INTEL && DENYLIST.contains(&id.device)
}

impl Sight<'_> {
    /// Whether a parameter has that part, as `igfx_off` in `intel_iommu=on,igfx_off`.
    fn has(&self, name: &str, part: &str) -> bool {
        self.foreign.told(name).any(|value| value.split(',').any(|it| it == part))
    }

    /// Whether `intel_iommu=` says on or off at last (`intel_iommu_setup()` in
    /// `drivers/iommu/intel/iommu.c`).
    fn intel_iommu(&self) -> Option<bool> {
        let mut last = None;
        for value in self.foreign.told("intel_iommu") {
            for part in value.split(',') {
                match part {
                    "on" => last = Some(true),
                    "off" => last = Some(false),
                    _ => {}
                }
            }
        }
        last
    }

    /// Whether the kernel was told otherwise of its IOMMU than this command line does.
    fn is_of_another_boot(&self) -> bool {
        let differs = |name: &&str| !self.foreign.told(name).eq(self.platform.booted.told(name));
        ["amd_iommu", "intel_iommu", "iommu"].iter().any(differs)
    }

    fn is_intel_display(&self) -> bool {
        self.id.vendor == INTEL && self.class.is_display()
    }
}

/// The row that holds.
#[must_use]
pub fn row(cause: Cause, sight: &Sight<'_>) -> Option<&'static Row> {
    ROWS.iter().find(|row| (row.is_for)(cause) && (row.is_seen)(sight))
}

/// Of the row that holds; with that reason, where the row has none.
#[must_use]
pub fn why(cause: Cause, sight: &Sight<'_>, reason: &str) -> Why {
    let Some(row) = row(cause, sight) else { return Why::new(reason, "") };
    let mut reason = if row.reason.is_empty() { reason } else { row.reason }.to_owned();
    if is_no_group(cause) && sight.foreign.is_told("vfio.enable_unsafe_noiommu_mode") {
        reason += " (vfio.enable_unsafe_noiommu_mode=1 is for programs such as DPDK: no VM can \
                   have a device by it)";
    }
    Why::new(reason, row.remedy)
}
