//! A model check: `bind` over the fake kernel, in every order that its reads and writes can come in
//! with what others do, up to so many acts of others. `cargo xtask model` prints the figures.
//!
//! A run is cut off where it has come to a position that is known, and an act is tried only where
//! it makes a difference: before each write, before each question to the kernel, and before each
//! read that finds something else for it. So each order is like one that was run.

mod case;
mod explorer;
mod mutant;
mod properties;
mod rival;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use case::Case;
use explorer::Explorer;
use mutant::Mutant;

/// The acts of others in one run, instead of [`Case::depth`].
const DEPTH: &str = "VFIO_EARLY_MODEL_DEPTH";
/// Part of the names of the cases to be explored.
const CASE: &str = "VFIO_EARLY_MODEL_CASE";

/// What came of a case.
struct Found {
    line: String,
    orders: usize,
    runs: usize,
    complaints: Vec<String>,
}

fn explore(case: Case, depth: Option<usize>) -> Found {
    let start = Instant::now();
    let title = case.title();
    let depth = depth.unwrap_or(case.depth);
    let explored = Explorer::explore(case, depth);
    let line = format!(
        "{title}: at most {depth} acts of others: {} orders, of which {} were run and {} more were \
         begun and found known, in {:.1} s",
        explored.orders,
        explored.finished,
        explored.runs - explored.finished,
        start.elapsed().as_secs_f64()
    );
    let with_title = |(what, order)| format!("{title}: {what}\n  {order}");
    let complaints = explored.complaints.into_iter().map(with_title).collect();
    Found { line, orders: explored.orders, runs: explored.runs, complaints }
}

#[test]
fn whatever_others_do_and_whenever_the_report_is_true_and_the_rest_is_left_alone() {
    let depth = env::var(DEPTH).ok().map(|text| text.parse().expect("a depth is a number"));
    let wanted = env::var(CASE).unwrap_or_default();
    let cases = || case::all().into_iter().filter(|case| case.title().contains(&wanted));
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // A case cannot go from one thread to another.
                    let Some(case) = cases().nth(number) else { return };
                    let one = explore(case, depth);
                    found.lock().expect("no thread panics").insert(number, one);
                }
            });
        }
    });
    let found: Vec<Found> = found.into_inner().expect("no thread panics").into_values().collect();
    for found in &found {
        println!("{}", found.line);
    }
    let sum = |count: fn(&Found) -> usize| found.iter().map(count).sum::<usize>();
    let (orders, runs) = (sum(|found| found.orders), sum(|found| found.runs));
    println!("{orders} orders in {} cases, by {runs} runs", found.len());
    let complaints: Vec<_> = found.iter().flat_map(|found| &found.complaints).cloned().collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(!found.is_empty(), "there is no case {wanted:?}");
}

/// The first case with that text in its title, for a program that goes wrong.
fn with(mutant: Mutant, title: &str) -> Explorer {
    let mut cases = case::all().into_iter().filter(|case| case.title().contains(title));
    let case = cases.next().unwrap_or_else(|| panic!("there is no case {title}"));
    Explorer::explore(Case { mutant, ..case }, 1)
}

#[test]
fn a_program_that_goes_wrong_is_told() {
    for (mutant, title, complaint) in [
        (Mutant::LateOverrides(Vec::new()), "a disk is asked for", "comes after the first module"),
        (Mutant::NoReadBack, "no vfio-pci", "is reported on Some(\"vfio-pci\"), but"),
        (Mutant::Neighbour("0000:00:05.0"), "drivers come", "is not ours and was touched"),
        (Mutant::UnbindsFromAny, "drivers come", "takes 0000:00:04.0 from vfio-pci"),
        (Mutant::NoOverride, "vfio-pci was there before", "not [\"bound\"]"),
        (Mutant::NoOverride, "at claimed: a disk", "udev starts, and 0000:00:03.0 is not claimed"),
    ] {
        let explored = with(mutant.clone(), title);
        let found = explored.complaints.keys().any(|text| text.contains(complaint));
        assert!(found, "{mutant:?}: {:#?}", explored.complaints);
    }
}

#[test]
fn the_right_program_is_told_of_nothing_by_the_same_means() {
    for title in [
        "a disk is asked for",
        "no vfio-pci",
        "drivers come",
        "vfio-pci was there",
        "at claimed: a disk",
    ] {
        let explored = with(Mutant::None, title);
        assert!(explored.complaints.is_empty(), "{title}: {:#?}", explored.complaints);
        // Else only writes were points, and what is read between them was all read at once.
        assert!(explored.reads > 10, "{title}: {} reads", explored.reads);
    }
}
