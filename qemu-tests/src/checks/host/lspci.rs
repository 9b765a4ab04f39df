//! What lspci prints, read strictly: what is not understood is an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One device of `lspci -nnk -D`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Function {
    /// `Ethernet controller [0200]: Intel Corporation 82574L … [8086:10d3]`, without a revision.
    pub title: String,
    /// `8086:10d3` of the subsystem.
    pub subsystem: Option<String>,
    /// The driver in use.
    pub driver: Option<String>,
}

/// By address.
pub(super) type Functions = BTreeMap<String, Function>;

/// Reads `lspci -nnk -D`.
///
/// # Errors
/// When there is a line of another form.
pub(super) fn read(text: &str) -> Result<Functions> {
    let mut functions = Functions::new();
    let mut last: Option<(String, Function)> = None;
    for line in text.lines() {
        let strange = || format!("lspci says {line:?}");
        let Some(below) = line.strip_prefix('\t') else {
            let (address, title) = line.split_once(' ').with_context(strange)?;
            let whole = address.len() == 12 && address.as_bytes()[4] == b':';
            anyhow::ensure!(whole && title.contains("]: "), strange());
            let function = Function { title: without_revision(title)?, ..Function::default() };
            functions.extend(last.replace((address.to_owned(), function)));
            continue;
        };
        let (_, function) = last.as_mut().with_context(strange)?;
        let (key, value) = below.split_once(": ").with_context(strange)?;
        match key {
            "Subsystem" => {
                let id = value.rsplit_once(" [").with_context(strange)?.1;
                function.subsystem = Some(id.trim_end_matches(']').to_owned());
            }
            "Kernel driver in use" => function.driver = Some(value.to_owned()),
            // What could drive it, which `list` does not tell.
            "Kernel modules" => {}
            _ => bail!(strange()),
        }
    }
    functions.extend(last);
    anyhow::ensure!(!functions.is_empty(), "lspci says nothing");
    Ok(functions)
}

/// Takes off ` (rev 02)` and ` (prog-if 30 [XHCI])`.
fn without_revision(title: &str) -> Result<String> {
    let (name, rest) = match title.rfind("] (") {
        Some(end) => title.split_at(end + 1),
        None => (title, ""),
    };
    for part in rest.split(" (").filter(|part| !part.is_empty()) {
        let known =
            part.ends_with(')') && (part.starts_with("rev ") || part.starts_with("prog-if "));
        anyhow::ensure!(known, "lspci says {title:?}");
    }
    anyhow::ensure!(name.ends_with(']'), "lspci says {title:?}");
    Ok(name.to_owned())
}

/// Reads what `guest/host/groups` prints: the number of a group to its members.
///
/// # Errors
/// When there is a line of another form.
pub(super) fn read_groups(text: &str) -> Result<BTreeMap<u64, BTreeSet<String>>> {
    let mut groups: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        let strange = || format!("the loop over the groups says {line:?}");
        if let Some(member) = line.strip_prefix('\t') {
            let (address, _) = member.split_once(' ').with_context(strange)?;
            let group = last.and_then(|number| groups.get_mut(&number)).with_context(strange)?;
            group.insert(address.to_owned());
        } else {
            let number = line.strip_prefix("IOMMU Group ").and_then(|rest| rest.strip_suffix(':'));
            let number = number.and_then(|number| number.parse().ok()).with_context(strange)?;
            groups.insert(number, BTreeSet::new());
            last = Some(number);
        }
    }
    anyhow::ensure!(!groups.is_empty(), "the loop over the groups says nothing");
    Ok(groups)
}

/// Where the list and lspci differ, one sentence each.
pub(super) fn differences(devices: &[Value], lspci: &Functions) -> Vec<String> {
    let mut found = Vec::new();
    for device in devices {
        let address = device["address"].as_str().unwrap_or_default();
        let Some(function) = lspci.get(address) else {
            found.push(format!("{address}: lspci has no such device"));
            continue;
        };
        let text = |field: &str| device[field].as_str().map(str::to_owned);
        let mut same = |what: &str, list: Option<String>, lspci: Option<String>| {
            if list != lspci {
                found.push(format!("{address}: {what} is {list:?}, and with lspci {lspci:?}"));
            }
        };
        same("the title", Some(title(device)), Some(function.title.clone()));
        same("the driver", text("driver"), function.driver.clone());
        // sysfs has no subsystem of a bridge.
        if !text("class").is_some_and(|class| class.starts_with("0604")) {
            same("the subsystem", text("subsystem"), function.subsystem.clone());
        }
    }
    let listed: BTreeSet<_> =
        devices.iter().filter_map(|device| device["address"].as_str()).collect();
    let missing = lspci.keys().filter(|address| !listed.contains(address.as_str()));
    found.extend(missing.map(|address| format!("{address}: list has no such device")));
    found
}

/// As lspci writes it.
fn title(device: &Value) -> String {
    let text = |field: &str| device[field].as_str();
    let name = match (text("vendor_name"), text("device_name")) {
        (Some(vendor), Some(device)) => format!("{vendor} {device}"),
        (Some(vendor), None) => format!("{vendor} Device"),
        (None, _) => "Device".to_owned(),
    };
    let class = text("class").and_then(|class| class.get(..4)).unwrap_or_default();
    let class_name = text("class_name").unwrap_or("Class");
    format!("{class_name} [{class}]: {name} [{}]", text("id").unwrap_or_default())
}

/// Where the list and the loop over the groups differ, one sentence each.
pub(super) fn group_differences(
    devices: &[Value],
    groups: &BTreeMap<u64, BTreeSet<String>>,
) -> Vec<String> {
    let mut listed: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for device in devices {
        if let (Some(number), Some(address)) =
            (device["group"].as_u64(), device["address"].as_str())
        {
            listed.entry(number).or_default().insert(address.to_owned());
        }
    }
    let numbers: BTreeSet<_> = groups.keys().chain(listed.keys()).collect();
    let (none, mut found) = (BTreeSet::new(), Vec::new());
    for number in numbers {
        let of =
            |groups: &BTreeMap<u64, BTreeSet<String>>| groups.get(number).unwrap_or(&none).clone();
        if of(&listed) != of(groups) {
            let (list, shell) = (of(&listed), of(groups));
            found.push(format!("group {number} has {list:?}, and in the shell {shell:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
0000:00:02.0 PCI bridge [0604]: Red Hat, Inc. QEMU PCIe Root port [1b36:000c]
\tSubsystem: Red Hat, Inc. QEMU PCIe Root port [1b36:0000]
\tKernel driver in use: pcieport
0000:00:04.0 Non-Volatile memory controller [0108]: Red Hat, Inc. QEMU NVM Express [1b36:0010] (rev 02) (prog-if 02 [NVM Express])
\tSubsystem: Red Hat, Inc. QEMU Virtual Machine [1af4:1100]
\tKernel driver in use: nvme
\tKernel modules: nvme
0000:00:06.0 Unclassified device [00ff]: Device [1234:11e8] (rev 10)
";

    fn devices() -> Vec<Value> {
        let red_hat = "Red Hat, Inc.";
        vec![
            json!({"address": "0000:00:02.0", "id": "1b36:000c", "class": "060400", "group": 1,
                "class_name": "PCI bridge", "vendor_name": red_hat, "driver": "pcieport",
                "device_name": "QEMU PCIe Root port", "subsystem": null}),
            json!({"address": "0000:00:04.0", "id": "1b36:0010", "class": "010802", "group": 2,
                "class_name": "Non-Volatile memory controller", "vendor_name": red_hat,
                "device_name": "QEMU NVM Express", "driver": "nvme", "subsystem": "1af4:1100"}),
            json!({"address": "0000:00:06.0", "id": "1234:11e8", "class": "00ff00", "group": 2,
                "class_name": "Unclassified device", "vendor_name": null, "device_name": null,
                "driver": null, "subsystem": null}),
        ]
    }

    #[test]
    fn every_field_that_differs_is_named() {
        let lspci = read(TEXT).unwrap();
        assert_eq!(differences(&devices(), &lspci), Vec::<String>::new());
        for (index, field, value, text) in [
            (0, "driver", json!(null), "0000:00:02.0: the driver is None"),
            (1, "driver", json!("vfio-pci"), "0000:00:04.0: the driver is Some(\"vfio-pci\")"),
            (1, "subsystem", json!("1af4:1"), "0000:00:04.0: the subsystem"),
            (1, "class", json!("010602"), "0000:00:04.0: the title"),
            (2, "id", json!("1234:11e9"), "0000:00:06.0: the title"),
            (2, "vendor_name", json!("QEMU"), "0000:00:06.0: the title"),
            (2, "address", json!("0000:00:07.0"), "lspci has no such device"),
        ] {
            let mut devices = devices();
            devices[index][field] = value;
            let found = differences(&devices, &lspci);
            assert!(found.first().is_some_and(|found| found.contains(text)), "{field}: {found:?}");
        }
        assert_eq!(differences(&devices()[..2], &lspci), ["0000:00:06.0: list has no such device"]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in [
            "",
            "00:02.0 PCI bridge [0604]: Red Hat, Inc. [1b36:000c]",
            "0000:00:02.0 PCI bridge",
            "0000:00:02.0 PCI bridge [0604]: Red Hat, Inc. [1b36:000c] (new)",
            "\tSubsystem: before any device [1af4:1100]",
            "0000:00:02.0 PCI bridge [0604]: Red Hat, Inc. [1b36:000c]\n\tPhysical Slot: 3",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        for text in ["", "IOMMU Group x:", "\t0000:00:02.0 PCI bridge", "IOMMU Group 1:\n0000"] {
            assert!(read_groups(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_group_with_other_members_is_named() {
        let text = "IOMMU Group 1:\n\t0000:00:02.0 a\nIOMMU Group 2:\n\t0000:00:04.0 b\n\t0000:00:06.0 c\n";
        let groups = read_groups(text).unwrap();
        assert_eq!(group_differences(&devices(), &groups), Vec::<String>::new());
        let mut devices = devices();
        devices[2]["group"] = json!(1);
        assert_eq!(group_differences(&devices, &groups).len(), 2);
    }
}
