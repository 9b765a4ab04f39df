//! IOMMUs that are neither Intel's nor AMD's: an Arm machine's SMMU, by device tree and by ACPI, and a
//! virtio-iommu. That a VM can have the devices is shown by a program that does what a VM monitor does.

use crate::check::Boot;
use crate::check::trial::{self, Check, Trial};
use crate::machine::topology::{Device, Iommu, Topology};
use crate::machine::vm::Vm;
use crate::supplies::kernels::{ARM64, CLOUD_ARM64};

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    trial::boots(&all())
}

/// Of Arm machines.
const ARM: &[&str] = &[ARM64[0], ARM64[1], ARM64[2], CLOUD_ARM64[0], CLOUD_ARM64[1]];
/// One of those that are booted each time, and the others with all drivers.
const FULL: &[&str] = &[ARM64[0], ARM64[1], ARM64[2], CLOUD_ARM64[1]];
/// The kernels that have a driver of the virtio-iommu, on x86.
const VIRTIO: &[&str] = &["6.12", "7.2"];

const fn trial(
    name: &'static str,
    kernels: &'static [&'static str],
    machine: fn(Vm) -> Vm,
    expect: fn(&mut Check<'_>),
) -> Trial {
    Trial { programs: &["monitor"], ..Trial::new(name, kernels, machine, expect) }
}

fn all() -> Vec<Trial> {
    vec![
        trial("iommu: a VM monitor has what an SMMU is in front of", ARM, given, is_given),
        trial(
            "iommu: a VM monitor has what an SMMU is in front of, by ACPI",
            &ARM64,
            |machine| given(machine).uefi(),
            is_given,
        ),
        trial(
            "iommu: the driver of a virtio-iommu is loaded, and a VM monitor has the devices",
            VIRTIO,
            |machine| given(machine.iommu(Iommu::Virtio)).cmdline(UNSAFE),
            is_given,
        ),
        trial(
            "iommu: interrupts that a GICv2 cannot keep apart are told, and keep a VM from starting",
            FULL,
            without_isolation,
            is_not_isolated,
        ),
        trial("iommu: an SMMU without a driver is told", &ARM64, without_driver, has_no_driver),
        trial(
            "iommu: an SMMU without a driver is told, by ACPI",
            &ARM64,
            |machine| without_driver(machine).uefi(),
            has_no_driver,
        ),
        trial("iommu: an Arm machine without one is told so", &ARM64, without_any, has_none),
        trial(
            "iommu: an Arm machine without one is told so, by ACPI",
            &ARM64,
            |machine| without_any(machine).uefi(),
            has_none,
        ),
        trial(
            "iommu: a group item means what is known, and the next run takes the rest",
            &["6.12", ARM64[0], ARM64[1]],
            by_group,
            is_known_later,
        ),
    ]
}

const UNSAFE: &str = "vfio_iommu_type1.allow_unsafe_interrupts=1";

const CARDS: [&str; 4] = ["0000:00:03.0", "0000:00:04.0", "0000:00:05.0", "0000:00:06.0"];

fn monitor(addresses: &[&str]) -> String {
    format!("monitor {} 2>&1", addresses.join(" "))
}

/// A network card, a disk controller, a USB controller and a device that no driver is for; the host's
/// drivers come after the program, as by udev.
fn given(machine: Vm) -> Vm {
    let has_drivers = !CLOUD_ARM64.contains(&machine.kernel());
    let machine = machine
        .device("e1000e", "03.0")
        .device("nvme", "04.0")
        .device("qemu-xhci", "05.0")
        .device("edu", "06.0")
        .cmdline("vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0,00:06.0")
        .run(["bind"]);
    let machine = if has_drivers { machine.load(["e1000e", "nvme", "xhci_pci"]) } else { machine };
    machine.shell(&monitor(&CARDS)).run(["bind"])
}

fn is_given(check: &mut Check<'_>) {
    let mut run = check.of_run(1).exits(0);
    for card in CARDS {
        run = run.device(card, "bound", &[]).says(&[card, "bound to vfio-pci", ", group "]);
    }
    drop(run);
    let text = check.shell(1);
    for card in CARDS {
        check.is(text.contains(&format!("{card}: has it, by ")), format!("{card}: {text}"));
    }
    let mut run = check.of_run(2).exits(0);
    for card in CARDS {
        run = run.says(&[card, "bound to vfio-pci already, group "]);
    }
}

fn without_isolation(machine: Vm) -> Vm {
    let topology = Topology::new([Device::new("edu", "03.0")]).iommu(Iommu::Smmu);
    machine
        .topology(topology.without_interrupt_remapping())
        .cmdline("vfio.devs=00:03.0")
        .run(["bind"])
        .shell(&monitor(&CARDS[..1]))
        .shell("echo Y >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
        .shell(&monitor(&CARDS[..1]))
}

fn is_not_isolated(check: &mut Check<'_>) {
    let run = check.of_run(1).exits(0).device(CARDS[0], "bound", &[]);
    drop(run.says(&["allow_unsafe_interrupts=1"]).says_nothing_of("in the firmware"));
    let text = check.shell(1);
    check.is(text.contains("IOMMU: Operation not permitted"), format!("a VM starts: {text}"));
    let text = check.shell(3);
    check.is(text.contains("has it, by MSI"), format!("with the option no VM starts: {text}"));
}

fn without_driver(machine: Vm) -> Vm {
    let machine = machine.device("edu", "03.0").cmdline("vfio.devs=00:03.0");
    machine.cmdline("initcall_blacklist=arm_smmu_driver_init").run(["bind"])
}

fn has_no_driver(check: &mut Check<'_>) {
    let texts = ["an IOMMU (on Arm an SMMU)", "CONFIG_ARM_SMMU_V3"];
    let run = check.of_run(1).exits(1).device(CARDS[0], "refused", &texts);
    drop(run.override_of(CARDS[0], None).says_nothing_of("VT-d"));
}

fn without_any(machine: Vm) -> Vm {
    let machine = machine.device("edu", "03.0").iommu(Iommu::None);
    machine.cmdline("vfio.devs=00:03.0").run(["bind"])
}

fn has_none(check: &mut Check<'_>) {
    let texts = ["neither ACPI nor the device tree", "in the firmware"];
    let run = check.of_run(1).exits(1).device(CARDS[0], "refused", &texts);
    drop(run.override_of(CARDS[0], None).says_nothing_of("VT-d"));
}

fn by_group(machine: Vm) -> Vm {
    let is_arm = ARM64.contains(&machine.kernel());
    machine
        .iommu(if is_arm { Iommu::Smmu } else { Iommu::Virtio })
        .cmdline(UNSAFE)
        .device("edu", "06.0")
        .device("nvme", "06.1")
        .cmdline("vfio.devs=group:00:06.0")
        .run(["bind"])
        .load(["nvme"])
        .run(["bind"])
        .shell(&monitor(&["0000:00:06.0", "0000:00:06.1"]))
}

fn is_known_later(check: &mut Check<'_>) {
    let (first, second) = ("0000:00:06.0", "0000:00:06.1");
    let run = check.of_run(1).exits(0).device(first, "bound", &[]);
    drop(run.says(&[first, "may also have 0000:00:06.1", "run vfio-early bind then"]));
    let run = check.of_run(2).exits(0).device(first, "bound", &[]).device(second, "bound", &[]);
    drop(run.says(&[second, "(was nvme)"]).says_nothing_of("may also have"));
    let text = check.shell(1);
    check.is(text.matches(": has it, by ").count() == 2, format!("no VM can have both: {text}"));
}
