//! What changes devices in the real root: `finish` and udev's rule by themselves, `bind ITEM` and `release` by hand.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use log::Level;
use serde_json::Value;
use vfio_early::claimed::{Claimed, Left};
use vfio_early::cmdline::Request;
use vfio_early::escape;
use vfio_early::host::{finish, release, udev, vfs};
use vfio_early::kernel::Live;
use vfio_early::pci::Address;
use vfio_early::report::{Outcome, Report, exit_status};
use vfio_early::report_file::{self, FOLDER, NAME};
use vfio_early::sysfs::Sysfs;

use crate::boot::{alone, bind, remedy, say, taken, whole};

/// Takes what is named by hand; the exit status. It is told beside what the report of the boot has.
pub fn bind_named(request: Request, sysfs: &Sysfs, text: &[u8], kernel: &mut Live) -> u8 {
    let strict = request.strict;
    let Ok(_lock) = alone() else { return exit_status(true, strict) };
    let report = match vfio_early::bind_on_host(request, sysfs, kernel) {
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

/// By when a virtual function has its links (`pci_iov_add_virtfn()`).
const LINKS: Duration = Duration::from_millis(100);

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
    let mut found = run();
    if matches!(found, Ok(None)) && vfs::asks(request) {
        // The kernel makes the links of a virtual function after it has announced it.
        thread::sleep(LINKS);
        found = run();
    }
    let mut report = match found {
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
pub fn release(request: Request, sysfs: &Sysfs, kernel: &mut Live) -> u8 {
    let request = vfs::each_there(request, sysfs);
    let lines = match release::release(&request, sysfs, kernel, Path::new(FOLDER)) {
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
