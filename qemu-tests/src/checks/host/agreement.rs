//! `verify` says that a VM can have a device where a QEMU in the guest then takes it, and that none can
//! where it refuses it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{acpi, userland};
use crate::check::trial::{Check, Trial};
use crate::machine::topology::Device;
use crate::machine::vm::Vm;
use crate::supplies::kernels::NIXOS;

/// Kernels that have vfio's files for groups.
const KERNELS: &[&str] = &["5.10", "6.1", "6.12", "7.2", NIXOS];

/// A name in `guest/host/agree`, and whether QEMU takes the device.
type Situations = &'static [(&'static str, bool)];

/// Each of them on each of those kernels.
pub(super) fn all() -> Vec<Trial> {
    let trial = |name, machine, expect| Trial::new(name, KERNELS, machine, expect);
    vec![
        trial(
            "verify agrees with a QEMU on groups",
            |vm| asking(busy(vm), "first"),
            |check| agree(check, FIRST),
        ),
        trial(
            "verify agrees with a QEMU on what is taken, unbound or missing",
            |vm| asking(busy(vm), "second"),
            |check| agree(check, SECOND),
        ),
        trial(
            "verify agrees with a QEMU that a user starts",
            |vm| asking(small(vm), "user"),
            |check| agree(check, USER),
        ),
        trial(
            "verify agrees with a QEMU on interrupts that are not remapped",
            |vm| asking(small(vm).without_interrupt_remapping(), "unsafe"),
            |check| agree(check, UNSAFE),
        ),
        trial(
            "verify agrees with a QEMU on memory that the firmware keeps",
            |vm| asking(acpi::with_rmrr(small(vm), 3), "rmrr"),
            |check| agree(check, RMRR),
        ),
    ]
}

/// Two cards in one group behind a bridge, two functions in one group, a disk behind a port, and cards
/// of their own. The host keeps a disk.
fn busy(machine: Vm) -> Vm {
    let port = |name: &str, place: &str| Device::new("pcie-root-port", place).named(name);
    machine
        .device("edu", "03.0")
        .with(Device::new("pcie-pci-bridge", "04.0").named("bridge"))
        .with(Device::new("e1000", "01.0").below("bridge"))
        .with(Device::new("e1000", "02.0").below("bridge"))
        .device("e1000e", "05.0")
        .device("edu", "06.0")
        .device("nvme", "06.1")
        .with(port("port", "07.0"))
        .with(Device::new("nvme", "00.0").below("port"))
        .cmdline("vfio.devs=00:03.0,8086:100e@01:01.0,8086:100e@01:02.0,8086:10d3@00:05.0")
        .cmdline("vfio.devs=00:06.0,1b36:0010@02:00.0")
}

fn small(machine: Vm) -> Vm {
    machine.device("edu", "03.0").device("e1000e", "05.0").cmdline("vfio.devs=00:03.0,00:05.0")
}

/// The guest asks both about these situations.
fn asking(machine: Vm, part: &str) -> Vm {
    userland::with(machine.modules(["e1000e", "nvme", "pci_stub"]).run(["bind"]))
        .file("/harness/agree", include_str!("../../guest/host/agree"))
        .shell("sh /harness/userland 2>&1")
        .shell(&format!("chroot /debian bash /agree {part} 2>&1"))
}

const FIRST: Situations = &[
    ("alone in its group", true),
    ("a card that resets by its power state", true),
    ("a disk behind a port", true),
    ("a bridge in the group", true),
    ("a sibling without a driver", true),
    ("a sibling on pci-stub", true),
    ("a sibling on a driver of the host", false),
    ("that sibling", false),
    ("a sibling that is given, too", true),
    ("opened", true),
    ("opened, a disk", true),
];

const SECOND: Situations = &[
    ("taken by another VM", false),
    ("another device of its group taken", false),
    ("after that VM", true),
    ("without vfio_iommu_type1", false),
    ("with it again", true),
    ("without a driver", false),
    ("with its override cleared", true),
    ("on a driver of the host", false),
    ("without the group's file", false),
];

const USER: Situations = &[
    ("a user without a right to the group's file", false),
    ("a user whose file it is", true),
    ("a user who may lock enough memory", true),
    ("a user who may lock too little memory", false),
    ("a user without a right to the container", false),
];

const UNSAFE: Situations =
    &[("without remapped interrupts", false), ("without, but allowed", true)];

const RMRR: Situations =
    &[("memory of the firmware", false), ("beside one with memory of the firmware", true)];

/// What was said of one situation.
struct Said<'t> {
    name: &'t str,
    /// Whether a VM can have it, by `verify`, now.
    verified: bool,
    /// Whether QEMU took it.
    taken: bool,
    text: &'t str,
}

fn read(text: &str) -> Result<Said<'_>> {
    let (name, rest) = text.split_once('\n').context("nothing was asked")?;
    let mut lines = rest.lines();
    let json: Value = serde_json::from_str(lines.next().unwrap_or_default()).context("no JSON")?;
    let status: i32 = lines.next().unwrap_or_default().parse().context("no exit status of QEMU")?;
    let device = &json["devices"][0];
    ensure!(json["devices"].as_array().is_some_and(|all| all.len() == 1), "not one device");
    let is_free = device["held_by"].is_null();
    let usable = device["usable"].as_bool().context("it does not say whether it is usable")?;
    // Who has a device by now proves that a VM can have it, but no second one.
    Ok(Said { name, verified: usable && is_free, taken: status == 0, text: rest })
}

fn agree(check: &mut Check<'_>, situations: Situations) {
    check.of_run(1).exits(0);
    let text = check.shell(2);
    let blocks: Vec<&str> = text.split("== ").skip(1).collect();
    check.is(
        blocks.len() == situations.len(),
        format!("{} situations, not {}:\n{text}", blocks.len(), situations.len()),
    );
    for ((name, takes), block) in situations.iter().zip(blocks) {
        let said = match read(block) {
            Ok(said) => said,
            Err(why) => {
                check.complain(format!("{why:#}:\n{block}"));
                continue;
            }
        };
        let Said { verified, taken, text, .. } = said;
        check.is(said.name == *name, format!("{name} was not asked, but {}", said.name));
        check.is(taken == *takes, format!("{name}: QEMU takes it: {taken}\n{text}"));
        check
            .is(verified == taken, format!("{name}: verify says {verified}, QEMU {taken}\n{text}"));
    }
}
