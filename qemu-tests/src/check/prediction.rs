//! What `check` says that `bind` is going to do, and whether it comes true.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use crate::machine::observed::{Execution, Prediction};

/// What `check` cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unforeseen {
    /// What it expects instead: an outcome, or `bound to` a driver.
    pub expected: &'static str,
    /// Why.
    pub why: &'static str,
}

/// What becomes of one device.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fate<'a> {
    item: &'a str,
    address: Option<&'a str>,
    /// The outcome, with the driver where it is bound.
    what: String,
    /// Whether a VM could have it.
    usable: Option<bool>,
}

/// What did not come true, one sentence each.
fn broken(
    prediction: &Prediction,
    execution: &Execution,
    unforeseen: &BTreeMap<&str, Unforeseen>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, predicted: &dyn Debug, real: &dyn Debug| {
        let (predicted, real) = (format!("{predicted:?}"), format!("{real:?}"));
        if predicted != real {
            found.push(format!("check: {what} is {predicted}, and in truth {real}"));
        }
    };
    let status = i64::from(prediction.status);
    same(
        "the exit status in its report",
        &prediction.report["exit_status"].as_i64(),
        &Some(status),
    );
    let rejected = |report: &Value| report["request"]["rejected"].clone();
    // A run that has nothing to do leaves no report.
    if !execution.report.is_null() {
        same("what is rejected", &rejected(&prediction.report), &rejected(&execution.report));
    }
    let (mut predicted, mut real) = (fates(&prediction.report), fates(&execution.report));
    if unforeseen.is_empty() {
        same("the exit status", &prediction.status, &execution.status);
    }
    for (address, Unforeseen { expected, why }) in unforeseen {
        let Some(fate) = real.iter_mut().find(|fate| fate.address == Some(*address)) else {
            found.push(format!("check: cannot foresee {address}, which is not asked for"));
            continue;
        };
        if fate.what == *expected {
            found.push(format!("check: foresees {fate:?}, in spite of this: {why}"));
        }
        (*expected).clone_into(&mut fate.what);
        fate.address.take_if(|_| *expected == "absent");
        let item = fate.item;
        for fate in predicted.iter_mut().chain(&mut real).filter(|fate| fate.item == item) {
            fate.usable = None;
        }
    }
    // Bound, and it is not foretold who is in its group.
    for fate in predicted.iter().filter(|fate| fate.usable.is_none()) {
        for fate in real.iter_mut().filter(|it| it.item == fate.item && it.what == fate.what) {
            fate.usable = None;
        }
    }
    real.sort_unstable();
    if predicted != real {
        found.push(format!("check: expects {predicted:?}, and in truth it is {real:?}"));
    }
    found
}

/// What did not come true of each run that `check` was asked about; `unforeseen` has the number of
/// the run, from 1 on, to addresses of devices.
#[must_use]
pub fn complaints<'a>(
    executions: &[Execution],
    unforeseen: impl Fn(usize) -> BTreeMap<&'a str, Unforeseen>,
) -> Vec<String> {
    let runs = (1..).zip(executions);
    let complaints = |(number, execution): (usize, &Execution)| {
        let prediction = execution.prediction.as_ref()?;
        let found = broken(prediction, execution, &unforeseen(number));
        Some(found.into_iter().map(move |text| format!("run {number}: {text}")))
    };
    runs.filter_map(complaints).flatten().collect()
}

/// In order.
fn fates(report: &Value) -> Vec<Fate<'_>> {
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let fate = |entry| -> Fate<'_> {
        let entry: &Value = entry;
        let what = match text(&entry["outcome"]) {
            bound if bound == "bound" => format!("bound to {}", text(&entry["driver"])),
            outcome => outcome,
        };
        let item = entry["item"].as_str().unwrap_or_default();
        Fate { item, address: entry["address"].as_str(), what, usable: entry["usable"].as_bool() }
    };
    let mut fates: Vec<_> = report["devices"].as_array().into_iter().flatten().map(fate).collect();
    fates.sort_unstable();
    fates
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(status: i32, outcome: &str, driver: &str) -> Value {
        let address = (outcome != "absent").then_some("0000:00:05.0");
        json!({
            "exit_status": status,
            "request": { "rejected": [] },
            "devices": [
                { "item": "00:05.0", "address": address, "outcome": outcome, "driver": driver },
            ],
        })
    }

    fn complaints_of(predicted: (i32, &str, &str), real: (i32, &str, &str)) -> Vec<String> {
        execution_complaints(predicted, real, None)
    }

    fn execution_complaints(
        predicted: (i32, &str, &str),
        real: (i32, &str, &str),
        expected: Option<&'static str>,
    ) -> Vec<String> {
        let status = predicted.0;
        let report_of =
            |(status, outcome, driver): (i32, &str, &str)| report(status, outcome, driver);
        let execution = Execution {
            status: real.0,
            report: report_of(real),
            prediction: Some(Prediction { status, report: report_of(predicted) }),
            ..Execution::default()
        };
        let unforeseen = expected.map(|expected| Unforeseen { expected, why: "it comes later" });
        complaints(&[execution], |_| {
            unforeseen.map(|it| ("0000:00:05.0", it)).into_iter().collect()
        })
    }

    #[test]
    fn what_comes_true_is_fine_and_what_does_not_is_named() {
        let bound = (0, "bound", "vfio-pci");
        assert!(complaints_of(bound, bound).is_empty());
        for (real, text) in [
            ((1, "bound", "vfio-pci"), "the exit status is 0, and in truth 1"),
            ((0, "refused", ""), "in truth it is"),
            ((0, "bound", "other-vfio"), "bound to other-vfio"),
        ] {
            let found = complaints_of(bound, real);
            assert!(found.len() == 1 && found[0].contains(text), "{real:?}: {found:?}");
        }
    }

    #[test]
    fn what_cannot_be_foreseen_must_be_so() {
        let (absent, bound) = ((1, "absent", ""), (0, "bound", "vfio-pci"));
        assert!(execution_complaints(absent, bound, Some("absent")).is_empty());
        for (predicted, real) in [(bound, bound), (absent, absent), (bound, (1, "failed", ""))] {
            let found = execution_complaints(predicted, real, Some("absent"));
            assert!(!found.is_empty(), "{predicted:?} {real:?}");
        }
    }
}
