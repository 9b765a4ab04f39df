//! What runs at boot: `bind` in the initrd, and `finish` in the real root.

use std::io;
use std::path::Path;

use vfio_early::cmdline::Request;
use vfio_early::escape;
use vfio_early::host::finish;
use vfio_early::kernel::Live;
use vfio_early::kmsg;
use vfio_early::report::{Report, exit_status};
use vfio_early::report_file::{self, FOLDER, NAME};
use vfio_early::sysfs::{RECORD, Sysfs};

/// What to do when something below that folder cannot be read.
pub fn remedy(why: &io::Error, folder: &str) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => format!("mount {folder} before vfio-early"),
        io::ErrorKind::PermissionDenied => "run vfio-early as root".to_owned(),
        _ => "vfio-early needs a few file descriptors and readable files there".to_owned(),
    }
}

/// Does all that is asked for, and tells what became of it; the exit status.
pub fn bind(request: Request, sysfs: &Sysfs, text: &[u8], kernel: &mut Live) -> u8 {
    let strict = request.strict;
    let report = match vfio_early::bind(request, sysfs, kernel) {
        Ok(report) => report,
        Err(why) => {
            log::error!("no device is bound: {why}; {}", remedy(&why, "/sys"));
            return exit_status(true, strict);
        }
    };
    let command_line = String::from_utf8_lossy(text).into_owned();
    let report = Report { command_line, kernel: sysfs.kernel_release(), ..report };
    if let Err(why) = report_file::save(&report, Path::new(FOLDER)) {
        log::warn!("no report in {FOLDER}: {why}");
    }
    // Of an initrd, which will be gone.
    if let Ok(record) = sysfs.bytes(RECORD)
        && kmsg::in_initrd()
        && let Err(why) = report_file::write(report_file::RECORD, &record, Path::new(FOLDER))
    {
        log::warn!("no record in {FOLDER}: {why}");
    }
    kmsg::phase_over("report");
    for (level, line) in report.lines() {
        log::log!(level, "{line}");
    }
    report.exit_status
}

/// Does what the initrd had to leave; whether all was well there.
pub fn finish(request: Request, sysfs: &Sysfs, text: &[u8], kernel: &mut Live) -> bool {
    let folder = Path::new(FOLDER);
    let then = match finish::read(&folder.join(NAME), text, sysfs) {
        Ok(Some(then)) => then,
        Ok(None) => {
            log::warn!("vfio-early has not run in the initrd: what is not in use is taken now");
            bind(request, sysfs, text, kernel);
            return false;
        }
        Err(why) => {
            log::error!("nothing is done: {why}; vfio-early bind takes all of vfio.devs=");
            return false;
        }
    };
    let was_well = finish::was_well(&then);
    for line in finish::given_back(&then, sysfs) {
        log::warn!("{line}");
    }
    let now = match vfio_early::finish(request, &then, sysfs, kernel) {
        Ok(Some(now)) => now,
        Ok(None) => return was_well,
        Err(why) => {
            log::error!("nothing is done: {why}; {}", remedy(&why, "/sys"));
            return was_well;
        }
    };
    let merged = finish::merged(then, &now).and_then(|report| escape::json(&report));
    let merged = merged.map_err(io::Error::from);
    let saved = merged.and_then(|text| report_file::write(NAME, (text + "\n").as_bytes(), folder));
    if let Err(why) = saved {
        log::warn!("no report in {FOLDER}: {why}");
    }
    now.lines().iter().for_each(|(level, line)| log::log!(*level, "{line}"));
    was_well
}
