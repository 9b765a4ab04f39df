//! A whole machine: the command line and any files of `/sys` and `/proc`, all the way to the report.
//!
//! The input is text, so that a corpus can be read: the command line, then the files, each below a
//! line `== PATH`, up to the next such line. `== PATH -> TARGET` is a link, `== PATH/` a folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use vfio_early::cmdline::{self, Request};
use vfio_early::escape;
use vfio_early::host::check::Check;
use vfio_early::host::keep;
use vfio_early::host::list::{self, formats, tree};
use vfio_early::host::page::Look;
use vfio_early::host::status::status;
use vfio_early::keep::{Entry, Record};
use vfio_early::kernel::Write;
use vfio_early::pci::{Address, Item};
use vfio_early::plan;
use vfio_early::report::{Outcome, Report, exit_status};
use vfio_early::report_file;
use vfio_early::sysfs::Sysfs;

use super::adversary::{Adversary, device_of};
use super::{assert_harmless, assert_json};

/// More files are left out: an input is small.
const MOST_FILES: usize = 400;
/// Longer paths are left out.
const LONGEST_PATH: usize = 400;

/// What begins a file.
const HEADING: &[u8] = b"== ";

/// The file with the variants of vfio-pci, which libkmod has at hand on a real machine.
const ALIASES: &str = "modules.alias";

/// A place in the tree that is no input's, for the report of the run.
const REPORT: &str = "report-of-this-run";

/// One file of the tree.
enum Node<'a> {
    File(&'a [u8]),
    Link(&'a [u8]),
    Folder,
}

/// The input is a command line and a tree.
pub fn check(input: &[u8]) {
    let (command_line, nodes) = read(input);
    let root = super::folder();
    let root = root.path();
    make(root, &nodes);
    let aliases = fs::read_to_string(root.join(ALIASES)).unwrap_or_default();
    let sysfs = Sysfs::new(root);
    let request = cmdline::parse(command_line);
    let mut kernel = Adversary::new(root, input, &aliases);
    let checked = vfio_early::check(request.clone(), &sysfs, &mut kernel);
    assert!(kernel.writes.is_empty(), "a check writes: {:?}", kernel.writes);
    if let Ok(check) = &checked {
        check_check(check, input, &sysfs);
    }
    check_list(&sysfs, input);
    check_record(&sysfs);

    let bound = vfio_early::bind(request.clone(), &sysfs, &mut kernel);
    if let Ok(report) = &bound {
        check_report(report, &request, input);
        check_writes(&kernel, report);
        check_truth(report, &sysfs);
        check_file(report, root, &sysfs);
    }
    // Whether there is a bus to be read is for both the same; a check that has nothing to do does
    // not even look.
    assert!(checked.is_err() <= bound.is_err(), "{checked:?} {bound:?}");
}

fn read(input: &[u8]) -> (&[u8], BTreeMap<PathBuf, Node<'_>>) {
    let heading = |at: usize| at == 0 || input[at - 1] == b'\n';
    let mut starts: Vec<_> = input
        .windows(HEADING.len())
        .enumerate()
        .filter(|(at, part)| *part == HEADING && heading(*at))
        .map(|(at, _)| at)
        .collect();
    starts.push(input.len());
    let command_line = input[..starts[0]].trim_ascii_end();
    let mut nodes = BTreeMap::new();
    for pair in starts.windows(2).take(MOST_FILES) {
        let section = &input[pair[0] + HEADING.len()..pair[1]];
        let end = section.iter().position(|byte| *byte == b'\n').unwrap_or(section.len());
        let (name, content) = section.split_at(end);
        let content = content.strip_prefix(b"\n").unwrap_or(content);
        let arrow = name.windows(4).position(|part| part == b" -> ");
        let (name, node) = match arrow {
            Some(at) => (&name[..at], Node::Link(&name[at + 4..])),
            None if name.ends_with(b"/") => (name, Node::Folder),
            None => (name, Node::File(content)),
        };
        if name.len() <= LONGEST_PATH && !name.contains(&0) {
            let path = Path::new(OsStr::from_bytes(name));
            let mut parts = path.components();
            let is_below = parts.all(|part| matches!(part, Component::Normal(_)));
            if is_below && path.components().next().is_some() && path != Path::new(REPORT) {
                nodes.insert(path.components().collect(), node);
            }
        }
    }
    // Else the names of this machine are read, which are many.
    let names = Node::File(b"10de  NVIDIA Corporation\n");
    nodes.entry(PathBuf::from("usr/share/misc/pci.ids")).or_insert(names);
    (command_line, nodes)
}

/// Makes the tree. Links come last: nothing is ever made behind one, which may lead anywhere.
fn make(root: &Path, nodes: &BTreeMap<PathBuf, Node>) {
    // What cannot be made, as a file below another file or a name that is too long, is left out.
    for (path, node) in nodes {
        let path = root.join(path);
        let folder =
            if matches!(node, Node::Folder) { Some(path.as_path()) } else { path.parent() };
        let _ = folder.map(fs::create_dir_all);
        if let Node::File(content) = node {
            let _ = fs::write(&path, content);
        }
    }
    for (path, node) in nodes {
        if let Node::Link(target) = node {
            let _ = symlink(OsStr::from_bytes(target), root.join(path));
        }
    }
}

/// Room for reports of that many devices and members of their groups.
fn room(input: &[u8], report: &Report) -> usize {
    let members: usize = report.groups.iter().map(|group| group.members.len()).sum();
    let entries = report.devices.len() + members;
    let warnings = |warnings: &[String]| warnings.iter().map(String::len).sum::<usize>();
    let told: usize = report.devices.iter().map(|device| warnings(&device.warnings)).sum();
    // A name can be told for each device, and each byte of it takes six in JSON.
    32_768 + 400 * input.len() + entries * (512 + input.len()) + 6 * told
}

fn check_check(check: &Check, input: &[u8], sysfs: &Sysfs) {
    let Check { report, plan, .. } = check;
    check_report(report, &report.request, input);
    for width in [40, usize::MAX] {
        assert_harmless(&check.words(Look { width, ..Look::PLAIN }));
    }
    let words = check.words(Look::PLAIN);
    assert!(words.lines().count() > report.devices.len().max(1) - 1, "{words:?}");
    let steps = plan.to_string();
    assert_harmless(&steps);
    let refused = plan.targets.len() - plan.taken().count();
    let told = refused + plan.absent.len() + plan.steps.len() + plan.warnings.len();
    assert_eq!(steps.lines().count(), told, "{steps:?}");
    if !report.request.asks_for_devices() {
        assert!(plan.steps.is_empty() && plan.targets.is_empty(), "{steps:?}");
        return;
    }
    // Every item has its devices, or is absent.
    let machine = sysfs.machine(&report.request).expect("it was read before");
    let mut absent = plan.absent.iter().map(|absent| &absent.item);
    for item in &report.request.items {
        let one = Request { items: vec![item.clone()], ..Request::default() };
        let found = plan::requested(&one, &machine);
        assert!(found.iter().all(|address| plan.targets.contains_key(address)), "{item:?}");
        if found.is_empty() {
            assert_eq!(absent.next(), Some(&item.text));
        }
    }
    assert_eq!(absent.next(), None);
}

fn check_report(report: &Report, request: &Request, input: &[u8]) {
    assert_eq!(report.request, *request);
    let addresses: Vec<_> = report.devices.iter().map_while(|device| device.address).collect();
    assert!(addresses.is_sorted_by(|one, other| one < other), "{addresses:?}");
    let mut unmet = !request.rejected.is_empty();
    for (index, device) in report.devices.iter().enumerate() {
        let is_absent = device.outcome == Outcome::Absent;
        assert_eq!(is_absent, index >= addresses.len(), "absent items come last: {device:?}");
        let is_bound = device.outcome == Outcome::Bound;
        unmet |= !is_bound;
        assert_eq!(is_bound, device.reason.is_none() && device.remedy.is_none(), "{device:?}");
        assert!(!is_bound || device.driver.is_some(), "{device:?}");
        assert!(request.items.iter().any(|item| item.text == device.item), "{device:?}");
        let untouched = matches!(device.outcome, Outcome::Refused | Outcome::Absent);
        assert!(!untouched || device.driver_override.is_none(), "{device:?}");
        if let (Some(number), Some(address)) = (device.group, device.address) {
            let mut groups = report.groups.iter().filter(|group| group.number == number);
            let members = groups.next().map(|group| &group.members);
            let has_it = members.is_some_and(|all| all.iter().any(|one| one.address == address));
            assert!(has_it && groups.next().is_none(), "{device:?}");
        }
    }
    let expected =
        if request.off { exit_status(false, false) } else { exit_status(unmet, request.strict) };
    let nothing = !request.asks_for_devices();
    assert_eq!(report.exit_status, if nothing { 0 } else { expected });
    assert_json(report, room(input, report));
    let lines = report.lines();
    for (_, line) in &lines {
        assert!(!line.is_empty());
        assert_harmless(&escape::line(line));
    }
    let (_, last) = lines.last().expect("a sum");
    let bound = report.devices.iter().filter(|device| device.outcome == Outcome::Bound).count();
    assert!(last.starts_with(&format!("{bound} of ")), "{last}");
}

/// The order of the writes, and whom they are about.
fn check_writes(kernel: &Adversary, report: &Report) {
    let is_ours = |address: Address| {
        let mut devices = report.devices.iter();
        devices.any(|it| it.address == Some(address) && it.outcome != Outcome::Refused)
    };
    let mut inserted = false;
    // What the override of each device says, once it was written.
    let mut overrides: BTreeMap<Address, bool> = BTreeMap::new();
    for (write, result) in &kernel.writes {
        let Write::Store { attribute, value } = write else {
            inserted |= matches!(write, Write::Insert { .. });
            continue;
        };
        assert!(!attribute.split('/').any(|part| part == ".." || part.is_empty()), "{attribute}");
        assert!(!attribute.starts_with('/'), "{attribute}");
        assert!(!value.contains(['\n', '\0']) && !value.is_empty(), "{write:?}");
        let Some(address) = device_of(write) else {
            let is_console = ["class/vtconsole/", "bus/platform/devices/"];
            assert!(is_console.iter().any(|start| attribute.starts_with(start)), "{write:?}");
            continue;
        };
        assert!(is_ours(address), "{write:?} is about a device that was refused");
        if attribute.ends_with("/driver_override") {
            let folder = attribute.rsplit('/').nth(1).expect("it is in a folder");
            assert_eq!(folder, address.to_string(), "{write:?}");
            assert!(
                !inserted || overrides.contains_key(&address),
                "a module came first: {write:?}"
            );
            let was_ours = overrides.entry(address).or_default();
            *was_ours |= result.is_ok();
        } else {
            let is_kept = overrides.get(&address).copied().unwrap_or(false);
            assert!(is_kept, "{write:?}, but nothing keeps the host's drivers from it");
        }
    }
}

/// What is said to be bound is bound: by the link of the device, or by that of the driver.
fn check_truth(report: &Report, sysfs: &Sysfs) {
    for device in report.devices.iter().filter(|device| device.outcome == Outcome::Bound) {
        let (Some(address), Some(driver)) = (device.address, &device.driver) else {
            panic!("{device:?}")
        };
        assert_eq!(device.driver, device.driver_override, "{device:?}");
        let now = sysfs.driver(address).ok().flatten();
        let has_it = sysfs.devices_of(driver).contains(&address);
        assert!(now.as_ref() == Some(driver) || has_it, "{device:?}, but it is on {now:?}");
    }
}

/// What `bind` has written is what `status` reads.
fn check_file(report: &Report, root: &Path, sysfs: &Sysfs) {
    let folder = super::folder();
    report_file::save(report, folder.path()).expect("it can be written");
    let text = fs::read(folder.path().join(report_file::NAME)).expect("it is there");
    let inside = root.join(REPORT);
    if fs::write(&inside, text).is_err() {
        return;
    }
    let status = status(&inside, sysfs).expect("our own report can be read");
    let rejected = report.request.rejected.iter().map(|rejected| &rejected.text);
    let items: Vec<_> = report.devices.iter().map(|device| &device.item).chain(rejected).collect();
    assert_eq!(status.devices.iter().map(|device| &device.item).collect::<Vec<_>>(), items);
    assert_harmless(&status.to_string());
}

/// What is written for an initrd is read there.
fn check_record(sysfs: &Sysfs) {
    let Ok(record) = keep::record(sysfs, true) else { return };
    let lines: Vec<_> = record.entries.iter().map(ToString::to_string).collect();
    for line in lines.iter().cloned().chain(record.wrong.iter().map(|why| escape::line(why))) {
        assert_harmless(&line);
    }
    if let Some(text) = keep::untold(sysfs) {
        assert_harmless(&escape::line(&text));
    }
    let read = Record::parse(&lines.join("\n"));
    let short = |entry: &Entry| (entry.kind, entry.item.clone());
    let [written, read] =
        [&record, &read].map(|it| it.entries.iter().map(short).collect::<Vec<_>>());
    assert_eq!(written[..written.len().min(read.len())], read, "{lines:#?}");
    assert!(read.len() == written.len() || read.len() >= 256, "{lines:#?}");
}

fn check_list(sysfs: &Sysfs, input: &[u8]) {
    let Ok(list) = list::list(sysfs, &[]) else { return };
    let machine = sysfs.whole_machine().expect("it was read before");
    assert_eq!(list.devices.len(), machine.devices.len(), "each device is listed once");
    let shared: usize =
        list.devices.iter().map(|it| it.shared_with.len() + it.resets_with.len()).sum();
    let each = 4096 + 6 * input.len();
    assert_json(&list, 1024 + list.devices.len() * each + 32 * shared);
    for width in [40, usize::MAX] {
        let look = Look { width, unicode: true, ..Look::PLAIN };
        for chosen in [true, false] {
            assert_harmless(&tree::tree(&list, look, chosen));
        }
    }
    for (_, format) in formats::FORMATS {
        for all in [true, false] {
            let handed = formats::hand_off(&list, format, all);
            assert_harmless(&handed.text);
            // These are logged.
            for line in [handed.warnings, handed.left_out].concat() {
                assert_harmless(&escape::line(&line));
            }
        }
    }
    // What is to be pasted means that device and no other.
    for entry in &list.devices {
        let Some(text) = &entry.item else { continue };
        let item: Item = text.parse().unwrap_or_else(|why| panic!("{entry:?}: {why:?}"));
        assert!(plan::guard_holds(&item, &machine), "{entry:?}");
        let request = Request { items: vec![item], ..Request::default() };
        assert_eq!(plan::requested(&request, &machine), [entry.address], "{entry:?}");
    }
}
