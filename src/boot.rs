//! What both programs have: the boot's run in two moments, `claim` before udev and `bind` beside it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use vfio_early::Claim;
use vfio_early::claimed::{Claimed, Left};
use vfio_early::cmdline::{self, Host, Request};
use vfio_early::escape;
use vfio_early::generator;
use vfio_early::host::released::{self, Released};
use vfio_early::host::status::{self, Status};
use vfio_early::kernel::Live;
use vfio_early::kmsg;
use vfio_early::report::{Report, exit_status};
use vfio_early::report_file::{self, FOLDER, Lock, NAME};
use vfio_early::sysfs::{RECORD, Sysfs};

/// With the target that it was built for, and from what.
pub const VERSION: &str =
    concat!("vfio-early ", env!("CARGO_PKG_VERSION"), " (", env!("VFIO_EARLY_BUILD"), ")\n");

pub const WRONG_ARGUMENTS: u8 = 2;

/// What the boot runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Moment {
    Claim,
    Bind,
    /// For the end of `bind`, by scripts that have no other word for that.
    Wait,
}

/// No `bind` is at work for longer: a minute, and as much again for `vfio.wait=`.
const LONGEST: Duration = Duration::from_secs(130);

/// The exit status of a `claim` that has left the rest to `bind`; other ones are as of that.
const CLAIMED: u8 = 5;

/// Runs it for devices that are asked for; the exit status.
pub fn run(moment: Moment, request: Request, sysfs: Sysfs, text: &[u8], kernel: &mut Live) -> u8 {
    let folder = Path::new(FOLDER);
    let Ok(_lock) = alone() else { return exit_status(true, request.strict) };
    if moment == Moment::Claim {
        return claim(request, sysfs, text, kernel);
    }
    match report_file::take(folder) {
        Some(Left::Done(status)) => status,
        Some(Left::Claimed(claimed)) => bind(request, sysfs, claimed, text, kernel),
        None if moment == Moment::Bind => bind(request, sysfs, Claimed::default(), text, kernel),
        None => report_file::exit_status(folder).unwrap_or_else(|| {
            log::error!("vfio-early was killed, or did not run: it has left no report");
            exit_status(true, request.strict)
        }),
    }
}

/// Unlike `print!`, does not panic where nobody listens.
pub fn print(text: &str) {
    // Where it fails there is nobody left to tell.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// The same, for what is wrong with the arguments; the exit status.
pub fn wrong_arguments(why: &lexopt::Error) -> u8 {
    let why = escape::line(&why.to_string());
    let _ = writeln!(io::stderr(), "vfio-early: {why}; see vfio-early --help");
    WRONG_ARGUMENTS
}

/// The kernel's command line, or an error in the log.
pub fn command_line(sysfs: &Sysfs) -> Option<Vec<u8>> {
    let text = sysfs.cmdline();
    if let Err(why) = &text {
        kmsg::start(false);
        log::error!("no command line: {why}; {}", remedy(why, "/proc"));
    }
    text.ok()
}

/// Has systemd start the units that the command line asks for, by links below the first of the folders
/// that it names; whether there are any. A boot does not fail by it.
pub fn generate(folder: &OsStr, in_initrd: bool) -> bool {
    kmsg::into_the_kernels_log();
    let Some(text) = command_line(&Sysfs::new(Path::new("/"))) else { return false };
    let request = cmdline::parse(&text);
    kmsg::start(request.debug);
    let links = generator::links(&request, in_initrd);
    for link in links {
        if let Err(why) = generator::link(folder, link) {
            log::error!("no unit is started, systemd's {link} cannot be made: {why}");
        }
    }
    // Whatever is started says the rest; and in the real root each reload of systemd's runs this.
    if links.is_empty() && in_initrd {
        nothing_asked(&request);
    }
    !links.is_empty()
}

/// Shows the report of this boot against what holds now; the exit status.
pub fn status(request: &Request, sysfs: &Sysfs, root: &Path, show: impl Fn(&Status)) -> u8 {
    let report = root.join(FOLDER.trim_start_matches('/')).join(NAME);
    // Devices that were named later have a report, too.
    if !request.asks_for_devices() && !report.exists() {
        request.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        show(&Status::default());
        return exit_status(false, false);
    }
    match status::status(&report, sysfs) {
        Ok(mut status) => {
            if status.exit_status == exit_status(true, false) {
                status.exit_status = exit_status(true, request.strict);
            }
            show(&status);
            status.exit_status
        }
        Err(why) => {
            log::error!("no report of this boot, vfio-early did not run in the initrd: {why}");
            exit_status(true, request.strict)
        }
    }
}

/// Shows a status to a reader.
pub fn in_words(status: &Status) {
    if *status == Status::default() {
        log::info!("the command line asks for no device");
    }
    print(&status.to_string());
}

pub fn nothing_asked(request: &Request) {
    request.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if request.off {
        log::info!("vfio.off: nothing is done");
    }
}

/// Waits until no other one is at work; an error, with a line in the log, where that does not come to its
/// end. Where there is no place for a lock, nobody else has it, and the report has a line about it.
pub fn alone() -> Result<Option<Lock>, ()> {
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
    let (count, took) = (claimed.count(), claimed.took_us);
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

pub fn bind(
    request: Request,
    sysfs: Sysfs,
    claimed: Claimed,
    text: &[u8],
    kernel: &mut Live,
) -> u8 {
    let strict = request.strict;
    let took_us = claimed.took_us;
    let sysfs = sysfs.knowing(claimed.devices);
    match vfio_early::bind(request, &sysfs, kernel) {
        Ok(report) => {
            let claimed_us = Some(took_us).filter(|us| *us > 0);
            tell(Report { claimed_us, ..report }, &sysfs, text)
        }
        Err(why) => {
            log::error!("no device is bound: {why}; {}", remedy(&why, "/sys"));
            exit_status(true, strict)
        }
    }
}

/// What was asked for anew is released no more.
pub fn taken(report: &Report, sysfs: &Sysfs) {
    let lines = released::taken(report);
    if let Err(why) = Released::read(sysfs).change(&lines, false, Path::new(FOLDER)) {
        log::warn!("they count as released still, in {FOLDER}: {why}");
    }
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
pub fn whole(report: Report, sysfs: &Sysfs, text: &[u8]) -> Report {
    let command_line = String::from_utf8_lossy(text).into_owned();
    Report { command_line, kernel: sysfs.kernel_release(), ..report }
}

pub fn say(report: &Report, saved: io::Result<()>) {
    if let Err(why) = saved {
        log::warn!("no report in {FOLDER}: {why}");
    }
    report.lines().iter().for_each(|(level, line)| log::log!(*level, "{line}"));
}
