//! The reader of the report, for `status`.

use std::cell::LazyCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use vfio_early::host::status::{Status, status};
use vfio_early::sysfs::Sysfs;

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
    let lines = found.to_string();
    assert_harmless(&lines);
    assert_eq!(lines.lines().count(), found.devices.len(), "{lines:?}");
    assert!(lines.len() <= 1024 + 60 * text.len(), "{} bytes", lines.len());
    assert_json(&found, 1024 + 150 * text.len());

    // The same report, printed by another hand.
    let anew = serde_json::to_vec_pretty(&value).expect("it can be JSON");
    assert_eq!(read(root, &anew), Some(found));
}
