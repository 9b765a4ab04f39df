//! `cargo xtask soak`: machines, lists and hosts put together by chance, boot after boot.
//!
//! A seed says all of it. What has to come out is known before the boot: from how the case was put
//! together ([`request`]), and from the fake kernel, which runs the same case.

pub mod machine;
pub mod random;
pub mod request;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::commands::test::{Boot, verdict};
use crate::machine::run::{BEFORE, Run};
use crate::scenario::{Scenario, scenario};
use crate::scenario::{answers, matrix};
use crate::supplies::kernels::{self, Kernel, LINES};
use crate::supplies::{binary, packages};
use random::Random;
use request::leak;

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many machines to boot
    #[arg(long, value_name = "NUMBER", default_value_t = 300)]
    pub boots: u64,
    /// Seed of the first; the next ones follow. Without it a fresh one is taken, and printed
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Boot this kernel each time, instead of one that the seed says
    #[arg(long, value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernel: Option<String>,
    /// Virtual machines that run side by side
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub jobs: usize,
    /// Boot this program instead of the vfio-early of this tree
    #[arg(long, value_name = "PROGRAM")]
    pub binary: Option<PathBuf>,
}

/// Environment variable that tells the tests over the fake kernel which cases to run: the first
/// seed, how many, and the kernel where one is asked for, with colons between.
pub const VARIABLE: &str = "VFIO_EARLY_SOAK";

/// Seeds of the boots that each `cargo xtask test` runs; the tests over the fake kernel run them
/// and more.
pub const USUAL: std::ops::Range<u64> = 1..7;

/// How long a boot may take on a machine that is busy with others.
const LIMIT: Duration = Duration::from_mins(5);

/// One boot.
#[derive(Debug)]
pub struct Case {
    /// Says all the rest.
    pub seed: u64,
    /// Debian's line that is booted.
    pub kernel: &'static str,
    /// In MiB.
    pub memory: u32,
    /// One or two.
    pub processors: u8,
    /// The machine, the request, and what has to come of it.
    pub scenario: Scenario,
}

/// The case of that seed, on that kernel where one is named.
#[must_use]
pub fn case(seed: u64, kernel: Option<&str>) -> Case {
    let mut random = Random::new(seed);
    // Drawn also where it is not used, so that all else stays the same.
    let drawn = *random.of(&LINES);
    let kernel = kernel.map_or(drawn, |name| leak(name.to_owned()));
    let memory = *random.of(&[384, 512, 768, 1024]);
    let processors = *random.of(&[1, 2]);
    let mut scenario = scenario(leak(format!("soak {seed}")));
    scenario.topology = machine::topology(&mut random);
    // The second run finds everything as it should be.
    scenario = scenario.runs([&[], &["bind"]]);
    let modules = machine::host_modules(&scenario.topology);
    for module in &modules {
        if random.once_in(4) {
            scenario = scenario.loaded_before(module);
        }
    }
    scenario.host_modules = modules;
    random.shuffle(&mut scenario.host_modules);
    // Also drawn where they are not modules.
    scenario.built_in = matrix::built_in(kernel).to_vec();
    let is_module = |module: &&'static str| !matrix::built_in(kernel).contains(module);
    scenario.before.retain(is_module);
    scenario.host_modules.retain(is_module);
    let scenario = request::add(scenario, &mut random);
    Case { seed, kernel, memory, processors, scenario }
}

impl Case {
    /// In a few words.
    fn title(&self) -> String {
        let Self { kernel, memory, processors, scenario, .. } = self;
        format!(
            "{kernel}, {:?}, {processors} processors, {memory} MiB, {} of the host's modules \
             before; {}",
            scenario.topology.iommu,
            scenario.before.len(),
            scenario.command_line
        )
    }

    /// Boots it; the error has all that helps.
    fn run(&self, kernel: &Kernel, program: &Path, answers: &Path) -> Result<(), String> {
        let scenario = &self.scenario;
        let run = self.boot(kernel, program)?;
        let seen = run.observed();
        let mut complaints = scenario.topology_complaints(run.at(BEFORE));
        complaints.extend(scenario.complaints(&seen));
        complaints.extend(run.log_complaints());
        if LINES.contains(&self.kernel) {
            match answers::kept(answers, scenario) {
                Ok(Some(fake)) => complaints.extend(answers::differences(&fake, &seen)),
                Ok(None) => {}
                Err(error) => complaints.push(format!("the fake kernel's answer: {error:#}")),
            }
        }
        verdict(run, &complaints)
    }
}

impl Case {
    /// Boots it, and once more where the guest's kernel crashed before its first program: QEMU 7.2
    /// spoils the processor's flags now and then (a debug trap in `kmem_cache_alloc()`, after a
    /// `cmpxchg16b`), and nothing of what is tested had begun.
    fn boot(&self, kernel: &Kernel, program: &Path) -> Result<Run, String> {
        let Self { scenario, memory, processors, seed, .. } = self;
        let machine = scenario.machine(kernel, program);
        let machine = machine.memory(*memory).processors(*processors).limit(LIMIT);
        match machine.clone().boot().map_err(|error| format!("{error:#}")) {
            Err(error) if crashed_before_init(&error) => {
                println!("again {seed}: the guest's kernel crashed before its first program");
                machine.boot().map_err(|error| format!("{error:#}"))
            }
            result => result,
        }
    }
}

/// By what is on the console.
fn crashed_before_init(error: &str) -> bool {
    error.contains("Kernel panic") && !error.contains("Run /init as init process")
}

/// The boots that each `cargo xtask test` runs.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |seed| {
        let case = case(seed, None);
        Boot {
            name: case.scenario.name.to_owned(),
            kernel: case.kernel,
            check: Box::new(move |kernel, program, answers| case.run(kernel, program, answers)),
        }
    };
    USUAL.map(boot).collect()
}

/// Boots the machines; whether all came out right.
///
/// # Errors
/// When something cannot be set up, or the fake kernel does not agree with how a case was put
/// together.
pub fn run(arguments: &Arguments) -> Result<bool> {
    packages::ensure(packages::BOOT)?;
    let first = arguments.seed.map_or_else(fresh_seed, Ok)?;
    let seeds = first..first.saturating_add(arguments.boots);
    println!("seeds {first} to {}", seeds.end.saturating_sub(1));
    let program = match &arguments.binary {
        Some(program) => program.clone(),
        None => binary::build()?,
    };
    let answers = tempfile::Builder::new().prefix("vfio-early-answers-").tempdir()?;
    let asked = arguments.kernel.as_deref();
    let cases: VecDeque<Case> = seeds.map(|seed| case(seed, asked)).collect();
    // The fake kernel has the drivers of Debian's kernels.
    if cases.iter().all(|case| LINES.contains(&case.kernel)) {
        ask_the_fake(first, arguments, answers.path())?;
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.kernel).collect();
    names.sort_unstable();
    names.dedup();
    let kernels: Result<Vec<Kernel>> = names.iter().map(|name| kernels::set_up(name)).collect();
    let kernels = kernels?;

    let start = Instant::now();
    let wrong = boot_all(cases, &kernels, &program, answers.path(), arguments.jobs);
    for seed in &wrong {
        println!("wrong: cargo xtask soak --boots 1 --seed {seed}");
    }
    let cpu = matrix::cpu_seconds()
        .map_or(String::new(), |seconds| format!(", {:.1} minutes of CPU", seconds / 60.0));
    let boots = arguments.boots;
    println!("that took {:.0} s{cpu}", start.elapsed().as_secs_f64());
    println!("{} of {boots} right", boots - u64::try_from(wrong.len())?);
    Ok(wrong.is_empty())
}

/// Seeds of those that came out wrong.
fn boot_all(
    cases: VecDeque<Case>,
    kernels: &[Kernel],
    program: &Path,
    answers: &Path,
    jobs: usize,
) -> Vec<u64> {
    let queue = Mutex::new(cases);
    let next = || queue.lock().expect("no boot panics").pop_front();
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let kernel = kernels.iter().find(|kernel| kernel.line == case.kernel);
                    let kernel = kernel.expect("all of them were set up");
                    let begun = Instant::now();
                    let result = case.run(kernel, program, answers);
                    let seconds = begun.elapsed().as_secs_f64();
                    // One at a time, so that no line is torn.
                    let mut wrong = wrong.lock().expect("no boot panics");
                    match result {
                        Ok(()) => println!("ok {} ({seconds:.1} s): {}", case.seed, case.title()),
                        Err(details) => {
                            println!("WRONG {}: {}\n{details}", case.seed, case.title());
                            wrong.push(case.seed);
                        }
                    }
                }
            });
        }
    });
    wrong.into_inner().expect("no boot panics")
}

/// Short enough to be typed.
fn fresh_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(u64::from(now.subsec_nanos()) * 1000)
}

/// Runs the same cases over the fake kernel, which leaves its answers in that folder.
fn ask_the_fake(first: u64, arguments: &Arguments, answers: &Path) -> Result<()> {
    let mut command = binary::cargo(&["test", "--quiet", "--test", "fake", "soak::"])?;
    command.env(answers::VARIABLE, answers).stdin(Stdio::null());
    let asked = arguments.kernel.as_deref().unwrap_or_default();
    command.env(VARIABLE, format!("{first}:{}:{asked}", arguments.boots));
    let output = command.output().context("cannot run cargo")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "over the fake kernel: {}", String::from_utf8_lossy(&said));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crash_before_the_first_program_is_nobodys_fault() {
        let panic = "Kernel panic - not syncing: Attempted to kill the idle task!";
        assert!(crashed_before_init(panic));
        assert!(!crashed_before_init(&format!("Run /init as init process\n{panic}")));
        assert!(!crashed_before_init("it had not powered off after 300 s"));
    }

    #[test]
    fn a_seed_says_all_of_it() {
        for seed in 0..50 {
            let (one, other) = (case(seed, None), case(seed, None));
            assert_eq!(one.scenario, other.scenario);
            assert_eq!(one.title(), other.title());
            let elsewhere = case(seed, Some("7.2"));
            assert_eq!(one.scenario.command_line, elsewhere.scenario.command_line);
        }
    }

    #[test]
    fn command_lines_are_short_enough_and_every_outcome_comes_up() {
        let (mut outcomes, mut rejected, mut before) = (Vec::new(), 0, 0);
        for seed in 0..300 {
            let Case { scenario, .. } = case(seed, None);
            assert!(scenario.command_line.len() < 1500, "{seed}");
            outcomes.extend(scenario.wanted.iter().map(|wanted| wanted.outcome));
            rejected += scenario.rejected.len();
            before += scenario.before.len();
        }
        for outcome in ["bound", "refused", "absent"] {
            let count = outcomes.iter().filter(|other| **other == outcome).count();
            assert!(count > 50, "{outcome}: {count}");
        }
        assert!(rejected > 50 && before > 100, "{rejected} {before}");
    }
}
