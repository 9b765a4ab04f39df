//! A graphics card goes to a VM and back to the host, again and again, and the console lives.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::case::{BOOT, OTHER, card, print};
use crate::check;
use crate::machine::guest_program;
use crate::machine::run::Run;
use crate::machine::screen::{Font, Screenshot};
use crate::machine::topology::{Device, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::kernels::Kernel;

/// The kernels that it is tried on.
pub(super) const KERNELS: [&str; 3] = ["6.1", "6.12", "7.2"];

/// One machine: the card at 00:01.0 is given away at boot.
#[derive(Clone, Copy)]
pub(super) struct Swap {
    /// A sentence.
    pub name: &'static str,
    /// Whether there is a second card, which has the console meanwhile.
    has_other: bool,
    command_line: &'static str,
}

pub(super) const ALL: [Swap; 2] = [
    Swap {
        name: "the boot card goes to a VM and back, twenty times",
        has_other: true,
        command_line: "vfio.devs=00:01.0",
    },
    Swap {
        name: "the only card goes to a VM and back, twenty times",
        has_other: false,
        command_line: "vfio.devs=00:01.0 vfio.console=release",
    },
];

/// Turns that are well print nothing.
const TURNS: &str = "\
card=0000:00:01.0
for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    /bin/map-bar $card >/tmp/said 2>&1 || echo turn $turn: no VM: $(cat /tmp/said)
    /bin/vfio-early release $card || echo turn $turn: release: $?
    readlink /sys/bus/pci/devices/$card/driver | grep -q bochs || echo turn $turn: no driver
    grep -q . /proc/fb || echo turn $turn: no framebuffer
    /bin/vfio-early bind $card || echo turn $turn: bind: $?
done
echo well";

/// What is printed while the VM has the card, and while the host has it.
const PRINTED: [&str; 2] = ["printed away", "printed back"];

impl Swap {
    fn devices(self) -> Vec<Device> {
        let other = self.has_other.then(|| card("VGA", "05.0", OTHER));
        [card("VGA", "01.0", BOOT)].into_iter().chain(other).collect()
    }

    /// Boots it; the error has all that helps.
    pub(super) fn check(self, kernel: &Kernel, program: &Path) -> Result<(), String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        let run = self.machine(kernel, program).and_then(Vm::boot).map_err(text)?;
        let mut complaints = self.complaints(&run).unwrap_or_else(|error| vec![text(error)]);
        complaints.extend(run.log_complaints());
        check::verdict(run, &complaints)
    }

    fn machine(self, kernel: &Kernel, program: &Path) -> Result<Vm> {
        let mut machine = vm(kernel)
            .topology(Topology::new(self.devices()))
            .program(program)
            .limit(Duration::from_mins(8))
            .uefi()
            .cmdline(self.command_line)
            .cmdline("console=tty0")
            .modules(["bochs"])
            .file("/harness/characters", Font::CHARACTERS.join("\n") + "\n")
            .file("/harness/turns", TURNS)
            .tool("/bin/map-bar", guest_program::compile("map-bar", kernel.arch)?)
            .display(BOOT);
        if self.has_other {
            machine = machine.display(OTHER);
        }
        // The kernel prints nothing in between.
        machine = machine
            .shell("echo 1 >/proc/sys/kernel/printk")
            .run([""; 0])
            .shell("sh /harness/turns")
            .shell("sleep 0.3")
            .picture("still0");
        machine = print(machine, PRINTED[0]).picture("printed0");
        machine = machine
            .shell("/bin/vfio-early release 00:01.0; echo $?; sleep 0.3")
            .shell(
                r"printf '\033[?25l\033[2J\033[H' >/dev/tty0; cat /harness/characters >/dev/tty0",
            )
            .shell("sleep 0.3")
            .picture("characters");
        Ok(print(machine, PRINTED[1]).picture("printed1"))
    }

    fn complaints(self, run: &Run) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if !run.shells.iter().any(|said| said == "well\n") {
            found.push(format!("the turns are not well: {:?}", run.shells));
        }
        let picture = |name: &str, display: &str| Screenshot::read(&run.picture(name, display));
        let font = Font::learn(&picture("characters", BOOT)?)?;
        let text = font.text(&picture("printed1", BOOT)?);
        if !text.contains(PRINTED[1]) {
            found.push(format!("released, the card shows:\n{text}"));
        }
        let changed = picture("still0", BOOT)?.differing(&picture("printed0", BOOT)?);
        if self.has_other {
            let text = font.text(&picture("printed0", OTHER)?);
            if !text.contains(PRINTED[0]) {
                found.push(format!("while the card is away, the other one shows:\n{text}"));
            }
        } else if changed > 0 {
            found.push(format!("{changed} pixels of the card change while it is away"));
        }
        Ok(found)
    }
}
