//! Answers of the fake kernel, kept for the same scenarios in QEMU.
//!
//! The fake kernel is a claim about Linux: `cargo xtask test` names a folder in
//! [`VARIABLE`], the tests over the fake kernel leave there what they saw, and each boot's answer
//! is held against that.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Scenario;
use super::complaints::group_of;
use crate::machine::observed::Observed;
use crate::machine::topology::Topology;

/// Environment variable that names the folder.
pub const VARIABLE: &str = "VFIO_EARLY_ANSWERS";

/// Keeps what the fake kernel's side of a scenario saw, where somebody wants it.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(scenario: &Scenario, seen: &Observed) -> Result<()> {
    let Some(folder) = env::var_os(VARIABLE) else { return Ok(()) };
    let path = file(Path::new(&folder), scenario);
    fs::write(&path, serde_json::to_vec_pretty(seen)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What the fake kernel's side of a scenario saw; none when the tests over it did not run at all.
///
/// # Errors
/// When they ran and left no answer to this scenario, or it cannot be read.
pub fn kept(folder: &Path, scenario: &Scenario) -> Result<Option<Observed>> {
    if fs::read_dir(folder)?.next().is_none() {
        return Ok(None);
    }
    let path = file(folder, scenario);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Where two answers to one scenario differ, one sentence each.
#[must_use]
pub fn differences(topology: &Topology, fake: &Observed, real: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    // The order of probes decides about groups that come with them.
    let with_members = !topology.groups_at_probe;
    compare("", &answer(fake, with_members), &answer(real, with_members), &mut found);
    found
}

fn compare(path: &str, fake: &Value, real: &Value, found: &mut Vec<String>) {
    match (fake, real) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let at = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_default()
                };
                compare(&format!("{path}/{key}"), &at(one), &at(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                compare(&format!("{path}/{index}"), one, other, found);
            }
        }
        _ if fake == real => {}
        _ => found.push(format!("{path}: the fake kernel says {fake}, this one {real}")),
    }
}

fn file(folder: &Path, scenario: &Scenario) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = scenario.name.chars().map(plain).collect();
    let Topology { iommu, groups_at_probe, .. } = scenario.topology;
    let later = if groups_at_probe { "-later" } else { "" };
    folder.join(format!("{name}-{}{later}.json", iommu.name()))
}

/// What must be the same on both sides, whatever numbers the groups have: the outcomes, and
/// every device that the scenario's machine has.
fn answer(seen: &Observed, with_members: bool) -> serde_json::Value {
    let reports: Vec<_> = seen
        .executions
        .iter()
        .map(|execution| {
            let devices = execution.report["devices"].as_array().cloned().unwrap_or_default();
            let members = |device| {
                if with_members {
                    &group_of(device, &execution.report)["members"]
                } else {
                    &Value::Null
                }
            };
            let answer = |device| device_answer(device, members(device));
            let devices: Vec<_> = devices.iter().map(answer).collect();
            serde_json::json!({
                "status": execution.status,
                "request": execution.report["request"],
                "devices": devices,
            })
        })
        .collect();
    let moments: BTreeMap<_, _> = seen
        .moments
        .iter()
        .map(|(name, moment)| {
            let devices: BTreeMap<_, _> = moment
                .devices
                .iter()
                .map(|(address, device)| {
                    (address, (&device.id, &device.driver, &device.driver_override))
                })
                .collect();
            (name, devices)
        })
        .collect();
    serde_json::json!({ "runs": reports, "moments": moments })
}

fn device_answer(device: &serde_json::Value, members: &serde_json::Value) -> serde_json::Value {
    let mut answer = device.clone();
    if let Some(fields) = answer.as_object_mut() {
        fields.remove("group");
        fields.insert("members".to_owned(), members.clone());
        // Their words hold the numbers of groups.
        fields.remove("warnings");
        fields.remove("reason");
        fields.remove("remedy");
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_names_its_place_and_both_values() {
        let mut found = Vec::new();
        let fake = json!({ "runs": [{ "status": 0 }] });
        compare("", &fake, &json!({ "runs": [{ "status": 1 }] }), &mut found);
        assert_eq!(found, ["/runs/0/status: the fake kernel says 0, this one 1"]);
    }
}
