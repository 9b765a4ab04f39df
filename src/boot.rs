//! What changes devices: at boot in two moments, `claim` before udev and `bind` beside it; `finish` in the real
//! root; `release` by hand.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use log::Level;
use serde_json::Value;
use vfio_early::Claim;
use vfio_early::claimed::{Claimed, Left};
use vfio_early::cmdline::{Host, Request};
use vfio_early::escape;
use vfio_early::host::released::{self, Released};
use vfio_early::host::{finish, release, udev};
use vfio_early::kernel::Live;
use vfio_early::kmsg;
use vfio_early::pci::Address;
use vfio_early::report::{Outcome, Report, exit_status};
use vfio_early::report_file::{self, FOLDER, Lock, NAME};
use vfio_early::sysfs::{RECORD, Sysfs};

use super::Command;

/// No `bind` is at work for longer: a minute, and as much again for `vfio.wait=`.
const LONGEST: Duration = Duration::from_secs(130);

/// The exit status of a `claim` that has left the rest to `bind`; other ones are as of that.
const CLAIMED: u8 = 5;

/// Runs one of the commands for devices that are asked for; the exit status.
pub fn run(command: Command, request: Request, sysfs: Sysfs, text: &[u8], kernel: &mut Live) -> u8 {
    let folder = Path::new(FOLDER);
    let Ok(_lock) = alone() else { return exit_status(true, request.strict) };
    if command == Command::Claim {
        return claim(request, sysfs, text, kernel);
    }
    match report_file::take(folder) {
        Some(Left::Done(status)) => status,
        Some(Left::Claimed(claimed)) => bind(request, sysfs, claimed, text, kernel),
        None if command == Command::Bind => bind(request, sysfs, Claimed::default(), text, kernel),
        None => report_file::exit_status(folder).unwrap_or_else(|| {
            log::error!("vfio-early was killed, or did not run: it has left no report");
            exit_status(true, request.strict)
        }),
    }
}

/// Waits until no other one is at work; an error, with a line in the log, where that does not come to its
/// end. Where there is no place for a lock, nobody else has it, and the report has a line about it.
fn alone() -> Result<Option<Lock>, ()> {
    let lock = report_file::lock(Path::new(FOLDER), LONGEST);
    if lock.as_ref().is_ok_and(Option::is_none) {
        log::error!("another vfio-early does not come to its end; see the kernel log (dmesg)");
        return Err(());
    }
    Ok(lock.unwrap_or_default())
}

/// What to do when something below that folder cannot be read.
pub fn remedy(why: &io::Error, folder: &str) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => format!("mount {folder} before vfio-early"),
        io::ErrorKind::PermissionDenied => "run vfio-early as root".to_owned(),
        _ => "vfio-early needs a few file descriptors and readable files there".to_owned(),
    }
}

/// Of an initrd that was made before there were records, or by something that makes none. No warning: a
/// host may be without one on purpose.
const NO_RECORD: &str = "this initrd has no record of what the host lives from, so that no disk is refused \
    by it: make the initrd anew on the running host (NixOS: the option keep); if none is wanted, \
    vfio.host=release says so";

fn claim(request: Request, sysfs: Sysfs, text: &[u8], kernel: &mut Live) -> u8 {
    let folder = Path::new(FOLDER);
    let claimed = match vfio_early::claim(request.clone(), &sysfs, kernel) {
        Ok(Claim::Claimed(claimed)) => claimed,
        Ok(Claim::Done(report)) => {
            let status = tell(*report, &sysfs, text);
            if let Err(why) = report_file::leave(&Left::Done(status), folder) {
                log::warn!("no word for vfio-early bind in {FOLDER}, which looks anew: {why}");
            }
            return status;
        }
        Err(why) => {
            log::error!("no device is claimed: {why}; {}", remedy(&why, "/sys"));
            return exit_status(true, request.strict);
        }
    };
    let (count, took) = (claimed.count(), claimed.took.as_micros());
    let (whole, part) = (took / 1000, took % 1000 / 100);
    log::info!("claimed {count} in {whole}.{part} ms: no other driver can have them");
    let left = Left::Claimed(claimed);
    let saved = report_file::leave(&left, folder);
    match (left, saved) {
        (Left::Claimed(claimed), Err(why)) => {
            log::warn!("no word for vfio-early bind in {FOLDER}, so udev waits for all: {why}");
            bind(request, sysfs, claimed, text, kernel)
        }
        _ => CLAIMED,
    }
}

fn bind(request: Request, sysfs: Sysfs, claimed: Claimed, text: &[u8], kernel: &mut Live) -> u8 {
    let strict = request.strict;
    let took = claimed.took;
    let sysfs = sysfs.knowing(claimed.devices);
    match vfio_early::bind(request, &sysfs, kernel) {
        Ok(report) => {
            let claimed_us = u64::try_from(took.as_micros()).ok().filter(|us| *us > 0);
            tell(Report { claimed_us, ..report }, &sysfs, text)
        }
        Err(why) => {
            log::error!("no device is bound: {why}; {}", remedy(&why, "/sys"));
            exit_status(true, strict)
        }
    }
}

/// Takes what is named by hand; the exit status. It is told beside what the report of the boot has.
pub fn bind_named(request: Request, sysfs: &Sysfs, text: &[u8], kernel: &mut Live) -> u8 {
    let strict = request.strict;
    let Ok(_lock) = alone() else { return exit_status(true, strict) };
    let report = match vfio_early::bind(request, sysfs, kernel) {
        Ok(report) => whole(report, sysfs, text),
        Err(why) => {
            log::error!("no device is bound: {why}; {}", remedy(&why, "/sys"));
            return exit_status(true, strict);
        }
    };
    let folder = Path::new(FOLDER);
    let saved = match finish::read(&folder.join(NAME), text, sysfs) {
        Ok(Some(then)) => add(then, &report, true),
        Ok(None) => report_file::save(&report, folder),
        Err(why) => Err(io::Error::other(why)),
    };
    say(&report, saved);
    taken(&report, sysfs);
    report.exit_status
}

/// Adds what a run has done to the report of the boot.
fn add(then: Value, now: &Report, is_named: bool) -> io::Result<()> {
    let text = escape::json(&finish::merged(then, now, is_named)?)? + "\n";
    report_file::write(NAME, text.as_bytes(), Path::new(FOLDER))
}

/// What was asked for anew is released no more.
fn taken(report: &Report, sysfs: &Sysfs) {
    let lines = released::taken(report);
    if let Err(why) = Released::read(sysfs).change(&lines, false, Path::new(FOLDER)) {
        log::warn!("they count as released still, in {FOLDER}: {why}");
    }
}

/// Does what the initrd had to leave; whether all was well there.
pub fn finish(request: Request, sysfs: Sysfs, text: &[u8], kernel: &mut Live) -> bool {
    if let Err(why) = rule() {
        log::warn!("devices that come later are not taken: no rule for udev: {why}");
    }
    let folder = Path::new(FOLDER);
    let Ok(_lock) = alone() else { return false };
    let left = report_file::take(folder);
    let then = match finish::read(&folder.join(NAME), text, &sysfs) {
        Ok(Some(then)) => then,
        Ok(None) => {
            log::warn!("vfio-early has not run in the initrd: what is not in use is taken now");
            let claimed = match left {
                Some(Left::Claimed(claimed)) => claimed,
                _ => Claimed::default(),
            };
            bind(request, sysfs, claimed, text, kernel);
            return false;
        }
        Err(why) => {
            log::error!("nothing is done: {why}; vfio-early bind takes all of vfio.devs=");
            return false;
        }
    };
    let was_well = finish::was_well(&then);
    for line in finish::given_back(&then, &sysfs) {
        log::warn!("{line}");
    }
    let now = match vfio_early::finish(request, &then, &sysfs, kernel) {
        Ok(Some(now)) => now,
        Ok(None) => return was_well,
        Err(why) => {
            log::error!("nothing is done: {why}; {}", remedy(&why, "/sys"));
            return was_well;
        }
    };
    if let Err(why) = add(then, &now, false) {
        log::warn!("no report in {FOLDER}: {why}");
    }
    now.lines().iter().for_each(|(level, line)| log::log!(*level, "{line}"));
    was_well
}

/// Drivers that were about to have a device when it came, and the kernel itself, are through then.
const AGAIN: Duration = Duration::from_millis(500);

/// What udev's rule runs for a device that has just come; the exit status. All is told in the kernel's log:
/// nobody reads what udev's programs print.
pub fn hotplug(
    request: &Request,
    address: Address,
    sysfs: &Sysfs,
    text: &[u8],
    kernel: &mut Live,
) -> u8 {
    let mut run = || vfio_early::hotplug(request.clone(), address, sysfs, kernel);
    let mut report = match run() {
        Ok(Some(report)) => report,
        // It is not meant, or was released.
        Ok(None) => return exit_status(false, false),
        Err(why) => {
            log::error!("{address}: {why}; {}", remedy(&why, "/sys"));
            return exit_status(true, false);
        }
    };
    if report.devices.iter().any(|it| it.outcome == Outcome::Failed) {
        thread::sleep(AGAIN);
        if let Ok(Some(again)) = run() {
            report = again;
        }
    }
    let folder = Path::new(FOLDER);
    // Several that come at once have a run each.
    let lock = alone();
    let saved = match finish::read(&folder.join(NAME), text, sysfs) {
        Ok(Some(then)) => add(then, &report, false),
        // There is no rule before there is a report.
        Ok(None) => Ok(()),
        Err(why) => Err(io::Error::other(why)),
    };
    drop(lock);
    if let Err(why) = saved {
        log::warn!("no report in {FOLDER}: {why}");
    }
    report.lines().iter().for_each(|(level, line)| log::log!(*level, "{line}"));
    report.exit_status
}

/// Where udev looks for the rules of this boot; before 80-drivers.rules, which loads modules.
const RULES: &str = "/run/udev/rules.d";
const RULE: &str = "79-vfio-early.rules";

/// Has udev run [`hotplug`] for each PCI device that comes from now on. A rule of this boot alone: a host that
/// asks for nothing has none.
///
/// # Errors
/// When it cannot be written.
pub fn rule() -> io::Result<()> {
    let folder = Path::new(RULES);
    if folder.join(RULE).exists() {
        return Ok(());
    }
    let program = fs::read_link("/proc/self/exe")?;
    fs::create_dir_all(folder)?;
    report_file::write(RULE, udev::rule(&program.to_string_lossy()).as_bytes(), folder)
}

/// Gives back what is named; the exit status.
pub fn release(request: &Request, sysfs: &Sysfs, kernel: &mut Live) -> u8 {
    let lines = match release::release(request, sysfs, kernel, Path::new(FOLDER)) {
        Ok(lines) => lines,
        Err(why) => {
            log::error!("nothing is released: {why}; {}", remedy(&why, "/sys"));
            return exit_status(true, false);
        }
    };
    for (level, line) in &lines {
        log::log!(*level, "{line}");
    }
    exit_status(lines.iter().any(|(level, _)| *level == Level::Error), false)
}

/// Tells what became of it; the exit status.
fn tell(report: Report, sysfs: &Sysfs, text: &[u8]) -> u8 {
    let folder = Path::new(FOLDER);
    let report = whole(report, sysfs, text);
    let saved = report_file::save(&report, folder);
    // Of an initrd, which will be gone.
    if kmsg::in_initrd() {
        match sysfs.bytes(RECORD) {
            Ok(record) => {
                if let Err(why) = report_file::write(report_file::RECORD, &record, folder) {
                    log::warn!("no record in {FOLDER}: {why}");
                }
            }
            Err(_) if report.request.host == Host::Keep => log::info!("{NO_RECORD}"),
            Err(_) => {}
        }
    }
    kmsg::phase_over("report");
    say(&report, saved);
    if !kmsg::is_kernels_log() {
        taken(&report, sysfs);
    }
    report.exit_status
}

/// With what the run itself does not know.
fn whole(report: Report, sysfs: &Sysfs, text: &[u8]) -> Report {
    let command_line = String::from_utf8_lossy(text).into_owned();
    Report { command_line, kernel: sysfs.kernel_release(), ..report }
}

fn say(report: &Report, saved: io::Result<()>) {
    if let Err(why) = saved {
        log::warn!("no report in {FOLDER}: {why}");
    }
    report.lines().iter().for_each(|(level, line)| log::log!(*level, "{line}"));
}
