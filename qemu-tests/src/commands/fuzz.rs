//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer, which looks for inputs that reach
//! what none did before.
//!
//! cargo-fuzz asks for options of the compiler that are not stable; `RUSTC_BOOTSTRAP` lets the
//! stable compiler take them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::supplies::{binary, cache, libkmod, packages, step};

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// For so long each target runs
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    pub minutes: f64,
    /// Only this target (may be repeated)
    #[arg(long = "target", value_name = "NAME", value_parser = TARGETS)]
    pub targets: Vec<String>,
    /// Targets that run side by side
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub jobs: usize,
    /// Put what reached something new into `tests/fuzz/corpus`, as far as there is room for it
    #[arg(long)]
    pub keep: bool,
}

/// As in `tests/fuzz/targets` and in `fuzz/Cargo.toml`.
const TARGETS: [&str; 5] = ["cmdline", "items", "names", "report", "tree"];

/// Of cargo-fuzz.
const VERSION: &str = "0.13.1";

/// Bytes of a target's corpus.
const ROOM: u64 = 16 * 1024;
/// So many files are added to it at a time.
const MOST_ADDED: usize = 40;

/// What came of one target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    /// Edges of the control flow that were reached.
    edges: u64,
    /// Inputs that reach something that no other does.
    inputs: u64,
    /// The input that broke a check, and what was said.
    finding: Option<String>,
}

/// Runs the targets; whether nothing was found.
///
/// # Errors
/// When they cannot be built or run.
///
/// # Panics
/// Never: what runs side by side does not.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let programs = build(&arguments.targets)?;
    let wanted = |name: &&str| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|target| target == name)
    };
    let queue: Mutex<VecDeque<_>> = Mutex::new(TARGETS.into_iter().filter(wanted).collect());
    let outcomes = Mutex::new(Vec::new());
    let next = || queue.lock().expect("no target panics").pop_front();
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some(name) = next() {
                    step::say(format_args!("fuzz {name}: {} minutes", arguments.minutes));
                    let outcome = fuzz(&programs, name, arguments);
                    outcomes.lock().expect("no target panics").push((name, outcome));
                }
            });
        }
    });
    let mut found = 0;
    println!("target     executions    edges  inputs  findings");
    for (name, outcome) in outcomes.into_inner().expect("no target panics") {
        let Outcome { executions, edges, inputs, finding } =
            outcome.with_context(|| format!("fuzz target {name}"))?;
        let findings = usize::from(finding.is_some());
        println!("{name:8} {executions:12} {edges:8} {inputs:7} {findings:9}");
        if let Some(finding) = finding {
            println!("{finding}");
            found += 1;
        }
    }
    println!("{found} findings");
    Ok(found == 0)
}

/// The folder of the programs, one for each target; all are built, unless one alone is wanted.
fn build(targets: &[String]) -> Result<PathBuf> {
    packages::ensure(&[packages::BUILD, packages::FUZZ].concat())?;
    let libkmod = libkmod::set_up()?;
    let mut command = Command::new(cargo_fuzz()?);
    step::say("fuzz: building the targets");
    command.args(["fuzz", "build", "--target-dir"]).arg(target_folder());
    if let [name] = targets {
        command.arg(name);
    }
    // RUSTFLAGS, which cargo-fuzz sets, take the place of those in .cargo/config.toml: a sanitizer
    // does not do with a static C library.
    command.current_dir(binary::workspace()).env("RUSTC_BOOTSTRAP", "1");
    command.env(libkmod::VARIABLE, libkmod);
    step::run_with_progress(&mut command)?;
    Ok(target_folder().join("x86_64-unknown-linux-gnu/release"))
}

/// Of libFuzzer's own making: programs, corpora, findings.
fn target_folder() -> PathBuf {
    binary::workspace().join("target/fuzz")
}

/// The program cargo-fuzz.
fn cargo_fuzz() -> Result<PathBuf> {
    let program = |entry: &Path| entry.join("bin/cargo-fuzz");
    let name = format!("cargo-fuzz/{VERSION}");
    let entry = cache::entry(
        &name,
        |entry| program(entry).exists(),
        |entry| {
            step::say(format_args!("cargo-fuzz {VERSION}: building it, for some minutes"));
            let mut command = Command::new("cargo");
            command.args(["install", "--locked", "--version", VERSION, "--root"]);
            step::run_with_progress(command.arg(entry).arg("cargo-fuzz"))
        },
    )?;
    Ok(program(&entry))
}

fn fuzz(programs: &Path, name: &str, arguments: &Arguments) -> Result<Outcome> {
    let seeds = binary::workspace().join("tests/fuzz/corpus").join(name);
    let dictionary = binary::workspace().join("tests/fuzz/dictionary");
    let grown = target_folder().join("corpus").join(name);
    let findings = target_folder().join("findings");
    fs::create_dir_all(&grown)?;
    fs::create_dir_all(&findings)?;
    let log = findings.join(format!("{name}.log"));
    let mut command = Command::new(programs.join(name));
    command
        .arg(&grown)
        .arg(&seeds)
        .arg(format!("-dict={}", dictionary.display()))
        .arg(format!("-artifact_prefix={}/{name}-", findings.display()))
        .arg(format!("-max_total_time={:.0}", arguments.minutes * 60.0))
        // An input that takes longer is a finding, on a busy machine, too.
        .args(["-max_len=16384", "-timeout=120", "-print_final_stats=1", "-verbosity=1"])
        .stdin(Stdio::null())
        .stderr(File::create(&log)?);
    let status = command.status().with_context(|| format!("`{}`", step::typed(&command)))?;
    let text = fs::read(&log).with_context(|| log.display().to_string())?;
    let outcome = outcome(&String::from_utf8_lossy(&text), status.success());
    if outcome.finding.is_none() && outcome.executions == 0 {
        bail!("it tried nothing: see {}", log.display());
    }
    if arguments.keep {
        keep(&programs.join(name), &seeds, &grown)?;
    }
    Ok(outcome)
}

/// What libFuzzer says of its run.
fn outcome(log: &str, success: bool) -> Outcome {
    let number = |line: &str, name: &str| -> Option<u64> {
        line.split_once(name)?.1.trim().split([' ', '/']).next()?.parse().ok()
    };
    let last = |name: &str| log.lines().rev().find_map(|line| number(line, name)).unwrap_or(0);
    let finding = (!success).then(|| {
        let what = log.lines().skip_while(|line| !line.contains("panicked at"));
        let what: Vec<String> = what.take(3).map(|line| line.chars().take(600).collect()).collect();
        let file = log.lines().find_map(|line| line.split_once("Test unit written to "));
        let file = file.map_or("no file", |(_, file)| file);
        let what: String = if what.is_empty() {
            log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
        } else {
            what.join("\n")
        };
        format!("{file}:\n{what}")
    });
    Outcome {
        executions: last("stat::number_of_executed_units:"),
        edges: last(" cov: "),
        inputs: last(" corp: "),
        finding,
    }
}

/// Adds inputs that reach what the corpus does not, of all sizes, until it is full.
fn keep(program: &Path, seeds: &Path, grown: &Path) -> Result<()> {
    let new = tempfile::tempdir()?;
    for file in files(seeds)? {
        fs::copy(&file, new.path().join(file.file_name().unwrap_or_default()))?;
    }
    let mut command = Command::new(program);
    command.arg("-set_cover_merge=1").arg("-max_len=4096");
    step::run(command.arg(new.path()).arg(grown))?;
    let mut room = ROOM;
    for file in files(seeds)? {
        room = room.saturating_sub(fs::metadata(file)?.len());
    }
    let mut added = Vec::new();
    for file in files(new.path())? {
        let place = seeds.join(file.file_name().unwrap_or_default());
        if !place.exists() {
            added.push((fs::metadata(&file)?.len(), file, place));
        }
    }
    added.sort();
    let every = added.len().div_ceil(MOST_ADDED).max(1);
    for (length, file, place) in added.into_iter().step_by(every) {
        if length <= room {
            fs::copy(&file, &place)?;
            room -= length;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_program_and_a_corpus() {
        let manifest = fs::read_to_string(binary::workspace().join("fuzz/Cargo.toml")).unwrap();
        for name in TARGETS {
            assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")), "{name}");
            let corpus = files(&binary::workspace().join("tests/fuzz/corpus").join(name)).unwrap();
            assert!(!corpus.is_empty(), "{name}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }

    #[test]
    fn what_libfuzzer_says_is_read() {
        let log = "INFO: Loaded 1 modules   (9 inline 8-bit counters)\n\
                   #4\tINITED cov: 12 ft: 13 corp: 4/49b exec/s: 0 rss: 30Mb\n\
                   #500\tNEW    cov: 77 ft: 90 corp: 21/1234b lim: 4 exec/s: 250 rss: 31Mb\n";
        let end = "#900\tDONE   cov: 78 ft: 91 corp: 22/1240b lim: 8 exec/s: 450 rss: 31Mb\n\
                   stat::number_of_executed_units: 900\n";
        let whole = outcome(&(log.to_owned() + end), true);
        assert_eq!(whole, Outcome { executions: 900, edges: 78, inputs: 22, finding: None });
        let broken = "thread 'main' panicked at tests/fuzz/targets/tree.rs:1:2:\nit is not so\n\
                      artifact_prefix='x/'; Test unit written to x/tree-crash-1\n";
        let finding = outcome(&(log.to_owned() + broken), false).finding.unwrap();
        assert!(finding.starts_with("x/tree-crash-1:\n") && finding.contains("it is not so"));
    }
}
