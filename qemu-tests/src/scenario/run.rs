//! A scenario in a virtual machine.

use std::path::Path;
use std::time::Duration;

use super::answers;
use super::matrix::{self, Cell};
use crate::check::{Boot, verdict};
use crate::machine::observed::BEFORE;
use crate::scenario::Sides;
use crate::supplies::kernels::Kernel;

/// The part of the matrix that is run each time.
pub(crate) fn usual() -> Vec<Boot> {
    boots(|cell| cell.usual)
}

/// These cells of the matrix.
pub(crate) fn boots(wanted: impl Fn(&Cell) -> bool) -> Vec<Boot> {
    let (cells, _) = matrix::all();
    let boot = |cell: Cell| Boot {
        name: cell.name(),
        kernel: cell.flavour.kernel,
        check: Box::new(move |kernel, program, answers| {
            run(&cell, kernel, program, answers).into()
        }),
    };
    cells.into_iter().filter(wanted).map(boot).collect()
}

/// How long a scenario may take on a machine that is busy with others: `PREEMPT_RT` is slow there.
const LIMIT: Duration = Duration::from_mins(5);

/// Boots one scenario; the error has all that helps.
fn run(cell: &Cell, kernel: &Kernel, program: &Path, answers: &Path) -> Result<(), String> {
    let scenario = &cell.scenario;
    let mut machine = scenario.machine(kernel, program).limit(LIMIT);
    if cell.flavour.uefi {
        machine = machine.uefi();
    }
    let run = machine.boot().map_err(|error| format!("{error:#}"))?;
    let seen = run.observed();
    let mut complaints = scenario.topology_complaints(run.at(BEFORE));
    complaints.extend(scenario.complaints(&seen));
    complaints.extend(run.log_complaints());
    let sign = cell.flavour.sign;
    if !run.log.iter().any(|record| record.text.contains(sign)) {
        complaints.push(format!("the kernel's log does not say {sign:?}"));
    }
    if scenario.sides == Sides::Both && cell.has_usual_drivers {
        match answers::kept(answers, scenario) {
            Ok(Some(fake)) => {
                complaints.extend(answers::differences(&scenario.topology, &fake, &seen));
            }
            Ok(None) => {}
            Err(error) => complaints.push(format!("the fake kernel's answer: {error:#}")),
        }
    }
    verdict(run, &complaints)
}
