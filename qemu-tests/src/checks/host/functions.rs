//! Virtual functions of a disk controller that the host has a file system on: made, bound, and had by a
//! QEMU in the guest.

use super::userland;
use crate::check::trial::{Check, Trial};
use crate::machine::topology::SUBSYSTEM;
use crate::machine::vm::Vm;

const CONTROLLER: &str = "0000:01:00.0";
const FUNCTIONS: [&str; 2] = ["0000:01:00.1", "0000:01:00.2"];

pub(super) fn all() -> Vec<Trial> {
    vec![Trial::new(
        "virtual functions are made, bound and had by a QEMU, and the host keeps what is mounted",
        &["6.1", "6.12"],
        made,
        made_expected,
    )]
}

/// A line of shell, by a name for what it prints.
const STEPS: &[(&str, &str)] = &[
    ("userland", "sh /harness/userland 2>&1"),
    (
        "mounted",
        "cd /debian && mkdir disk && chroot . mkfs.ext4 -q /dev/nvme0n1 && \
         mount -t ext4 /dev/nvme0n1 disk && echo kept >disk/file && sync && echo mounted",
    ),
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
    ("start", "chroot /debian bash /nested start 2>&1"),
    ("files", "chroot /debian bash /nested files"),
    ("stop", "chroot /debian bash /nested stop 2>&1"),
    ("again", "chroot /debian /vfio-early finish 2>&1; echo $?"),
    (
        "anew",
        "cd /sys/bus/pci/devices/0000:01:00.0 && echo 0 >sriov_numvfs && \
         chroot /debian /vfio-early finish 2>&1; echo $?; cat sriov_numvfs sriov_drivers_autoprobe",
    ),
    (
        "kept",
        "echo 3 >/proc/sys/vm/drop_caches && cat /debian/disk/file && umount /debian/disk && \
         chroot /debian fsck.ext4 -n /dev/nvme0n1 >/dev/null 2>&1 && echo clean",
    ),
];

fn made(machine: Vm) -> Vm {
    // All of them as arguments: the namespace comes after its controller.
    let machine = machine
        .arguments(SUBSYSTEM)
        .arguments(["-device", "pcie-root-port,id=x-port,bus=pcie.0,addr=02.0,chassis=1"])
        .arguments([
            "-device",
            "nvme,id=x-controller,bus=x-port,serial=controller,subsys=subsystem,sriov_max_vfs=2,\
             sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=6,msix_qsize=7",
        ])
        .arguments(["-drive", "if=none,id=disk,driver=null-co,read-zeroes=on,size=64M,snapshot=on"])
        .arguments(["-device", "nvme-ns,drive=disk,bus=x-controller,nsid=1"])
        .cmdline("vfio.strict vfio.devs=vfs:1b36:0010@01:00.0=2")
        .run(["bind"])
        .load(["crc32c_generic", "nvme", "ext4"]);
    let machine =
        userland::with(machine).file("/harness/nested", include_str!("../../guest/host/nested"));
    STEPS.iter().fold(machine, |machine, (_, line)| machine.shell(line))
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
        ("mounted", &["mounted\n"]),
        ("check", &["2 of at most 2 virtual functions of 0000:01:00.0", "\n0\n", "vfs:01:00.0=1"]),
        ("finish", &[first, second, "2 of 2 bound", "\n0\n"]),
        ("state", &["2\n1\n", "drivers/nvme\n"]),
        ("start", &["started\n"]),
        ("stop", &["stopped\n"]),
        ("again", &[first, second, "\n0\n"]),
        ("anew", &[first, second, "2 of 2 bound", "\n0\n2\n1\n"]),
        ("kept", &["kept\nclean\n"]),
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
    let files = check.shell(at("files")).lines().count();
    check.is(files == FUNCTIONS.len(), format!("the QEMU in the guest has {files} devices open"));
}
