//! Programs that do the work in a wrong way: the properties have to tell.

use std::mem;

use nix::errno::Errno;
use vfio_early::kernel::{PROBE, Write};
use vfio_early::report::{Outcome, Report};

/// What `bind` is made to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    /// What it does.
    #[default]
    None,
    /// Overrides are written when the modules are loaded; here are those that wait for it.
    LateOverrides(Vec<Write>),
    /// None is written, and success is what it says.
    NoOverride,
    /// What was written is taken for done.
    NoReadBack,
    /// Another device gets each override, too.
    Neighbour(&'static str),
    /// A device is taken from whichever driver has it.
    UnbindsFromAny,
}

impl Mutant {
    /// Performs a write, or something like it.
    pub fn write(
        &mut self,
        write: &Write,
        mut perform: impl FnMut(&Write) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Write::Store { attribute, value } = write else { return perform(write) };
        let is_override = attribute.ends_with("/driver_override");
        match self {
            Mutant::LateOverrides(waiting) if is_override => {
                waiting.push(write.clone());
                return Ok(());
            }
            Mutant::NoOverride if is_override => return Ok(()),
            Mutant::LateOverrides(waiting) if attribute == PROBE || attribute.ends_with("bind") => {
                for write in mem::take(waiting) {
                    let _ = perform(&write);
                }
            }
            Mutant::Neighbour(address) if is_override => {
                let attribute = format!("bus/pci/devices/{address}/driver_override");
                let _ = perform(&Write::Store { attribute, value: value.clone() });
            }
            Mutant::UnbindsFromAny if attribute.ends_with("/unbind") => {
                let attribute = format!("bus/pci/devices/{value}/driver/unbind");
                return perform(&Write::Store { attribute, value: value.clone() });
            }
            _ => {}
        }
        perform(write)
    }

    /// The report that it makes.
    pub fn report(&self, mut report: Report) -> Report {
        if *self == Mutant::NoReadBack {
            for device in &mut report.devices {
                if device.outcome == Outcome::Failed && device.driver_override.is_some() {
                    device.outcome = Outcome::Bound;
                    device.driver.clone_from(&device.driver_override);
                }
            }
        }
        report
    }
}
