//! The units in a real systemd initrd, and in the real root after it.
//!
//! The machine has dracut's initrd, an ext4 root file system on a virtio disk,
//! udev in both. What is observed takes no part in the ordering: commands before and after the
//! unit's own, processes of that moment, the journal.

mod given_back;
mod plugged_in;

use std::path::Path;

use anyhow::{Context, Result};

use crate::check::Boot;
use crate::check::real_root::{
    self, CLAIMED, DISK, Line, NETWORK, Seen, USB, Wrong, bound, in_the_real_root,
    one_bound_one_absent, shell_was_used, untouched, without_errors, without_udev,
};
use crate::checks::dracut::image::{self, Image, Init, Unit};
use crate::checks::nix;
use crate::machine::observed::HOST;
use crate::machine::screen::{Font, Screenshot};
use crate::machine::topology::Device;
use crate::machine::vm::Vm;
use crate::supplies::binary;
use crate::supplies::kernels::{Kernel, NAMES};

/// One machine, or one look at the units, and what comes out.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// A sentence.
    name: &'static str,
    /// None: nothing is booted.
    command_line: Option<&'static str>,
    /// With two graphics cards, and pictures of both.
    screens: bool,
    /// A user types.
    types: bool,
    /// What is plugged in while the host runs, each into a root port of its own.
    plugs: &'static [&'static str],
    check: Check,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Verified(fn(&Image, &mut Wrong)),
    Booted(fn(&Seen, &mut Wrong)),
}

/// systemd, which splits it as a shell does, takes all behind the apostrophe for one word.
const ALL_BOUND: &str = "x=it's vfio.strict vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0 \
                         harness.give-back=0000:00:03.0";
/// The driver of the device that is there is the first that dracut loads.
const ONE_ABSENT: &str = "rd.driver.pre=e1000e vfio.devs=8086:10d3@00:03.0,00:1e.0";
/// To systemd 252 the backslash makes one word of two; and the last `vfio.strict` counts.
const ONE_ABSENT_STRICT: &str =
    r"vfio.strict=0 vfio.strict x=C:\ vfio.devs=8086:10d3@00:03.0,00:1e.0";
/// The user sits at tty0, with `quiet`, and has said that the shell shall ask for no password, as the page
/// for dracut says it: root is locked in many an initrd.
const WITH_A_SHELL: &str = "console=tty0 quiet SYSTEMD_SULOGIN_FORCE=1";
/// Nobody reads it.
const STRAY: &str = "vfio.strict vfio_devs=00:03.0";
const OFF: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,00:1e.0 vfio.off";

/// By paths, since nothing has a bus number before; the last port has another device than is meant.
const PLUGS: &str = "vfio.devs=8086:10d3@00:08.0/00.0,00:09.0/00.0,8086:10d3@00:0a.0/00.0,00:0b.0/00.0,\
                     00:0c.0/00.0,1b36:0010@00:0d.0/00.0,00:0e.0/00.0,00:0f.0/00.0,00:10.0/00.0,\
                     10de:1c03@00:11.0/00.0";

const CLAIM: &str = "vfio-early-claim.service";
const INITRD: &str = "vfio-early.service";
const STRICT: &str = "vfio-early-strict.service";
const FINISH: &str = "vfio-early-finish.service";

/// What is made once, with a look at it.
pub(crate) fn listings() -> Vec<Boot> {
    of_kind(false)
}

/// Every machine.
pub(crate) fn boots() -> Vec<Boot> {
    of_kind(true)
}

fn of_kind(boots: bool) -> Vec<Boot> {
    let boot = |kernel, case: Case| Boot {
        name: format!("systemd: {}", case.name),
        kernel,
        check: Box::new(move |kernel, program, _| case.run(kernel, program).into()),
    };
    let cases = |line| all(line).into_iter().filter(move |case| case.boots() == boots);
    let on = |line| cases(line).map(move |case| boot(line, case));
    NAMES.into_iter().flat_map(on).collect()
}

/// Every case for a kernel line.
fn all(line: &str) -> Vec<Case> {
    let boots = |name, command_line, check| Case {
        name,
        command_line: Some(command_line),
        screens: false,
        types: false,
        plugs: &[],
        check: Check::Booted(check),
    };
    let bound = boots(
        "devices are bound before udev starts, and still after coldplug in the real root, also behind \
         an apostrophe",
        ALL_BOUND,
        all_bound,
    );
    let stopped = Case {
        types: true,
        ..boots(
            "vfio.strict with an absent device stops the boot in the emergency shell, also behind \
             vfio.strict=0 and a backslash",
            ONE_ABSENT_STRICT,
            stopped,
        )
    };
    let reserved =
        |name, command_line, check| Case { screens: true, ..boots(name, command_line, check) };
    let after_udev = reserved(
        "a reserved card is bound after udev has brought up the display, and the picture lives",
        // Part of sysinit.target then, after which the unit comes.
        "vfio.devs=00:01.0 systemd.wants=systemd-udev-settle.service",
        finished_after_udev,
    );
    let beside_udev = reserved(
        "a reserved card is bound while udev brings up the display, and the picture lives",
        "vfio.devs=00:01.0",
        finished,
    );
    let verify = Case {
        name: "systemd-analyze verify finds nothing wrong with the units",
        command_line: None,
        screens: false,
        types: false,
        plugs: &[],
        check: Check::Verified(verified),
    };
    let nothing =
        boots("without vfio.devs= nothing runs, and what looks like it is told", STRAY, nothing);
    let going_on = boots(
        "without vfio.strict the boot goes on with failed units",
        ONE_ABSENT,
        red_and_going_on,
    );
    // Without vfio.strict, whose unit makes the switch wait as well.
    let slow = boots(
        "the real root waits for a bind that takes long, and udev does not",
        "harness.slow vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0",
        slow,
    );
    let plugged = Case {
        plugs: &plugged_in::MODELS,
        ..boots(
            "ten devices that are plugged in at once come to vfio-pci, but for one that is another",
            PLUGS,
            plugged_in::holds,
        )
    };
    match line {
        "6.1" => vec![
            verify,
            slow,
            bound,
            plugged,
            stopped,
            nothing,
            boots("vfio.off is the way out of a strict boot that stops", OFF, off),
            going_on,
            after_udev,
        ],
        // By another dracut and systemd.
        "6.12" => vec![verify, stopped, nothing, going_on, plugged],
        "nixos" => vec![bound, stopped, beside_udev],
        _ => Vec::new(),
    }
}

impl Case {
    /// Whether it boots a machine, which takes long.
    fn boots(&self) -> bool {
        self.command_line.is_some()
    }

    /// What is wrong, with all that helps.
    fn run(&self, kernel: &Kernel, program: &Path) -> Result<(), String> {
        let image = units()
            .and_then(|units| image::set_up(kernel, program, &units, Init::Systemd))
            .map_err(|error| format!("{error:#}"))?;
        match self.check {
            Check::Verified(check) => {
                let mut wrong = Wrong::default();
                check(&image, &mut wrong);
                if wrong.0.is_empty() { Ok(()) } else { Err(wrong.0.join("\n")) }
            }
            Check::Booted(check) => real_root::boot(self.machine(kernel, &image), |seen, wrong| {
                everywhere(seen, wrong);
                check(seen, wrong);
            }),
        }
    }

    fn machine(&self, kernel: &Kernel, image: &Image) -> Vm {
        let cards = [("01.0", BOOT_SCREEN), ("07.0", OTHER_SCREEN)];
        let cards = cards.map(|(place, name)| Device::new("VGA", place).named(name));
        let cards = cards.into_iter().filter(|_| self.screens);
        let ports = (0..self.plugs.len()).map(|number| {
            let place = format!("{:02x}.0", 8 + number);
            Device::new("pcie-root-port", &place).named(&format!("plug{number}"))
        });
        let added = cards.chain(ports);
        let machine = real_root::machine(kernel, &image.initrd, &image.root, added)
            .cmdline("root=/dev/vda rootfstype=ext4 rw")
            .cmdline(self.command_line.unwrap_or_default());
        if !self.screens {
            let machine = if self.types { machine.cmdline(WITH_A_SHELL) } else { machine };
            if self.plugs.is_empty() {
                return if self.types { machine.asks() } else { machine };
            }
            return machine.cmdline(&format!("harness.plug={}", self.plugs.join(","))).asks();
        }
        // Nothing but the harness writes on the screen when pictures are taken.
        let machine = machine.cmdline("console=tty0 quiet systemd.show_status=no harness.pictures");
        machine.uefi().display(BOOT_SCREEN).display(OTHER_SCREEN).asks()
    }
}

/// The graphics card that the firmware draws on; the name is for its pictures.
const BOOT_SCREEN: &str = "boot";
/// The one that stays with the host.
const OTHER_SCREEN: &str = "other";
/// The picture of the characters, and that of a line that is printed after it.
const CHARACTERS: &str = "characters";
const PRINTED: &str = "printed";

/// The units as the `NixOS` module has them, where it can be evaluated, else those that it is made
/// of; that both are the same but for the program's path is a check of [`nix`].
fn units() -> Result<Vec<Unit>> {
    if !nix::is_there() {
        return image::units(&binary::workspace().join("initrd/systemd"));
    }
    let evaluated = nix::units().context("the NixOS module's units")?;
    Ok(evaluated.into_iter().map(|(name, text)| Unit { name, text }).collect())
}

/// No unit of ours is part of an ordering cycle, which systemd breaks by leaving a unit out.
fn everywhere(seen: &Seen, wrong: &mut Wrong) {
    wrong.unless(!seen.journal.is_empty(), "the journal is empty");
    for line in &seen.journal {
        let is_complaint = line.text.contains("ordering cycle")
            || line.text.contains("vfio-early-generator")
            || (line.text.contains("vfio-early") && line.text.contains("Unknown key"));
        wrong.unless(!is_complaint, format!("the journal says: {}", line.text));
    }
}

fn all_bound(seen: &Seen, wrong: &mut Wrong) {
    before_udev(seen, wrong);
    in_the_real_root(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &[]);
    without_errors(seen, wrong);
    for unit in [CLAIM, INITRD, STRICT] {
        let finished = seen.first("systemd", &format!("Finished {unit}"));
        wrong.unless(finished.is_some(), format!("{unit} did not finish in the initrd"));
    }
    wrong.unless(seen.state(FINISH) == "active", format!("{FINISH} is {}", seen.state(FINISH)));
    given_back::holds(seen, wrong);
}

/// The devices were claimed before the first udev daemon was started, and none was alive meanwhile.
fn before_udev(seen: &Seen, wrong: &mut Wrong) {
    let finished = seen.first("systemd", &format!("Finished {CLAIM}"));
    let starting = seen.first("systemd", "Starting systemd-udevd.service");
    let speaking = seen.first("systemd-udevd", "");
    let coldplug = seen.first("systemd", "Starting systemd-udev-trigger.service");
    for (what, time) in
        [("udev was started", starting), ("udev spoke", speaking), ("coldplug began", coldplug)]
    {
        let (Some(finished), Some(time)) = (finished, time) else {
            wrong.0.push(format!("the journal lacks it: {CLAIM} {finished:?}, {what} {time:?}"));
            continue;
        };
        wrong.unless(finished < time, format!("{what} at {time} s, {CLAIM} ended at {finished} s"));
    }
    without_udev(seen, wrong);
    // The modules and the binding are of the other unit.
    let found = seen.driver(CLAIMED, NETWORK);
    wrong.unless(found.is_none(), format!("{CLAIMED}: {NETWORK} is on {found:?}"));
    before_the_real_root(seen, wrong);
    // What the user sees of it.
    let moments = [seen.first("vfio-early", "claimed "), seen.summed_up()];
    wrong.unless(
        moments[0].is_some() && moments[0] < moments[1],
        format!("the journal says at {moments:?} s when they were claimed, and when all was done"),
    );
}

/// All was done before the initrd could be left.
fn before_the_real_root(seen: &Seen, wrong: &mut Wrong) {
    let done = seen
        .first("systemd", &format!("Finished {INITRD}"))
        .or_else(|| seen.first("systemd", &format!("Failed to start {INITRD}")));
    for left in ["Reached target initrd-root-fs.target", "Starting initrd-switch-root.service"] {
        let time = seen.first("systemd", left);
        wrong.unless(
            done.is_some() && time.is_some() && done < time,
            format!("{INITRD} ended at {done:?} s, {left} at {time:?} s"),
        );
    }
}

/// The bind takes 20 s: udev and the mount of the root have not waited for it, and the switch has.
fn slow(seen: &Seen, wrong: &mut Wrong) {
    before_udev(seen, wrong);
    in_the_real_root(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &[]);
    without_errors(seen, wrong);
    let done = seen.first("systemd", &format!("Finished {INITRD}"));
    for early in ["Started systemd-udevd.service", "Mounted sysroot.mount"] {
        let time = seen.first("systemd", early);
        wrong.unless(
            time.is_some() && time < done,
            format!("{early} at {time:?} s, {INITRD} ended at {done:?} s"),
        );
    }
}

/// Without the parameter no unit is started; what looks like it is told by the generator in the initrd,
/// and by nobody again in the real root.
fn nothing(seen: &Seen, wrong: &mut Wrong) {
    let said = seen.journal.iter().filter(|line| line.who == "vfio-early");
    let said: Vec<_> = said.map(|line| line.text.as_str()).collect();
    let expected = ["vfio_devs is unknown; is vfio.devs meant?"];
    wrong.unless(said == expected, format!("the program says {said:?}"));
    not_started(seen, wrong);
}

fn not_started(seen: &Seen, wrong: &mut Wrong) {
    for unit in [CLAIM, INITRD, STRICT, FINISH] {
        let state = seen.state(unit);
        wrong.unless(state == "inactive", format!("{unit} is {state}"));
        let started = seen.first("systemd", &format!("Starting {unit}"));
        wrong.unless(started.is_none(), format!("{unit} was started"));
    }
    untouched(seen, wrong);
}

/// The generator says so, and nothing is done.
fn off(seen: &Seen, wrong: &mut Wrong) {
    let said = seen.first("vfio-early", "vfio.off: nothing is done");
    wrong.unless(said.is_some(), "the log does not say that nothing is done");
    not_started(seen, wrong);
}

fn red_and_going_on(seen: &Seen, wrong: &mut Wrong) {
    before_udev(seen, wrong);
    in_the_real_root(seen, wrong);
    bound(seen, wrong, &[NETWORK], &["absent"]);
    for (unit, status) in [(INITRD, "1"), (FINISH, "1")] {
        let found = (seen.state(unit), seen.property(unit, "ExecMainStatus"));
        wrong.unless(found == ("failed", status), format!("{unit} is {found:?}"));
    }
    // No target that the switch wants starts it again.
    let starting = format!("Starting {INITRD}");
    let is_start = |line: &&Line| line.who == "systemd" && line.text.starts_with(&starting);
    let times = seen.journal.iter().filter(is_start).count();
    wrong.unless(times == 1, format!("{INITRD} was started {times} times"));
    let strict = seen.property(STRICT, "ConditionResult");
    wrong.unless(strict == "no", format!("{STRICT} has run, its condition is {strict}"));
    let emergency = seen.state("emergency.target");
    wrong.unless(emergency == "inactive", format!("emergency.target is {emergency}"));
    one_bound_one_absent(seen, wrong);
}

/// The card of the firmware's framebuffer waits in the initrd, which has no driver of the other
/// display; that comes up by udev in the real root.
fn finished(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    let card = "0000:00:01.0";
    let reserved = format!("{card} 1234:1111: reserved");
    let waits = seen.first("vfio-early", &reserved);
    let finishing = seen.first("systemd", &format!("Starting {FINISH}"));
    wrong.unless(
        waits.is_some() && waits < finishing,
        format!("{card} was reserved at {waits:?} s, {FINISH} was started at {finishing:?} s"),
    );
    // It had failed; the unit that finished its work took that back.
    wrong.unless(seen.state(INITRD) == "inactive", format!("{INITRD} is {}", seen.state(INITRD)));
    wrong.unless(seen.state(FINISH) == "active", format!("{FINISH} is {}", seen.state(FINISH)));
    wrong.unless(seen.run.last().status == 0, "`vfio-early status` is not content");
    let display = host_display(seen);
    wrong.unless(
        display.is_some() && display > waits,
        format!("the host's display came up at {display:?} s, {card} was reserved at {waits:?} s"),
    );
    for (address, wanted) in [(card, "vfio-pci"), ("0000:00:07.0", "bochs-drm")] {
        let found = seen.driver(HOST, address);
        wrong.unless(found == Some(wanted), format!("{address} is on {found:?}"));
    }
    if let Err(error) = living_picture(seen, wrong) {
        wrong.0.push(format!("{error:#}"));
    }
}

fn finished_after_udev(seen: &Seen, wrong: &mut Wrong) {
    let display = host_display(seen);
    let finishing = seen.first("systemd", &format!("Starting {FINISH}"));
    wrong.unless(
        display.is_some() && display < finishing,
        format!("the host's display came up at {display:?} s, {FINISH} started at {finishing:?} s"),
    );
    finished(seen, wrong);
}

/// When the driver of the host's display had come up.
fn host_display(seen: &Seen) -> Option<f64> {
    let line = seen.journal.iter().find(|line| line.text.contains("Initialized bochs-drm"))?;
    Some(line.time)
}

/// What is printed afterwards can be read on the display that stays.
fn living_picture(seen: &Seen, wrong: &mut Wrong) -> Result<()> {
    let picture = |name| Screenshot::read(&seen.run.picture(name, OTHER_SCREEN));
    let (characters, printed) = (picture(CHARACTERS)?, picture(PRINTED)?);
    let text = Font::learn(&characters)?.text(&printed);
    wrong.unless(
        text.contains("printed in the real root"),
        format!("the display that stays shows:\n{}", text.trim_end()),
    );
    wrong.unless(characters.differing(&printed) > 0, "the picture stands still");
    Ok(())
}

fn stopped(seen: &Seen, wrong: &mut Wrong) {
    for (unit, status) in [(INITRD, "3"), (STRICT, "3")] {
        let found = (seen.state(unit), seen.property(unit, "ExecMainStatus"));
        wrong.unless(found == ("failed", status), format!("{unit} is {found:?}"));
    }
    for unit in ["emergency.target", "emergency.service"] {
        let state = seen.state(unit);
        wrong.unless(state == "active", format!("{unit} is {state}"));
    }
    // The boot does not go on under the shell. Up to the mount of the real root it may, where udev
    // has not come to the disk yet: what leaves the initrd comes after initrd-root-fs.target, and that
    // has failed.
    let leaves = |unit: &str| {
        unit.starts_with("initrd-") && unit != "initrd-root-device.target"
            || unit == "initrd.target"
    };
    let mut jobs = seen.jobs.lines().filter_map(|job| job.split_whitespace().nth(1));
    wrong.unless(!jobs.any(leaves), format!("there are jobs still: {}", seen.jobs));
    let root = seen.state("initrd-root-fs.target");
    wrong.unless(root == "inactive", format!("initrd-root-fs.target is {root}"));
    let is_root = |line: &str| line.split(' ').nth(1) == Some("/") && !line.starts_with("rootfs ");
    wrong.unless(!seen.mounts.lines().any(is_root), "the initrd was left");
    shell_was_used(seen, wrong);
    one_bound_one_absent(seen, wrong);
}

fn verified(image: &Image, wrong: &mut Wrong) {
    let found = image.verified.trim();
    wrong.unless(found.is_empty(), format!("systemd-analyze verify says: {found}"));
    // Its exit status is 0 even then.
    wrong.unless(
        image.verified_cycle.contains("Found ordering cycle"),
        format!("a cycle is not found: systemd-analyze says: {}", image.verified_cycle),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_that_is_not_reported_is_a_complaint() {
        let image = |verified: &str, cycle: &str| Image {
            initrd: "".into(),
            root: "".into(),
            verified: verified.to_owned(),
            verified_cycle: cycle.to_owned(),
            files: Default::default(),
        };
        for (image, complaints) in [
            (image("", "a.service: Found ordering cycle on b.service/start"), 0),
            (image("a.service: Found ordering cycle", "a: Found ordering cycle"), 1),
            (image("", ""), 1),
        ] {
            let mut wrong = Wrong::default();
            verified(&image, &mut wrong);
            assert_eq!(wrong.0.len(), complaints, "{image:?}");
        }
    }
}
