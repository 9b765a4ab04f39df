//! A machine that boots from a real initrd into a real root, and what it tells there.
//!
//! What is observed takes no part in the order of things: processes and drivers of a moment, the
//! journal, the state of units.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::check;
use crate::machine::observed::{BEFORE, HOST};
use crate::machine::run::Run;
use crate::machine::topology::{Device, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::kernels::Kernel;

pub(crate) const NETWORK: &str = "0000:00:03.0";
pub(crate) const DISK: &str = "0000:00:04.0";
pub(crate) const USB: &str = "0000:00:05.0";
/// Nobody asks for it.
pub(crate) const OTHER_NETWORK: &str = "0000:00:06.0";

/// The disk with the root file system.
pub(crate) const ROOT_DISK: &str = "0000:00:02.0";
/// What `vfio-early keep` says of this machine, and what every initrd has of it: that is made in a
/// chroot, where only what the administrator wrote can be known.
pub(crate) const RECORD: &str = "disk 1af4:1001@00:02.0  # vda is mounted on /\n";

/// The moment when udev may start; the one before the program has run at all is [`BEFORE`].
pub(crate) const CLAIMED: &str = "claimed";
/// The moment after all is done in the initrd.
pub(crate) const AFTER_INITRD: &str = "after";

/// Two network cards of which one is to be asked for, an NVM disk, a USB controller, and what is
/// added; and the disk with the root file system, whose serial number is `root`.
pub(crate) fn machine(
    kernel: &Kernel,
    initrd: &Path,
    root: &Path,
    added: impl IntoIterator<Item = Device>,
) -> Vm {
    let drive = format!(
        "if=none,id=root,format=raw,snapshot=on,file={}",
        root.to_string_lossy().replace(',', ",,")
    );
    let devices = [
        Device::new("e1000e", "03.0"),
        Device::new("nvme", "04.0"),
        Device::new("qemu-xhci", "05.0"),
        Device::new("e1000e", "06.0"),
    ];
    vm(kernel)
        .topology(Topology::new(devices.into_iter().chain(added)))
        .initrd(initrd)
        .arguments(["-drive", &drive, "-device", "virtio-blk-pci,drive=root,serial=root,addr=02.0"])
        // An emulated machine on a busy one is slow; what hangs is ended from outside.
        .cmdline("systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900")
        .limit(Duration::from_mins(10))
}

/// What is wrong, one sentence each.
#[derive(Debug, Default)]
pub(crate) struct Wrong(pub Vec<String>);

impl Wrong {
    pub(crate) fn unless(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.0.push(otherwise.into());
        }
    }
}

/// Boots it and checks what it tells; the error has all that helps.
pub(crate) fn boot(machine: Vm, check: impl FnOnce(&Seen, &mut Wrong)) -> Result<(), String> {
    let run = machine.boot().map_err(|error| format!("{error:#}"))?;
    let mut wrong = Wrong::default();
    match Seen::read(&run) {
        Ok(seen) => {
            check(&seen, &mut wrong);
        }
        Err(missing) => wrong.0.push(missing),
    }
    wrong.0.extend(run.log_complaints());
    if !wrong.0.is_empty() {
        let journal = run.shells.get(2).map_or("", |journal| journal.as_str());
        wrong.0.push(format!("--- journal\n{journal}"));
    }
    check::verdict(run, &wrong.0)
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Seconds since power-on.
    pub time: f64,
    /// Who says it, such as `systemd`.
    pub who: String,
    pub text: String,
}

/// What the machine told.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub run: &'a Run,
    /// Names of the processes before the program ran in the initrd, and when the devices were claimed.
    pub processes: [&'a str; 2],
    pub journal: Vec<Line>,
    /// Unit to property to value.
    units: BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>,
    pub jobs: &'a str,
    pub mounts: &'a str,
    /// What the screen showed when the boot had stopped; empty where it did not, or nobody looked.
    pub stopped: &'a str,
    /// The record of the initrd, in `/run`.
    pub record: &'a str,
    /// What `vfio-early keep` says.
    pub lives_from: &'a str,
    /// What came of a device that was given back, where the command line asks for it.
    pub given_back: &'a str,
}

impl<'a> Seen<'a> {
    fn read(run: &'a Run) -> Result<Self, String> {
        let shells: Vec<&str> = run.shells.iter().map(String::as_str).collect();
        let [
            before,
            claimed,
            journal,
            units,
            jobs,
            mounts,
            stopped,
            record,
            lives_from,
            given_back,
        ] = shells[..]
        else {
            return Err(format!("the guest told {} things, and not 10", shells.len()));
        };
        let units = units.trim().split("\n\n").map(|unit| {
            let properties: BTreeMap<&str, &str> =
                unit.lines().filter_map(|line| line.split_once('=')).collect();
            (properties.get("Id").copied().unwrap_or_default(), properties)
        });
        Ok(Self {
            run,
            processes: [before, claimed],
            journal: journal.lines().filter_map(line).collect(),
            units: units.collect(),
            jobs: jobs.trim(),
            mounts,
            stopped,
            record,
            lives_from,
            given_back,
        })
    }

    /// `active`, `failed`, `inactive`.
    pub(crate) fn state(&self, unit: &str) -> &str {
        self.property(unit, "ActiveState")
    }

    pub(crate) fn property(&self, unit: &str, name: &str) -> &str {
        self.units.get(unit).and_then(|unit| unit.get(name)).copied().unwrap_or("?")
    }

    /// When somebody first said that.
    pub(crate) fn first(&self, who: &str, begins: &str) -> Option<f64> {
        let mut lines = self.journal.iter();
        let line = lines.find(|line| line.who == who && line.text.starts_with(begins))?;
        Some(line.time)
    }

    pub(crate) fn driver(&self, moment: &str, address: &str) -> Option<&'a str> {
        self.run.moments.get(moment)?.driver(address)
    }

    /// When the program said how many are bound.
    pub(crate) fn summed_up(&self) -> Option<f64> {
        let mut lines = self.journal.iter().filter(|line| line.who == "vfio-early");
        Some(lines.find(|line| line.text.contains(" bound") && line.text.ends_with(" ms"))?.time)
    }

    /// When the program said something.
    pub(crate) fn spoken(&self) -> Option<f64> {
        self.first("vfio-early", "")
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

/// Nobody is of udev among the processes before the program ran in the initrd, and when the devices were
/// claimed.
pub(crate) fn without_udev(seen: &Seen, wrong: &mut Wrong) {
    for (moment, processes) in [BEFORE, CLAIMED].iter().zip(seen.processes) {
        wrong.unless(
            processes.lines().count() > 1,
            format!("{moment}: nobody looked at the processes"),
        );
        let udev: Vec<&str> = processes.lines().filter(|name| name.contains("udev")).collect();
        wrong.unless(udev.is_empty(), format!("{moment}: there were {udev:?}"));
    }
}

/// The boot came to its end there, with coldplug: the device that nobody asks for is the host's.
pub(crate) fn in_the_real_root(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root_on("/dev/vda", seen, wrong);
}

/// The same, on another device than the disk itself.
pub(crate) fn in_the_real_root_on(device: &str, seen: &Seen, wrong: &mut Wrong) {
    wrong.unless(!seen.journal.is_empty(), "the journal is empty");
    let is_root = |line: &str| line.starts_with(&format!("{device} / ext4 "));
    wrong.unless(seen.mounts.lines().any(is_root), "the real root is not there");
    let multi_user = seen.state("multi-user.target");
    wrong.unless(multi_user == "active", format!("multi-user.target is {multi_user}"));
    let other = seen.driver(HOST, OTHER_NETWORK);
    wrong.unless(other == Some("e1000e"), format!("{OTHER_NETWORK} is on {other:?}"));
}

/// These devices are bound from the initrd on, and the other items have those outcomes; the report is
/// there for everybody, and `vfio-early status` is right.
pub(crate) fn bound(seen: &Seen, wrong: &mut Wrong, addresses: &[&str], others: &[&str]) {
    for address in addresses {
        for (moment, wanted) in [
            (BEFORE, &[None][..]),
            // `bind` is at work beside who looks.
            (CLAIMED, &[None, Some("vfio-pci")]),
            (AFTER_INITRD, &[Some("vfio-pci")]),
            (HOST, &[Some("vfio-pci")]),
        ] {
            let found = seen.driver(moment, address);
            wrong.unless(wanted.contains(&found), format!("{moment}: {address} is on {found:?}"));
        }
        let claimed = seen.run.moments.get(CLAIMED).and_then(|at| at.devices.get(*address));
        let claimed = claimed.and_then(|device| device.driver_override.as_deref());
        wrong.unless(
            claimed.is_some_and(|name| name.starts_with("vfio-")),
            format!("when udev could start, the override of {address} was {claimed:?}"),
        );
    }
    let status = seen.run.last();
    let wanted = i32::from(!others.is_empty());
    wrong.unless(status.status == wanted, format!("`vfio-early status`: {}", status.status));
    let lines = status.stdout.matches("bound to vfio-pci").count();
    wrong
        .unless(lines == addresses.len(), format!("`vfio-early status` has {lines} bound devices"));
    let mut expected = vec!["bound"; addresses.len()];
    expected.extend(others);
    let outcomes: Vec<_> = seen.run.report()["devices"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|device| device["outcome"].as_str().unwrap_or("?"))
        .collect();
    wrong.unless(outcomes == expected, format!("the report says {outcomes:?}"));
    wrong.unless(status.report_mode == "644", "the report is not for everybody to read");
}

/// Nothing of ours is an error in the journal, which is where "Verify" in each page sends the user.
pub(crate) fn without_errors(seen: &Seen, wrong: &mut Wrong) {
    for line in &seen.journal {
        let is_error = is_error(&line.text);
        wrong.unless(!is_error, format!("the journal says: {}: {}", line.who, line.text));
    }
}

fn is_error(text: &str) -> bool {
    text.contains("vfio-early")
        && ["Failed", "FAILURE", "not loaded", "not found"].iter().any(|word| text.contains(word))
}

/// The record in the initrd keeps the root disk, and what is listed beside it is bound. The record is what
/// this host lives from, and it is in `/run`.
pub(crate) fn root_disk_kept(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    for (address, driver) in [(ROOT_DISK, "virtio-pci"), (NETWORK, "vfio-pci")] {
        let found = seen.driver(HOST, address);
        wrong.unless(found == Some(driver), format!("{address} is on {found:?}"));
    }
    let said = format!(
        "{ROOT_DISK} 1af4:1001: refused: the host lives from this disk, by the record in its initrd: vda \
         is mounted on /"
    );
    let is_said = seen.run.log.iter().any(|record| record.text.contains(&said));
    wrong.unless(is_said, format!("the log does not say: {said}"));
    recorded(seen, wrong);
    wrong.unless(
        entries(seen.lives_from) == RECORD,
        format!("`vfio-early keep` says {:?}", seen.lives_from),
    );
}

fn recorded(seen: &Seen, wrong: &mut Wrong) {
    let is_it = entries(seen.record) == RECORD;
    wrong.unless(is_it, format!("the record in /run is {:?}", seen.record));
}

/// A record without its comments.
pub(crate) fn entries(record: &str) -> String {
    record.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
}

/// With `vfio.host=release` the root disk goes, whatever comes of that.
pub(crate) fn root_disk_released(seen: &Seen, wrong: &mut Wrong) {
    let found = seen.driver(HOST, ROOT_DISK);
    wrong.unless(found == Some("vfio-pci"), format!("{ROOT_DISK} is on {found:?}"));
    let is_root = |line: &str| line.starts_with("/dev/vda ");
    wrong.unless(!seen.mounts.is_empty(), "there are no mounts");
    wrong.unless(!seen.mounts.lines().any(is_root), "the real root is mounted");
    recorded(seen, wrong);
}

/// One of two items has no device; the program says so in the log and in `status`.
pub(crate) fn one_bound_one_absent(seen: &Seen, wrong: &mut Wrong) {
    let driver = seen.driver(HOST, NETWORK);
    wrong.unless(driver == Some("vfio-pci"), format!("{NETWORK} is on {driver:?}"));
    let status = seen.run.last();
    let is_strict = seen.run.command_line.contains("vfio.strict");
    wrong.unless(
        status.status == if is_strict { 3 } else { 1 }
            && status.stdout.contains("\"00:1e.0\": absent"),
        format!("`vfio-early status` ends with {}: {}", status.status, status.stdout),
    );
}

/// In the emergency shell of an initrd with systemd, which asked for no password, the user saw what had
/// failed, and got an answer from `vfio-early status`.
pub(crate) fn shell_was_used(seen: &Seen, wrong: &mut Wrong) {
    for text in [
        "Require All of vfio.devs=.",
        "Entering emergency mode",
        "Press Enter for ",
        "\"00:1e.0\": absent",
    ] {
        let screen = seen.stopped;
        wrong.unless(screen.contains(text), format!("the user did not see {text:?}: {screen}"));
    }
}

/// Everything is as without vfio-early.
pub(crate) fn untouched(seen: &Seen, wrong: &mut Wrong) {
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
    fn what_systemd_and_its_tools_say_of_a_failure_is_an_error() {
        for (text, expected) in [
            ("Failed to reset failed state of unit vfio-early.service: Unit … not loaded.", true),
            ("Failed to start vfio-early.service - Bind vfio.devs= to VFIO.", true),
            ("vfio-early-finish.service: Control process exited, status=1/FAILURE", true),
            ("Finished vfio-early-finish.service - Finish Binding vfio.devs=.", false),
            ("Failed to start harness.service", false),
        ] {
            assert_eq!(is_error(text), expected, "{text}");
        }
    }
}
