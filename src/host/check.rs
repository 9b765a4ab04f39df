//! `vfio-early check`: what `bind` would do here, in words.

use std::fmt;

use crate::apply::{Applied, Fate};
use crate::kernel::Kernel;
use crate::plan::{Decision, Driver, IOMMU_TYPE1, Plan, RESERVED, Step, Why};
use crate::report::{DeviceReport, Outcome, Report};
use crate::sysfs::Machine;

/// The command line that a user means: one with `vfio.` parameters, or a bare list of items.
#[must_use]
pub fn command_line(text: &str) -> String {
    let is_whole = text.split_whitespace().any(|word| word.trim_matches('"').starts_with("vfio."));
    if is_whole { text.to_owned() } else { format!("vfio.devs=\"{text}\"") }
}

/// What would become of the devices, if the kernel did what it is told: all that is to be taken
/// is bound, unless its module is missing here.
pub fn expected(plan: &Plan, machine: &Machine, kernel: &mut impl Kernel) -> Applied {
    let mut applied = Applied::default();
    let mut missing = Vec::new();
    for step in &plan.steps {
        if let Step::Load(module) = step
            && kernel.modules_for(module).is_none()
        {
            missing.push(module.as_str());
        }
    }
    if missing.contains(&IOMMU_TYPE1) {
        let module = IOMMU_TYPE1;
        applied.warnings.push(format!("{module} is missing: no VM can use the devices without it"));
    }
    for (address, target) in &plan.targets {
        let (name, failure) = match &target.decision {
            Decision::Refuse(_) => continue,
            Decision::Reserve(_) => (RESERVED, None),
            Decision::Take(Driver::Variant(module)) => (module.as_str(), None),
            Decision::Take(Driver::Named(name) | Driver::Asked(name)) => {
                let is_missing = missing.contains(&name.as_str());
                let remedy = "add it to the initrd and to the kernel's modules";
                (name.as_str(), is_missing.then(|| Why::new(format!("{name} is missing"), remedy)))
            }
        };
        let is_bound = failure.is_none() && name != RESERVED;
        let before = machine.devices.get(address).and_then(|device| device.driver.clone());
        let fate = Fate {
            driver: if is_bound { Some(name.to_owned()) } else { before },
            driver_override: Some(name.to_owned()),
            failure,
            ..Fate::default()
        };
        applied.fates.insert(*address, fate);
    }
    applied
}

/// The report that `bind` would write, and what it would do for it.
#[derive(Debug)]
pub struct Check {
    /// With the outcomes that are expected.
    pub report: Report,
    /// The steps.
    pub plan: Plan,
    /// Whether the host has its console on a screen that a device of the request could take.
    pub has_screen: bool,
}

fn line(f: &mut fmt::Formatter<'_>, device: &DeviceReport) -> fmt::Result {
    match (&device.address, &device.id) {
        (Some(address), Some(id)) => write!(f, "{address} {id}: ")?,
        _ => write!(f, "{}: ", device.item)?,
    }
    let driver = device.driver.as_deref().unwrap_or("no driver");
    let what = match device.outcome {
        Outcome::Bound if device.driver == device.driver_before => {
            return writeln!(f, "is bound to {driver} already");
        }
        Outcome::Bound => {
            write!(f, "would be bound to {driver}")?;
            if let Some(before) = &device.driver_before {
                write!(f, ", taken from {before}")?;
            }
            if let Some(group) = &device.group {
                write!(f, ", group {}", group.number)?;
            }
            return writeln!(f);
        }
        Outcome::Reserved => "would be reserved",
        Outcome::Refused => "would be refused",
        Outcome::Failed => "would fail",
        Outcome::Absent => "is absent",
    };
    let reason = device.reason.as_deref().unwrap_or_default();
    writeln!(f, "{what}: {reason}; {}", device.remedy.as_deref().unwrap_or_default())
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rejected in &self.report.request.rejected {
            writeln!(f, "{:?}: is no item: {}", rejected.text, rejected.reason)?;
        }
        for device in &self.report.devices {
            line(f, device)?;
            for warning in &device.warnings {
                writeln!(f, "    warning: {warning}")?;
            }
        }
        let console = self.plan.steps.iter().find_map(|step| match step {
            Step::HandOver { .. } => Some(format!("would be kept: {step}")),
            Step::Announce(address) => Some(format!("would end: {address} takes it along")),
            _ => None,
        });
        match console {
            Some(console) => writeln!(f, "the console {console}")?,
            None if self.has_screen => writeln!(f, "the console would stay where it is")?,
            None => {}
        }
        self.report.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_list_is_as_good_as_a_command_line() {
        for (text, expected) in [
            ("01:00.0", "vfio.devs=\"01:00.0\""),
            ("01:00.0 02:00.0,03:00.0", "vfio.devs=\"01:00.0 02:00.0,03:00.0\""),
            ("vfio.devs=01:00.0 quiet", "vfio.devs=01:00.0 quiet"),
            ("quiet \"vfio.devs=01:00.0 02:00.0\"", "quiet \"vfio.devs=01:00.0 02:00.0\""),
        ] {
            assert_eq!(command_line(text), expected, "{text:?}");
        }
    }
}
