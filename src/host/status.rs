//! `vfio-early status`: the last boot's report against what holds now.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::cmdline;
use crate::escape;
use crate::host::released::Released;
use crate::host::udev;
use crate::others;
use crate::pci::Address;
use crate::plan::is_vfio_driver;
use crate::remedy::Why;
use crate::report::exit_status;
use crate::sysfs::{IOMMU_TYPE1, Machine, Sysfs};
use crate::verdict::{self, Question, Verdict};

/// All is bound, but no VM can have some of it.
pub const UNUSABLE: u8 = 4;

/// One requested device, at boot and now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// The item that asks for it, as written.
    pub item: String,
    /// `None` where the item could not be resolved.
    pub address: Option<String>,
    /// Vendor and device id.
    pub id: Option<String>,
    /// Where it ended at boot: an outcome of the report, or `malformed`.
    pub outcome: String,
    /// The driver that had it then.
    pub driver_then: Option<String>,
    /// The driver that has it now.
    pub driver: Option<String>,
    /// Whether a vfio driver has it now.
    pub bound: bool,
    /// Whether it was bound at boot and is not now, and nobody has released it.
    pub lost: bool,
    /// Whether `release` has given it back to the host, as was meant.
    pub released: bool,
    /// Where it is not bound: why, and what to do about it.
    pub reason: Option<String>,
    /// Whether a VM could have it now; `None` where it is not bound.
    pub usable: Option<bool>,
    /// Why no VM can have it although it is bound.
    pub obstacles: Vec<Why>,
    /// What will be a problem although it is bound.
    pub warnings: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Of the format: 1.
    pub version: u32,
    /// In the order of the report.
    pub devices: Vec<DeviceStatus>,
    /// What concerns the machine as a whole.
    pub warnings: Vec<String>,
    /// 0 where all is bound now or released, 1 (with `vfio.strict` 3) where something is not, and [`UNUSABLE`].
    pub exit_status: u8,
}

/// Where nothing is asked for.
impl Default for Status {
    fn default() -> Self {
        Status {
            version: 1,
            devices: Vec::new(),
            warnings: Vec::new(),
            exit_status: exit_status(false, false),
        }
    }
}

/// Holds a report against the machine.
///
/// # Errors
/// When the report cannot be read, or is not of a version that this knows; the error names it.
pub fn status(report: &Path, sysfs: &Sysfs) -> io::Result<Status> {
    let named = |why: String| io::Error::other(format!("{}: {why}", report.display()));
    let text = sysfs.bytes(report).map_err(|why| named(why.to_string()))?;
    let report: Value = serde_json::from_slice(&text).map_err(|why| named(why.to_string()))?;
    if report["version"] != 1 {
        let version = escape::short(&report["version"].to_string());
        return Err(named(format!("version {version} is not known here")));
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let released = Released::read(sysfs);
    let mut devices: Vec<_> =
        list(&report["devices"]).iter().map(|then| compare(then, &released, sysfs)).collect();
    judge(&mut devices, sysfs);
    let is_asked = |address: &Address| {
        let address = Some(address.to_string());
        devices.iter().any(|device| device.address == address && device.outcome != "refused")
    };
    let foreign = cmdline::parse(&sysfs.cmdline().unwrap_or_default()).foreign;
    let warnings = others::told(&others::given(sysfs), &foreign, sysfs, &is_asked);
    devices.extend(list(&report["request"]["rejected"]).iter().map(|rejected| DeviceStatus {
        item: text_of(rejected, "text").unwrap_or_default(),
        address: None,
        id: None,
        outcome: "malformed".to_owned(),
        driver_then: None,
        driver: None,
        bound: false,
        lost: false,
        released: false,
        reason: Some(text_of(rejected, "reason").unwrap_or_else(|| "it is no item".to_owned())),
        usable: None,
        obstacles: Vec::new(),
        warnings: Vec::new(),
    }));
    let is_well = |it: &DeviceStatus| it.bound || it.released || it.outcome == "later";
    let unmet = !devices.iter().all(is_well);
    let is_unusable = devices.iter().any(|device| device.usable == Some(false));
    let exit_status = if is_unusable && !unmet { UNUSABLE } else { exit_status(unmet, false) };
    Ok(Status { version: 1, devices, warnings, exit_status })
}

/// The address of a device that is bound now.
fn given(device: &DeviceStatus) -> Option<Address> {
    device.address.as_ref().filter(|_| device.bound)?.parse().ok()
}

/// Looks whether a VM could have what is bound. Where a driver may be about to take a member of a group,
/// once udev is through.
fn judge(devices: &mut [DeviceStatus], sysfs: &Sysfs) {
    let addresses: Vec<Address> = devices.iter().filter_map(given).collect();
    let Ok(mut machine) = sysfs.whole_machine() else { return };
    if may_be_taken(&machine, &addresses) && udev::settles(sysfs) {
        machine = sysfs.whole_machine().unwrap_or(machine);
    }
    let verdict = verdict_of(&machine, &addresses, sysfs);
    for device in devices {
        let Some(address) = given(device) else { continue };
        let group = machine.devices.get(&address).and_then(|device| device.group);
        device.obstacles = verdict.obstacles(group, device.driver.as_deref().unwrap_or_default());
        device.usable = Some(device.obstacles.is_empty());
        device.warnings = verdict.warnings(address).collect();
    }
}

/// On a running host, whose modules are loaded.
#[must_use]
pub fn verdict_of(machine: &Machine, given: &[Address], sysfs: &Sysfs) -> Verdict {
    let no_type1 = !machine.iommu_type1 && sysfs.has_groups() && !sysfs.has_iommufd();
    let no_interface = no_type1.then(|| {
        Why::new(
            format!("{IOMMU_TYPE1} is not loaded"),
            format!("load it (modprobe {IOMMU_TYPE1}), and add it to the initrd"),
        )
    });
    let question = Question {
        machine,
        plan: None,
        foreign: &cmdline::parse(&sysfs.cmdline().unwrap_or_default()).foreign,
        given,
        viable: &BTreeMap::new(),
        unsafe_interrupts: false,
        no_interface: no_interface.as_ref(),
    };
    verdict::judge(&question, sysfs)
}

/// Whether some group has a member without a driver that is not given and could get one.
fn may_be_taken(machine: &Machine, given: &[Address]) -> bool {
    let groups = given.iter().filter_map(|address| machine.devices.get(address)?.group);
    groups.flat_map(|group| machine.group(group)).any(|(address, device)| {
        device.driver.is_none() && !device.class.is_bridge() && !given.contains(&address)
    })
}

fn text_of(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

fn compare(then: &Value, released: &Released, sysfs: &Sysfs) -> DeviceStatus {
    let outcome = text_of(then, "outcome").unwrap_or_default();
    let was_bound = outcome == "bound";
    let driver_then = text_of(then, "driver");
    let address = then["address"].as_str().and_then(|address| address.parse().ok());
    let driver = address.and_then(|address| sysfs.driver(address).ok().flatten());
    // With vfio.driver= it can be any.
    let is_same = was_bound && driver.is_some() && driver == driver_then;
    // What was refused is not the device that was meant, even if something else gave it away.
    let is_given = outcome != "refused" && driver.as_deref().is_some_and(is_vfio_driver);
    let bound = is_same || is_given;
    let (id, at) = (text_of(then, "id"), text_of(then, "address"));
    let name = id.as_deref().zip(at.as_deref());
    let released = !bound && name.is_some_and(|(id, address)| released.has(&address, &id));
    let reason = if bound {
        None
    } else if was_bound || released {
        let now = match (&driver, address) {
            (Some(driver), _) => format!("{driver} has it now"),
            (None, Some(address)) if sysfs.has_device(address) => "no driver has it now".to_owned(),
            (None, _) => "it is gone".to_owned(),
        };
        Some(if released {
            format!("released: {now}; vfio-early bind takes it back")
        } else {
            format!("lost: {now}; if that is not meant, vfio-early bind takes it back")
        })
    } else {
        let texts = [text_of(then, "reason"), text_of(then, "remedy")];
        Some(format!("{outcome}: {}", texts.map(Option::unwrap_or_default).join("; ")))
    };
    DeviceStatus {
        item: text_of(then, "item").unwrap_or_default(),
        address: at,
        id,
        outcome,
        driver_then,
        driver,
        bound,
        lost: was_bound && !bound && !released,
        released,
        reason,
        usable: None,
        obstacles: Vec::new(),
        warnings: Vec::new(),
    }
}

/// One line a device, and one for each obstacle and warning.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for device in &self.devices {
            let name = match (&device.address, &device.id) {
                (Some(address), Some(id)) => format!("{address} {id}"),
                _ => format!("{:?}", escape::short(&device.item)),
            };
            let driver = device.driver.as_deref().unwrap_or("no driver");
            let bound = || format!("bound to {driver}");
            let what = device.reason.clone().unwrap_or_else(bound);
            writeln!(f, "{}", escape::line(&format!("{name}: {what}")))?;
            for Why { reason, remedy } in &device.obstacles {
                let line = format!("{name}: no VM can have it: {reason}; {remedy}");
                writeln!(f, "{}", escape::line(&line))?;
            }
            for warning in &device.warnings {
                writeln!(f, "{}", escape::line(&format!("{name}: warning: {warning}")))?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "{}", escape::line(&format!("warning: {warning}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const REPORT: &str = r#"{"version":1,"request":{"rejected":[{"text":"x","reason":"no form"}]},
        "devices":[
        {"item":"01:00.0","address":"0000:01:00.0","id":"10de:1c03","driver":"vfio-pci",
         "outcome":"bound","reason":null,"remedy":null},
        {"item":"02:00.0","address":"0000:02:00.0","id":"10de:1c03","driver":null,
         "outcome":"reserved","reason":"the console","remedy":"bind later"},
        {"item":"03:00.0","address":null,"id":null,"driver":null,
         "outcome":"absent","reason":"no such device","remedy":"wait"}]}"#;

    /// A root with a report and a first device on this driver; none for no device at all.
    fn root(report: &str, first: Option<&str>, second: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("report.json"), report).unwrap();
        for (address, driver) in [("0000:01:00.0", first), ("0000:02:00.0", Some(second))] {
            let Some(driver) = driver else { continue };
            let folder = root.path().join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&folder).unwrap();
            if !driver.is_empty() {
                symlink(Path::new("../../drivers").join(driver), folder.join("driver")).unwrap();
            }
        }
        root
    }

    fn lines(root: &tempfile::TempDir) -> (Vec<String>, u8) {
        let status = status(&root.path().join("report.json"), &Sysfs::new(root.path())).unwrap();
        (status.to_string().lines().map(str::to_owned).collect(), status.exit_status)
    }

    /// Whether the first device is, and no other.
    fn lost(root: &tempfile::TempDir) -> bool {
        let status = status(&root.path().join("report.json"), &Sysfs::new(root.path())).unwrap();
        assert!(status.devices[1..].iter().all(|device| !device.lost));
        status.devices[0].lost
    }

    #[test]
    fn each_device_is_held_against_the_machine() {
        for (first, second, expected) in [
            (Some("vfio-pci"), "", ["bound to vfio-pci", "reserved: the console; bind later"]),
            (Some("vfio-pci"), "vfio-pci", ["bound to vfio-pci", "bound to vfio-pci"]),
            (Some("nouveau"), "vfio-pci", ["lost: nouveau has it now", "bound to vfio-pci"]),
            (Some(""), "vfio-pci", ["lost: no driver has it now", "bound to vfio-pci"]),
            (None, "vfio-pci", ["lost: it is gone", "bound to vfio-pci"]),
        ] {
            let root = root(REPORT, first, second);
            let (lines, exit_status) = lines(&root);
            for (line, expected) in lines.iter().zip(expected) {
                assert!(line.contains(expected), "{first:?} {second:?}: {line}");
            }
            assert_eq!(first != Some("vfio-pci"), lost(&root), "{first:?}");
            assert_eq!(lines[2], "\"03:00.0\": absent: no such device; wait");
            assert_eq!(lines[3], "\"x\": no form");
            assert_eq!(exit_status, 1, "{first:?} {second:?}");
        }
    }

    #[test]
    fn what_was_refused_is_not_bound_whoever_gave_it_to_vfio_pci() {
        let report = r#"{"version":1,"request":{"rejected":[]},"devices":[
            {"item":"8086:1@01:00.0","address":"0000:01:00.0","id":"10de:1c03","driver":"nouveau",
             "outcome":"refused","reason":"the guard wants 8086:0001","remedy":"correct it"}]}"#;
        for driver in ["nouveau", "vfio-pci"] {
            let root = root(report, Some(driver), "");
            let expected = "0000:01:00.0 10de:1c03: refused: the guard wants 8086:0001; correct it";
            assert_eq!(lines(&root), (vec![expected.to_owned()], 1), "{driver}");
        }
    }

    #[test]
    fn an_item_that_was_rejected_without_a_reason_is_not_bound() {
        let report = r#"{"version":1,"request":{"rejected":[{"text":"x"}]},"devices":[]}"#;
        let (lines, exit_status) = lines(&root(report, None, ""));
        assert_eq!((lines[0].as_str(), exit_status), ("\"x\": it is no item", 1));
    }

    #[test]
    fn all_bound_is_exit_status_zero() {
        let mut report: Value = serde_json::from_str(REPORT).unwrap();
        report["request"]["rejected"] = Value::Array(Vec::new());
        report["devices"].as_array_mut().unwrap().truncate(2);
        let root = root(&report.to_string(), Some("vfio-pci"), "vfio-pci");
        assert_eq!(lines(&root).1, 0);
    }

    #[test]
    fn a_report_that_cannot_be_read_is_an_error_that_names_it() {
        for text in ["", "{}", "[]", r#"{"version":2,"devices":[]}"#] {
            let root = root(text, None, "");
            let path = root.path().join("report.json");
            let why = status(&path, &Sysfs::new(root.path())).unwrap_err();
            assert!(why.to_string().contains("report.json"), "{text:?}: {why}");
        }
    }
}
