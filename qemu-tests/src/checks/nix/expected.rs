//! What is expected of the module: `initrd/nixos/tests/expected.json`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::supplies::binary::workspace;

/// The file.
pub(super) const EXPECTED: &str = "initrd/nixos/tests/expected.json";

/// What it has, and `initrd/nixos/tests/default.nix` too.
pub(super) const GROUPS: [&str; 7] =
    ["configurations", "messages", "attributes", "users", "afterwards", "flake", "package"];

/// What stands for the Nix store in it.
pub(super) const STORE: &str = "/nix/store";

/// What it says.
///
/// # Errors
/// When it cannot be read, or is no JSON.
pub(super) fn read() -> Result<Value> {
    let text = fs::read_to_string(workspace().join(EXPECTED)).context(EXPECTED)?;
    serde_json::from_str(&text).context(EXPECTED)
}

/// Each configuration of these groups that comes out otherwise than expected.
pub(super) fn differences(expected: &Value, found: &Value, groups: &[&str]) -> Vec<String> {
    let none = serde_json::Map::new();
    let entries = |value: &Value, group: &str| -> BTreeMap<String, Value> {
        let group = value[group].as_object().unwrap_or(&none);
        group.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let mut differences = Vec::new();
    for group in groups {
        let (expected, found) = (entries(expected, group), entries(found, group));
        let names = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
        for name in names {
            let (expected, found) = (expected.get(name), found.get(name));
            if expected != found {
                let text = |value: Option<&Value>| {
                    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#}"))
                };
                differences.push(format!(
                    "{group} {name}: expected\n{}\nfound\n{}",
                    text(expected),
                    text(found)
                ));
            }
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_new_missing_or_changed_is_a_difference() {
        let expected = json!({"configurations": {"a": 1, "b": 2, "c": 3}, "others": {"a": 1}});
        let found = json!({"configurations": {"a": 1, "b": 3, "d": 4}});
        let names: Vec<_> = differences(&expected, &found, &["configurations"])
            .iter()
            .filter_map(|text| Some(text.split_once(':')?.0.to_owned()))
            .collect();
        assert_eq!(names, ["configurations b", "configurations c", "configurations d"]);
    }
}
