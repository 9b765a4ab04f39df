//! `cargo xtask coverage`: which lines and branches of `src/` the tests reach.
//!
//! The compiler puts counters into the program and its tests, whose values go to profiles; LLVM's
//! tools hold both together. The tests in `src/` themselves do not count as lines to be reached.

mod lines;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine::profiles;
use crate::supplies::{binary, packages, step};
use lines::{Lines, Sum};

/// Arguments of `cargo xtask coverage`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Boot the checks of virtual machines with one of these texts in their names, too, on 6.1; those
    /// that count the program's writes fail, since it writes its counters
    #[arg(long = "boot", value_name = "TEXT")]
    pub boots: Vec<String>,
    /// Hold what was run before together, and run nothing
    #[arg(long)]
    pub again: bool,
}

/// The compiler, with counters for what is counted.
const RUSTC: &str = include_str!("coverage/rustc");

/// Of LLVM's tools: Debian 12 has no newer ones, and they read what the compiler's LLVM writes.
const LLVM: &str = "19";

/// The kernel of the virtual machines.
const KERNEL: &str = "6.1";

/// Where all of it is; profiles of earlier runs are gone when a new one begins.
fn folder() -> PathBuf {
    binary::workspace().join("target/coverage")
}

/// Runs the tests and prints what they reach; whether they passed.
///
/// # Errors
/// When something cannot be built or run.
pub fn run(arguments: &Arguments) -> Result<bool> {
    packages::ensure(&[packages::COVERAGE, packages::TEST].concat())?;
    let mut passed = true;
    if !arguments.again {
        passed = count(arguments)?;
    }
    let tests = names(&folder().join("programs"))?;
    let host = export("host", &tests)?;
    report("the tests that run on the host", &host)?;
    if folder().join("guest").exists() {
        let program = folder().join("programs/vfio-early");
        let guest = export("guest", &[binary::initrds(&program), program])?;
        report("the virtual machines", &guest)?;
        let both = host.iter().map(|(file, lines)| {
            let more = guest.get(file).cloned().unwrap_or_default();
            (file.clone(), lines.with(&more))
        });
        report("both", &both.collect())?;
    }
    Ok(passed)
}

/// Those that can reach something of it.
const TESTS: [&str; 4] = ["test", "--package=vfio-early", "--lib", "--test=fake"];

/// Builds and runs all of it.
fn count(arguments: &Arguments) -> Result<bool> {
    for name in ["host", "guest", "programs"] {
        let place = folder().join(name);
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
        }
    }
    fs::create_dir_all(folder().join("programs"))?;
    let compiler = folder().join("rustc");
    fs::write(&compiler, RUSTC)?;
    fs::set_permissions(&compiler, Permissions::from_mode(0o755))?;

    step::say("coverage: the tests that run on the host");
    let messages = build(&[&TESTS[..], &["--no-run"]].concat())?;
    for (name, program) in executables(&messages) {
        // What is there afterwards may be another build's.
        fs::copy(&program, folder().join("programs").join(name))?;
    }
    let mut command = cargo(&[&TESTS[..], &["--no-fail-fast"]].concat())?;
    // One file for each program, into which all its runs count.
    command.env("LLVM_PROFILE_FILE", folder().join("host/%m%c.profraw"));
    let status = command.status()?;

    // Of the program in an environment without that.
    for file in names(binary::workspace())? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("default_") && name.ends_with(".profraw") {
            fs::rename(&file, folder().join("host").join(name))?;
        }
    }

    let mut booted = true;
    if !arguments.boots.is_empty() {
        step::say("coverage: virtual machines");
        let place = folder().join("guest-program");
        let program = folder().join("programs/vfio-early");
        for (program, place) in
            [(binary::initrds(&program), binary::initrds(&place)), (program.clone(), place.clone())]
        {
            // What is not of use there takes long to unpack.
            step::run(Command::new("strip").arg("-o").args([&place, &program]))?;
        }
        booted = boot(&place, &arguments.boots)?;
    }
    Ok(status.success() && booted)
}

/// The checks of the virtual machines with that program, in a process of their own: what they find
/// is printed as always.
fn boot(program: &Path, filters: &[String]) -> Result<bool> {
    fs::create_dir_all(folder().join("guest"))?;
    let xtask = std::env::current_exe().context("this program's own name")?;
    let mut command = Command::new(xtask);
    command.args(["test", "--kernel", KERNEL, "--binary"]).arg(program).args(filters);
    command.env(profiles::VARIABLE, folder().join("guest"));
    let status = command.status().with_context(|| format!("`{}`", step::typed(&command)))?;
    Ok(status.success())
}

/// Cargo, with counters; nothing that others have built is touched.
fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = binary::cargo(arguments)?;
    command
        .arg("--target-dir")
        .arg(folder())
        .env("RUSTC_WORKSPACE_WRAPPER", folder().join("rustc"));
    command.stdin(Stdio::null());
    Ok(command)
}

/// Cargo's messages.
fn build(arguments: &[&str]) -> Result<String> {
    let mut command = cargo(arguments)?;
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "`{}` failed: see above", step::typed(&command));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Names and places of what was built of the package.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_package = messages.filter_map(|message| {
        let target = &message["target"];
        let kind = target["kind"][0].as_str()?;
        let name = target["name"].as_str().filter(|name| !name.is_empty())?;
        let program = PathBuf::from(message["executable"].as_str()?);
        let name = if kind == "bin" { name.to_owned() } else { format!("{name}-{kind}") };
        Some((name, program))
    });
    of_package.collect()
}

fn names(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{}: run it without --again first", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// What the profiles in that folder say of each file of `src/`.
fn export(profiles: &str, programs: &[PathBuf]) -> Result<BTreeMap<String, Lines>> {
    let all = folder().join(profiles).join("all.profdata");
    let raw: Vec<_> = names(&folder().join(profiles))?;
    let raw: Vec<_> =
        raw.into_iter().filter(|f| f.extension().is_some_and(|e| e == "profraw")).collect();
    ensure!(!raw.is_empty(), "nothing was counted in {profiles}");
    // Of a program that was killed while it began its file, there is no profile.
    step::run(
        tool("llvm-profdata")
            .args(["merge", "--sparse", "--failure-mode=all"])
            .args(raw)
            .arg("-o")
            .arg(&all),
    )?;
    let mut command = tool("llvm-cov");
    command.args(["export", "--format=text"]).arg(format!("--instr-profile={}", all.display()));
    let (first, others) = programs.split_first().context("no program was built")?;
    command.arg(first);
    for program in others {
        command.arg("--object").arg(program);
    }
    command.arg("--sources").arg(binary::workspace().join("src"));
    let json = step::run(&mut command)?;
    let json: Value = serde_json::from_slice(&json).context("what llvm-cov exports")?;
    lines::read(&json)
}

fn tool(name: &str) -> Command {
    Command::new(format!("/usr/lib/llvm-{LLVM}/bin/{name}"))
}

fn report(what: &str, files: &BTreeMap<String, Lines>) -> Result<()> {
    println!("\n{what}\n{:28} {:>16} {:>18}", "file", "lines", "branches");
    let mut all = (Sum::default(), Sum::default());
    for (file, lines) in files {
        let (of_lines, of_branches) = (lines.lines(), lines.branches());
        println!("{file:28} {of_lines:>16} {of_branches:>18}");
        all = (all.0 + of_lines, all.1 + of_branches);
    }
    println!("{:28} {:>16} {:>18}", "all", all.0, all.1);
    println!("\nlines that nothing reaches");
    for (file, lines) in files {
        let text = fs::read_to_string(binary::workspace().join(file))?;
        for (first, last) in lines.missed() {
            let shown = text.lines().nth(first - 1).unwrap_or_default().trim();
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            println!("{file}:{range}: {shown}");
        }
    }
    Ok(())
}
