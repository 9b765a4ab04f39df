//! The scenarios, as a table.
//!
//! Each says what is there, what is asked, and what comes out; what holds always is checked
//! besides, see [`Scenario::complaints`].

mod binding;
mod groups;
mod items;
mod machines;
mod modules;
mod program;

use crate::scenario::{Scenario, USUAL, USUAL_AND_NIXOS};
use crate::supplies::kernels::NIXOS;

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let [items, parameters, guards, program] =
        [items::items(), items::parameters(), items::guards(), program::program()].map(on_one);
    [
        binding::binding(),
        items,
        parameters,
        guards,
        groups::groups(),
        modules::modules(),
        modules::variants(),
        program::trouble(),
        program,
    ]
    .concat()
}

/// What is decided before a kernel is asked is run on one of Debian's each time, where nothing else is
/// said; the matrix has it on all, with one IOMMU.
fn on_one(scenarios: Vec<Scenario>) -> Vec<Scenario> {
    let one = |scenario: Scenario| match scenario.kernels {
        USUAL => scenario.kernels(&["6.1"]),
        USUAL_AND_NIXOS => scenario.kernels(&["6.1", NIXOS]),
        _ => scenario,
    };
    let why = Some("it is about items, guards or parameters");
    let with_one = |scenario| Scenario { one_iommu: why, ..scenario };
    scenarios.into_iter().map(one).map(with_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let mut names: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_device_that_a_scenario_expects_something_of_is_in_its_machine() {
        for scenario in all() {
            let functions = scenario.topology.functions();
            for address in scenario.wanted.iter().filter_map(|wanted| wanted.address.as_ref()) {
                let there = functions.iter().any(|function| function.address == *address);
                assert!(there, "{}: {address}", scenario.name);
            }
        }
    }
}
