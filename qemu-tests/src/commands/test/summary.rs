//! Which part of the matrix was run, and how it came out.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::commands::cpu;
use crate::commands::table::table;
use crate::scenario::matrix::{self, Cell, Left, column};

/// What of the matrix was run, and what not.
pub(super) fn print(results: &BTreeMap<String, (bool, f64)>, whole: bool) {
    let (cells, left) = matrix::all();
    if whole {
        print!("\n{}", reasons(&left));
    }
    println!("\nthe matrix of scenarios:\n{}", summary(&cells, &left, results));
    if !whole {
        println!(
            "`cargo xtask test --matrix` runs all of it, and says what makes no sense and why"
        );
    }
    if let Some(seconds) = cpu::seconds() {
        println!("that took {:.1} minutes of CPU", seconds / 60.0);
    }
}

/// How a cell came out.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    cells: usize,
    passed: usize,
    failed: usize,
    seconds: f64,
}

/// How many cells of each column were run, out of all, and how they came out; `results` has the
/// name of a check to whether it passed, and its seconds.
fn summary(cells: &[Cell], left: &[Left], results: &BTreeMap<String, (bool, f64)>) -> String {
    let mut tallies: Vec<(String, Tally)> = Vec::new();
    for cell in cells {
        let name = column(cell.flavour, cell.iommu);
        if tallies.last().is_none_or(|(last, _)| *last != name) {
            tallies.push((name, Tally::default()));
        }
        let Some((_, tally)) = tallies.last_mut() else { continue };
        tally.cells += 1;
        let name = format!("{} {}", cell.flavour.kernel, cell.name());
        if let Some((passed, seconds)) = results.get(&name) {
            tally.passed += usize::from(*passed);
            tally.failed += usize::from(!*passed);
            tally.seconds += seconds;
        }
    }
    let header =
        ["kernel and IOMMU", "make sense", "do not", "passed", "failed", "not run", "s a boot"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut total = Tally::default();
    for (name, tally) in &tallies {
        let without = left.iter().filter(|left| left.column == *name).count();
        rows.push(row(name, tally, without));
        total.cells += tally.cells;
        total.passed += tally.passed;
        total.failed += tally.failed;
        total.seconds += tally.seconds;
    }
    rows.push(row("all", &total, left.len()));
    table(&rows)
}

fn row(name: &str, tally: &Tally, without: usize) -> Vec<String> {
    let Tally { cells, passed, failed, seconds } = tally;
    let ran = passed + failed;
    let average = if ran == 0 {
        "-".to_owned()
    } else {
        let ran = u32::try_from(ran).unwrap_or(u32::MAX);
        format!("{:.1}", seconds / f64::from(ran))
    };
    let numbers = [*cells, without, *passed, *failed, cells - ran].map(|number| number.to_string());
    [vec![name.to_owned()], numbers.to_vec(), vec![average]].concat()
}

/// The reasons for cells that make no sense, each with what they are, one a line.
fn reasons(left: &[Left]) -> String {
    let mut of: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Left { scenario, column, why } in left {
        of.entry((scenario, why)).or_default().push(column);
    }
    let mut text = String::new();
    for ((scenario, why), columns) in of {
        let _ = writeln!(text, "no sense: {scenario} on {}: {why}", columns.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_run_and_what_was_not_is_counted() {
        let (cells, left) = matrix::all();
        let name = format!("{} {}", cells[0].flavour.kernel, cells[0].name());
        let results = BTreeMap::from([(name, (true, 2.0))]);
        let text = summary(&cells, &left, &results);
        let first = text.lines().find(|line| line.starts_with("5.10 intel")).unwrap();
        let numbers: Vec<&str> = first.split_whitespace().skip(2).collect();
        assert_eq!(numbers[2..4], ["1", "0"], "{text}");
        assert_eq!(numbers[5], "2.0", "{text}");
    }
}
