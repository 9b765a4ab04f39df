//! Arguments, logger, exit status.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;
use vfio_early::cmdline::{self, Request};
use vfio_early::kernel::Live;
use vfio_early::report::{Report, exit_status};
use vfio_early::sysfs::Sysfs;
use vfio_early::{kmsg, report_file};

const HELP: &str = "\
Gives the PCI devices that vfio.devs= on the kernel command line names to vfio-pci.

usage: vfio-early [bind] [--cmdline TEXT] [--root DIR] [--dry-run]

  --cmdline TEXT  read TEXT instead of /proc/cmdline
  --root DIR      read DIR/proc and DIR/sys; only with --dry-run
  --dry-run       print the plan, write nothing
  --help          print this
  --version       print the version

exit status: 0 all bound, or nothing asked; 1 something asked for is not bound;
  3 the same, and vfio.strict was given; 2 wrong arguments
";

const WRONG_ARGUMENTS: u8 = 2;

struct Arguments {
    cmdline: Option<Vec<u8>>,
    root: PathBuf,
    dry_run: bool,
}

/// `Ok(None)` where the answer has been printed already.
fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments { cmdline: None, root: PathBuf::from("/"), dry_run: false };
    let mut command = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cmdline") => {
                let text = std::os::unix::ffi::OsStringExt::into_vec(parser.value()?);
                arguments.cmdline = Some(text);
            }
            Long("root") => arguments.root = parser.value()?.into(),
            Long("dry-run") => arguments.dry_run = true,
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            Long("version") | Short('V') => {
                println!("vfio-early {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Value(word) if word == "bind" && command.is_none() => command = Some(word),
            other => return Err(other.unexpected()),
        }
    }
    if !arguments.dry_run && arguments.root != Path::new("/") {
        return Err("--root reads another tree and writes nothing: add --dry-run".into());
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("vfio-early: {why}; see vfio-early --help");
            return WRONG_ARGUMENTS.into();
        }
    };
    let sysfs = Sysfs::new(&arguments.root);
    let text = match arguments.cmdline.map_or_else(|| sysfs.cmdline(), Ok) {
        Ok(text) => text,
        Err(why) => {
            kmsg::start(false);
            log::error!("no command line: {why}; mount /proc before vfio-early");
            return exit_status(true, false).into();
        }
    };
    let request = cmdline::parse(&text);
    kmsg::start(request.debug);
    if arguments.dry_run {
        dry_run(&request, &sysfs, &mut Live::new(&arguments.root))
    } else if request.asks_for_devices() {
        bind(request, &sysfs, &text)
    } else {
        request.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        if request.off {
            log::info!("vfio.off: nothing is done");
        }
        exit_status(false, false)
    }
    .into()
}

fn bind(request: Request, sysfs: &Sysfs, text: &[u8]) -> u8 {
    let strict = request.strict;
    let report = match vfio_early::bind(request, sysfs, &mut Live::new("/")) {
        Ok(report) => report,
        Err(why) => {
            log::error!("no device is bound: {why}; mount /sys before vfio-early");
            return exit_status(true, strict);
        }
    };
    let command_line = String::from_utf8_lossy(text).into_owned();
    let report = Report { command_line, kernel: sysfs.kernel_release(), ..report };
    if let Err(why) = report_file::save(&report, Path::new(report_file::FOLDER)) {
        log::warn!("no report in {}: {why}", report_file::FOLDER);
    }
    for (level, line) in report.lines() {
        log::log!(level, "{line}");
    }
    report.exit_status
}

fn dry_run(request: &Request, sysfs: &Sysfs, kernel: &mut Live) -> u8 {
    request.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    for rejected in &request.rejected {
        log::error!("{:?}: {}", rejected.text, rejected.reason);
    }
    if request.off {
        println!("vfio.off: nothing is done");
        return exit_status(false, false);
    }
    match vfio_early::dry_run(request, sysfs, kernel) {
        Ok(plan) => {
            print!("{plan}");
            let taken = plan.taken().count() == plan.targets.len();
            let met = taken && plan.absent.is_empty() && request.rejected.is_empty();
            exit_status(!met, request.strict)
        }
        Err(why) => {
            log::error!("{why}; is sysfs mounted there?");
            exit_status(true, request.strict)
        }
    }
}
