//! The initrd's program: what runs before the real root. Every boot unpacks it, also where nothing is asked
//! for, so that it has no more than that. The host's is main.rs.
#![no_main]

mod boot;
mod runtime;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use lexopt::prelude::*;
use vfio_early::cmdline;
use vfio_early::kernel::Live;
use vfio_early::report::exit_status;
use vfio_early::sysfs::Sysfs;
use vfio_early::{generator, kmsg};

use boot::{Moment, print};

const HELP: &str = "\
Gives the PCI devices of vfio.devs=, on the kernel command line, to vfio-pci.

usage: vfio-early [bind | claim | wait | status] [--cmdline TEXT]

  bind            takes them
  claim, wait     the part of it that is before udev; until bind is over
  status          the last report against what holds now
  --cmdline TEXT  read TEXT instead of /proc/cmdline
  --help, --version

This is the initrd's program; on the host it can do more.

exit status: 0 well, 1 not bound (3: strict), 2 arguments, 4 unusable, 5 claimed
";

#[derive(Clone, Copy)]
enum Command {
    Boot(Moment),
    Status,
}

/// The command, and what is in the place of the kernel's command line.
type Arguments = (Command, Option<Vec<u8>>);

/// `Ok(None)` where the answer has been printed already.
fn arguments(
    words: impl Iterator<Item = OsString> + 'static,
) -> Result<Option<Arguments>, lexopt::Error> {
    let (mut command, mut cmdline) = (Command::Boot(Moment::Bind), None);
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cmdline") => cmdline = Some(parser.value()?.into_vec()),
            Long("help") | Short('h') => {
                print(HELP);
                return Ok(None);
            }
            Long("version") | Short('V') => {
                print(boot::VERSION);
                return Ok(None);
            }
            Value(word) if word == "bind" => command = Command::Boot(Moment::Bind),
            Value(word) if word == "claim" => command = Command::Boot(Moment::Claim),
            Value(word) if word == "wait" => command = Command::Boot(Moment::Wait),
            Value(word) if word == "status" => command = Command::Status,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some((command, cmdline)))
}

/// The exit status.
fn run(words: Vec<OsString>) -> u8 {
    let mut words = words.into_iter();
    if words.next().is_some_and(|program| generator::is_called(&program)) {
        // By hand it has no folder, and there is nothing to be done.
        if let Some(folder) = words.next() {
            boot::generate(&folder, kmsg::in_systemds_initrd());
        }
        return exit_status(false, false);
    }
    let (command, cmdline) = match arguments(words) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return exit_status(false, false),
        Err(why) => return boot::wrong_arguments(&why),
    };
    let root = Path::new("/");
    let sysfs = Sysfs::new(root);
    let Some(text) = cmdline.or_else(|| boot::command_line(&sysfs)) else {
        return exit_status(true, false);
    };
    let request = cmdline::parse(&text);
    kmsg::start(request.debug);
    match command {
        Command::Status => boot::status(&request, &sysfs, root, boot::in_words),
        _ if !request.asks_for_devices() => {
            boot::nothing_asked(&request);
            exit_status(false, false)
        }
        Command::Boot(moment) => boot::run(moment, request, sysfs, &text, &mut Live::new(root)),
    }
}
