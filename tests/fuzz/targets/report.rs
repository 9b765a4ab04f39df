//! The reader of the report, for `status`.

use std::cell::LazyCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use vfio_early::apply::Applied;
use vfio_early::cmdline::{self, Request};
use vfio_early::escape;
use vfio_early::host::finish;
use vfio_early::host::status::{Status, status};
use vfio_early::pci::{Address, Item};
use vfio_early::plan::{self, Plan};
use vfio_early::report;
use vfio_early::sysfs::{Machine, Sysfs};
use vfio_early::verdict::Verdict;

use super::{assert_harmless, assert_json};

/// What the devices are on now.
const DEVICES: [(&str, Option<&str>); 3] =
    [("0000:01:00.0", Some("vfio-pci")), ("0000:02:00.0", Some("nouveau")), ("0000:03:00.0", None)];

thread_local! {
    static HOST: LazyCell<TempDir> = const { LazyCell::new(host) };
}

fn host() -> TempDir {
    let root = super::folder();
    for (address, driver) in DEVICES {
        let folder = root.path().join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&folder).expect("a folder");
        let modalias = "pci:v000010DEd00001C03sv00000000sd00000000bc03sc02i00\n";
        fs::write(folder.join("modalias"), modalias).expect("a file");
        if let Some(driver) = driver {
            let target = Path::new("../../drivers").join(driver);
            symlink(target, folder.join("driver")).expect("a link");
        }
    }
    root
}

/// The input is a report.
pub fn check(text: &[u8]) {
    HOST.with(|host| check_in(host.path(), text));
}

/// `None` where it cannot be read.
fn read(root: &Path, text: &[u8]) -> Option<Status> {
    let file = root.join("report.json");
    fs::write(&file, text).expect("a file");
    match status(&file, &Sysfs::new(root)) {
        Ok(status) => Some(status),
        Err(why) => {
            let why = why.to_string();
            assert!(why.contains("report.json: ") && why.len() < 1024, "{why}");
            None
        }
    }
}

/// What is left to do after that run is not what is bound, and what comes of it is a report.
fn check_finish(root: &Path, then: &Value) {
    let sysfs = Sysfs::new(root);
    let text = "vfio.devs=01:00.0,02:00.0,03:00.0,04:00.0";
    let path = root.join("report.json");
    if let Ok(read) = finish::read(&path, text.as_bytes(), &sysfs) {
        assert_eq!(read.as_ref(), Some(then));
    }
    let request = cmdline::parse(text.as_bytes());
    let machine = sysfs.machine(&request).expect("the bus is there");
    let left = finish::left(request, &machine, then, &sysfs);
    let told = then["devices"].as_array().into_iter().flatten();
    for device in told.filter(|device| device["outcome"] == "bound") {
        let address = device["address"].as_str().and_then(|it| it.parse::<Address>().ok());
        let is_it =
            |item: &Item| plan::requested(&one(item), &machine).into_iter().next() == address;
        // The last entry of a device counts.
        let later = then["devices"].as_array().into_iter().flatten().rev();
        let mut later = later
            .filter(|other| other["address"].as_str().and_then(|it| it.parse().ok()) == address);
        if address.is_some() && later.next() == Some(device) {
            assert!(!left.items.iter().any(is_it), "{device:?} is taken back");
        }
    }
    for line in finish::given_back(then, &sysfs) {
        assert_harmless(&escape::line(&line));
    }
    let (machine, plan) = (Machine::default(), Plan::default());
    let now = report::report(
        Request::default(),
        &machine,
        &plan,
        &Applied::default(),
        &Verdict::default(),
    );
    let merged = finish::merged(then.clone(), &now, false).expect("JSON");
    assert!(merged["devices"].is_array() && merged["exit_status"].is_u64());
}

fn one(item: &Item) -> Request {
    Request { items: vec![item.clone()], ..Request::default() }
}

fn check_in(root: &Path, text: &[u8]) {
    let found = read(root, text);
    let value: Option<Value> = serde_json::from_slice(text).ok();
    let Some(value) = value.filter(|value| value["version"] == 1) else {
        assert_eq!(found, None, "it is no report");
        return;
    };
    let found = found.expect("it is a report");
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let (devices, rejected) = (&value["devices"], &value["request"]["rejected"]);
    assert_eq!(found.devices.len(), count(devices) + count(rejected), "none is dropped");
    assert_eq!(found.exit_status, u8::from(found.devices.iter().any(|device| !device.bound)));
    for device in &found.devices {
        let there = device.address.as_ref().and_then(|address| {
            let address: vfio_early::pci::Address = address.parse().ok()?;
            let printed = address.to_string();
            DEVICES.iter().find(|(there, _)| *there == printed)
        });
        // What holds now is the machine's word, whatever the report says.
        let now = there.and_then(|(_, driver)| *driver);
        assert_eq!(device.driver.as_deref(), now, "{device:?}");
        assert!(!device.bound || now.is_some(), "{device:?}");
        assert_eq!(device.lost, device.outcome == "bound" && !device.bound, "{device:?}");
        assert_eq!(device.bound, device.reason.is_none(), "{device:?}");
    }
    check_finish(root, &value);
    let lines = found.to_string();
    assert_harmless(&lines);
    assert_eq!(lines.lines().count(), found.devices.len(), "{lines:?}");
    assert!(lines.len() <= 1024 + 60 * text.len(), "{} bytes", lines.len());
    assert_json(&found, 1024 + 150 * text.len());

    // The same report, printed by another hand.
    let anew = serde_json::to_vec_pretty(&value).expect("it can be JSON");
    assert_eq!(read(root, &anew), Some(found));
}
