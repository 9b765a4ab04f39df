//! `status` over a report that is none, and a report's folder that is none.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use vfio_early::host::status::status;
use vfio_early::report_file::save;

use super::{ENDED, assert_harmless, for_seeds, run, text};
use crate::machine::desktop;

const REPORT: &str = "run/vfio-early/report.json";

#[test]
fn a_report_of_any_depth_and_size_is_an_error_or_a_status() {
    let fake = desktop().command_line("vfio.devs=00:14.0").boot();
    let deep = |open: &str, close: &str, count: usize| open.repeat(count) + &close.repeat(count);
    let within = |value: &str| format!(r#"{{"version":1,"devices":[{value}]}}"#);
    for (report, status) in [
        (String::new(), 1),
        ("[".repeat(1_000_000), 1),
        (deep("[", "]", 1_000_000), 1),
        (r#"{"a":"#.repeat(1_000_000), 1),
        (within(&deep("[", "]", 1_000_000)), 1),
        (within(&deep("[", "]", 100)), 1),
        (format!(r#"{{"version":{}}}"#, "9".repeat(1_000_000)), 1),
        (format!(r#"{{"version":"{}"}}"#, "9".repeat(1_000_000)), 1),
        (within(&vec!["null"; 100_000].join(",")), 1),
        (r#"{"version":1,"devices":{"0":1},"request":[]}"#.to_owned(), 0),
        (r#"{"version":1,"devices":[],"devices":7}"#.to_owned(), 0),
        (r#"{"version":1.0}"#.to_owned(), 1),
        ("\u{feff}{}".to_owned(), 1),
        ("\0".repeat(4096), 1),
    ] {
        fake.tree.write(REPORT, &report);
        for command in [&["status"][..], &["status", "--json"]] {
            let output = run(fake.tree.root(), command);
            let start: String = report.chars().take(60).collect();
            assert_eq!(output.status.code(), Some(status), "{start:?}");
            assert!(output.stderr.len() < 4096, "{start:?}: {} bytes", output.stderr.len());
            assert_harmless(&output);
            if command.len() == 2 && !output.stdout.is_empty() {
                serde_json::from_str::<Value>(text(&output.stdout)).expect("JSON");
            }
        }
    }
}

/// JSON of any form, with the report's own names often enough to get somewhere.
fn value() -> impl Strategy<Value = Value> {
    let names = ["version", "devices", "request", "rejected", "text", "reason", "remedy", "item"];
    let others = ["address", "id", "outcome", "driver", "x"];
    let name = prop::sample::select([&names[..], &others].concat());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["bound", "0000:00:14.0", "../../../..", "\n", "vfio-pci"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            vec((name.clone(), inner), 0..8).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

#[test]
fn random_reports_are_an_error_or_a_status() {
    let fake = desktop().boot();
    let path = fake.tree.root().join(REPORT);
    let sysfs = fake.sysfs();
    for_seeds(400, &(value(), value(), any::<bool>()), |(devices, rejected, whole)| {
        let report = json!({"version": 1, "devices": [devices, [rejected.clone()]],
            "request": {"rejected": [rejected.clone()]}});
        fake.tree.write(REPORT, &if whole { report } else { rejected }.to_string());
        if let Ok(status) = status(&path, &sysfs) {
            let lines = status.to_string();
            assert_eq!(lines.lines().count(), status.devices.len(), "{lines:?}");
        } else {
            assert!(!whole);
        }
    });
}

#[test]
fn a_report_folder_that_is_a_link_is_not_written_through() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=00:14.0");
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join(".report.json.1"), "theirs").unwrap();
    fs::write(target.join("report.json"), "theirs").unwrap();
    let folder = place.path().join("vfio-early");
    for target in [target.as_path(), &place.path().join("nowhere"), &folder] {
        symlink(target, &folder).unwrap();
        let why = save(&report, &folder).expect_err("it is a link").to_string();
        assert!(why.contains("remove it"), "{why}");
        fs::remove_file(&folder).unwrap();
    }
    for name in [".report.json.1", "report.json"] {
        assert_eq!(fs::read_to_string(target.join(name)).unwrap(), "theirs", "{name}");
    }
    fs::write(&folder, "").unwrap();
    save(&report, &folder).expect_err("it is a file");
    fs::remove_file(&folder).unwrap();
    // A link in the place of the report is replaced, and what it leads to is not.
    fs::create_dir(&folder).unwrap();
    symlink(target.join("report.json"), folder.join("report.json")).unwrap();
    save(&report, &folder).expect("the folder is one");
    assert!(folder.join("report.json").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_to_string(target.join("report.json")).unwrap(), "theirs");
}

#[test]
fn the_report_of_another_tree_is_read_in_that_tree_alone() {
    let fake = desktop().command_line("vfio.devs=00:14.0").boot();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("report.json"), r#"{"version":1,"devices":[]}"#).unwrap();
    fake.tree.folder("run");
    fake.tree.link("run/vfio-early", super::path(outside.path().as_os_str()));
    let output = run(fake.tree.root(), &["status"]);
    assert!(ENDED.contains(&output.status.code()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
