//! `vfio-early finish`: what the initrd's run had to leave, and nothing else.
//!
//! What was bound then and is not now was given back by somebody, as libvirt does, or a hook: that was
//! meant. What was refused has had its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::released::Released;
use crate::cmdline::Request;
use crate::escape;
use crate::pci::{Address, Choice, Hop, Id, Item, Place};
use crate::plan;
use crate::report::{Report, exit_status};
use crate::sysfs::{Machine, Sysfs};

/// The report of a boot; `None` where the initrd has left none.
///
/// # Errors
/// When it is there and tells nothing of this boot's devices; the text says why.
pub fn read(report: &Path, command_line: &[u8], sysfs: &Sysfs) -> Result<Option<Value>, String> {
    let text = match sysfs.bytes(report) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(format!("{}: {why}", report.display())),
    };
    let value: Value =
        serde_json::from_slice(&text).map_err(|why| format!("{}: {why}", report.display()))?;
    let is_known = value["version"] == 1 && value["devices"].is_array();
    let of_boot = String::from_utf8_lossy(command_line);
    if !is_known {
        return Err(format!("{} is of another version", report.display()));
    }
    if value["command_line"].as_str() != Some(&*of_boot) {
        return Err(format!("{} is of another command line", report.display()));
    }
    Ok(Some(value))
}

/// Whether all was bound in that boot's initrd.
#[must_use]
pub fn was_well(then: &Value) -> bool {
    then["exit_status"].as_u64() == Some(exit_status(false, false).into())
}

/// What of a request is left to do after the run that made this report, and was not released since. An
/// item of which only some devices are left is one for each of these.
#[must_use]
pub fn left(request: Request, machine: &Machine, then: &Value, sysfs: &Sysfs) -> Request {
    let told: BTreeMap<Address, &Value> = devices(then)
        .filter_map(|device| Some((device["address"].as_str()?.parse().ok()?, device)))
        .collect();
    let released = Released::read(sysfs);
    let is_left = |address: &Address| match told.get(address) {
        _ if released.has(address, &machine.devices[address].id) => false,
        // It was not there.
        None => true,
        Some(device) => {
            let had_to_wait = matches!(device["outcome"].as_str(), Some("reserved" | "failed"));
            // Else somebody has given it to another driver since.
            let driver = sysfs.driver(*address).ok().flatten();
            had_to_wait && driver.as_deref() == device["driver"].as_str()
        }
    };
    let mut items = Vec::new();
    for item in &request.items {
        let one = Request { items: vec![item.clone()], ..Request::default() };
        let chosen = plan::requested(&one, machine);
        let left: Vec<Address> = chosen.iter().copied().filter(is_left).collect();
        if left.len() == chosen.len() {
            items.push(item.clone());
        } else {
            let id = |address: &Address| machine.devices.get(address).map(|device| device.id);
            items.extend(left.into_iter().map(|address| alone(item, address, id(&address))));
        }
    }
    Request { items, rejected: Vec::new(), warnings: Vec::new(), ..request }
}

/// What of a request means a device that has just come, unless that was released. Its guard counts as
/// anywhere.
#[must_use]
pub fn of_one(request: Request, one: Address, machine: &Machine, sysfs: &Sysfs) -> Request {
    let id = machine.devices.get(&one).map(|device| device.id);
    let mut items = Vec::new();
    for item in &request.items {
        let only = Request { items: vec![item.clone()], ..Request::default() };
        if plan::requested(&only, machine).contains(&one) {
            items.push(alone(
                item,
                one,
                if plan::guard_holds(item, machine) { id } else { item.guard },
            ));
        }
    }
    if id.is_none_or(|id| Released::read(sysfs).has(&one, &id)) {
        items.clear();
    }
    Request { items, rejected: Vec::new(), warnings: Vec::new(), ..request }
}

fn devices(report: &Value) -> impl Iterator<Item = &Value> {
    report["devices"].as_array().into_iter().flatten()
}

/// One of the devices that an item has chosen.
pub(super) fn alone(item: &Item, address: Address, guard: Option<Id>) -> Item {
    let Address { domain, bus, device, function } = address;
    let hops = vec![Hop { device, function: Some(function) }];
    Item { text: item.text.clone(), guard, choice: Choice::Place(Place { domain, bus, hops }) }
}

/// The report of the boot with what this run has done. Of what was named by hand, and in vain, nothing is
/// in it: that is with the host as before.
///
/// # Errors
/// When this run's report is no JSON, which it is.
pub fn merged(mut then: Value, now: &Report, is_named: bool) -> serde_json::Result<Value> {
    // By way of its text, for which all is there: to_value() is 10 kB of the program.
    let ours = serde_json::from_slice(escape::json(now)?.as_bytes())?;
    let key = |device: &Value| match device["address"].as_str() {
        Some(address) => (0, address.parse::<Address>().ok(), String::new()),
        None => (1, None, device["item"].to_string()),
    };
    let found: BTreeSet<String> = devices(&ours)
        .filter(|device| !device["address"].is_null())
        .map(|device| device["item"].to_string())
        .collect();
    // An item that was absent has its device now.
    let is_over =
        |device: &Value| device["address"].is_null() && found.contains(&device["item"].to_string());
    let mut all: BTreeMap<_, Value> = BTreeMap::new();
    let is_vain = |device: &Value| device["address"].is_null() || device["outcome"] == "refused";
    let ours_of_use = devices(&ours).filter(|device| !is_named || !is_vain(device));
    for device in devices(&then).filter(|device| !is_over(device)).chain(ours_of_use) {
        all.insert(key(device), device.clone());
    }
    let mut groups: BTreeMap<u64, Value> = BTreeMap::new();
    for report in [&then, &ours] {
        for group in report["groups"].as_array().into_iter().flatten() {
            groups.insert(group["number"].as_u64().unwrap_or_default(), group.clone());
        }
    }
    let mut warnings: Vec<Value> = then["warnings"].as_array().cloned().unwrap_or_default();
    for warning in ours["warnings"].as_array().into_iter().flatten() {
        if !warnings.contains(warning) {
            warnings.push(warning.clone());
        }
    }
    let is_rejected = then["request"]["rejected"].as_array().is_some_and(|it| !it.is_empty());
    let unmet = is_rejected
        || all
            .values()
            .any(|device| !matches!(device["outcome"].as_str(), Some("bound" | "later")));
    then["exit_status"] = exit_status(unmet, now.request.strict).into();
    then["devices"] = all.into_values().collect();
    then["groups"] = groups.into_values().collect();
    then["warnings"] = warnings.into();
    Ok(then)
}

/// What there is to say of the others, one line each: what was bound and is not any more.
#[must_use]
pub fn given_back(then: &Value, sysfs: &Sysfs) -> Vec<String> {
    let released = Released::read(sysfs);
    let line = |device: &Value| {
        let address: Address = device["address"].as_str()?.parse().ok()?;
        let driver = sysfs.driver(address).ok().flatten();
        let is_bound =
            device["outcome"] == "bound" && driver.as_deref() != device["driver"].as_str();
        let now = escape::short(&driver.unwrap_or_else(|| "no driver".to_owned()));
        let is_released = released.has(&address, &device["id"].as_str()?);
        let what = if is_released { "was released" } else { "was bound at boot" };
        is_bound.then(|| {
            format!("{address} {what} and is with {now} now: it is left there; vfio-early bind takes it back")
        })
    };
    devices(then).filter_map(line).collect()
}
