//! Checks that are commands of cargo: format, lints, documentation, and all tests on the host.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::check::Count;
use crate::scenario::answers;
use crate::supplies::{binary, packages};

/// A check that is a cargo command.
pub(crate) struct Cargo {
    pub name: &'static str,
    arguments: &'static [&'static str],
    variable: Option<(&'static str, &'static str)>,
    /// What it needs besides what a build needs.
    packages: &'static [packages::Package],
}

/// They come first, one after the other.
pub(crate) const CARGO: &[Cargo] = &[
    Cargo {
        name: "format",
        arguments: &["fmt", "--all", "--check"],
        variable: None,
        packages: &[],
    },
    Cargo {
        name: "lints",
        arguments: &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"],
        variable: None,
        packages: &[],
    },
    Cargo {
        name: "documentation",
        arguments: &["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"],
        variable: Some(("RUSTDOCFLAGS", "-Dwarnings")),
        packages: &[],
    },
    Cargo {
        name: "unit tests and fake kernel",
        arguments: &["test", "--workspace", "--no-fail-fast"],
        // Each fuzz target of tests/fuzz.
        variable: Some(("VFIO_EARLY_FUZZ_MANY", "1")),
        packages: packages::TEST,
    },
];

/// What the matrix needs of them: the fake kernel's answers, to hold those of Linux against.
pub(crate) const MATRIX: &[Cargo] = &[Cargo {
    name: "the fake kernel's answers",
    arguments: &["test", "--test", "fake", "every_scenario_ends_as_the_table_says"],
    variable: None,
    packages: &[],
}];

impl Cargo {
    /// Runs it, counts it and says how it went; the tests over the fake kernel leave their answers in
    /// that folder.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn run(&self, answers: &Path, count: &mut Count) -> Result<()> {
        let check = self;
        let start = Instant::now();
        packages::ensure(check.packages)?;
        let mut command: Command = binary::cargo(check.arguments)?;
        command.env(answers::VARIABLE, answers).stdin(Stdio::null());
        if let Some((key, value)) = check.variable {
            command.env(key, value);
        }
        let output =
            command.output().with_context(|| format!("cannot run cargo: {}", check.name))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let result = if output.status.success() {
            Ok(())
        } else {
            Err(format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)))
        };
        // A command of tests counts as many as it says; others count as one.
        match tests(&stdout) {
            Some((passed, failed)) => {
                count.passed += passed;
                let name = format!("{}: {passed} passed, {} failed", check.name, failed.len());
                match result {
                    Ok(()) => println!("ok {name} ({:.1} s)", start.elapsed().as_secs_f64()),
                    Err(details) => {
                        println!("FAILED {name}\n{details}");
                        // A test program that died says nothing of its tests.
                        let died = failed.is_empty().then(|| check.name.to_owned());
                        count.failed.extend(failed.into_iter().chain(died));
                    }
                }
            }
            None => count.note(check.name, start, result),
        }
        Ok(())
    }
}

/// Passed tests, and the names of failed ones, in the output of `cargo test`.
fn tests(output: &str) -> Option<(usize, Vec<String>)> {
    let lines: Vec<&str> = output.lines().collect();
    lines.iter().find(|line| line.starts_with("test result: "))?;
    let passed = lines
        .iter()
        .filter_map(|line| line.strip_prefix("test result: "))
        .filter_map(|line| line.split_once(". ")?.1.split_once(" passed"))
        .filter_map(|(number, _)| number.parse::<usize>().ok())
        .sum();
    let failed = lines
        .iter()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(str::to_owned)
        .collect();
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_test_programs_are_added_up() {
        let output = "running 2 tests\n\
                      test cmdline::tests::a ... ok\n\
                      test plan::tests::b ... FAILED\n\
                      test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n\
                      test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(tests(output), Some((8, vec!["plan::tests::b".to_owned()])));
        assert_eq!(tests("nothing was run"), None);
    }
}
