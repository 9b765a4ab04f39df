//! What a check is, how it ended, how it is counted and told; and the kinds of checks that several
//! subjects have.
//!
//! Uses [`machine`](crate::machine) and [`supplies`](crate::supplies). Knows none of the checks, nor
//! the command that runs them.

pub mod prediction;
pub(crate) mod real_root;
pub(crate) mod trial;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::machine::run::Run;
use crate::supplies::kernels::Kernel;

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it holds.
    Passed,
    /// What does not hold.
    Failed(String),
    /// What is not here.
    NotRun(String),
}

impl Outcome {
    /// Of a check that has these complaints.
    #[must_use]
    pub fn of(complaints: &[String]) -> Self {
        if complaints.is_empty() { Self::Passed } else { Self::Failed(complaints.join("\n")) }
    }
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// What could not be run at all has failed.
impl From<Result<Outcome>> for Outcome {
    fn from(result: Result<Outcome>) -> Self {
        result.unwrap_or_else(|error| Self::Failed(format!("{error:#}")))
    }
}

/// What was counted.
#[derive(Default)]
pub(crate) struct Count {
    pub passed: usize,
    pub failed: Vec<String>,
    pub not_run: usize,
    /// Name of each check to whether it passed, and its seconds.
    pub results: BTreeMap<String, (bool, f64)>,
}

impl Count {
    /// Says how a check went, and counts it.
    pub(crate) fn note(&mut self, name: &str, start: Instant, outcome: impl Into<Outcome>) {
        let seconds = start.elapsed().as_secs_f64();
        let outcome = outcome.into();
        let has_passed = outcome == Outcome::Passed;
        match outcome {
            Outcome::Passed => {
                println!("ok {name} ({seconds:.1} s)");
                self.passed += 1;
            }
            Outcome::Failed(details) => {
                println!("FAILED {name} ({seconds:.1} s)\n{details}");
                self.failed.push(name.to_owned());
            }
            Outcome::NotRun(why) => {
                println!("not run: {name}: {why}");
                self.not_run += 1;
                return;
            }
        }
        self.results.insert(name.to_owned(), (has_passed, seconds));
    }
}

/// A check that boots a virtual machine.
pub(crate) struct Boot {
    /// A sentence behind the subject.
    pub name: String,
    /// One of [`kernels::NAMES`](crate::supplies::kernels::NAMES).
    pub kernel: &'static str,
    /// Boots that kernel with that program and checks all, given the folder of the fake kernel's
    /// answers; a failure has all that helps.
    pub check: Box<BootCheck>,
}

type BootCheck = dyn Fn(&Kernel, &Path, &Path) -> Outcome + Send + Sync;

impl Boot {
    /// Its kernel and its name.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.kernel, self.name)
    }
}

/// Any other check. Most of them keep one processor busy: they are run one after the other.
pub(crate) struct Check {
    /// A sentence behind the subject; begins with the kernel, where there is one.
    pub name: String,
    /// The kernel that it boots on the way.
    pub kernel: Option<&'static str>,
    /// Runs it with this program, or else with the binary of this tree.
    pub run: Box<CheckRun>,
}

type CheckRun = dyn Fn(Option<&Path>) -> Outcome + Send + Sync;

/// The complaints with all that helps to see where they come from.
pub(crate) fn verdict(run: Run, complaints: &[String]) -> Result<(), String> {
    if complaints.is_empty() {
        return Ok(());
    }
    let details = run.details();
    Err(format!(
        "{}\n{details}\n--- its files are kept in {}",
        complaints.join("\n"),
        run.keep().display()
    ))
}
