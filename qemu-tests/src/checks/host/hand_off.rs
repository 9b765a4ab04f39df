//! What `list --format` prints, in the hands of those whom it is for.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use roxmltree::Document;
use serde_json::Value;

use crate::checks::nix;
use crate::supplies::step;

/// `--format libvirt`: libvirt's own schema takes the elements, and they name these devices.
///
/// # Errors
/// When it does not, or takes what is wrong, too.
pub(super) fn libvirt(elements: &str, addresses: &[&str]) -> Result<()> {
    let domain = format!(
        "<domain type='kvm'>\n<name>guest</name>\n<memory>65536</memory>\n\
         <os><type>hvm</type></os>\n<devices>\n{elements}</devices>\n</domain>\n"
    );
    validate(&domain).with_context(|| format!("libvirt does not take\n{domain}"))?;
    let wrong = domain.replacen("managed='no'", "managed='perhaps'", 1);
    ensure!(wrong != domain, "no element says managed='no':\n{elements}");
    ensure!(validate(&wrong).is_err(), "virt-xml-validate takes\n{wrong}");

    let domain = Document::parse(&domain)?;
    let hostdevs = domain.descendants().filter(|node| node.has_tag_name("hostdev"));
    let mut named = BTreeSet::new();
    for hostdev in hostdevs {
        let address = hostdev.descendants().find(|node| node.has_tag_name("address"));
        let address = address.context("a hostdev has an address")?;
        let part = |name: &str| {
            let digits = address.attribute(name).and_then(|text| text.strip_prefix("0x"));
            u32::from_str_radix(digits.context("a hexadecimal number")?, 16).context("a number")
        };
        let (bus, slot) = (part("bus")?, part("slot")?);
        named.insert(format!(
            "{:04x}:{bus:02x}:{slot:02x}.{:x}",
            part("domain")?,
            part("function")?
        ));
    }
    let wanted: BTreeSet<String> = addresses.iter().map(|&address| address.to_owned()).collect();
    ensure!(named == wanted, "libvirt would get {named:?}, not {wanted:?}");
    Ok(())
}

fn validate(domain: &str) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("vfio-early-domain-").tempdir()?;
    let file = folder.path().join("domain.xml");
    fs::write(&file, domain)?;
    step::run(Command::new("virt-xml-validate").arg(&file).arg("domain")).map(drop)
}

/// `--format nix`: it evaluates to these items, and the NixOS module takes it where nixpkgs' lib is
/// there.
///
/// # Errors
/// When it does not.
pub(super) fn nix(text: &str, items: &[&Value]) -> Result<()> {
    let evaluated = nix::devices(text).with_context(|| format!("Nix does not take\n{text}"))?;
    let evaluated = evaluated.as_array().context("a list of devices")?;
    ensure!(evaluated.iter().eq(items.iter().copied()), "Nix gets {evaluated:?}, not {items:?}");
    Ok(())
}

/// `--format kubevirt`: it is YAML, and permits these ids, each once.
///
/// # Errors
/// When it does not.
pub(super) fn kubevirt(text: &str, ids: &[&str]) -> Result<()> {
    let value: Value =
        serde_norway::from_str(text).with_context(|| format!("this is no YAML:\n{text}"))?;
    let devices = value["permittedHostDevices"]["pciHostDevices"].as_array();
    let devices = devices.with_context(|| format!("no list of devices:\n{text}"))?;
    let selectors: Vec<_> =
        devices.iter().filter_map(|device| device["pciVendorSelector"].as_str()).collect();
    let distinct: BTreeSet<_> = selectors.iter().map(|id| id.to_ascii_lowercase()).collect();
    let wanted: BTreeSet<_> = ids.iter().map(|&id| id.to_owned()).collect();
    ensure!(
        distinct == wanted && selectors.len() == distinct.len() && devices.len() == selectors.len(),
        "KubeVirt is to permit {selectors:?}, not {wanted:?}"
    );
    // `vendor/name`, as Kubernetes has it for every resource that is not its own.
    for device in devices {
        let name = device["resourceName"].as_str().unwrap_or_default();
        let (domain, name) = name.split_once('/').unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !domain.is_empty() && !name.is_empty() && domain.chars().chain(name.chars()).all(plain),
            "{device} has no resource name that Kubernetes takes"
        );
    }
    Ok(())
}

/// What the monitor of a QEMU said: it runs, and shows devices with these ids.
///
/// # Errors
/// When it does not.
pub(super) fn qemu(monitor: &str, ids: &[&str]) -> Result<()> {
    let mut answers = Vec::new();
    for line in monitor.lines() {
        answers.push(serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?);
    }
    let answer = |id: u64| {
        let found = answers.iter().find(|answer| answer["id"] == id);
        found.map(|answer| &answer["return"]).with_context(|| format!("no answer {id}:\n{monitor}"))
    };
    let status = answer(2)?;
    ensure!(status["status"] == "running", "QEMU in the guest does not run: {status}");
    let buses = answer(3)?.as_array().with_context(|| format!("no buses:\n{monitor}"))?;
    let shown: Vec<String> = buses
        .iter()
        .flat_map(|bus| bus["devices"].as_array().into_iter().flatten())
        .map(|device| {
            let part = |name: &str| device["id"][name].as_u64().unwrap_or_default();
            format!("{:04x}:{:04x}", part("vendor"), part("device"))
        })
        .collect();
    for id in ids {
        if !shown.iter().any(|other| other == id) {
            bail!("QEMU in the guest does not see {id}, but {shown:?}");
        }
    }
    Ok(())
}

/// What a QEMU printed until it stopped: of these devices that it cannot reset them, and nothing
/// else.
///
/// # Errors
/// When it does not.
pub(super) fn qemu_output(text: &str, without_reset: &[&str]) -> Result<()> {
    let output = text.strip_suffix("stopped\n").with_context(|| format!("stop: {text}"))?;
    let mut named = BTreeSet::new();
    for line in output.lines() {
        let (_, rest) = line.split_once("Cannot reset device ").with_context(|| line.to_owned())?;
        named.insert(rest.split(',').next().unwrap_or_default());
    }
    let wanted: BTreeSet<&str> = without_reset.iter().copied().collect();
    ensure!(named == wanted, "list finds no reset for {wanted:?}, QEMU in the guest for {named:?}");
    Ok(())
}
