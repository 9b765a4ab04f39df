//! `cargo xtask test`: every check.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::checks::{
    dracut, faults, flavours, host, initramfs_tools, nix, packaging, races, rules, screens, soak,
    supply, systemd,
};
use crate::machine::run::{BEFORE, Run};
use crate::scenario::Sides;
use crate::scenario::answers;
use crate::scenario::matrix::{self, Cell};
use crate::supplies::kernels::{self, Kernel};
use crate::supplies::{binary, packages};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only checks whose name contains one of these texts; a scenario's name begins with its kernel
    pub filters: Vec<String>,
    /// Boot only this kernel (may be repeated); nixos is booted when it is set up or named
    #[arg(long = "kernel", value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernels: Vec<String>,
    /// Virtual machines that run side by side
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub jobs: usize,
    /// Boot this program instead of the vfio-early of this tree
    #[arg(long, value_name = "PROGRAM")]
    pub binary: Option<PathBuf>,
    /// Only list the checks
    #[arg(long)]
    pub list: bool,
    /// Boot every scenario on every kernel with every IOMMU, and run nothing else
    #[arg(long)]
    pub matrix: bool,
}

/// A check that is a cargo command.
struct Cargo {
    name: &'static str,
    arguments: &'static [&'static str],
    variable: Option<(&'static str, &'static str)>,
    /// What it needs besides what a build needs.
    packages: &'static [packages::Package],
}

const CARGO: &[Cargo] = &[
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
const MATRIX: &[Cargo] = &[Cargo {
    name: "the fake kernel's answers",
    arguments: &["test", "--test", "fake", "every_scenario_ends_as_the_table_says"],
    variable: None,
    packages: &[],
}];

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
    results: BTreeMap<String, (bool, f64)>,
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
    /// A sentence.
    pub name: String,
    /// One of [`kernels::NAMES`].
    pub kernel: &'static str,
    /// Boots that kernel with that program and checks all, given the folder of the fake kernel's
    /// answers; the error has all that helps.
    pub check: Box<Check>,
}

type Check = dyn Fn(&Kernel, &Path, &Path) -> Result<(), String> + Send + Sync;

impl Boot {
    fn name(&self) -> String {
        format!("{} {}", self.kernel, self.name)
    }
}

/// Every one. What is made once for many takes minutes: it is begun at once, and what waits for it
/// comes last.
fn boots() -> Vec<Boot> {
    let mut boots = Vec::new();
    let mut last = Vec::new();
    for kernel in kernels::NAMES {
        for case in systemd::all(kernel) {
            let boot = Boot {
                name: format!("systemd: {}", case.name),
                kernel,
                check: Box::new(move |kernel, program, _| case.run(kernel, program)),
            };
            if case.boots() { last.push(boot) } else { boots.push(boot) }
        }
        let (first, others) = dracut::boots(kernel);
        boots.extend(first);
        last.extend(others);
    }
    boots.extend(initramfs_tools::listings());
    last.extend(initramfs_tools::boots());
    boots.extend(scenarios(|cell| cell.usual));
    for kernel in kernels::NAMES {
        // The record has Debian's kernels.
        if kernels::LINES.contains(&kernel) {
            boots.extend(rules::ask::boots(kernel));
        }
        boots.extend(screens::boots(kernel));
        boots.extend(host::boots(kernel));
        let trials = faults::all().into_iter().chain(flavours::all()).chain(races::all());
        boots.extend(trials.filter_map(|trial| trial.boot(kernel)));
    }
    boots.extend(soak::boots());
    boots.push(crate::checks::bench::guard::boot());
    boots.extend(last);
    boots
}

/// These cells of the matrix.
fn scenarios(wanted: impl Fn(&Cell) -> bool) -> Vec<Boot> {
    let (cells, _) = matrix::all();
    let boot = |cell: Cell| Boot {
        name: cell.name(),
        kernel: cell.flavour.kernel,
        check: Box::new(move |kernel, program, answers| boot(&cell, kernel, program, answers)),
    };
    cells.into_iter().filter(wanted).map(boot).collect()
}

/// Runs the checks; whether all passed. What the counts are is the last line that it prints.
///
/// # Errors
/// When there is no check of the wanted name, or when the checks cannot be run.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let start = Instant::now();
    let wanted = |name: &str| {
        arguments.filters.is_empty() || arguments.filters.iter().any(|text| name.contains(text))
    };
    let cargo = if arguments.matrix { MATRIX } else { CARGO };
    let cargo: Vec<&Cargo> = cargo.iter().filter(|check| wanted(check.name)).collect();
    let boots = if arguments.matrix { scenarios(|_| true) } else { boots() };
    let boots: Vec<Boot> = boots
        .into_iter()
        .filter(|boot| {
            arguments.kernels.is_empty() || arguments.kernels.iter().any(|k| k == boot.kernel)
        })
        .filter(|boot| wanted(&boot.name()))
        .collect();
    let wanted = |name: &str| !arguments.matrix && wanted(name);
    let nix: Vec<nix::Check> =
        nix::checks(&arguments.kernels).into_iter().filter(|check| wanted(&check.name)).collect();
    let packaging: Vec<&packaging::Check> =
        packaging::CHECKS.iter().filter(|check| wanted(check.name)).collect();
    let supply: Vec<&supply::Check> =
        supply::CHECKS.iter().filter(|check| wanted(check.name)).collect();
    let without_boot = nix.len() + packaging.len() + supply.len();
    if cargo.is_empty() && boots.is_empty() && without_boot == 0 {
        bail!("no check has {} in its name", arguments.filters.join(" or "));
    }
    if arguments.list {
        let names = cargo.iter().map(|check| check.name.to_owned());
        let names = names.chain(nix.iter().map(|check| check.name.clone()));
        let names = names.chain(packaging.iter().map(|check| check.name.to_owned()));
        let names = names.chain(supply.iter().map(|check| check.name.to_owned()));
        names.chain(boots.iter().map(Boot::name)).for_each(|name| println!("{name}"));
        return Ok(true);
    }

    let (not_run, boots): (Vec<Boot>, Vec<Boot>) =
        boots.into_iter().partition(|boot| is_left_out(boot, arguments));

    let answers = tempfile::Builder::new().prefix("vfio-early-answers-").tempdir()?;
    let mut count = Count::default();
    for check in cargo {
        run_cargo(check, answers.path(), &mut count)?;
    }
    // Most of the others keep one processor busy.
    let shared = Mutex::new(&mut count);
    thread::scope(|scope| {
        scope.spawn(|| run_others(&nix, &packaging, &supply, arguments, &shared));
        if boots.is_empty() { Ok(()) } else { boot_all(boots, arguments, answers.path(), &shared) }
    })?;
    println!("\nthat took {:.0} s", start.elapsed().as_secs_f64());
    for name in &count.failed {
        println!("failed: {name}");
    }
    for kernel in kernels::NAMES {
        let number = not_run.iter().filter(|boot| boot.kernel == kernel).count();
        if number > 0 {
            println!(
                "NOT RUN: {number} checks on kernel {kernel}: `cargo xtask setup --kernel {kernel}`, \
                 then `cargo xtask test --kernel {kernel}`"
            );
        }
        count.not_run += number;
    }
    if arguments.filters.is_empty() && arguments.kernels.is_empty() || arguments.matrix {
        print_matrix(&count.results, arguments.matrix);
    }
    if count.not_run > 0 {
        println!("{} not run", count.not_run);
    }
    println!("{} passed, {} failed", count.passed, count.failed.len());
    Ok(count.failed.is_empty())
}

/// The checks that are neither cargo's nor a boot, in their order.
fn run_others(
    nix: &[nix::Check],
    packaging: &[&packaging::Check],
    supply: &[&supply::Check],
    arguments: &Arguments,
    count: &Mutex<&mut Count>,
) {
    let run = |name: &str, check: &dyn Fn() -> Outcome| {
        let start = Instant::now();
        let outcome = check();
        count.lock().expect("no check panics").note(name, start, outcome);
    };
    for check in nix {
        run(&check.name, &|| check.run(arguments.binary.as_deref()));
    }
    for check in packaging {
        run(check.name, &|| check.run());
    }
    for check in supply {
        run(check.name, &|| check.run());
    }
}

/// What is for those who name it or its kernel: it depends little on the kernel, and is run on 6.1 each
/// time. Of Debian 13's systemd, dracut and initramfs-tools one boot each is left.
const SELDOM: [&str; 7] = [
    "6.12 systemd: without vfio.devs= nothing runs",
    "6.12 systemd: without vfio.strict the boot goes on with failed units",
    "6.12 dracut: without vfio.devs= the program says and does nothing",
    "6.12 dracut: vfio.strict with an absent device stops the boot in the emergency shell",
    "6.12 initramfs-tools: without vfio.devs= the boot is as without the package",
    "6.12 initramfs-tools: vfio.strict with an absent device stops the boot in a shell that can be used",
    "6.12 killed before any of its writes and run again it comes to the same end",
];

/// Kernels that are built or seldom used are for those who set them up and name them, or want all of
/// the matrix; the one as NixOS has it is booted wherever it is. What else is not run each time is for
/// those who name it or its kernel.
fn is_left_out(boot: &Boot, arguments: &Arguments) -> bool {
    if !arguments.kernels.is_empty() {
        return false;
    }
    let is_named = arguments.matrix || !arguments.filters.is_empty();
    let is_seldom = SELDOM.contains(&boot.name().as_str());
    let is_usual = is_named || screens::is_usual(boot) && !is_seldom;
    let is_line = kernels::LINES.contains(&boot.kernel);
    let is_wanted = is_line || arguments.matrix || boot.kernel == kernels::NIXOS;
    !is_usual || !is_wanted || !is_line && kernels::get(boot.kernel).is_err()
}

/// What of the matrix was run, and what not.
fn print_matrix(results: &BTreeMap<String, (bool, f64)>, whole: bool) {
    let (cells, left) = matrix::all();
    if whole {
        print!("\n{}", matrix::reasons(&left));
    }
    println!("\nthe matrix of scenarios:\n{}", matrix::summary(&cells, &left, results));
    if !whole {
        println!(
            "`cargo xtask test --matrix` runs all of it, and says what makes no sense and why"
        );
    }
    if let Some(seconds) = matrix::cpu_seconds() {
        println!("that took {:.1} minutes of CPU", seconds / 60.0);
    }
}

fn run_cargo(check: &Cargo, answers: &Path, count: &mut Count) -> Result<()> {
    let start = Instant::now();
    packages::ensure(check.packages)?;
    let mut command: Command = binary::cargo(check.arguments)?;
    command.env(answers::VARIABLE, answers).stdin(Stdio::null());
    if let Some((key, value)) = check.variable {
        command.env(key, value);
    }
    let output = command.output().with_context(|| format!("cannot run cargo: {}", check.name))?;
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

fn boot_all(
    boots: Vec<Boot>,
    arguments: &Arguments,
    answers: &Path,
    count: &Mutex<&mut Count>,
) -> Result<()> {
    packages::ensure(packages::BOOT)?;
    let program = match &arguments.binary {
        Some(program) => program.clone(),
        None => match binary::build() {
            Ok(program) => program,
            Err(error) => {
                let failed = Outcome::Failed(format!("{error:#}"));
                count.lock().expect("no check panics").note("build", Instant::now(), failed);
                return Ok(());
            }
        },
    };
    // A kernel that cannot be had fails each of its scenarios: nothing is skipped.
    let mut lines: Vec<&str> = boots.iter().map(|boot| boot.kernel).collect();
    lines.sort_unstable();
    lines.dedup();
    let kernels: Vec<(&str, Result<Kernel, String>)> = lines
        .into_iter()
        .map(|line| (line, kernels::set_up(line).map_err(|error| format!("{error:#}"))))
        .collect();
    let kernel = |line: &str| {
        let (_, kernel) = kernels.iter().find(|(other, _)| *other == line)?;
        Some(kernel)
    };

    let queue = Mutex::new(VecDeque::from(boots));
    let next = || queue.lock().expect("no check panics").pop_front();
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some(boot) = next() {
                    let start = Instant::now();
                    let result = match kernel(boot.kernel) {
                        Some(Ok(kernel)) => (boot.check)(kernel, &program, answers),
                        Some(Err(error)) => Err(error.clone()),
                        None => Err(format!("kernel {} was not set up", boot.kernel)),
                    };
                    let mut count = count.lock().expect("no check panics");
                    count.note(&boot.name(), start, result);
                }
            });
        }
    });
    Ok(())
}

/// How long a scenario may take on a machine that is busy with others: `PREEMPT_RT` is slow there.
const LIMIT: Duration = Duration::from_mins(5);

/// Boots one scenario; the error has all that helps.
fn boot(cell: &Cell, kernel: &Kernel, program: &Path, answers: &Path) -> Result<(), String> {
    let scenario = &cell.scenario;
    let machine = scenario.machine(kernel, program).limit(LIMIT);
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
            Ok(Some(fake)) => complaints.extend(answers::differences(&fake, &seen)),
            Ok(None) => {}
            Err(error) => complaints.push(format!("the fake kernel's answer: {error:#}")),
        }
    }
    verdict(run, &complaints)
}

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

    fn arguments(filters: &[&str], kernels: &[&str], matrix: bool) -> Arguments {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (filters, kernels) = (texts(filters), texts(kernels));
        Arguments { filters, kernels, jobs: 1, binary: None, list: false, matrix }
    }

    #[test]
    fn what_is_left_out_is_run_where_it_or_its_kernel_is_named() {
        let boots = boots();
        let nothing = arguments(&[], &[], false);
        for name in SELDOM {
            let boot = boots.iter().find(|boot| boot.name() == name).expect(name);
            assert!(is_left_out(boot, &nothing), "{name}");
            assert!(!is_left_out(boot, &arguments(&[name], &[], false)), "{name}");
            assert!(!is_left_out(boot, &arguments(&[], &[boot.kernel], false)), "{name}");
            let on_6_1 = name.replace("6.12", "6.1");
            let boot = boots.iter().find(|boot| boot.name() == on_6_1).expect(name);
            assert!(!is_left_out(boot, &nothing), "{on_6_1}");
        }
        let rt = boots.iter().find(|boot| boot.kernel == "6.1-rt").expect("a check on 6.1-rt");
        assert!(is_left_out(rt, &nothing));
        assert!(!is_left_out(rt, &arguments(&[], &["6.1-rt"], false)));
    }
}
