//! `cargo xtask soak`: machines put together by chance, as many as one likes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::checks::soak::{Case, VARIABLE, case};
use crate::commands::cpu;
use crate::scenario::answers;
use crate::supplies::kernels::{self, Kernel, LINES};
use crate::supplies::{binary, packages};

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
    let cpu = cpu::seconds()
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
