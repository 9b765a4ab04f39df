//! `cargo xtask`: sets up, builds, boots, shows and tests vfio-early.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use qemu_tests::commands::{
    bench, boot, build, coverage, demo, findings, fuzz, model, nix, package, release, reproduce,
    rules, screenshots, setup, soak, test,
};

/// Sets up, builds, boots, shows and tests vfio-early.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what this machine lacks, and fetch the kernels that the tests boot
    Setup(setup::Arguments),
    /// Build the static release binary; its path is the last line of the output
    Build(build::Arguments),
    /// Boot one virtual machine with any devices and any command line, and say what became of them
    Boot(boot::Arguments),
    /// Show the main job: a desktop's graphics card goes to vfio-pci, the rest stays with the host
    Demo(demo::Arguments),
    /// Measure what a run costs, beside the fewest system calls that do the work and other ways
    Bench(bench::Arguments),
    /// Explore all orders of a run's reads and writes with what others do, over the fake kernel
    Model(model::Arguments),
    /// Try inputs of any kind on all that reads them, for as long as one likes
    Fuzz(fuzz::Arguments),
    /// Tell which lines and branches of the program the tests reach
    Coverage(coverage::Arguments),
    /// See once more what real tools do that nobody would guess; see findings/
    Findings(findings::Arguments),
    /// Evaluate and check the NixOS module, and boot its scripted branch
    Nix(nix::Arguments),
    /// Make the Debian package; its path is the last line of the output
    Package(package::Arguments),
    /// Make the files of a release, twice, and compare them; the folder is the last line of the output
    Release,
    /// Ask real kernels what the fake one claims of them; see docs/kernel-rules.md
    Rules(rules::Arguments),
    /// Build twice, in different places, and compare every byte; says the digests
    Reproduce,
    /// Take the pictures in docs/ anew: a terminal's, the announcement, the console after a hand-over
    Screenshots(screenshots::Arguments),
    /// Boot machines put together by chance, as often as you like
    Soak(soak::Arguments),
    /// Run every check: format, lints, unit tests, fake kernel, virtual machines
    Test(test::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what was asked for came out well, where that is an answer and not an error.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Setup(arguments) => setup::run(&arguments)?,
        Command::Build(arguments) => build::run(&arguments)?,
        Command::Boot(arguments) => boot::run(arguments)?,
        Command::Demo(arguments) => demo::run(&arguments)?,
        Command::Bench(arguments) => return bench::run(&arguments),
        Command::Model(arguments) => return model::run(&arguments),
        Command::Coverage(arguments) => return coverage::run(&arguments),
        Command::Fuzz(arguments) => return fuzz::run(&arguments),
        Command::Findings(arguments) => return findings::run(&arguments),
        Command::Nix(arguments) => return nix::run(&arguments),
        Command::Package(arguments) => package::run(&arguments)?,
        Command::Release => return release::run(),
        Command::Rules(arguments) => return rules::run(&arguments),
        Command::Reproduce => return reproduce::run(),
        Command::Screenshots(arguments) => screenshots::run(&arguments)?,
        Command::Soak(arguments) => return soak::run(&arguments),
        Command::Test(arguments) => return test::run(&arguments),
    }
    Ok(true)
}
