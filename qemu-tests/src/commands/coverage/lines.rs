//! What llvm-cov exports, by file and line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::supplies::binary;

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    reached: usize,
    all: usize,
}

impl Add for Sum {
    type Output = Sum;

    fn add(self, other: Sum) -> Sum {
        Sum { reached: self.reached + other.reached, all: self.all + other.all }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cut and not rounded: 100 is all.
        let thousandths = (self.reached * 1000).checked_div(self.all).unwrap_or(1000);
        let (whole, part) = (thousandths / 10, thousandths % 10);
        f.pad(&format!("{}/{} {whole}.{part} %", self.reached, self.all))
    }
}

/// Of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// Those that are code, and whether they were reached.
    lines: BTreeMap<usize, bool>,
    /// Where a branch is (line and column, from and to), and whether it went either way.
    branches: BTreeMap<[usize; 4], [bool; 2]>,
}

impl Lines {
    pub(super) fn lines(&self) -> Sum {
        Sum { reached: self.lines.values().filter(|it| **it).count(), all: self.lines.len() }
    }

    /// Each branch counts twice, for true and for false.
    pub(super) fn branches(&self) -> Sum {
        let ways = self.branches.values().flatten();
        Sum { reached: ways.filter(|it| **it).count(), all: 2 * self.branches.len() }
    }

    /// What either of two has reached.
    pub(super) fn with(&self, other: &Lines) -> Lines {
        let mut both = self.clone();
        for (line, reached) in &other.lines {
            *both.lines.entry(*line).or_default() |= reached;
        }
        for (place, ways) in &other.branches {
            let there = both.branches.entry(*place).or_default();
            *there = [there[0] | ways[0], there[1] | ways[1]];
        }
        both
    }

    /// From and to of the lines that were not reached; lines that are no code stand between none.
    pub(super) fn missed(&self) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        let mut goes_on = false;
        for (line, reached) in &self.lines {
            match ranges.last_mut() {
                _ if *reached => {}
                Some(range) if goes_on => range.1 = *line,
                _ => ranges.push((*line, *line)),
            }
            goes_on = !reached;
        }
        ranges
    }
}

/// The files of `src/`, by their paths in the workspace.
pub(super) fn read(json: &Value) -> Result<BTreeMap<String, Lines>> {
    let files = json["data"][0]["files"].as_array().context("llvm-cov exports no files")?;
    let mut found = BTreeMap::new();
    for file in files {
        let name = file["filename"].as_str().unwrap_or_default();
        let Some(name) = name.strip_prefix(&format!("{}/", binary::workspace().display())) else {
            continue;
        };
        let text = std::fs::read_to_string(binary::workspace().join(name))
            .with_context(|| name.to_owned())?;
        found.insert(name.to_owned(), of_file(file, tests_of(&text)));
    }
    Ok(found)
}

/// The line from which on there are tests; they are at the end of a file.
fn tests_of(text: &str) -> usize {
    let line = text.lines().position(|line| line == "#[cfg(test)]");
    line.map_or(usize::MAX, |line| line + 1)
}

/// A segment is a place from which on the code was run so often: line, column, count, whether it is
/// code, whether something begins there, whether it is a gap between.
fn of_file(file: &Value, end: usize) -> Lines {
    let mut lines = Lines::default();
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    let mut wrapped: Option<&Value> = None;
    let segments = file["segments"].as_array().map_or(&[][..], Vec::as_slice);
    let of_line = |line: usize| segments.iter().filter(move |it| number(&it[0]) == line);
    let last = segments.last().map_or(0, |segment| number(&segment[0]));
    for line in 1..=last.min(end - 1) {
        let begun: Vec<_> = of_line(line).collect();
        let is_code = |it: &Value| it[3] == true;
        let begins = |it: &&&Value| is_code(it) && it[4] == true && it[5] != true;
        let starts_skipped = begun.first().is_some_and(|it| !is_code(it) && it[4] == true);
        let has_entry = begun.iter().any(|it| begins(&it));
        if !starts_skipped && (wrapped.is_some_and(is_code) || has_entry) {
            let counts = begun.iter().filter(|it| begins(it)).map(|it| number(&it[2]));
            let most =
                counts.chain(wrapped.filter(|it| is_code(it)).map(|it| number(&it[2]))).max();
            lines.lines.insert(line, most.unwrap_or(0) > 0);
        }
        wrapped = begun.last().copied().or(wrapped);
    }
    for branch in file["branches"].as_array().into_iter().flatten() {
        let place = [0, 1, 2, 3].map(|index| number(&branch[index]));
        if place[0] < end {
            let ways = lines.branches.entry(place).or_default();
            *ways = [ways[0] | (number(&branch[4]) > 0), ways[1] | (number(&branch[5]) > 0)];
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `fn f() {` on line 1, reached; lines 2 and 3 within it, not reached; line 4 closes it.
    fn file() -> Value {
        json!({
            "segments": [[1, 1, 3, true, true, false], [2, 9, 0, true, true, false],
                [3, 10, 3, true, false, false], [4, 2, 0, false, false, false],
                [9, 1, 1, true, true, false]],
            "branches": [[1, 4, 1, 9, 3, 0, 0, 0, 4], [1, 4, 1, 9, 0, 2, 0, 0, 4],
                [9, 4, 9, 5, 0, 0, 0, 0, 4]],
        })
    }

    #[test]
    fn lines_and_branches_are_counted_up_to_the_tests() {
        let lines = of_file(&file(), 9);
        assert_eq!(lines.lines().to_string(), "3/4 75.0 %");
        assert_eq!(lines.missed(), [(3, 3)]);
        // In two instances of a generic function it went either way.
        assert_eq!(lines.branches().to_string(), "2/2 100.0 %");
    }

    #[test]
    fn either_of_two_counts() {
        let mut other = Lines::default();
        other.lines.insert(3, true);
        let both = of_file(&file(), 9).with(&other);
        assert_eq!(both.lines().to_string(), "4/4 100.0 %");
        assert!(both.missed().is_empty());
    }
}
