//! The host's program: arguments, logger, exit status. The initrd's is initrd.rs.
#![no_main]

mod boot;
mod later;
mod runtime;

use std::ffi::{CString, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use nix::unistd::execv;
use serde::Serialize;
use vfio_early::cmdline::{self, Request};
use vfio_early::host::list::filter::Filter;
use vfio_early::host::list::formats::{self, FORMATS, Format};
use vfio_early::host::list::tree;
use vfio_early::host::page::Look;
use vfio_early::host::{keep, list, named, next_initrd, paste, udev, verify, vfs};
use vfio_early::keep::Kind;
use vfio_early::kernel::Live;
use vfio_early::pci::Address;
use vfio_early::report::exit_status;
use vfio_early::sysfs::{RECORD, Sysfs};
use vfio_early::{escape, generator, kmsg};

use boot::{Moment, print};

const HELP: &str = "\
Gives the PCI devices of vfio.devs=, on the kernel command line, to vfio-pci.

usage: vfio-early [bind] [--cmdline TEXT] [--dry-run] | bind ITEM... | claim
       vfio-early list [FILTER...] [--json | --format NAME] | release ITEM...
       vfio-early check [TEXT] [--json] | status [--json] | finish | keep | wait
       vfio-early verify [FILTER...] [--open] [--user NAME] [--memory SIZE]

  bind            the initrd's run; later it takes what is not bound, or ITEMs
  claim, wait     the part of it that is before udev; until bind is over
  release         gives each ITEM back to the host's driver, unless a VM has it
  finish          what the initrd had to leave; udev runs hotplug ADDRESS later
  list            the items to paste; FILTER: gpu, usb, net, storage, id, item
  check           what bind would do here; TEXT is items or a command line
  status          the last report against what holds now
  verify          try what a VM does when it starts, short of its devices
  keep            what this host lives from, for the initrd that is made on it
  --cmdline TEXT  read TEXT instead of /proc/cmdline; --dry-run: print the plan
  --format NAME   print the devices for libvirt, qemu, nix, kubevirt, proxmox,
                  incus, cloud-hypervisor or crosvm
  --root DIR      read DIR/proc and DIR/sys; bind is a dry run then
  --json, --help, --version; more is in vfio-early(8), vfio-early.cmdline(7)

exit status: 0 well, 1 not bound (3: strict), 2 arguments, 4 unusable, 5 claimed
";

#[derive(Clone, Copy, PartialEq)]
enum Command {
    Boot(Moment),
    List,
    Check,
    Status,
    Finish,
    Hotplug,
    Keep,
    Release,
    Verify,
}

struct Arguments {
    command: Command,
    cmdline: Option<Vec<u8>>,
    root: PathBuf,
    dry_run: bool,
    json: bool,
    format: Option<Format>,
    filters: Vec<Filter>,
    /// What follows `check`.
    pasted: String,
    verify: verify::Options,
    /// What follows `bind` or `release`.
    named: Option<Request>,
    /// What follows `hotplug`.
    address: Option<Address>,
    /// What follows `finish`.
    command_after: Vec<String>,
}

const BIND: Command = Command::Boot(Moment::Bind);

const COMMANDS: [(&str, Command); 11] = [
    ("bind", Command::Boot(Moment::Bind)),
    ("check", Command::Check),
    ("claim", Command::Boot(Moment::Claim)),
    ("finish", Command::Finish),
    ("hotplug", Command::Hotplug),
    ("keep", Command::Keep),
    ("list", Command::List),
    ("release", Command::Release),
    ("status", Command::Status),
    ("verify", Command::Verify),
    ("wait", Command::Boot(Moment::Wait)),
];

fn print_json(value: &impl Serialize) {
    // It fails only where a map's key is no text, and here is no map.
    print(&(escape::json(value).unwrap_or_default() + "\n"));
}

/// `Ok(None)` where the answer has been printed already.
fn arguments(
    words: impl Iterator<Item = OsString> + 'static,
) -> Result<Option<Arguments>, lexopt::Error> {
    let (mut cmdline, mut root, mut dry_run, mut json) = (None, PathBuf::from("/"), false, false);
    let (mut format, mut operands, mut verify) = (None, Vec::new(), verify::Options::default());
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cmdline") => cmdline = Some(OsStringExt::into_vec(parser.value()?)),
            Long("root") => {
                root = parser.value()?.into();
                // Most paths are joined to it more than once, which is nothing if it is absolute.
                root = fs::canonicalize(root.as_path()).unwrap_or(root);
            }
            Long("dry-run") => dry_run = true,
            Long("json") => json = true,
            Long("open") => verify.open = true,
            Long("user") => verify.user = Some(parser.value()?.string()?),
            Long("memory") => verify.memory = verify::memory(&parser.value()?.string()?)?,
            Long("format") => format = Some(format_of(&parser.value()?.string()?)?),
            Long("help") | Short('h') => {
                print(HELP);
                return Ok(None);
            }
            Long("version") | Short('V') => {
                print(boot::VERSION);
                return Ok(None);
            }
            Value(word) => operands.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let mut operands = operands.into_iter();
    let command = match operands.next() {
        None => BIND,
        Some(word) => match COMMANDS.iter().find(|(name, _)| *name == word) {
            Some((_, command)) => *command,
            None => return Err(lexopt::Error::UnexpectedArgument(word.into())),
        },
    };
    let (mut filters, mut pasted, mut command_after) = (Vec::new(), String::new(), Vec::new());
    let (mut words, mut address) = (Vec::new(), None);
    for operand in operands {
        match command {
            Command::List | Command::Verify => filters.push(operand.parse::<Filter>()?),
            Command::Check if cmdline.is_none() => pasted = pasted + &operand + " ",
            Command::Finish => command_after.push(operand),
            BIND | Command::Release => words.push(operand),
            Command::Hotplug if address.is_none() => address = Some(operand.parse()?),
            _ => return Err(lexopt::Error::UnexpectedArgument(operand.into())),
        }
    }
    let (is_bind, is_release) = (command == BIND, command == Command::Release);
    let is_of_boot = matches!(command, Command::Boot(_));
    let named = if words.is_empty() && !is_release { None } else { Some(named::read(&words)?) };
    let is_silent = matches!(command, Command::Keep | Command::Finish | Command::Hotplug);
    let writes = matches!(command, Command::Finish | Command::Hotplug | Command::Release);
    let wrong = if json && (is_of_boot || is_release || is_silent) {
        "--json is for list, check, status and verify"
    } else if command != Command::Verify && verify != verify::Options::default() {
        "--open, --user and --memory are for verify"
    } else if command == Command::Verify && root != Path::new("/") {
        "verify asks the running kernel: leave --root out"
    } else if format.is_some() && command != Command::List {
        "--format is for list"
    } else if json && format.is_some() {
        "--json is a format of its own: leave --format out"
    } else if dry_run && !is_bind {
        "--dry-run is for bind"
    } else if writes && root != Path::new("/") {
        "--root reads another tree, where finish, hotplug and release could write nothing"
    } else if command == Command::Hotplug && address.is_none() {
        "hotplug needs the address of a device"
    } else if is_of_boot && !dry_run && root != Path::new("/") {
        "--root reads another tree and writes nothing: add --dry-run"
    } else {
        ""
    };
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    Ok(Some(Arguments {
        command,
        cmdline,
        root,
        dry_run,
        json,
        format,
        filters,
        pasted,
        verify,
        named,
        address,
        command_after,
    }))
}

fn format_of(name: &str) -> Result<Format, String> {
    let known = FORMATS.iter().find(|(known, _)| *known == name);
    let formats = FORMATS.map(|(name, _)| name).join(", ");
    known.map(|(_, format)| *format).ok_or_else(|| format!("{name:?} is none of {formats}"))
}

/// The exit status.
fn run(words: Vec<OsString>) -> u8 {
    let mut words = words.into_iter();
    if words.next().is_some_and(|program| generator::is_called(&program)) {
        // By hand it has no folder, and there is nothing to be done.
        let Some(folder) = words.next() else { return exit_status(false, false) };
        let in_initrd = kmsg::in_systemds_initrd();
        // Before udev starts; where it cannot be written here, the finish unit does it, and tells.
        if boot::generate(&folder, in_initrd) && !in_initrd {
            let _ = later::rule();
        }
        return exit_status(false, false);
    }
    let mut arguments = match arguments(words) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return exit_status(false, false),
        Err(why) => return boot::wrong_arguments(&why),
    };
    let sysfs = Sysfs::new(&arguments.root);
    if arguments.command == Command::List {
        kmsg::start(false);
        return list(&arguments, &sysfs);
    }
    if arguments.command == Command::Keep {
        return keep(&sysfs, &arguments.root);
    }
    let mut taken_for = "";
    if !arguments.pasted.is_empty() {
        let (text, what) = paste::read(&arguments.pasted);
        taken_for = what;
        arguments.cmdline = Some(text.into_bytes());
    }
    let Some(text) = arguments.cmdline.or_else(|| boot::command_line(&sysfs)) else {
        return exit_status(true, false);
    };
    let mut request = cmdline::parse(&text);
    let is_named = arguments.named.is_some();
    if let Some(named) = arguments.named {
        request = named::instead(request, named);
    }
    kmsg::start(request.debug);
    if !taken_for.is_empty() {
        log::info!("taken for {taken_for}: {}", escape::short(&String::from_utf8_lossy(&text)));
    }
    let mut kernel = Live::new(&arguments.root);
    // In the initrd there are none, and they are told as that.
    let looks = arguments.command == Command::Verify || arguments.command == BIND && !is_named;
    if looks && !arguments.dry_run && !sysfs.is_initrd() {
        request = vfs::each_there(request, &sysfs);
    }
    if arguments.command == Command::Verify {
        verify(&arguments.filters, &arguments.verify, arguments.json, &request, &sysfs)
    } else if arguments.command == Command::Status {
        boot::status(&request, &sysfs, &arguments.root, |found| {
            if arguments.json { print_json(found) } else { boot::in_words(found) }
        })
    } else if arguments.command == Command::Check || arguments.dry_run {
        let form = match arguments {
            Arguments { dry_run: true, .. } => Form::Steps,
            Arguments { json: true, .. } => Form::Json,
            _ => Form::Words,
        };
        check(request, &sysfs, &mut kernel, &text, &arguments.root, form)
    } else if arguments.command == Command::Release {
        later::release(request, &sysfs, &mut kernel)
    } else if let Some(address) = arguments.address {
        kmsg::into_the_kernels_log();
        later::hotplug(&request, address, &sysfs, &text, &mut kernel)
    } else if request.asks_for_devices() {
        match arguments.command {
            Command::Finish => finish(request, sysfs, &text, &mut kernel, &arguments.command_after),
            _ if is_named => later::bind_named(request, &sysfs, &text, &mut kernel),
            Command::Boot(moment) => boot::run(moment, request, sysfs, &text, &mut kernel),
            _ => exit_status(false, false),
        }
    } else if matches!(arguments.command, Command::Boot(Moment::Claim | Moment::Wait)) {
        // `bind` says what there is to say.
        exit_status(false, false)
    } else {
        boot::nothing_asked(&request);
        exit_status(false, false)
    }
}

/// What is left, and then what holds.
fn finish(
    request: Request,
    sysfs: Sysfs,
    text: &[u8],
    kernel: &mut Live,
    command: &[String],
) -> u8 {
    let asked = request.clone();
    let was_well = later::finish(request, sysfs, text, kernel);
    // It has no other root.
    let root = Path::new("/");
    let status = boot::status(&asked, &Sysfs::new(root), root, boot::in_words);
    if status == exit_status(false, false) && !was_well {
        say_so(command);
    }
    status
}

/// Becomes that command, if there is one.
fn say_so(command: &[String]) {
    let words: Result<Vec<CString>, _> = command.iter().map(|word| CString::new(&**word)).collect();
    // Words of a command line have no NUL.
    let words = words.unwrap_or_default();
    if let Some(program) = words.first() {
        let Err(why) = execv(program, &words);
        log::warn!("{}: {}", escape::line(&program.to_string_lossy()), why.desc());
    }
}

/// How a plan is printed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// For a reader.
    Words,
    /// What `--dry-run` asks for.
    Steps,
    /// The report that `bind` would write.
    Json,
}

fn check(
    request: Request,
    sysfs: &Sysfs,
    kernel: &mut Live,
    text: &[u8],
    root: &Path,
    form: Form,
) -> u8 {
    let warnings = request.warnings.iter();
    warnings.for_each(|warning| log::warn!("{warning}"));
    let (strict, said) = (request.strict, request.warnings.len());
    let mut check = match vfio_early::check(request, sysfs, kernel) {
        Ok(check) => check,
        Err(why) => {
            log::error!("{why}; is sysfs mounted there?");
            return exit_status(true, strict);
        }
    };
    let report = &mut check.report;
    let running = sysfs.cmdline().unwrap_or_default();
    if running != text {
        let length = paste::length_with_the_rest(&running, text);
        report.warnings.extend(paste::too_long(length));
    }
    if form == Form::Json {
        report.command_line = String::from_utf8_lossy(text).into_owned();
        report.kernel = sysfs.kernel_release();
        print_json(report);
    } else if form == Form::Steps && report.request.asks_for_devices() {
        for rejected in &report.request.rejected {
            log::error!("{:?}: {}", escape::short(&rejected.text), rejected.reason);
        }
        report.warnings[said..].iter().for_each(|warning| log::warn!("{warning}"));
        print(&check.plan.to_string());
    } else {
        // Said above.
        report.warnings.drain(..said);
        check.next_initrd = next_initrd::needs(&check, sysfs, root);
        print(&check.words(Look::of_standard_output()));
    }
    check.report.exit_status
}

/// Prints the record. What it says besides goes to standard error, whatever runs it: who makes an
/// initrd is no initrd.
fn keep(sysfs: &Sysfs, root: &Path) -> u8 {
    let say = |text: &str| {
        // Where it fails there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "vfio-early: {}", escape::line(text));
    };
    let elsewhere = if root == Path::new("/") { keep::elsewhere() } else { None };
    let record = match keep::record(sysfs, elsewhere.is_none()) {
        Ok(record) => record,
        Err(why) => {
            say(&format!("no record of what the host lives from: {why}"));
            return exit_status(true, false);
        }
    };
    record.wrong.iter().for_each(|why| say(why));
    if record.entries.is_empty() {
        say(&match elsewhere {
            Some(why) => format!(
                "no record of what the host lives from: {why}, where what is in use is another \
                 system's; make the initrd anew on the running one, or write /{RECORD}"
            ),
            None => {
                "no record of what the host lives from: nothing of it is on the PCI bus".to_owned()
            }
        });
        return exit_status(true, false);
    }
    if elsewhere.is_none() && record.entries.iter().all(|entry| entry.kind != Kind::Disk) {
        say(&format!(
            "no disk that the host runs from was found on the PCI bus: where there is one all the \
             same, write it into /{RECORD}"
        ));
    }
    if elsewhere.is_none() {
        if let Some(text) = keep::untold(sysfs) {
            say(&text);
        }
        for entry in keep::of_nothing(&record, sysfs).unwrap_or_default() {
            let text = &entry.item.text;
            say(&format!("/{RECORD}: {text} is no device here, and would keep nothing"));
        }
    }
    print(keep::HEADING);
    record.entries.iter().for_each(|entry| print(&format!("{entry}\n")));
    exit_status(false, false)
}

fn verify(
    filters: &[Filter],
    options: &verify::Options,
    json: bool,
    request: &Request,
    sysfs: &Sysfs,
) -> u8 {
    // What it binds while a group is held would fail.
    if udev::is_to_come(sysfs) || udev::is_busy(sysfs) && !udev::settles(sysfs) {
        log::error!(
            "nothing is tried: udev is not through with the devices (udevadm settle waits)"
        );
        return exit_status(true, false);
    }
    let machine = match sysfs.whole_machine() {
        Ok(machine) => machine,
        Err(why) => {
            log::error!("{why}; is sysfs mounted there?");
            return exit_status(true, false);
        }
    };
    let chosen = verify::choose(filters, request, &machine);
    if options.open && !chosen.0.is_empty() {
        let addresses: Vec<_> = chosen.0.iter().map(ToString::to_string).collect();
        log::warn!("opened, woken and reset, where vfio has it: {}", addresses.join(", "));
    }
    let found = verify::verify(chosen, options, &machine, sysfs, &verify::live);
    if json {
        print_json(&found);
    } else {
        print(&found.to_string());
    }
    if found.devices.is_empty() && found.missing.is_empty() {
        log::error!("no device here is on a vfio driver, or it is a bridge");
    }
    found.exit_status
}

fn list(arguments: &Arguments, sysfs: &Sysfs) -> u8 {
    let list = match list::list(sysfs, &arguments.filters) {
        Ok(list) => list,
        Err(why) => {
            log::error!("{why}; is sysfs mounted there?");
            return exit_status(true, false);
        }
    };
    let all = arguments.filters.is_empty();
    if let Some(format) = arguments.format {
        return hand_off(&list, format, all);
    }
    if arguments.json {
        print_json(&list);
    } else {
        print(&tree::tree(&list, Look::of_standard_output(), !all));
    }
    let nothing = list.devices.is_empty();
    if nothing {
        log::error!("no device here fits");
    }
    exit_status(nothing, false)
}

fn hand_off(list: &list::List, format: Format, all: bool) -> u8 {
    let handed = formats::hand_off(list, format, all);
    print(&handed.text);
    handed.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    handed.left_out.iter().for_each(|why| log::error!("left out: {why}"));
    if handed.text.is_empty() && handed.left_out.is_empty() {
        log::error!(
            "{}",
            if all {
                "no device is on a vfio driver; name devices to choose others"
            } else {
                "no device here fits"
            }
        );
    }
    exit_status(handed.text.is_empty() || !handed.left_out.is_empty(), false)
}
