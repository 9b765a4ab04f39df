//! A trial is a scenario that no table holds: several runs in one guest, with shell in between.

use std::path::Path;

use crate::check::prediction::{self, Unforeseen};
use crate::check::{Boot, verdict};
use crate::machine::guest_program;
use crate::machine::observed::Execution;
use crate::machine::run::Run;
use crate::machine::vm::{Vm, vm};
use crate::supplies::kernels::{Kernel, NAMES};

/// One trial.
#[derive(Clone, Copy)]
pub(crate) struct Trial {
    /// A sentence.
    pub name: &'static str,
    /// Kernels that it runs on.
    pub kernels: &'static [&'static str],
    /// Programs of the guest, compiled from `guest/NAME.c`, as `/bin/NAME`.
    pub programs: &'static [&'static str],
    /// What the machine has, and what it does.
    pub machine: fn(Vm) -> Vm,
    /// What `check` cannot know, with the number of the run and the device's address.
    pub unforeseen: &'static [(usize, &'static str, Unforeseen)],
    /// What must be so afterwards.
    pub expect: fn(&mut Check<'_>),
}

/// Each of them on each of its kernels.
pub(crate) fn boots(trials: &[Trial]) -> Vec<Boot> {
    let on = |kernel| trials.iter().filter_map(move |trial| trial.boot(kernel));
    NAMES.into_iter().flat_map(on).collect()
}

impl Trial {
    /// One that needs no program, and of which `check` knows all.
    pub(crate) const fn new(
        name: &'static str,
        kernels: &'static [&'static str],
        machine: fn(Vm) -> Vm,
        expect: fn(&mut Check<'_>),
    ) -> Self {
        Trial { name, kernels, programs: &[], machine, unforeseen: &[], expect }
    }

    /// The check of the trial on that kernel; none where it does not run there.
    fn boot(self, kernel: &'static str) -> Option<Boot> {
        self.kernels.contains(&kernel).then(|| Boot {
            name: self.name.to_owned(),
            kernel,
            check: Box::new(move |kernel, program, _answers| self.run(kernel, program).into()),
        })
    }

    fn run(self, kernel: &Kernel, program: &Path) -> Result<(), String> {
        let boot = || {
            let mut machine = (self.machine)(vm(kernel).program(program).asking_first());
            for name in self.programs {
                machine = machine
                    .tool(&format!("/bin/{name}"), guest_program::compile(name, kernel.arch)?);
            }
            machine.boot()
        };
        let run = boot().map_err(|error| format!("{error:#}"))?;
        let mut found = run.log_complaints();
        found.extend(prediction::complaints(&run.executions, |number| {
            let of = self.unforeseen.iter().filter(|(run, ..)| *run == number);
            of.map(|(_, address, unforeseen)| (*address, *unforeseen)).collect()
        }));
        let mut check = Check { run: &run, found };
        (self.expect)(&mut check);
        let found = check.found;
        verdict(run, &found)
    }
}

/// What is wrong with a boot, as far as it is known.
pub(crate) struct Check<'r> {
    run: &'r Run,
    found: Vec<String>,
}

impl Check<'_> {
    /// Adds a sentence about something that is wrong.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.found.push(text.into());
    }

    /// Complains unless it is so.
    pub fn is(&mut self, so: bool, otherwise: impl Into<String>) {
        if !so {
            self.complain(otherwise);
        }
    }

    /// What the step of shell of that number, from 1 on, has printed.
    pub fn shell(&self, number: usize) -> String {
        self.run.shells.get(number - 1).cloned().unwrap_or_default()
    }

    /// The run of that number, from 1 on.
    pub fn of_run(&mut self, number: usize) -> OfRun<'_> {
        let execution = self.run.executions.get(number - 1).cloned().unwrap_or_default();
        let lines = self.run.log_of(number).into_iter().map(|record| record.text.clone());
        let lines = lines.chain(execution.stderr.lines().map(str::to_owned)).collect();
        OfRun { number, lines, execution, run: self.run, found: &mut self.found }
    }
}

/// What is expected of one run.
pub(crate) struct OfRun<'c> {
    number: usize,
    execution: Execution,
    /// What it logged, and its standard error.
    lines: Vec<String>,
    run: &'c Run,
    found: &'c mut Vec<String>,
}

impl OfRun<'_> {
    fn complain(&mut self, text: &str) {
        self.found.push(format!("run {}: {text}", self.number));
    }

    /// Its exit status.
    pub fn exits(mut self, status: i32) -> Self {
        if self.execution.status != status {
            let found = self.execution.status;
            self.complain(&format!("the exit status is {found}, expected {status}"));
        }
        self
    }

    /// A line with all these texts is in its log or its standard error.
    pub fn says(mut self, texts: &[&str]) -> Self {
        if !self.lines.iter().any(|line| texts.iter().all(|text| line.contains(text))) {
            self.complain(&format!("no line has {texts:?}; there are\n  {}", self.all()));
        }
        self
    }

    /// No line of its log or its standard error has that text.
    pub fn says_nothing_of(mut self, text: &str) -> Self {
        if let Some(line) = self.lines.iter().find(|line| line.contains(text)) {
            let complaint = format!("it says {text:?}: {line}");
            self.complain(&complaint);
        }
        self
    }

    /// That is on its standard output.
    pub fn prints(mut self, text: &str) -> Self {
        if !self.execution.stdout.contains(text) {
            let found = self.execution.stdout.clone();
            self.complain(&format!("it does not print {text:?} but {found:?}"));
        }
        self
    }

    /// That is not on its standard output.
    pub fn prints_no(mut self, text: &str) -> Self {
        if self.execution.stdout.contains(text) {
            let found = self.execution.stdout.clone();
            self.complain(&format!("it prints {text:?}: {found:?}"));
        }
        self
    }

    fn all(&self) -> String {
        self.lines.join("\n  ")
    }

    /// The report has the device with that outcome, and the texts in its reason or remedy; the log
    /// has a line of it. A bound device is on vfio-pci.
    pub fn device(mut self, address: &str, outcome: &str, texts: &[&str]) -> Self {
        let devices = self.execution.report["devices"].as_array().cloned().unwrap_or_default();
        let Some(entry) = devices.iter().find(|entry| entry["address"] == address) else {
            self.complain(&format!("{address} is not in the report"));
            return self;
        };
        if entry["outcome"] != outcome {
            self.complain(&format!(
                "{address} is {}, expected {outcome}: {} {}",
                entry["outcome"], entry["reason"], entry["remedy"]
            ));
        }
        let said = ["reason", "remedy"].map(|field| entry[field].as_str().unwrap_or_default());
        for text in texts.iter().filter(|text| !said.join("\n").contains(**text)) {
            self.complain(&format!("{address}: neither reason nor remedy says {text:?}: {said:?}"));
        }
        if outcome != "bound" && (said[0].is_empty() || said[1].is_empty()) {
            self.complain(&format!("{address}: {outcome} without a reason or a remedy"));
        }
        let word = if outcome == "bound" { "bound to" } else { outcome };
        let this = self.says(&[address, word]);
        if outcome == "bound" { this.driver(address, Some("vfio-pci")) } else { this }
    }

    /// The driver of a device right after this run.
    pub fn driver(mut self, address: &str, driver: Option<&str>) -> Self {
        let found = self.run.moments.get(&format!("after {}", self.number));
        let found = found.and_then(|moment| moment.driver(address));
        if found != driver {
            self.complain(&format!("{address} is on {found:?}, expected {driver:?}"));
        }
        self
    }

    /// The override of a device right after this run.
    pub fn override_of(mut self, address: &str, wanted: Option<&str>) -> Self {
        let found = self.run.moments.get(&format!("after {}", self.number));
        let found =
            found.and_then(|moment| moment.devices.get(address)?.driver_override.as_deref());
        if found != wanted {
            self.complain(&format!("the override of {address} is {found:?}, expected {wanted:?}"));
        }
        self
    }

    /// By its own account it took no longer than it promises.
    pub fn takes_at_most(mut self, seconds: u64) -> Self {
        let found = self.execution.report["elapsed_us"].as_u64();
        if found.is_none_or(|found| found > seconds * 1_000_000) {
            self.complain(&format!("it took {found:?} us, expected at most {seconds} s"));
        }
        self
    }

    /// The program neither panicked nor was killed, said something, and told the truth: its exit
    /// status is 0 just where the device is bound.
    pub fn tells_the_truth_about(mut self, address: &str) -> Self {
        let status = self.execution.status;
        if !matches!(status, 0 | 1) {
            self.complain(&format!("the exit status is {status}\n  {}", self.all()));
        }
        if self.lines.is_empty() {
            self.complain("it says nothing");
        }
        if let Some(line) = self.lines.iter().find(|line| line.contains("panicked")) {
            let text = format!("it panicked: {line}");
            self.complain(&text);
        }
        let expected = (status == 0).then_some("vfio-pci");
        self.driver(address, expected)
    }
}
