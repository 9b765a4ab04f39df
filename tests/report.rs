//! The report: its JSON, its log lines, its file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use log::Level;
use serde_json::{Value, json};
use vfio_early::report::Report;
use vfio_early::report_file::{NAME, save};

use crate::fake::Fake;
use crate::machine::{Function, Machine, desktop};

fn lines(report: &Report) -> Vec<String> {
    report.lines().into_iter().map(|(level, text)| format!("{level}: {text}")).collect()
}

/// Lines without the last, which has a time in it.
fn lines_of_devices(fake: &mut Fake, text: &str) -> Vec<String> {
    let mut lines = lines(&fake.bind(text));
    lines.pop();
    lines
}

/// A device in the report's JSON that is not there, or not bound.
fn entry(item: &str, outcome: &str) -> Value {
    json!({
        "item": item,
        "address": null,
        "id": null,
        "class": null,
        "driver_before": null,
        "driver": null,
        "override": null,
        "group": null,
        "outcome": outcome,
        "reason": "…",
        "remedy": "…",
        "usable": null,
        "obstacles": [],
        "warnings": [],
    })
}

fn member(address: &str, id: &str, class: &str) -> Value {
    json!({ "address": address, "id": id, "class": class, "driver": null, "requested": false })
}

fn with(mut object: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("{fields} is no object") };
    object.as_object_mut().expect("an object").extend(fields);
    object
}

#[test]
fn the_json_has_every_field_of_the_format() {
    let mut fake = desktop().boot();
    fake.load("nouveau");
    let report = fake
        .bind("vfio.devs=01:00.0,zz,10de:ffff@00:14.0,05:00.0 vfio.wait=0 vfio.strict vfio.dev=x");
    let report = Report {
        command_line: "vfio.devs=…".to_owned(),
        kernel: Some("6.1.0".to_owned()),
        claimed_us: Some(123),
        elapsed_us: 1234,
        ..report
    };
    let mut found = serde_json::to_value(&report).expect("a report is JSON");
    // Words are tested elsewhere; here, that there are any.
    let mut blank = |pointer: &str| {
        let text = found.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{pointer}: {text}");
        *text = json!("…");
    };
    for pointer in [
        "/request/rejected/0/reason",
        "/request/warnings/0",
        "/warnings/0",
        "/devices/1/warnings/0",
        "/devices/0/reason",
        "/devices/0/remedy",
        "/devices/2/reason",
        "/devices/2/remedy",
    ] {
        blank(pointer);
    }
    let expected = json!({
        "version": 1,
        "command_line": "vfio.devs=…",
        "kernel": "6.1.0",
        "request": {
            "items": ["01:00.0", "10de:ffff@00:14.0", "05:00.0"],
            "rejected": [{ "text": "zz", "reason": "…" }],
            "off": false,
            "console": "keep",
            "host": "keep",
            "wait": 0,
            "driver": null,
            "strict": true,
            "debug": false,
            "warnings": ["…"],
        },
        "devices": [
            with(entry("10de:ffff@00:14.0", "refused"), json!({
                "address": "0000:00:14.0",
                "id": "8086:a12f",
                "class": "0c0330",
                "group": 20,
            })),
            with(entry("01:00.0", "bound"), json!({
                "address": "0000:01:00.0",
                "id": "10de:1c03",
                "class": "030200",
                "driver_before": "nouveau",
                "driver": "vfio-pci",
                "override": "vfio-pci",
                "group": 2,
                "reason": null,
                "remedy": null,
                "usable": true,
                "warnings": ["…"],
            })),
            entry("05:00.0", "absent"),
        ],
        "groups": [
            {
                "number": 2,
                "viable": true,
                "members": [
                    with(
                        member("0000:01:00.0", "10de:1c03", "030200"),
                        json!({ "driver": "vfio-pci", "requested": true }),
                    ),
                    member("0000:01:00.1", "10de:10f1", "040300"),
                ],
            },
            {
                "number": 20,
                "viable": null,
                "members": [member("0000:00:14.0", "8086:a12f", "0c0330")],
            },
        ],
        "warnings": ["…"],
        "exit_status": 3,
        "claimed_us": 123,
        "elapsed_us": 1234,
    });
    assert_eq!(found, expected, "{found:#}");
}

#[test]
fn a_bound_device_has_one_line_with_its_former_driver_and_its_group() {
    let mut fake = desktop().boot();
    fake.load("e1000e");
    let text = "vfio.devs=8086:15b8@00:19.0,00:14.0";
    assert_eq!(
        lines_of_devices(&mut fake, text),
        [
            "INFO: 0000:00:14.0 8086:a12f: bound to vfio-pci, group 20",
            "INFO: 0000:00:19.0 8086:15b8: bound to vfio-pci (was e1000e), group 25",
        ]
    );
    assert_eq!(
        lines_of_devices(&mut fake, text),
        [
            "INFO: 0000:00:14.0 8086:a12f: bound to vfio-pci already, group 20",
            "INFO: 0000:00:19.0 8086:15b8: bound to vfio-pci already, group 25",
        ]
    );
}

#[test]
fn what_is_not_bound_has_a_line_with_reason_and_remedy() {
    let mut fake = desktop().left_out("vfio-pci").boot();
    let said = lines_of_devices(&mut fake, "vfio.devs=00:14.0,05:00.0,00:01.0,x");
    for (start, parts) in [
        ("ERROR: \"x\": ", 1),
        ("ERROR: 0000:00:14.0 8086:a12f: failed: ", 2),
        ("ERROR: 05:00.0: absent: ", 2),
        ("ERROR: 0000:00:01.0 8086:1901: refused: ", 2),
    ] {
        let line = said.iter().find_map(|line| line.strip_prefix(start));
        let line = line.unwrap_or_else(|| panic!("no line starts with {start:?}: {said:#?}"));
        assert!(line.split("; ").count() >= parts, "{start}{line}");
    }
    assert_eq!(said.len(), 4, "{said:#?}");
}

#[test]
fn the_last_line_sums_up_with_the_time() {
    for (text, elapsed_us, expected) in [
        ("vfio.devs=00:14.0", 0, "INFO: 1 of 1 bound, in 0.0 ms"),
        ("vfio.devs=01:00.*,00:14.0", 12_345, "INFO: 3 of 3 bound, in 12.3 ms"),
        (
            "vfio.devs=00:14.0,05:00.0,06:00.0,00:01.0,x",
            1_000_999,
            "ERROR: 1 of 5 bound, 1 refused, 2 absent, 1 malformed, in 1000.9 ms",
        ),
    ] {
        let report = Report { elapsed_us, ..desktop().boot().bind(text) };
        assert_eq!(lines(&report).last().map(String::as_str), Some(expected), "{text}");
    }
}

fn many(count: u8) -> (Machine, String) {
    let address = |number: u8| format!("0000:00:{:02x}.{}", number / 8 + 1, number % 8);
    let functions = (0..count).map(|number| Function::new(&address(number), "1:1", 0).group(None));
    let functions = functions
        .enumerate()
        .map(|(number, function)| function.group(u32::try_from(number).expect("few functions")));
    let items: Vec<_> = (0..count).map(address).collect();
    (Machine::new(functions), format!("vfio.devs={}", items.join(",")))
}

#[test]
fn beyond_thirty_two_devices_only_what_is_not_bound_has_a_line() {
    let (machine, text) = many(32);
    assert_eq!(lines(&machine.boot().bind(&text)).len(), 33);
    let (machine, text) = many(33);
    let said = lines(&machine.boot().bind(&text));
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].starts_with("INFO: 33 of 33 bound, in "), "{said:#?}");
    let said = lines(&machine.boot().bind(&format!("{text},09:00.0")));
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].starts_with("ERROR: 09:00.0: absent: "), "{said:#?}");
    assert!(said[1].starts_with("ERROR: 33 of 34 bound, 1 absent, in "), "{said:#?}");
    let said = lines(&machine.boot().bind(&format!("{text} vfio.debug")));
    assert_eq!(said.len(), 34, "vfio.debug says more");
}

#[test]
fn warnings_are_logged_for_their_device_or_the_machine() {
    let mut machine = desktop();
    machine.remapping = Some(false);
    let said = machine.boot().bind("vfio.devs=01:00.0 vfio.wait=x").lines();
    let warnings: Vec<_> = said.iter().filter(|(level, _)| *level == Level::Warn).collect();
    assert_eq!(warnings.len(), 2, "{said:#?}");
    assert!(warnings[0].1.starts_with("0000:01:00.0 10de:1c03: its IOMMU group"), "{said:#?}");
    assert!(warnings[1].1.starts_with("vfio.wait=x"), "{said:#?}");
    let (level, last) = said.last().expect("a line");
    assert_eq!(*level, Level::Error, "{said:#?}");
    assert!(last.starts_with("1 of 1 bound, 1 unusable, in "), "{last}");
}

#[test]
fn the_exit_status_is_that_of_the_outcomes() {
    for (text, status) in [
        ("vfio.devs=00:14.0", 0),
        ("vfio.devs=00:14.0 vfio.strict", 0),
        ("vfio.devs=00:14.0,05:00.0", 1),
        ("vfio.devs=00:14.0,x", 1),
        ("vfio.devs=00:14.0,05:00.0 vfio.strict", 3),
        ("vfio.devs=00:14.0,x vfio.strict=1", 3),
        ("vfio.devs=00:14.0,x vfio.strict=0", 1),
    ] {
        assert_eq!(desktop().boot().bind(text).exit_status, status, "{text}");
    }
}

fn some_report() -> Report {
    desktop().boot().bind("vfio.devs=00:14.0")
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_file_is_whole_readable_by_all_and_alone_in_its_folder() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("vfio-early");
    save(&some_report(), &folder).expect("the folder is made");
    let text = fs::read_to_string(folder.join(NAME)).unwrap();
    assert!(text.ends_with("}\n"), "{text:?}");
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(value["version"], 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&folder.join(NAME)), 0o644);
    assert_eq!(mode(&folder), 0o755);
    assert_eq!(files(&folder), [NAME]);
}

#[test]
fn a_reader_sees_the_old_report_or_the_new_one_and_nothing_between() {
    let folder = tempfile::tempdir().unwrap();
    let (machine, text) = many(128);
    let report = machine.boot().bind(&text);
    save(&report, folder.path()).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) || count == 0 {
                let text = fs::read(folder.path().join(NAME)).expect("there is always one");
                serde_json::from_slice::<Value>(&text).expect("it is always whole");
                count += 1;
            }
        });
        (0..20).for_each(|_| save(&report, folder.path()).unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().expect("every read is good");
    });
}

#[test]
fn without_run_there_is_no_report_and_nothing_that_a_later_mount_would_hide() {
    let root = tempfile::tempdir().unwrap();
    let error = save(&some_report(), &root.path().join("run/vfio-early")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(files(root.path()).is_empty());
}

#[test]
fn what_a_killed_run_has_left_goes_with_the_next_report() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(format!(".{NAME}.77")), "half").unwrap();
    save(&some_report(), folder.path()).unwrap();
    assert_eq!(files(folder.path()), [NAME]);
}

#[test]
fn a_report_that_cannot_be_written_leaves_the_old_one_and_no_rest() {
    let run = tempfile::tempdir().unwrap();
    let report = some_report();
    // A file where the folder should be.
    let file = run.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(save(&report, &file).is_err());
    assert!(save(&report, &file.join("below")).is_err());
    // A folder where the report should be: the rename fails.
    let folder = run.path().join("folder");
    fs::create_dir_all(folder.join(NAME).join("x")).unwrap();
    assert!(save(&report, &folder).is_err());
    assert_eq!(files(&folder), [NAME], "no temporary file is left");
    // The temporary file cannot be made: what is in its place is not removed either.
    let taken = run.path().join("taken");
    let temporary = taken.join(format!(".{NAME}.{}", std::process::id()));
    fs::create_dir_all(temporary.join("x")).unwrap();
    fs::write(taken.join(NAME), "old").unwrap();
    assert!(save(&report, &taken).is_err());
    assert_eq!(fs::read_to_string(taken.join(NAME)).unwrap(), "old");
}

#[test]
fn what_an_interrupted_run_left_does_not_keep_the_next_report_from_being_written() {
    let folder = tempfile::tempdir().unwrap();
    // The same process number, as it is likely in an initrd that is started over.
    let rest = folder.path().join(format!(".{NAME}.{}", std::process::id()));
    fs::write(&rest, "{\"version\":").unwrap();
    save(&some_report(), folder.path()).expect("the rest is no hindrance");
    assert_eq!(files(folder.path()), [NAME]);
}
