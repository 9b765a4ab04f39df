//! Virtual functions of a disk controller: made by `finish`, and bound.

use super::userland;
use crate::check::trial::{Check, Trial};
use crate::machine::topology::{Device, SUBSYSTEM};
use crate::machine::vm::Vm;

const CONTROLLER: &str = "0000:01:00.0";
const FUNCTIONS: [&str; 2] = ["0000:01:00.1", "0000:01:00.2"];

pub(super) fn all() -> Vec<Trial> {
    vec![Trial::new(
        "virtual functions are made and bound once their device has its driver, which keeps it",
        &["6.1", "6.12"],
        made,
        made_expected,
    )]
}

/// A line of shell, by a name for what it prints.
const STEPS: &[(&str, &str)] = &[
    ("userland", "sh /harness/userland 2>&1"),
    (
        "check",
        "chroot /debian /vfio-early check; echo $?; chroot /debian /vfio-early check 01:00.1",
    ),
    ("finish", "chroot /debian /vfio-early finish 2>&1; echo $?"),
    (
        "state",
        "cd /sys/bus/pci/devices/0000:01:00.0 && cat sriov_numvfs sriov_drivers_autoprobe && \
         for it in . virtfn0 virtfn1; do readlink $it/driver; done",
    ),
    ("again", "chroot /debian /vfio-early finish 2>&1; echo $?"),
    (
        "anew",
        "cd /sys/bus/pci/devices/0000:01:00.0 && echo 0 >sriov_numvfs && \
         chroot /debian /vfio-early finish 2>&1; echo $?; cat sriov_numvfs sriov_drivers_autoprobe",
    ),
];

fn made(machine: Vm) -> Vm {
    let machine = machine
        .arguments(SUBSYSTEM)
        .with(Device::new("pcie-root-port", "02.0").named("port"))
        .with(Device::new("nvme", "00.0").below("port").virtual_functions())
        .cmdline("vfio.strict vfio.devs=vfs:1b36:0010@01:00.0=2")
        .run(["bind"])
        .load(["nvme"]);
    STEPS.iter().fold(userland::with(machine), |machine, (_, line)| machine.shell(line))
}

fn made_expected(check: &mut Check<'_>) {
    check
        .of_run(1)
        .exits(0)
        .says(&["vfs:1b36:0010@01:00.0=2: later: virtual functions are made when", "finish"])
        .driver(CONTROLLER, None);
    let bound = FUNCTIONS.map(|at| format!("{at} 1b36:0010: bound to vfio-pci"));
    let [first, second] = [bound[0].as_str(), bound[1].as_str()];
    for (name, texts) in [
        ("userland", &["ready\n"][..]),
        ("check", &["2 of at most 2 virtual functions of 0000:01:00.0", "\n0\n", "vfs:01:00.0=1"]),
        ("finish", &[first, second, "2 of 2 bound", "\n0\n"]),
        ("state", &["2\n1\n", "drivers/nvme\n"]),
        ("again", &[first, second, "\n0\n"]),
        ("anew", &[first, second, "2 of 2 bound", "\n0\n2\n1\n"]),
    ] {
        let at = STEPS.iter().position(|(other, _)| *other == name).expect("it is in the table");
        let said = check.shell(at + 1);
        let missing: Vec<_> = texts.iter().filter(|text| !said.contains(**text)).collect();
        check.is(missing.is_empty(), format!("{name}: without {missing:?}:\n{said}"));
    }
    let at = |name| STEPS.iter().position(|(other, _)| *other == name).expect("it is there") + 1;
    let state = check.shell(at("state"));
    check.is(
        state.lines().filter(|line| line.ends_with("drivers/vfio-pci")).count() == 2,
        format!("not both functions are on vfio-pci, and the controller on nvme: {state}"),
    );
}
