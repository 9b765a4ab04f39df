//! `cargo xtask bench`: what a run costs, beside the fewest system calls that do the work and other
//! ways to it.

mod contender;
mod machine;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::table::table;
use crate::{binary, kernels, packages};
use contender::{CONTENDERS, Contender};
use machine::{Bench, Clock, Outcome};

/// Device counts; with 0 nothing is asked for.
const COUNTS: [usize; 8] = [0, 1, 3, 16, 64, 128, 256, 512];

/// Two counts of the same may differ by this part.
const SPREAD: f64 = 0.001;

const HEADING: [&str; 7] =
    ["kernel", "devices", "contender", "ms", "of the floor", "memory, KiB", "VM starts"];

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Measure only on this kernel (may be repeated)
    #[arg(long = "kernel", value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernels: Vec<String>,
    /// Measure only with so many devices
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',')]
    pub devices: Vec<usize>,
    /// Measure only these contenders
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Measure so often, and fail where two counts differ by more than 0.1 %
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub repeat: usize,
    /// Measure this program instead of the vfio-early of this tree
    #[arg(long, value_name = "PROGRAM")]
    pub binary: Option<PathBuf>,
}

/// Measures, and prints it; whether all came out as it should.
///
/// # Errors
/// When something cannot be set up, or a contender did not do what it is for.
pub fn run(arguments: &Arguments) -> Result<bool> {
    packages::ensure(packages::BOOT)?;
    let program = match &arguments.binary {
        Some(program) => program.clone(),
        None => binary::build()?,
    };
    let contenders = contenders(&arguments.only)?;
    let counts =
        if arguments.devices.is_empty() { COUNTS.to_vec() } else { arguments.devices.clone() };
    let lines = if arguments.kernels.is_empty() {
        ["6.1", "6.12"].map(str::to_owned).to_vec()
    } else {
        arguments.kernels.clone()
    };
    let mut rows = vec![HEADING.map(str::to_owned).to_vec()];
    let mut repeatable = true;
    for line in &lines {
        let bench = Bench::new(line, &contenders, &counts, &program)?;
        for count in &counts {
            let mut floor = None;
            let mut outcomes: Vec<(&Contender, Outcome)> = Vec::new();
            for contender in &contenders {
                let first = bench.run(contender, *count, Clock::Instructions)?;
                for _ in 1..arguments.repeat {
                    let again = bench.run(contender, *count, Clock::Instructions)?;
                    let spread = (again.milliseconds() / first.milliseconds() - 1.0).abs();
                    eprintln!("{line}, {count} devices, {}: {spread:.6} apart", contender.name);
                    repeatable &= spread <= SPREAD;
                }
                if contender.name == "floor" {
                    floor = Some(first.milliseconds());
                }
                outcomes.push((contender, first));
            }
            rows.extend(outcomes.iter().map(|(contender, outcome)| {
                let milliseconds = outcome.milliseconds();
                let ratio = floor.map(|floor| format!("{:.4}", milliseconds / floor));
                vec![
                    line.clone(),
                    count.to_string(),
                    contender.title.to_owned(),
                    format!("{milliseconds:.3}"),
                    ratio.unwrap_or("-".to_owned()),
                    outcome.memory.to_string(),
                    outcome.stopped.clone().unwrap_or("yes".to_owned()),
                ]
            }));
        }
    }
    print!("{}", table(&rows));
    Ok(repeatable)
}

fn contenders(only: &[String]) -> Result<Vec<Contender>> {
    let all = || CONTENDERS.iter().map(|each| each.name).collect::<Vec<_>>().join(", ");
    for name in only {
        if !CONTENDERS.iter().any(|each| each.name == name) {
            bail!("there is no contender {name}; there are {}", all());
        }
    }
    let wanted = |each: &&Contender| only.is_empty() || only.iter().any(|name| name == each.name);
    Ok(CONTENDERS.iter().filter(wanted).copied().collect())
}
