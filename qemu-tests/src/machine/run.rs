//! What a virtual machine did, from power-on to power-off.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::moment::Moment;
use super::observed::{Execution, HOST, Observed, Prediction, Record};
use super::{profiles, topology};

/// A boot that came to its end.
#[derive(Debug)]
pub struct Run {
    /// Kernel line and release.
    pub kernel: String,
    /// Name of the moment to every device.
    pub moments: BTreeMap<String, Moment>,
    /// Every run of the program, in order.
    pub executions: Vec<Execution>,
    /// What each shell step printed, in order.
    pub shells: Vec<String>,
    /// `MODULE/parameters/NAME` of every module `vfio*` to its value.
    pub parameters: BTreeMap<String, String>,
    /// The guest's `/proc/cmdline`.
    pub command_line: String,
    /// The kernel's log.
    pub log: Vec<Record>,
    /// What the guest printed on its console.
    pub console: String,
    /// From QEMU's start to its end.
    pub elapsed: Duration,
    /// QEMU's command, to paste into a shell while the folder is there.
    pub command: String,
    /// Holds the initrd.
    pub(crate) folder: TempDir,
}

impl Run {
    /// Sorts out what the guest sent over its second serial port.
    ///
    /// # Errors
    /// When the guest did not come to its end, or could not do a step.
    pub(crate) fn read(&mut self, results: &str) -> Result<()> {
        let mut ended = false;
        let mut prediction = None;
        for section in format!("\n{results}").split("\n@@ ").skip(1) {
            let (name, body) = section.split_once('\n').unwrap_or((section, ""));
            let (kind, rest) = name.rsplit_once(' ').unwrap_or((name, ""));
            match (kind, rest) {
                ("end", "") => ended = true,
                ("problem", "") => bail!("the guest could not do a step: {}", body.trim()),
                ("profiles", "") => profiles::keep(body)?,
                ("parameters", "") => self.parameters = parameters(body),
                ("command", "line") => body.trim_end().clone_into(&mut self.command_line),
                ("kernel", "log") => self.log = body.lines().map(record).collect(),
                ("shell", _) => self.shells.push(body.to_owned()),
                ("check", _) => prediction = Some(Prediction::read(body)?),
                ("exit", _) => {
                    let status = body.trim().parse().context("an exit status is a number")?;
                    let prediction = prediction.take();
                    self.executions.push(Execution { status, prediction, ..Execution::default() });
                }
                ("stdout" | "stderr" | "report mode" | "report", _) => {
                    self.output(kind, body)?;
                }
                _ if name.starts_with("moment ") => {
                    let name = name.trim_start_matches("moment ").to_owned();
                    self.moments.insert(name, Moment::parse(body));
                }
                _ => bail!("the guest sent a section that nobody knows: {name}"),
            }
        }
        if !ended {
            bail!("the guest ended before its last step");
        }
        Ok(())
    }

    fn output(&mut self, kind: &str, body: &str) -> Result<()> {
        let last = self.executions.last_mut().context("output before an exit status")?;
        match kind {
            "stdout" => body.clone_into(&mut last.stdout),
            "stderr" => body.clone_into(&mut last.stderr),
            "report mode" => body.trim().clone_into(&mut last.report_mode),
            _ => {
                last.report = serde_json::from_str(body)
                    .with_context(|| format!("the report is no JSON:\n{body}"))?;
            }
        }
        Ok(())
    }

    /// The last run of the binary.
    ///
    /// # Panics
    /// When none was asked for.
    #[must_use]
    pub fn last(&self) -> &Execution {
        self.executions.last().expect("the binary was run")
    }

    /// The report of the last run.
    #[must_use]
    pub fn report(&self) -> &Value {
        &self.last().report
    }

    /// The devices at that moment, [`BEFORE`](super::observed::BEFORE),
    /// [`AFTER`](super::observed::AFTER) or [`HOST`].
    ///
    /// # Panics
    /// When the guest noted no such moment.
    #[must_use]
    pub fn at(&self, moment: &str) -> &Moment {
        self.moments.get(moment).unwrap_or_else(|| {
            panic!("no moment {moment:?}; there are {:?}", self.moments.keys().collect::<Vec<_>>())
        })
    }

    /// The devices after the binary's last run.
    #[must_use]
    pub fn after_bind(&self) -> &Moment {
        self.at(&format!("after {}", self.executions.len()))
    }

    /// The devices after the host's drivers were loaded.
    #[must_use]
    pub fn after_host_modules(&self) -> &Moment {
        self.at(HOST)
    }

    /// Picture of that name of a display: a PNG file.
    #[must_use]
    pub fn picture(&self, name: &str, display: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{}.png", topology::qemu_id(display)))
    }

    /// Asserts the driver of a device after the binary's last run.
    ///
    /// # Panics
    /// When it has another, with QEMU's command, the console log and the report.
    pub fn assert_driver<'a>(&self, address: &str, wanted: impl Into<Option<&'a str>>) {
        let wanted = wanted.into();
        let found = self.after_bind().driver(address);
        assert!(
            found == wanted,
            "{address} is on {found:?} and not on {wanted:?}\n{}",
            self.details()
        );
    }

    /// What must be in no guest's log: the signs of a broken kernel, and of an option of ours that
    /// reached a module.
    #[must_use]
    pub fn log_complaints(&self) -> Vec<String> {
        let bad = ["unknown parameter", "BUG", "Oops", "Kernel panic", "Call Trace"];
        let texts = self.log.iter().map(|record| record.text.as_str()).chain(self.console.lines());
        let mut found: Vec<String> = texts
            .filter(|line| bad.iter().any(|bad| line.contains(bad)))
            // This option of the kernel has the word in its name.
            .filter(|line| !line.contains("DEBUG"))
            .map(|line| format!("the guest's log says: {line}"))
            .collect();
        found.dedup();
        found
    }

    /// The log as text, one record a line.
    #[must_use]
    pub fn log_text(&self) -> String {
        let lines: Vec<&str> = self.log.iter().map(|record| record.text.as_str()).collect();
        lines.join("\n")
    }

    /// The lines that the binary logged in its runs.
    #[must_use]
    pub fn own_log(&self) -> Vec<&Record> {
        (1..=self.executions.len()).flat_map(|run| self.log_of(run)).collect()
    }

    /// The lines that the binary logged in that run; the first is 1.
    #[must_use]
    pub fn log_of(&self, run: usize) -> Vec<&Record> {
        let is_marker = |record: &&Record| record.text.starts_with("harness: ");
        let marker = format!("harness: run {run}");
        self.log
            .iter()
            .skip_while(|record| record.text != marker)
            .skip(1)
            .take_while(|record| !is_marker(record))
            .filter(|record| record.text.starts_with("vfio-early:"))
            .collect()
    }

    /// What the fake kernel's side has, too.
    #[must_use]
    pub fn observed(&self) -> Observed {
        Observed {
            executions: self.executions.clone(),
            moments: self.moments.clone(),
            parameters: self.parameters.clone(),
            log: self.own_log().into_iter().cloned().collect(),
        }
    }

    /// All that helps to see why a check failed.
    #[must_use]
    pub fn details(&self) -> String {
        let report = self.executions.last().map_or(&Value::Null, |last| &last.report);
        format!(
            "--- console\n{}\n--- report\n{report:#}\n--- exit status and standard error\n{}\n\
             --- QEMU ({})\n{}",
            self.console.trim_end(),
            self.executions
                .iter()
                .map(|run| format!("{} {}", run.status, run.stderr.trim_end()))
                .collect::<Vec<_>>()
                .join("\n"),
            self.kernel,
            self.command
        )
    }

    /// Keeps the folder of the initrd, so that QEMU's command can be pasted.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

fn parameters(body: &str) -> BTreeMap<String, String> {
    body.lines()
        .filter_map(|line| line.strip_prefix("/sys/module/")?.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `<6>[    1.234567] text`; records from user space have their facility in the number.
fn record(line: &str) -> Record {
    let parsed = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let Some((number, rest)) = parsed else {
        return Record { level: 6, text: line.to_owned() };
    };
    let text = rest.split_once("] ").map_or(rest, |(_time, text)| text);
    let level = number.parse::<u32>().map_or(6, |number| number % 8);
    Record { level: u8::try_from(level).unwrap_or(6), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_user_space_keeps_its_level() {
        let record = record("<12>[    2.345678] vfio-early: 0000:00:03.0 8086:10d3: refused");
        assert_eq!(record.level, 4);
        assert_eq!(record.text, "vfio-early: 0000:00:03.0 8086:10d3: refused");
    }
}
