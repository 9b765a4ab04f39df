//! Reports in short, for comparisons.

use vfio_early::report::{DeviceReport, Group, Outcome, Report};

fn name(device: &DeviceReport) -> String {
    device.address.map_or_else(|| device.item.clone(), |address| address.to_string())
}

/// Each requested device, or item where there is none, and its outcome, in the report's order.
pub fn outcomes(report: &Report) -> Vec<String> {
    let outcome = |device: &DeviceReport| format!("{:?}", device.outcome).to_lowercase();
    report.devices.iter().map(|device| format!("{} {}", name(device), outcome(device))).collect()
}

/// The device of that name.
pub fn device<'a>(report: &'a Report, wanted: &str) -> &'a DeviceReport {
    let mut devices = report.devices.iter();
    devices
        .find(|device| name(device) == wanted)
        .unwrap_or_else(|| panic!("{wanted} is not in the report: {:?}", outcomes(report)))
}

/// The IOMMU group of the device of that name.
pub fn group<'a>(report: &'a Report, wanted: &str) -> &'a Group {
    let number = device(report, wanted).group;
    let mut groups = report.groups.iter();
    groups
        .find(|group| Some(group.number) == number)
        .unwrap_or_else(|| panic!("{wanted} is in group {number:?}: {:?}", report.groups))
}

/// Why it is not bound and what to do about it, or what else is to be said of it.
pub fn words(report: &Report, name: &str) -> String {
    let device = device(report, name);
    let why = [&device.reason, &device.remedy];
    let why = why.into_iter().flatten().chain(&device.warnings);
    why.cloned().collect::<Vec<_>>().join("; ")
}

/// Why no VM can have it although it is bound; empty where one can.
pub fn obstacles(report: &Report, name: &str) -> String {
    let device = device(report, name);
    let is_bound = device.outcome == Outcome::Bound;
    assert_eq!(device.usable, is_bound.then_some(device.obstacles.is_empty()), "{device:?}");
    let texts = device.obstacles.iter().map(|why| format!("{}; {}", why.reason, why.remedy));
    texts.collect::<Vec<_>>().join("; ")
}

/// Asserts that text is in these words.
pub fn assert_says(words: &str, texts: &[&str]) {
    for text in texts {
        assert!(words.contains(text), "{text:?} is not in {words:?}");
    }
}
