//! `cargo xtask bench`: what a run costs, beside the fewest system calls that do the work and other
//! ways to it.
//!
//! Costs are instructions, which the emulator counts: the guest's clock shows one as a nanosecond.
//! Whatever the machine is busy with, the same work has the same count.

mod page;
mod plot;
mod results;
mod size;
mod tables;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::checks::bench::contender::{self, CONTENDERS, Contender, FLOOR, PROGRAM};
use crate::checks::bench::guard;
use crate::checks::bench::machine::{Bench, COUNTS, Look, Outcome};
use crate::machine::run::Run;
use crate::supplies::arch::{self, Arch};
use crate::supplies::{binary, cross, digest, kernels, packages, step};
use results::{Calls, Entry, Measurements, Phases, Wall};

/// Kernels that are measured.
const KERNELS: [&str; 2] = ["6.1", "6.12"];
/// Two counts of the same may differ by this part.
const SPREAD: f64 = 0.001;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // as the command line has them
pub struct Arguments {
    /// Count instructions; this and the next four choose what is measured, all if none is given
    #[arg(long)]
    pub cost: bool,
    /// Split vfio-early's runs into their phases, with vfio.debug, which costs something itself
    #[arg(long)]
    pub phases: bool,
    /// Count system calls
    #[arg(long)]
    pub calls: bool,
    /// Measure time on two processors, by the machine's clock: it must be idle
    #[arg(long)]
    pub wall: bool,
    /// Weigh the binary, and what it consists of
    #[arg(long)]
    pub size: bool,
    /// Only compare 3 and 64 devices on 6.1 with docs/measurements/baseline.json
    #[arg(long)]
    pub quick: bool,
    /// Keep what comes out in docs/measurements and in the README, or as the baseline
    #[arg(long)]
    pub write: bool,
    /// Measure nothing, but write the page, the pictures and the README's table anew from what is kept
    #[arg(long)]
    pub redraw: bool,
    /// Measure only on this kernel (may be repeated)
    #[arg(long = "kernel", value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernels: Vec<String>,
    /// Processor of the machine: on arm64 instructions are counted, of what can run there
    #[arg(long, default_value = "amd64", value_parser = arch::NAMES)]
    pub arch: String,
    /// Measure only with so many devices
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',')]
    pub devices: Vec<usize>,
    /// Measure only these contenders
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Count so often, and fail where two counts differ by more than 0.1 %
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub repeat: usize,
    /// Runs of each contender by the machine's clock
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub runs: usize,
    /// Virtual machines that run side by side while instructions are counted
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub jobs: usize,
    /// Measure this program instead of the vfio-early of this tree
    #[arg(long, value_name = "PROGRAM")]
    pub binary: Option<PathBuf>,
}

/// What to boot, and what to look at.
#[derive(Clone, Copy)]
struct Job<'b> {
    bench: &'b Bench,
    kernel: &'b str,
    contender: &'static Contender,
    devices: usize,
    look: Look,
}

impl Job<'_> {
    fn entry<T>(&self, value: T) -> Entry<T> {
        Entry {
            kernel: self.kernel.to_owned(),
            devices: self.devices,
            contender: self.contender.name.to_owned(),
            value,
        }
    }

    fn run(&self) -> Result<(Outcome, Run)> {
        let (outcome, run) = self.bench.run(self.contender, self.devices, self.look)?;
        let again = outcome.milliseconds_again().map(|again| format!(", then {again:.3} ms"));
        eprintln!(
            "{}, {} devices, {}: claimed {:.3} ms, done {:.3} ms{} ({:?}; {:.0} s to boot)",
            self.kernel,
            self.devices,
            self.contender.name,
            outcome.milliseconds_claimed(),
            outcome.milliseconds(),
            again.unwrap_or_default(),
            self.look,
            run.elapsed.as_secs_f64()
        );
        if outcome.status != 0 {
            eprintln!("exit status {}: {}", outcome.status, run.last().stdout.trim_end());
        }
        Ok((outcome, run))
    }
}

/// Measures, and prints it; whether all came out as it should.
///
/// # Errors
/// When something cannot be set up, or vfio-early did not do its work.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.redraw {
        write_pages(&Measurements::kept()?)?;
        return Ok(true);
    }
    packages::ensure(packages::BOOT)?;
    let arch: Arch = arguments.arch.parse()?;
    packages::ensure(packages::cross(arch))?;
    let is_own = arch == Arch::Amd64;
    let program = arguments.binary.clone().map_or_else(|| cross::program(arch), Ok)?;
    if arguments.quick {
        let (text, passes) = guard::run(&program, arguments.write)?;
        print!("{text}");
        return Ok(passes);
    }
    packages::ensure(packages::BENCH)?;
    if !is_own && (arguments.calls || arguments.wall || arguments.size || arguments.write) {
        bail!("on {} instructions are counted, and nothing else is measured or kept", arch.name());
    }
    let all = ![arguments.cost, arguments.phases, arguments.calls, arguments.wall, arguments.size]
        .contains(&true);
    let mut contenders = contenders(&arguments.only)?;
    contenders.retain(|contender| is_own || !contender.is_of_this_machine());
    let pick = |given: &[usize], usual: &[usize]| {
        if given.is_empty() { usual.to_vec() } else { given.to_vec() }
    };
    let counts = pick(&arguments.devices, if is_own { &COUNTS } else { &[3, 64] });
    let some = |usual: &[usize]| pick(&arguments.devices, usual);
    let lines: Vec<&str> = if arguments.kernels.is_empty() {
        KERNELS.to_vec()
    } else {
        arguments.kernels.iter().map(String::as_str).collect()
    };
    let lines: Vec<String> = lines.iter().map(|line| kernels::named(line, arch)).collect();
    let benches = lines
        .iter()
        .map(|line| Ok((line.as_str(), Bench::new(line, &contenders, &counts, &program, is_own)?)))
        .collect::<Result<Vec<_>>>()?;

    let mut found =
        Measurements { versions: versions(&benches, &program)?, ..Measurements::default() };
    let mut jobs = Vec::new();
    let mut paced = Vec::new();
    for (kernel, bench) in &benches {
        let add = |look, devices: &[usize], to: &mut Vec<_>| {
            for (devices, contender) in
                devices.iter().flat_map(|count| contenders.iter().map(move |each| (count, *each)))
            {
                // Of nothing to do, only vfio-early makes something.
                let is_idle = *devices == 0 && contender.is_script();
                let is_of_look = match look {
                    Look::Cost | Look::Calls => true,
                    Look::Phases => contender.name == PROGRAM && *devices > 0,
                    Look::Wall => !arguments.only.is_empty() || is_paired(contender),
                };
                let has_nothing_to_do = *devices > 0 && contender.is_idle();
                if is_of_look && !is_idle && !has_nothing_to_do {
                    to.push(Job { bench, kernel, contender, devices: *devices, look });
                }
            }
        };
        if all || arguments.cost {
            add(Look::Cost, &counts, &mut jobs);
        }
        if all && is_own || arguments.phases {
            add(Look::Phases, &some(&[3, 64, 512]), &mut jobs);
        }
        if all && is_own || arguments.calls {
            add(Look::Calls, &some(&[3, 64]), &mut jobs);
        }
        if all && is_own || arguments.wall {
            add(Look::Wall, &some(&[3]), &mut paced);
        }
    }
    let repeatable = count(&jobs, arguments, &mut found)?;
    time(&paced, arguments.runs, &mut found)?;
    if all && is_own || arguments.size {
        let (_, bench) = benches.first().context("a kernel is measured on")?;
        found.sizes = Some(size::weigh(&program, bench.kernel())?);
        if arguments.binary.is_none() {
            found.glibc = Some(size::weigh(&binary::build_with_glibc()?, bench.kernel())?);
        }
        found.parts = size::parts()?;
    }
    print!("{}", tables::for_terminal(&found));
    if arguments.write {
        let mut kept = Measurements::kept()?;
        kept.take(found);
        kept.keep()?;
        write_pages(&kept)?;
    }
    Ok(repeatable)
}

fn write_pages(measurements: &Measurements) -> Result<()> {
    page::write(measurements)?;
    plot::write(measurements)
}

/// What is timed when nobody says what: it takes long.
fn is_paired(contender: &Contender) -> bool {
    [PROGRAM, FLOOR].contains(&contender.name)
}

fn contenders(only: &[String]) -> Result<Vec<&'static Contender>> {
    if only.is_empty() {
        return Ok(CONTENDERS.iter().collect());
    }
    let names = || CONTENDERS.iter().map(|each| each.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        contender::find(name)
            .with_context(|| format!("there is no contender {name}; there are {}", names()))
    };
    only.iter().map(find).collect()
}

/// Runs the jobs that count, side by side; whether repeated counts agree.
fn count(jobs: &[Job<'_>], arguments: &Arguments, found: &mut Measurements) -> Result<bool> {
    let repeated = jobs.iter().flat_map(|job| {
        let times = if job.look == Look::Cost { arguments.repeat.max(1) } else { 1 };
        std::iter::repeat_n(*job, times)
    });
    let queue = Mutex::new(repeated.collect::<VecDeque<_>>());
    let next = || queue.lock().expect("no job panics").pop_front();
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some(job) = next() {
                    let result = job.run();
                    if result.is_err() {
                        // One is enough: the others would take long for nothing.
                        queue.lock().expect("no job panics").clear();
                    }
                    done.lock().expect("no job panics").push((job, result));
                }
            });
        }
    });
    let mut spread: f64 = 0.0;
    for (job, result) in done.into_inner().expect("no job panics") {
        let (outcome, run) = result?;
        match job.look {
            Look::Phases => found.phases.push(job.entry(phases(&run)?)),
            Look::Calls => found.calls.push(job.entry(calls(&run)?)),
            Look::Wall => bail!("time is not counted"),
            Look::Cost => match found.cost(job.kernel, job.devices, job.contender.name) {
                Some(first) => {
                    let part = (outcome.milliseconds() / first.milliseconds() - 1.0).abs();
                    spread = spread.max(part);
                }
                None => found.costs.push(job.entry(outcome)),
            },
        }
    }
    if arguments.repeat > 1 {
        println!("counts of the same differ by {:.4} % at most\n", spread * 100.0);
    }
    found.sort();
    Ok(spread <= SPREAD)
}

/// Runs the jobs by the machine's clock, one after the other, each of them once in a round.
fn time(jobs: &[Job<'_>], runs: usize, found: &mut Measurements) -> Result<()> {
    found.wall =
        jobs.iter().map(|job| job.entry(Wall { milliseconds: vec![], again: vec![] })).collect();
    for _ in 0..runs {
        for (job, entry) in jobs.iter().zip(&mut found.wall) {
            let outcome = job.run()?.0;
            entry.value.milliseconds.push(outcome.milliseconds());
            entry.value.again.extend(outcome.milliseconds_again());
        }
    }
    Ok(())
}

/// The phases, from the times in the kernel's log: `<15>[    1.234567] vfio-early: phase over: …`.
fn phases(run: &Run) -> Result<Phases> {
    let log = run.shells.get(2).context("the guest sent no phases")?;
    let mut phases: Vec<(String, u64)> = Vec::new();
    let mut last = None;
    for line in log.lines() {
        let Some((time, text)) = line.split_once('[').and_then(|(_, rest)| rest.split_once("] "))
        else {
            continue;
        };
        let time = time.trim().replace('.', "").parse::<u64>()?;
        let name = match text.split_once(": ") {
            Some(("measure", "begin")) => None,
            Some(("measure", _)) => Some("log"),
            Some((_, rest)) => rest.strip_prefix("phase over: "),
            None => continue,
        };
        if let (Some(name), Some(last)) = (name, last) {
            let taken = time - last;
            match phases.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum += taken,
                None => phases.push((name.to_owned(), taken)),
            }
        }
        last = Some(time);
    }
    if phases.len() < 2 {
        bail!("vfio-early logs no phases: {log}");
    }
    Ok(Phases { phases })
}

/// What `strace -c` wrote: part, seconds, each, number, errors where there were some, name.
fn calls(run: &Run) -> Result<Calls> {
    let text = run.shells.get(1).context("the guest sent no system calls")?;
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.get(3).and_then(|word| word.parse::<u64>().ok());
        if let (Some(number), Some(name)) = (number, words.last().filter(|name| **name != "total"))
        {
            *calls.entry((*name).to_owned()).or_insert(0) += number;
        }
    }
    if calls.is_empty() {
        bail!("strace counted nothing: {text}");
    }
    Ok(Calls { calls })
}

fn versions(benches: &[(&str, Bench)], program: &Path) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for (line, bench) in benches {
        let kernel = bench.kernel();
        let text = format!("{} (Debian {})", kernel.release, kernel.package_version);
        versions.insert(format!("kernel {line}"), text);
    }
    for (name, program) in [("QEMU", "qemu-system-x86_64"), ("rustc", "rustc"), ("cc", "cc")] {
        let text = step::run(Command::new(program).arg("--version"))?;
        let text = String::from_utf8_lossy(&text);
        versions.insert(name.to_owned(), text.lines().next().unwrap_or_default().to_owned());
    }
    for package in ["busybox-static", "kmod", "bash", "pciutils"] {
        let query = ["--show", "--showformat", "${Version}", package];
        let text = step::run(Command::new("dpkg-query").args(query))?;
        versions.insert(package.to_owned(), String::from_utf8_lossy(&text).into_owned());
    }
    let text = format!("{}, SHA-256 {}", env!("CARGO_PKG_VERSION"), digest::sha256(program)?);
    versions.insert("vfio-early".to_owned(), text);
    Ok(versions)
}
