//! `cargo xtask test`: every check.

mod summary;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::check::{Boot, Check, Count, Outcome};
use crate::checks;
use crate::checks::cargo::{self, Cargo};
use crate::checks::left_out::{self, LeftOut};
use crate::scenario;
use crate::supplies::arch::{self, Arch};
use crate::supplies::kernels::{self, Kernel, arch_of};
use crate::supplies::{binary, cross, packages};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only checks whose name contains one of these texts; a scenario's name begins with its kernel
    pub filters: Vec<String>,
    /// Boot only this kernel (may be repeated); nixos is booted when it is set up or named
    #[arg(long = "kernel", value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernels: Vec<String>,
    /// Boot only machines with this processor, and run nothing else; a kernel that is named without one
    /// is that for it
    #[arg(long, value_parser = arch::NAMES)]
    pub arch: Option<String>,
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

/// Runs the checks; whether all passed. What the counts are is the last line that it prints.
///
/// # Errors
/// When there is no check of the wanted name, or when the checks cannot be run.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let start = Instant::now();
    let arch: Option<Arch> = arguments.arch.as_deref().map(str::parse).transpose()?;
    let wanted = |name: &str| {
        arguments.filters.is_empty() || arguments.filters.iter().any(|text| name.contains(text))
    };
    let is_on = |kernel: Option<&str>| match kernel {
        Some(kernel) => {
            let of_arch = arch_of(kernel);
            let is_named = |name: &String| {
                *name == kernel || kernels::named(name, arch.unwrap_or_default()) == kernel
            };
            arch.is_none_or(|arch| arch == of_arch)
                && (arguments.kernels.is_empty() || arguments.kernels.iter().any(is_named))
        }
        None => true,
    };
    let (cargo, mut boots, mut others) = if arguments.matrix {
        (cargo::MATRIX, scenario::run::boots(|_| true), Vec::new())
    } else if arch.is_some() {
        (cargo::MATRIX, checks::boots(), Vec::new())
    } else {
        (cargo::CARGO, checks::boots(), checks::others())
    };
    let cargo: Vec<&Cargo> = cargo.iter().filter(|check| wanted(check.name)).collect();
    boots.retain(|boot| is_on(Some(boot.kernel)) && wanted(&boot.name()));
    others.retain(|check| is_on(check.kernel) && wanted(&check.name));
    if cargo.is_empty() && boots.is_empty() && others.is_empty() {
        bail!("no check has {} in its name", arguments.filters.join(" or "));
    }
    if arguments.list {
        let names = cargo.iter().map(|check| check.name.to_owned());
        let names = names.chain(others.iter().map(|check| check.name.clone()));
        names.chain(boots.iter().map(Boot::name)).for_each(|name| println!("{name}"));
        return Ok(true);
    }

    let mut not_run = Vec::new();
    boots.retain(|boot| is_run(&boot.name(), Some(boot.kernel), arguments, &mut not_run));
    others.retain(|check| is_run(&check.name, check.kernel, arguments, &mut not_run));

    let answers = tempfile::Builder::new().prefix("vfio-early-answers-").tempdir()?;
    let mut count = Count::default();
    for check in cargo {
        check.run(answers.path(), &mut count)?;
    }
    let shared = Mutex::new(&mut count);
    thread::scope(|scope| {
        scope.spawn(|| run_others(&others, arguments, &shared));
        if boots.is_empty() { Ok(()) } else { boot_all(boots, arguments, answers.path(), &shared) }
    })?;
    println!("\nthat took {:.0} s", start.elapsed().as_secs_f64());
    for name in &count.failed {
        println!("failed: {name}");
    }
    tell(&not_run);
    count.not_run += not_run.len();
    if arguments.filters.is_empty() && arguments.kernels.is_empty() || arguments.matrix {
        summary::print(&count.results, arguments.matrix);
    }
    if count.not_run > 0 {
        println!("{} not run", count.not_run);
    }
    println!("{} passed, {} failed", count.passed, count.failed.len());
    Ok(count.failed.is_empty())
}

/// Why a check is not run.
enum NotRun {
    /// The kernel is not set up, or is for those who name it.
    Kernel(&'static str),
    /// There is no program for machines with this processor, for this reason.
    Program(Arch, String),
    /// It is on the list.
    Listed(&'static LeftOut),
}

/// Whether a check is run; if not, why goes to the list. Kernels that are built or seldom used are for
/// those who set them up and name them, or want all of the matrix; the one as NixOS has it is booted
/// wherever it is. What else is not run each time is for those who name it or its kernel.
fn is_run(
    name: &str,
    kernel: Option<&'static str>,
    arguments: &Arguments,
    not_run: &mut Vec<NotRun>,
) -> bool {
    if !arguments.kernels.is_empty() {
        return true;
    }
    let is_here = |kernel: &str| {
        let is_wanted = arguments.matrix || arguments.arch.is_some() || kernel == kernels::NIXOS;
        kernels::is_usual(kernel) || is_wanted && kernels::get(kernel).is_ok()
    };
    let lacks_program = |kernel: &str| {
        let arch = arch_of(kernel);
        let why = match &arguments.binary {
            Some(program) => binary::is_not_for(program, arch),
            None if arguments.arch.is_some() => None,
            None => cross::missing(arch).map(str::to_owned),
        };
        why.map(|why| NotRun::Program(arch, why))
    };
    let is_named = arguments.matrix || !arguments.filters.is_empty();
    let why = match kernel {
        Some(kernel) if !is_here(kernel) => Some(NotRun::Kernel(kernel)),
        kernel => kernel
            .and_then(lacks_program)
            .or_else(|| if is_named { None } else { left_out::by(name).map(NotRun::Listed) }),
    };
    let is_run = why.is_none();
    not_run.extend(why);
    is_run
}

/// Says what was not run, why, and how to run it.
fn tell(not_run: &[NotRun]) {
    for kernel in kernels::NAMES {
        let of_kernel = |why: &&NotRun| matches!(why, NotRun::Kernel(other) if *other == kernel);
        let number = not_run.iter().filter(of_kernel).count();
        if number > 0 {
            println!(
                "NOT RUN: {number} checks on kernel {kernel}: `cargo xtask setup --kernel {kernel}`, \
                 then `cargo xtask test --kernel {kernel}`"
            );
        }
    }
    for arch in arch::NAMES {
        let reasons = |why: &NotRun| match why {
            NotRun::Program(other, why) if other.name() == arch => Some(why.clone()),
            _ => None,
        };
        let reasons: Vec<_> = not_run.iter().filter_map(reasons).collect();
        if let Some(why) = reasons.first() {
            println!("NOT RUN: {} checks of {arch} machines: {why}", reasons.len());
        }
    }
    for left in left_out::LIST {
        let listed =
            |why: &&NotRun| matches!(why, NotRun::Listed(other) if std::ptr::eq(*other, left));
        let number = not_run.iter().filter(listed).count();
        if number > 0 {
            println!("NOT RUN: {number}: {}; `cargo xtask test` runs it by its name", left.text());
        }
    }
}

/// One after the other.
fn run_others(others: &[Check], arguments: &Arguments, count: &Mutex<&mut Count>) {
    for check in others {
        let start = Instant::now();
        let outcome = (check.run)(arguments.binary.as_deref());
        count.lock().expect("no check panics").note(&check.name, start, outcome);
    }
}

fn boot_all(
    boots: Vec<Boot>,
    arguments: &Arguments,
    answers: &Path,
    count: &Mutex<&mut Count>,
) -> Result<()> {
    packages::ensure(packages::BOOT)?;
    let mut programs = BTreeMap::new();
    for arch in boots.iter().map(|boot| arch_of(boot.kernel)).collect::<BTreeSet<_>>() {
        packages::ensure(packages::cross(arch))?;
        let program = arguments.binary.clone().map_or_else(|| cross::program(arch), Ok);
        match program {
            Ok(program) => programs.insert(arch, program),
            Err(error) => {
                let failed = Outcome::Failed(format!("{error:#}"));
                count.lock().expect("no check panics").note("build", Instant::now(), failed);
                return Ok(());
            }
        };
    }
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
                        Some(Ok(kernel)) => (boot.check)(kernel, &programs[&kernel.arch], answers),
                        Some(Err(error)) => Outcome::Failed(error.clone()),
                        None => Outcome::Failed(format!("kernel {} was not set up", boot.kernel)),
                    };
                    let mut count = count.lock().expect("no check panics");
                    count.note(&boot.name(), start, result);
                }
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(filters: &[&str], kernels: &[&str], matrix: bool) -> Arguments {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (filters, kernels) = (texts(filters), texts(kernels));
        Arguments { filters, kernels, arch: None, jobs: 1, binary: None, list: false, matrix }
    }

    #[test]
    fn what_is_left_out_is_run_where_it_or_its_kernel_is_named() {
        let nothing = arguments(&[], &[], false);
        let is_run = |name: &str, kernel, arguments: &Arguments| {
            super::is_run(name, Some(kernel), arguments, &mut Vec::new())
        };
        let (name, kernel) = (
            "6.12 systemd: without vfio.devs= nothing runs, and what looks like it is told",
            "6.12",
        );
        assert!(!is_run(name, kernel, &nothing));
        assert!(is_run(name, kernel, &arguments(&[name], &[], false)));
        assert!(is_run(name, kernel, &arguments(&[], &[kernel], false)));
        assert!(is_run(&name.replace("6.12", "6.1"), "6.1", &nothing));
        let rt = "6.1-rt a guard that matches lets its device be bound";
        assert!(!is_run(rt, "6.1-rt", &nothing));
        assert!(!is_run(rt, "6.1-rt", &arguments(&["a guard"], &[], false)));
        assert!(is_run(rt, "6.1-rt", &arguments(&[], &["6.1-rt"], false)));
        let arm = "6.1-arm64 a guard that matches lets its device be bound";
        assert!(!is_run(arm, "6.1-arm64", &nothing));
        assert!(is_run(arm, "6.1-arm64", &arguments(&[], &["6.1-arm64"], false)));
    }

    #[test]
    fn a_program_that_is_given_runs_on_machines_that_it_is_for() {
        let own = std::env::current_exe().unwrap();
        let given = Arguments { binary: Some(own), ..arguments(&["three devices"], &[], false) };
        let mut not_run = Vec::new();
        for (kernel, arch) in [("6.1", Arch::Amd64), ("6.1-cloud-arm64", Arch::Arm64)] {
            let name = format!("{kernel} three devices are bound");
            let is_own = arch == Arch::of_this_machine();
            assert_eq!(super::is_run(&name, Some(kernel), &given, &mut not_run), is_own, "{name}");
        }
        let [NotRun::Program(_, why)] = &not_run[..] else { panic!("{}", not_run.len()) };
        assert!(why.ends_with("is for another processor"), "{why}");
    }
}
