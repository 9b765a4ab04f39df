//! What real kernels answered, kept in `docs/kernel-rules.json`; and `cargo xtask rules`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Rule, ask, page};
use crate::{binary, kernels, packages, step};

/// What makes the record anew.
const MEND: &str = "`cargo xtask rules --write` keeps the kernels' answers anew";

/// A rule's name to the answers to its steps.
pub type Answers = BTreeMap<String, Vec<String>>;

/// What one kernel answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfKernel {
    /// Debian's version of its package.
    pub version: String,
    /// To every rule that it was asked.
    pub answers: Answers,
}

/// What all kernels answered, by their names in [`kernels::NAMES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record(pub BTreeMap<String, OfKernel>);

/// Arguments of `cargo xtask rules`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ask only this kernel (may be repeated); nixos is asked when it is set up or named
    #[arg(long = "kernel", value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernels: Vec<String>,
    /// Keep the answers in docs/kernel-rules.json and docs/kernel-rules.md
    #[arg(long)]
    pub write: bool,
}

fn path(name: &str) -> PathBuf {
    binary::workspace().join("docs").join(name)
}

fn read(name: &str) -> Result<String> {
    let path = path(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}: {MEND}", path.display()))
}

impl Record {
    /// The one that is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read() -> Result<Self> {
        let text = read("kernel-rules.json")?;
        serde_json::from_str(&text).context("docs/kernel-rules.json is not as it is written")
    }

    /// Keeps it, and the page that it makes.
    fn write(&self) -> Result<()> {
        fs::write(path("kernel-rules.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(path("kernel-rules.md"), page::of(self))?;
        Ok(())
    }

    /// What that kernel answered to a rule.
    #[must_use]
    pub fn answers(&self, rule: &Rule, kernel: &str) -> Option<&[String]> {
        self.0.get(kernel)?.answers.get(rule.name).map(Vec::as_slice)
    }

    /// Where `who` answers otherwise than that kernel did, one sentence each.
    #[must_use]
    pub fn complaints(
        &self,
        rule: &Rule,
        kernel: &str,
        who: &str,
        found: &[String],
    ) -> Vec<String> {
        let name = rule.name;
        match self.answers(rule, kernel) {
            Some(kept) if kept.len() == rule.steps.len() => {
                let steps = rule.steps.iter().zip(kept).zip(found).enumerate();
                let differing = steps.filter(|(_, ((_, kept), found))| kept != found);
                let sentence = |(number, ((step, kept), found)): (
                    usize,
                    ((&super::Step, _), _),
                )| {
                    let (number, step): (usize, _) = (number + 1, &step.op);
                    format!(
                        "{name}, step {number} ({step}): Linux {kernel} answered {kept:?}, {who} \
                         {found:?}"
                    )
                };
                differing.map(sentence).collect()
            }
            _ => vec![format!("{name}: Linux {kernel} was not asked these steps: {MEND}")],
        }
    }
}

/// Asks, says where the answers are not as they were kept, and keeps them where that is wanted;
/// whether all is well then.
///
/// # Errors
/// When a kernel cannot be asked, or the record cannot be read or written.
pub fn run(arguments: &Arguments) -> Result<bool> {
    packages::ensure(packages::BOOT)?;
    let mut record =
        if path("kernel-rules.json").exists() { Record::read()? } else { Record::default() };
    let rules = super::all();
    let mut complaints = Vec::new();
    for name in ask::wanted(&arguments.kernels) {
        let kernel = kernels::set_up(name)?;
        step::say(format_args!("asking Linux {name} ({})", kernel.package_version));
        let answers = ask::ask_all(&kernel)?;
        for rule in rules.iter().filter(|rule| rule.is_asked_on(name)) {
            complaints.extend(record.complaints(rule, name, "now", &answers[rule.name]));
        }
        let version = kernel.package_version;
        record.0.insert(name.to_owned(), OfKernel { version, answers });
        // Of each kernel at once: the next one may fail.
        if arguments.write {
            record.write()?;
        }
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    Ok(arguments.write || complaints.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_the_record_has() {
        let record = Record::read().unwrap();
        assert_eq!(read("kernel-rules.md").unwrap(), page::of(&record), "{MEND}");
    }

    #[test]
    fn every_kernel_of_debian_was_asked_every_rule_and_no_other() {
        let record = Record::read().unwrap();
        for line in kernels::LINES {
            let names: Vec<_> = record.0[line].answers.keys().map(String::as_str).collect();
            let mut expected: Vec<_> = super::super::all()
                .iter()
                .filter(|rule| rule.is_asked_on(line))
                .map(|rule| rule.name)
                .collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{line}: {MEND}");
        }
    }
}
