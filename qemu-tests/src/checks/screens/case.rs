//! A machine with displays, what is done with it, and what its pictures have to show.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::check;
use crate::check::prediction;
use crate::machine::guest_program;
use crate::machine::run::Run;
use crate::machine::screen::{Font, Screenshot};
use crate::machine::topology::{Device, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::kernels::Kernel;

/// What starts the kernel, and with which screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// UEFI firmware and its framebuffer.
    Framebuffer,
    /// BIOS firmware and VGA text mode.
    TextMode,
    /// No screen at all.
    Serial,
}

/// What is to be after a run of the binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct After {
    /// Address to outcome.
    outcomes: BTreeMap<&'static str, &'static str>,
    /// The display that shows what is printed; the others' pictures may stand still.
    alive: Option<&'static str>,
    /// Whose BAR 0 a VFIO program can map.
    maps: Option<&'static str>,
    /// Can be read on the display that the console was on.
    shows: Option<&'static str>,
}

/// One machine, what is asked of it, and what comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) struct Case {
    /// A sentence.
    pub name: &'static str,
    start: Start,
    devices: Vec<Device>,
    command_line: &'static str,
    driver_in_initrd: bool,
    beside_udev: bool,
    /// Whether `check` cannot know what the host's driver will find.
    unforeseen: bool,
    /// What `uname -v` says instead of the truth.
    version: Option<&'static str>,
    first: After,
    second: After,
    /// Each stands in a line that the binary logs.
    log: Vec<&'static str>,
}

/// The graphics card that the firmware draws on; the name is for its pictures.
pub(crate) const BOOT: &str = "boot";
/// Another one.
pub(crate) const OTHER: &str = "other";

/// What the guest prints before the binary runs, and after each of its runs.
const PRINTED: [&str; 3] = ["printed before", "printed first", "printed second"];

/// A picture that changes in fewer pixels has a cursor in it at best.
const CHANGED: usize = 500;

pub(super) fn case(name: &'static str, devices: impl IntoIterator<Item = Device>) -> Case {
    Case {
        name,
        start: Start::Framebuffer,
        devices: devices.into_iter().collect(),
        command_line: "",
        driver_in_initrd: false,
        beside_udev: false,
        unforeseen: false,
        version: None,
        first: After::default(),
        second: After::default(),
        log: Vec::new(),
    }
}

impl Case {
    pub(super) fn asks(mut self, command_line: &'static str) -> Self {
        self.command_line = command_line;
        self
    }

    pub(super) fn starts(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The initrd has the driver of the host's graphics cards; else it comes between the runs.
    pub(super) fn driver_in_initrd(mut self) -> Self {
        self.driver_in_initrd = true;
        self
    }

    /// The first run is in two moments, and udev loads that driver beside the second.
    pub(super) fn beside_udev(mut self) -> Self {
        self.beside_udev = true;
        self.driver_in_initrd()
    }

    pub(super) fn unforeseen(mut self) -> Self {
        self.unforeseen = true;
        self
    }

    pub(super) fn claims(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    /// After the first run, and after the second unless that is said otherwise.
    pub(super) fn outcome(mut self, address: &'static str, outcome: &'static str) -> Self {
        self.first.outcomes.insert(address, outcome);
        self.second.outcomes.insert(address, outcome);
        self
    }

    pub(super) fn later(mut self, address: &'static str, outcome: &'static str) -> Self {
        self.second.outcomes.insert(address, outcome);
        self
    }

    pub(super) fn alive(mut self, display: &'static str) -> Self {
        self.first.alive = Some(display);
        self.second.alive = Some(display);
        self
    }

    pub(super) fn later_alive(mut self, display: &'static str) -> Self {
        self.second.alive = Some(display);
        self
    }

    /// A VFIO program can map BAR 0 of the device wherever it is bound.
    pub(super) fn maps(mut self, address: &'static str) -> Self {
        for after in [&mut self.first, &mut self.second] {
            after.maps = (after.outcomes[address] == "bound").then_some(address);
        }
        self
    }

    pub(super) fn shows(mut self, text: &'static str) -> Self {
        self.first.shows = Some(text);
        self.second.shows = Some(text);
        self
    }

    pub(super) fn logs(mut self, text: &'static str) -> Self {
        self.log.push(text);
        self
    }

    /// Only where that is so.
    pub(super) fn when(self, holds: bool, change: impl FnOnce(Self) -> Self) -> Self {
        if holds { change(self) } else { self }
    }
}

pub(super) fn card(model: &str, place: &str, name: &str) -> Device {
    Device::new(model, place).named(name)
}

impl Case {
    fn displays(&self) -> impl Iterator<Item = &str> {
        let names = [BOOT, OTHER].into_iter();
        names.filter(|name| {
            self.start != Start::Serial && self.devices.iter().any(|device| device.id == *name)
        })
    }

    /// Boots it; the error has all that helps.
    pub(super) fn check(&self, kernel: &Kernel, program: &Path) -> Result<(), String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        let run = self.machine(kernel, program).and_then(Vm::boot).map_err(text)?;
        let mut complaints = self.complaints(&run).unwrap_or_else(|error| vec![text(error)]);
        complaints.extend(run.log_complaints());
        complaints.extend(prediction::complaints(&run.executions, |_| BTreeMap::new()));
        check::verdict(run, &complaints)
    }

    fn machine(&self, kernel: &Kernel, program: &Path) -> Result<Vm> {
        let driver = if kernel.line == "5.10" { "bochs_drm" } else { "bochs" };
        let mut machine = vm(kernel)
            .topology(Topology::new(self.devices.clone()))
            .program(program)
            // Firmware and pictures make these the slowest machines.
            .limit(Duration::from_mins(5))
            .cmdline(self.command_line)
            .file("/harness/characters", Font::CHARACTERS.join("\n") + "\n")
            .tool("/bin/map-bar", guest_program::compile("map-bar", kernel.arch)?);
        if !self.unforeseen {
            machine = machine.asking_first();
        }
        machine = match self.start {
            Start::Framebuffer => machine.uefi(),
            Start::TextMode => machine.bios(),
            Start::Serial => machine,
        };
        for display in self.displays() {
            machine = machine.display(display);
        }
        let has_displays = self.displays().next().is_some();
        if has_displays {
            // The last one gets what programs print; the kernel prints on both.
            machine = machine.cmdline("console=tty0");
            // Meanwhile the kernel prints nothing between them.
            machine = machine
                .shell("cat /proc/sys/kernel/printk >/tmp/printk; echo 1 >/proc/sys/kernel/printk")
                .shell(r"printf '\033[?25l\033[2J\033[H' >/dev/tty0; cat /harness/characters >/dev/tty0")
                .shell("sleep 0.3")
                .picture("characters")
                .shell("cat /tmp/printk >/proc/sys/kernel/printk");
            machine = print(machine, PRINTED[0]);
        }
        if let Some(version) = self.version {
            machine = machine
                .file("/harness/version", version)
                .shell("mount --bind /harness/version /proc/sys/kernel/version");
        }
        if self.driver_in_initrd {
            machine = machine.modules([driver]);
        }
        for (index, after) in [&self.first, &self.second].into_iter().enumerate() {
            machine = match (index, self.driver_in_initrd) {
                (0, _) if self.beside_udev => machine.run_beside([driver]),
                (0, _) => machine.run([""; 0]),
                (_, true) => machine.load([driver]).run(["bind"]),
                (_, false) => machine.load_late([driver]).run(["bind"]),
            };
            if has_displays {
                machine = machine.shell("sleep 0.3").picture(&format!("still{index}"));
                machine = print(machine, PRINTED[index + 1]).picture(&format!("printed{index}"));
            }
            if let Some(address) = after.maps {
                machine = machine.shell(&format!("/bin/map-bar {address}"));
            }
        }
        Ok(machine)
    }

    /// All that is not as expected, one sentence each.
    fn complaints(&self, run: &Run) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let afters = [&self.first, &self.second];
        for (after, execution) in afters.into_iter().zip(&run.executions) {
            let devices = execution.report["devices"].as_array().cloned().unwrap_or_default();
            let outcomes: BTreeMap<_, _> =
                devices.iter().filter_map(|device| outcome(device)).collect();
            if outcomes != after.outcomes {
                found.push(format!("the outcomes are {outcomes:?}, not {:?}", after.outcomes));
            }
        }
        let log = run.own_log();
        for text in &self.log {
            if !log.iter().any(|record| record.text.contains(text)) {
                found.push(format!("no line of the log says {text:?}"));
            }
        }
        let mapped = run.shells.iter().filter(|text| text.contains("BAR 0 is mapped")).count();
        let wanted = afters.iter().filter(|after| after.maps.is_some()).count();
        if mapped != wanted {
            let said: Vec<_> = run.shells.iter().filter(|text| !text.trim().is_empty()).collect();
            found.push(format!("BAR 0 could be mapped {mapped} times, not {wanted}: {said:?}"));
        }
        found.extend(self.display_complaints(run)?);
        Ok(found)
    }

    fn display_complaints(&self, run: &Run) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if self.displays().next().is_none() {
            return Ok(found);
        }
        let mut font = Font::learn(&Screenshot::read(&run.picture("characters", BOOT))?)?;
        // A card's text mode has a font of its own; what was on the screen goes on in the kernel's.
        if self.start == Start::TextMode
            && self.displays().any(|display| display == OTHER)
            && let Ok(kernels) = Font::learn(&Screenshot::read(&run.picture("still0", OTHER))?)
        {
            font.extend(kernels);
        }
        for (index, after) in [&self.first, &self.second].into_iter().enumerate() {
            for display in self.displays() {
                let picture =
                    |name: &str| Screenshot::read(&run.picture(&format!("{name}{index}"), display));
                let (still, printed) = (picture("still")?, picture("printed")?);
                let changed = still.differing(&printed);
                let text = font.text(&printed);
                let mut complain = |what: &str| {
                    found.push(format!(
                        "after run {}: {what} ({changed} pixels changed). The display {display} \
                         shows:\n{}",
                        index + 1,
                        text.trim_end()
                    ));
                };
                let shows = text.contains(PRINTED[index + 1]);
                if after.alive == Some(display) {
                    if !shows || changed < CHANGED {
                        complain("the console should be alive there");
                    }
                    if index == 0 && !text.contains(PRINTED[0]) {
                        complain("what was printed before the run is no longer there");
                    }
                } else if after.alive.is_none() && changed > 0 {
                    complain("the picture should stand still");
                }
                if let Some(wanted) = after.shows
                    && display == BOOT
                    && !text.contains(wanted)
                {
                    complain(&format!("{wanted:?} cannot be read"));
                }
            }
        }
        Ok(found)
    }
}

pub(super) fn print(machine: Vm, text: &str) -> Vm {
    machine.shell(&format!("for i in 1 2 3 4; do echo {text}; done >/dev/tty0; sleep 0.5"))
}

fn outcome(device: &Value) -> Option<(&str, &str)> {
    Some((device["address"].as_str()?, device["outcome"].as_str()?))
}
