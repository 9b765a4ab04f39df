//! Machines, lists and hosts put together by chance, boot after boot.
//!
//! A seed says all of it. What has to come out is known before the boot: from how the case was put
//! together ([`request`]), and from the fake kernel, which runs the same case.

pub mod machine;
pub mod random;
pub mod request;

use std::path::Path;
use std::time::Duration;

use crate::check::{Boot, verdict};
use crate::machine::observed::BEFORE;
use crate::machine::run::Run;
use crate::scenario::{Scenario, answers, matrix, scenario};
use crate::supplies::kernels::{Kernel, LINES};
use random::Random;
use request::leak;

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
    let mut scenario = request::add(scenario, &mut random);
    // Every other one in two moments, with the host's drivers loaded as udev does beside the second.
    if random.once_in(2) {
        scenario.beside = request::beside(&scenario);
    }
    Case { seed, kernel, memory, processors, scenario }
}

impl Case {
    /// In a few words.
    pub(crate) fn title(&self) -> String {
        let Self { kernel, memory, processors, scenario, .. } = self;
        format!(
            "{kernel}, {:?}, {processors} processors, {memory} MiB, {} of the host's modules \
             before, {} beside; {}",
            scenario.topology.iommu,
            scenario.before.len(),
            scenario.beside.len(),
            scenario.command_line
        )
    }

    /// Boots it; the error has all that helps.
    pub(crate) fn run(
        &self,
        kernel: &Kernel,
        program: &Path,
        answers: &Path,
    ) -> Result<(), String> {
        let scenario = &self.scenario;
        let run = self.boot(kernel, program)?;
        let seen = run.observed();
        let mut complaints = scenario.topology_complaints(run.at(BEFORE));
        complaints.extend(scenario.complaints(&seen));
        complaints.extend(run.log_complaints());
        if LINES.contains(&self.kernel) {
            match answers::kept(answers, scenario) {
                Ok(Some(fake)) => {
                    complaints.extend(answers::differences(&scenario.topology, &fake, &seen));
                }
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
            check: Box::new(move |kernel, program, answers| {
                case.run(kernel, program, answers).into()
            }),
        }
    };
    USUAL.map(boot).collect()
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
        let (mut outcomes, mut rejected, mut before, mut beside) = (Vec::new(), 0, 0, 0);
        for seed in 0..300 {
            let Case { scenario, .. } = case(seed, None);
            assert!(scenario.command_line.len() < 1500, "{seed}");
            outcomes.extend(scenario.wanted.iter().map(|wanted| wanted.outcome));
            rejected += scenario.rejected.len();
            before += scenario.before.len();
            beside += scenario.beside.len();
        }
        for outcome in ["bound", "refused", "absent"] {
            let count = outcomes.iter().filter(|other| **other == outcome).count();
            assert!(count > 50, "{outcome}: {count}");
        }
        assert!(rejected > 50 && before > 100 && beside > 200, "{rejected} {before} {beside}");
    }
}
