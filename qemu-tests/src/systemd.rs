//! The units in a real systemd initrd, and in the real root after it.
//!
//! The machine has dracut's initrd, an ext4 root file system on a virtio disk,
//! udev in both. What is observed takes no part in the ordering: commands before and after the
//! unit's own, processes of that moment, the journal.

mod image;

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use self::image::{Image, Unit};
use crate::kernels::Kernel;
use crate::run::{BEFORE, HOST, Run};
use crate::screenshot::{Font, Screenshot};
use crate::topology::{Device, Topology};
use crate::vm::{Vm, vm};
use crate::{binary, nix, suite};

/// One machine, or one look at the units, and what comes out.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// A sentence.
    pub name: &'static str,
    /// None: nothing is booted.
    command_line: Option<&'static str>,
    /// With two graphics cards, and pictures of both.
    screens: bool,
    check: Check,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Verified(fn(&Image, &mut Wrong)),
    Booted(fn(&Seen, &mut Wrong)),
}

/// What is wrong, one sentence each.
#[derive(Debug, Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.0.push(otherwise.into());
        }
    }
}

const ALL_BOUND: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0";
const ONE_ABSENT: &str = "vfio.devs=8086:10d3@00:03.0,00:1e.0";
const ONE_ABSENT_STRICT: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,00:1e.0";
const OFF: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,00:1e.0 vfio.off";

const NETWORK: &str = "0000:00:03.0";
const DISK: &str = "0000:00:04.0";
const USB: &str = "0000:00:05.0";
/// Nobody asks for it.
const OTHER_NETWORK: &str = "0000:00:06.0";

const INITRD: &str = "vfio-early.service";
const STRICT: &str = "vfio-early-strict.service";
const FINISH: &str = "vfio-early-finish.service";

/// Every case for a kernel line.
#[must_use]
pub fn all(line: &str) -> Vec<Case> {
    let boots = |name, command_line, check| Case {
        name,
        command_line: Some(command_line),
        screens: false,
        check: Check::Booted(check),
    };
    let bound = boots(
        "devices are bound before udev starts, and still after coldplug in the real root",
        ALL_BOUND,
        all_bound,
    );
    let stopped = boots(
        "vfio.strict with an absent device stops the boot in the emergency shell",
        ONE_ABSENT_STRICT,
        stopped,
    );
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
    match line {
        "6.1" => vec![
            Case {
                name: "systemd-analyze verify finds nothing wrong with the units",
                command_line: None,
                screens: false,
                check: Check::Verified(verified),
            },
            bound,
            stopped,
            boots("without vfio.devs= nothing runs", "vfio.strict", nothing),
            boots("vfio.off is the way out of a strict boot that stops", OFF, off),
            boots(
                "without vfio.strict the boot goes on with failed units",
                ONE_ABSENT,
                red_and_going_on,
            ),
            after_udev,
        ],
        "nixos" => vec![bound, stopped, beside_udev],
        _ => Vec::new(),
    }
}

impl Case {
    /// Whether it boots a machine, which takes long.
    #[must_use]
    pub fn boots(&self) -> bool {
        self.command_line.is_some()
    }

    /// What is wrong, with all that helps.
    ///
    /// # Errors
    /// When something is wrong, or cannot be found out.
    pub fn run(&self, kernel: &Kernel, program: &Path) -> Result<(), String> {
        let image = units()
            .and_then(|units| image::set_up(kernel, program, &units))
            .map_err(|error| format!("{error:#}"))?;
        let mut wrong = Wrong::default();
        let check = match self.check {
            Check::Verified(check) => {
                check(&image, &mut wrong);
                return if wrong.0.is_empty() { Ok(()) } else { Err(wrong.0.join("\n")) };
            }
            Check::Booted(check) => check,
        };
        let run = self.machine(kernel, &image).boot().map_err(|error| format!("{error:#}"))?;
        match Seen::read(&run) {
            Ok(seen) => {
                everywhere(&seen, &mut wrong);
                check(&seen, &mut wrong);
            }
            Err(missing) => wrong.0.push(missing),
        }
        wrong.0.extend(run.log_complaints());
        if !wrong.0.is_empty() {
            let journal = run.shells.get(2).map_or("", |journal| journal.as_str());
            wrong.0.push(format!("--- journal\n{journal}"));
        }
        suite::verdict(run, &wrong.0)
    }

    /// Two network cards of which one is asked for, an NVM disk, a USB controller; and the disk
    /// with the root file system.
    fn machine(&self, kernel: &Kernel, image: &Image) -> Vm {
        let drive = format!(
            "if=none,id=root,format=raw,snapshot=on,file={}",
            image.root.to_string_lossy().replace(',', ",,")
        );
        let mut devices = vec![
            Device::new("e1000e", "03.0"),
            Device::new("nvme", "04.0"),
            Device::new("qemu-xhci", "05.0"),
            Device::new("e1000e", "06.0"),
        ];
        if self.screens {
            devices.push(Device::new("VGA", "01.0").named(BOOT_SCREEN));
            devices.push(Device::new("VGA", "07.0").named(OTHER_SCREEN));
        }
        let machine = vm(kernel)
            .topology(Topology::new(devices))
            .initrd(&image.initrd)
            .arguments(["-drive", &drive, "-device", "virtio-blk-pci,drive=root,addr=02.0"])
            .cmdline("root=/dev/vda rootfstype=ext4 rw")
            // An emulated machine on a busy one is slow; what hangs is ended from outside.
            .cmdline("systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900")
            .cmdline(self.command_line.unwrap_or_default())
            .limit(Duration::from_mins(10));
        if !self.screens {
            return machine;
        }
        // Nothing but the harness writes on the screen when pictures are taken.
        let machine = machine.cmdline("console=tty0 quiet systemd.show_status=no harness.pictures");
        // The guest asks for more pictures than this one.
        machine.uefi().display(BOOT_SCREEN).display(OTHER_SCREEN).picture(CHARACTERS)
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
    if env::var_os(nix::LIBRARY).is_none_or(|folder| folder.is_empty()) {
        return image::units(&binary::workspace().join("initrd/systemd"));
    }
    let evaluated = nix::units().context("the NixOS module's units")?;
    Ok(evaluated.into_iter().map(|(name, text)| Unit { name, text }).collect())
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// Seconds since power-on.
    time: f64,
    /// Who says it, such as `systemd`.
    who: String,
    text: String,
}

/// What the machine told.
#[derive(Debug)]
struct Seen<'a> {
    run: &'a Run,
    /// Names of the processes before the program ran in the initrd, and after it.
    processes: [&'a str; 2],
    journal: Vec<Line>,
    /// Unit to property to value.
    units: BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>,
    jobs: &'a str,
    mounts: &'a str,
}

impl<'a> Seen<'a> {
    fn read(run: &'a Run) -> Result<Self, String> {
        let shells: Vec<&str> = run.shells.iter().map(String::as_str).collect();
        let [before, after, journal, units, jobs, mounts] = shells[..] else {
            return Err(format!("the guest told {} things, and not 6", shells.len()));
        };
        let units = units.trim().split("\n\n").map(|unit| {
            let properties: BTreeMap<&str, &str> =
                unit.lines().filter_map(|line| line.split_once('=')).collect();
            (properties.get("Id").copied().unwrap_or_default(), properties)
        });
        Ok(Self {
            run,
            processes: [before, after],
            journal: journal.lines().filter_map(line).collect(),
            units: units.collect(),
            jobs: jobs.trim(),
            mounts,
        })
    }

    /// `active`, `failed`, `inactive`.
    fn state(&self, unit: &str) -> &str {
        self.property(unit, "ActiveState")
    }

    fn property(&self, unit: &str, name: &str) -> &str {
        self.units.get(unit).and_then(|unit| unit.get(name)).copied().unwrap_or("?")
    }

    /// When somebody first said that.
    fn first(&self, who: &str, begins: &str) -> Option<f64> {
        let mut lines = self.journal.iter();
        let line = lines.find(|line| line.who == who && line.text.starts_with(begins))?;
        Some(line.time)
    }

    fn driver(&self, moment: &str, address: &str) -> Option<&'a str> {
        self.run.moments.get(moment)?.driver(address)
    }
}

/// `[   12.995929] systemd[1]: Finished vfio-early.service - …`
fn line(text: &str) -> Option<Line> {
    let (time, rest) = text.strip_prefix('[')?.split_once("] ")?;
    let (who, text) = rest.split_once(": ")?;
    let who = who.split_once('[').map_or(who, |(who, _pid)| who);
    Some(Line {
        time: time.trim().parse().ok()?,
        who: who.to_owned(),
        text: text.trim_start().to_owned(),
    })
}

/// No unit of ours is part of an ordering cycle, which systemd breaks by leaving a unit out.
fn everywhere(seen: &Seen, wrong: &mut Wrong) {
    wrong.unless(!seen.journal.is_empty(), "the journal is empty");
    for line in &seen.journal {
        let is_complaint = line.text.contains("ordering cycle")
            || (line.text.contains("vfio-early") && line.text.contains("Unknown key"));
        wrong.unless(!is_complaint, format!("the journal says: {}", line.text));
    }
}

fn all_bound(seen: &Seen, wrong: &mut Wrong) {
    before_udev(seen, wrong);
    in_the_real_root(seen, wrong);
    for address in [NETWORK, DISK, USB] {
        for (moment, wanted) in
            [(BEFORE, None), (AFTER_UNIT, Some("vfio-pci")), (HOST, Some("vfio-pci"))]
        {
            let found = seen.driver(moment, address);
            wrong.unless(found == wanted, format!("{moment}: {address} is on {found:?}"));
        }
    }
    wrong.unless(seen.run.last().status == 0, "`vfio-early status` is not content");
    let lines = seen.run.last().stdout.matches("bound to vfio-pci").count();
    wrong.unless(lines == 3, format!("`vfio-early status` has {lines} bound devices"));
    let outcomes: Vec<_> = seen.run.report()["devices"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|device| device["outcome"].as_str().unwrap_or("?"))
        .collect();
    wrong.unless(outcomes == ["bound"; 3], format!("the report says {outcomes:?}"));
    wrong.unless(seen.run.last().report_mode == "644", "the report is not for everybody to read");
    for unit in [INITRD, STRICT] {
        let finished = seen.first("systemd", &format!("Finished {unit}"));
        wrong.unless(finished.is_some(), format!("{unit} did not finish in the initrd"));
    }
    wrong.unless(seen.state(FINISH) == "active", format!("{FINISH} is {}", seen.state(FINISH)));
}

/// Moment after the unit's own command, when it succeeded.
const AFTER_UNIT: &str = "after";

/// The unit had finished before the first udev daemon was started, and none was alive meanwhile.
fn before_udev(seen: &Seen, wrong: &mut Wrong) {
    let finished = seen.first("systemd", &format!("Finished {INITRD}"));
    let starting = seen.first("systemd", "Starting systemd-udevd.service");
    let speaking = seen.first("systemd-udevd", "");
    let coldplug = seen.first("systemd", "Starting systemd-udev-trigger.service");
    for (what, time) in
        [("udev was started", starting), ("udev spoke", speaking), ("coldplug began", coldplug)]
    {
        let (Some(finished), Some(time)) = (finished, time) else {
            wrong.0.push(format!("the journal lacks it: {INITRD} {finished:?}, {what} {time:?}"));
            continue;
        };
        wrong
            .unless(finished < time, format!("{what} at {time} s, {INITRD} ended at {finished} s"));
    }
    for (moment, processes) in ["before", "after"].iter().zip(seen.processes) {
        wrong.unless(
            processes.lines().any(|name| name == "systemd"),
            format!("{moment} the run nobody looked at the processes"),
        );
        let udev: Vec<&str> = processes.lines().filter(|name| name.contains("udev")).collect();
        wrong.unless(udev.is_empty(), format!("{moment} the run there were {udev:?}"));
    }
}

/// The boot came to its end there, with coldplug: the device that nobody asks for is the host's.
fn in_the_real_root(seen: &Seen, wrong: &mut Wrong) {
    let is_root = |line: &str| line.starts_with("/dev/vda / ext4 ");
    wrong.unless(seen.mounts.lines().any(is_root), "the real root is not there");
    let multi_user = seen.state("multi-user.target");
    wrong.unless(multi_user == "active", format!("multi-user.target is {multi_user}"));
    let other = seen.driver(HOST, OTHER_NETWORK);
    wrong.unless(other == Some("e1000e"), format!("{OTHER_NETWORK} is on {other:?}"));
}

/// Without the parameter not even the program is started.
fn nothing(seen: &Seen, wrong: &mut Wrong) {
    for unit in [INITRD, STRICT, FINISH] {
        let state = seen.state(unit);
        wrong.unless(state == "inactive", format!("{unit} is {state}"));
        let started = seen.first("systemd", &format!("Starting {unit}"));
        wrong.unless(started.is_none(), format!("{unit} was started"));
    }
    wrong.unless(spoken(seen).is_none(), "the program ran");
    untouched(seen, wrong);
}

/// It runs, and does nothing.
fn off(seen: &Seen, wrong: &mut Wrong) {
    wrong.unless(spoken(seen).is_some(), "the program did not run");
    for unit in [INITRD, STRICT] {
        let finished = seen.first("systemd", &format!("Finished {unit}"));
        wrong.unless(finished.is_some(), format!("{unit} did not finish in the initrd"));
    }
    wrong.unless(seen.state(FINISH) == "active", format!("{FINISH} is {}", seen.state(FINISH)));
    untouched(seen, wrong);
}

/// When the program said something.
fn spoken(seen: &Seen) -> Option<f64> {
    seen.first("vfio-early", "")
}

fn untouched(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    wrong.unless(seen.run.last().report.is_null(), "there is a report");
    wrong.unless(seen.run.last().status == 0, "`vfio-early status` is not content");
    let module = seen.run.log.iter().find(|record| record.text.starts_with("VFIO"));
    wrong.unless(module.is_none(), format!("a module of vfio was loaded: {module:?}"));
    for (address, driver) in [(NETWORK, "e1000e"), (DISK, "nvme"), (USB, "xhci_hcd")] {
        let found = seen.driver(HOST, address);
        wrong.unless(found == Some(driver), format!("{address} is on {found:?}"));
    }
}

fn red_and_going_on(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    for (unit, status) in [(INITRD, "1"), (FINISH, "1")] {
        let found = (seen.state(unit), seen.property(unit, "ExecMainStatus"));
        wrong.unless(found == ("failed", status), format!("{unit} is {found:?}"));
    }
    let strict = seen.property(STRICT, "ConditionResult");
    wrong.unless(strict == "no", format!("{STRICT} has run, its condition is {strict}"));
    let emergency = seen.state("emergency.target");
    wrong.unless(emergency == "inactive", format!("emergency.target is {emergency}"));
    one_bound_one_absent(seen, wrong);
}

fn one_bound_one_absent(seen: &Seen, wrong: &mut Wrong) {
    let driver = seen.driver(HOST, NETWORK);
    wrong.unless(driver == Some("vfio-pci"), format!("{NETWORK} is on {driver:?}"));
    let status = seen.run.last();
    wrong.unless(
        status.status == 1 && status.stdout.contains("\"00:1e.0\": absent"),
        format!("`vfio-early status` ends with {}: {}", status.status, status.stdout),
    );
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
    for (unit, status) in [(INITRD, "3"), (STRICT, "1")] {
        let found = (seen.state(unit), seen.property(unit, "ExecMainStatus"));
        wrong.unless(found == ("failed", status), format!("{unit} is {found:?}"));
    }
    for unit in ["emergency.target", "emergency.service"] {
        let state = seen.state(unit);
        wrong.unless(state == "active", format!("{unit} is {state}"));
    }
    // Nothing is left to do: the boot does not go on under the shell.
    wrong.unless(seen.jobs.is_empty(), format!("there are jobs still: {}", seen.jobs));
    let is_root = |line: &str| line.split(' ').nth(1) == Some("/") && !line.starts_with("rootfs ");
    wrong.unless(!seen.mounts.lines().any(is_root), "the initrd was left");
    for text in ["Entering emergency mode", "Require All of vfio.devs=."] {
        let plain = without_colours(&seen.run.console);
        wrong.unless(plain.contains(text), format!("the console does not show: {text}"));
    }
    one_bound_one_absent(seen, wrong);
}

/// The console's text without escape sequences.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        plain.push_str(&part[end..]);
    }
    plain
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
    fn a_line_of_the_journal_has_a_time_and_who_said_it() {
        for (text, time, who, said) in [
            (
                "[   12.995929] systemd[1]: Finished a.service - A.",
                12.995_929,
                "systemd",
                "Finished",
            ),
            ("[    7.127097] kernel: VFIO - User", 7.127_097, "kernel", "VFIO"),
        ] {
            let line = line(text).unwrap();
            assert!((line.time - time).abs() < 1e-9, "{text}");
            assert_eq!(line.who, who);
            assert!(line.text.starts_with(said), "{text}");
        }
        assert_eq!(line("-- Journal begins --"), None);
    }

    #[test]
    fn colours_are_no_text() {
        assert_eq!(
            without_colours("[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mvfio\x1b[0m"),
            "[FAILED] Failed to start vfio"
        );
    }

    #[test]
    fn a_cycle_that_is_not_reported_is_a_complaint() {
        let image = |verified: &str, cycle: &str| Image {
            initrd: "".into(),
            root: "".into(),
            verified: verified.to_owned(),
            verified_cycle: cycle.to_owned(),
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
