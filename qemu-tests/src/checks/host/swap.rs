//! Devices go to a QEMU in the guest and back to the host's drivers, by `release` and `bind`.

use super::userland;
use crate::check::trial::{Check, Trial};
use crate::machine::vm::Vm;

pub(super) fn all() -> Vec<Trial> {
    let twenty = |machine| turns(machine, "20");
    vec![
        Trial::new(
            "devices go over to a QEMU and back",
            &["6.1"],
            |machine| turns(machine, "1"),
            |check| well(check, "1 turns\n"),
        ),
        Trial::new(
            "devices go over to a QEMU and back, twenty times",
            &["6.1", "6.12"],
            twenty,
            |check| well(check, "20 turns\n"),
        ),
        Trial::new(
            "a device file that is open holds the way back up, and it goes on by itself",
            &["6.1", "6.12", "7.2"],
            held,
            held_expected,
        ),
    ]
}

fn given(machine: Vm) -> Vm {
    let machine = machine
        .device("e1000e", "05.0")
        .device("nvme", "06.0")
        .device("qemu-xhci", "07.0")
        .modules(["e1000e", "nvme", "xhci_pci"])
        .cmdline("vfio.devs=8086:10d3@00:05.0,00:06.0,00:07.0")
        .run(["bind"]);
    userland::with(machine)
        .file("/harness/nested", include_str!("../../guest/host/nested"))
        .file("/harness/swap", include_str!("../../guest/host/swap"))
        .shell("sh /harness/userland 2>&1")
}

fn turns(machine: Vm, number: &str) -> Vm {
    given(machine).limit(std::time::Duration::from_mins(40)).shell(&format!(
        "chroot /debian bash /swap {number} 0000:00:05.0=e1000e 0000:00:06.0=nvme \
         0000:00:07.0=xhci_hcd 2>&1"
    ))
}

fn well(check: &mut Check<'_>, expected: &str) {
    check.of_run(1).exits(0);
    let said = check.shell(2);
    check.is(said == expected, format!("not {expected:?}: {said}"));
}

/// A process that nobody sees has the device open: the unbind waits for it.
fn held(machine: Vm) -> Vm {
    given(machine)
        .shell("chroot /debian bash /nested start 2>&1")
        .shell(
            "cd /debian && mkdir /tmp/no && mount --bind /tmp/no dev/vfio && \
             mount --bind /tmp/no proc/$(cat tmp/qemu) && \
             chroot . /vfio-early release 00:05.0; echo $?; umount dev/vfio proc/$(cat tmp/qemu)",
        )
        .shell("chroot /debian bash /nested stop 2>&1; sleep 2")
        .shell("chroot /debian /vfio-early release 00:05.0 2>&1; echo $?")
}

fn held_expected(check: &mut Check<'_>) {
    let hangs = check.shell(3);
    let is_told = hangs.contains("failed: the unbind hangs: some process has it open; it goes on");
    check.is(is_told && hangs.ends_with("\n1\n"), format!("the unbind does not hang: {hangs}"));
    let back = check.shell(5);
    check.is(
        back.contains("0000:00:05.0 8086:10d3: released to e1000e") && back.ends_with("\n0\n"),
        format!("it is not released then: {back}"),
    );
}
