//! The guard against growth: two numbers of devices, one kernel, exact counts.
//!
//! What is compared is vfio-early's own share, its count less the floor's of the same run: what
//! the kernel does, and a newer kernel does otherwise, is in both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::contender::{self, FLOOR, GENERATOR, PROGRAM};
use super::machine::{Bench, Look};
use crate::check::{Boot, Outcome};
use crate::supplies::binary;

const KERNEL: &str = "6.1";
const COUNTS: [usize; 2] = [3, 64];
/// Growth of vfio-early's own share beyond one part in so many, 3 %, is too much.
const GROWTH: i64 = 33;
/// One part in so many of the floor's count is no growth.
const NOISE: i64 = 1000;
/// Instructions; a unit's process takes six times as many.
const IDLE: u64 = 5_000_000;
const MEND: &str = "`cargo xtask bench --quick --write` makes a new baseline";

/// Counted instructions until one of the two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    program: u64,
    floor: u64,
}

impl Counts {
    /// What is vfio-early's own.
    fn share(self) -> i64 {
        self.program.cast_signed() - self.floor.cast_signed()
    }
}

/// The same of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Moments {
    /// Until udev may start.
    claimed: Counts,
    /// Until all is done.
    done: Counts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Baseline {
    /// The release that it was measured on; another one compares as well.
    kernel: String,
    /// By the number of devices.
    counts: BTreeMap<usize, Moments>,
}

fn file() -> PathBuf {
    binary::workspace().join("docs/measurements/baseline.json")
}

fn measure(program: &Path) -> Result<Baseline> {
    let contenders = [PROGRAM, FLOOR].map(|name| contender::find(name).expect("it is in the list"));
    let bench = Bench::new(KERNEL, &contenders, &COUNTS, program, false)?;
    let mut counts = BTreeMap::new();
    for devices in COUNTS {
        let [program, floor] = contenders
            .map(|contender| bench.run(contender, devices, Look::Cost).map(|(outcome, _)| outcome));
        let (program, floor) = (program?, floor?);
        let moments = Moments {
            claimed: Counts { program: program.claimed, floor: floor.claimed },
            done: Counts { program: program.nanoseconds, floor: floor.nanoseconds },
        };
        counts.insert(devices, moments);
    }
    Ok(Baseline { kernel: bench.kernel().release.clone(), counts })
}

/// Compares with the baseline, or makes a new one; what comes out, and whether nothing has grown.
///
/// # Errors
/// When something cannot be measured, or there is no baseline.
pub(crate) fn run(program: &Path, write: bool) -> Result<(String, bool)> {
    let found = measure(program)?;
    if write {
        fs::write(file(), serde_json::to_string_pretty(&found)? + "\n")?;
    }
    let text = fs::read_to_string(file())
        .context("no baseline: `cargo xtask bench --quick --write` makes one")?;
    let baseline: Baseline = serde_json::from_str(&text)?;
    Ok(compare(&baseline, &found))
}

fn compare(baseline: &Baseline, found: &Baseline) -> (String, bool) {
    let mut lines = Vec::new();
    let mut has_grown = false;
    for (devices, found) in &found.counts {
        let Some(before) = baseline.counts.get(devices) else {
            has_grown = true;
            lines.push(format!("{devices} devices are not in the baseline: {MEND}\n"));
            continue;
        };
        for (moment, before, counts) in
            [("claimed", before.claimed, found.claimed), ("done", before.done, found.done)]
        {
            let part = |value: i64, parts: i64| value.abs() / parts;
            // Other programs lie otherwise in memory, and a tick of the clock falls elsewhere.
            let limit = part(before.share(), GROWTH).max(part(before.floor.cast_signed(), NOISE));
            let growth = counts.share() - before.share();
            lines.push(format!(
                "{devices} devices, {moment}: {} instructions, of which {} are vfio-early's own; in \
                 the baseline {} of {}\n",
                counts.program,
                counts.share(),
                before.share(),
                before.program
            ));
            if growth < -limit {
                lines.push(format!("it has shrunk by {}; so that it stays so, {MEND}\n", -growth));
            }
            if growth > limit {
                has_grown = true;
                lines.push(format!(
                    "vfio-early's own share has grown by {growth}, over the limit of {limit}: find \
                     out why (`cargo xtask bench --phases`); if it has to be, {MEND}\n"
                ));
            }
        }
    }
    (lines.concat(), !has_grown)
}

/// What the generator takes in a boot that asks for nothing.
fn idle(program: &Path) -> Result<u64> {
    let contender = contender::find(GENERATOR).expect("it is in the list");
    let bench = Bench::new(KERNEL, &[contender], &[0], program, false)?;
    Ok(bench.run(contender, 0, Look::Cost)?.0.nanoseconds)
}

/// The checks of `cargo xtask test`.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |name: &str, check: fn(&Path) -> Result<(String, bool)>| Boot {
        name: format!("bench: {name}"),
        kernel: KERNEL,
        check: Box::new(move |_, program, _| match check(program) {
            Ok((_, true)) => Outcome::Passed,
            Ok((text, false)) => Outcome::Failed(text),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }),
    };
    vec![
        boot("vfio-early's own share of the instructions has not grown", |program| {
            run(program, false)
        }),
        boot("in a boot that asks for nothing the generator costs little", |program| {
            let taken = idle(program)?;
            let text = format!("it takes {taken} instructions, and at most {IDLE} are due");
            Ok((text, taken <= IDLE))
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(program: u64, floor: u64) -> Baseline {
        let counts = Counts { program, floor };
        let claimed = Counts { program: program / 50, floor: floor / 50 };
        let counts = [(3, Moments { claimed, done: counts })].into();
        Baseline { kernel: "6.1.0".to_owned(), counts }
    }

    #[test]
    fn growth_counts_as_far_as_it_is_vfio_earlys_own() {
        let baseline = counts(84_000_000, 80_000_000);
        for (program, floor, expected) in [
            (84_000_000, 80_000_000, true),
            (84_110_000, 80_000_000, true),
            (84_130_000, 80_000_000, false),
            // A newer kernel, whose modules are larger.
            (94_000_000, 90_000_000, true),
            (94_130_000, 90_000_000, false),
            (60_000_000, 80_000_000, true),
        ] {
            let (text, passes) = compare(&baseline, &counts(program, floor));
            assert_eq!(passes, expected, "{program} over {floor}: {text}");
        }
        let (text, passes) = compare(
            &counts(1, 1),
            &Baseline { counts: [(64, counts(1, 1).counts[&3])].into(), ..baseline.clone() },
        );
        assert!(!passes && text.contains("64 devices"), "{text}");
        // What makes udev wait is held by itself.
        let mut later = baseline.clone();
        let moments = later.counts.get_mut(&3).expect("it is there");
        moments.claimed.program += 10_000;
        let (text, passes) = compare(&baseline, &later);
        assert!(!passes && text.contains("3 devices, claimed"), "{text}");
    }
}
