//! A framebuffer in RAM (`ramfb`), which UEFI on Arm machines in QEMU draws on: no card goes with it.

use crate::check::Boot;
use crate::check::trial::{self, Check, Trial};
use crate::machine::vm::Vm;
use crate::supplies::kernels::ARM64;

const CARD: &str = "0000:00:03.0";

/// All of them.
pub(super) fn boots() -> Vec<Boot> {
    let name = "screens: a framebuffer in RAM stays when a card of class 0380 goes";
    trial::boots(&[Trial::new(name, &ARM64, machine, expect)])
}

fn machine(machine: Vm) -> Vm {
    machine
        .uefi()
        .arguments(["-device", "ramfb"])
        .device("secondary-vga", "03.0")
        .cmdline("vfio.devs=00:03.0 console=tty0")
        .shell("cat /sys/class/graphics/fb0/name")
        .run(["bind"])
        .shell("cat /sys/class/graphics/fb0/name")
}

fn expect(check: &mut Check<'_>) {
    check.of_run(1).exits(0).device(CARD, "bound", &[]).says_nothing_of("console is on it");
    let [before, after] = [1, 2].map(|number| check.shell(number).clone());
    check.is(before.trim() != "" && !before.contains("No such"), format!("no console: {before}"));
    check.is(before == after, format!("the console was on {before}, and is on {after}"));
}
