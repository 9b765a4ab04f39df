//! What real kernels answered, kept in `docs/kernel-rules.json`; and `cargo xtask rules`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Rule, ask, page};
use crate::supplies::kernels::Kernel;
use crate::supplies::{binary, kernels, packages, step};

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
    /// Ask only the rules with one of these texts in their name or their chapter's
    pub filters: Vec<String>,
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

    /// Takes answers up; those to rules that are no more go.
    fn note(&mut self, kernel: &Kernel, answers: Answers) {
        let of_kernel = self.0.entry(kernel.line.clone()).or_default();
        of_kernel.version.clone_from(&kernel.package_version);
        of_kernel.answers.extend(answers);
        let rules = super::all();
        let is_asked = |name: &str| {
            rules.iter().any(|rule| rule.name == name && rule.is_asked_on(&kernel.line))
        };
        of_kernel.answers.retain(|name, _| is_asked(name));
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

/// Rules with one of these texts in their name or their chapter's; all where there is no text.
fn wanted(filters: &[String]) -> Vec<Rule> {
    let chapters = super::chapters().into_iter();
    let rules = chapters.flat_map(|chapter| {
        chapter
            .rules
            .into_iter()
            .map(move |rule| (format!("{}: {}", chapter.name, rule.name), rule))
    });
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|text| name.contains(text));
    rules.filter(|(name, _)| is_wanted(name)).map(|(_, rule)| rule).collect()
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
    let rules = wanted(&arguments.filters);
    let mut complaints = Vec::new();
    for name in ask::wanted(&arguments.kernels) {
        let kernel = kernels::set_up(name)?;
        step::say(format_args!("asking Linux {name} ({})", kernel.package_version));
        ask::ask_all(&kernel, &rules, |answers| {
            for rule in rules.iter().filter(|rule| answers.contains_key(rule.name)) {
                complaints.extend(record.complaints(rule, name, "now", &answers[rule.name]));
            }
            record.note(&kernel, answers);
            // At once: the next boot may fail.
            if arguments.write { record.write() } else { Ok(()) }
        })?;
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    Ok(arguments.write || complaints.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::rules::rule;

    #[test]
    fn another_answer_than_the_one_that_is_kept_is_told_with_its_rule_and_step() {
        let rule = rule("a rule").console().exists("proc/a");
        let kept = ["fb0", "no"].map(str::to_owned).to_vec();
        let answers = [("a rule".to_owned(), kept.clone())].into();
        let of_kernel = OfKernel { version: String::new(), answers };
        let record = Record([("6.1".to_owned(), of_kernel)].into());
        let complaints =
            |kernel: &str, found: &[String]| record.complaints(&rule, kernel, "this one", found);
        assert_eq!(complaints("6.1", &kept), [""; 0]);
        let found = ["fb0", "yes"].map(str::to_owned);
        let expected = "a rule, step 2 (is there `proc/a`?): Linux 6.1 answered \"no\", this one \
                        \"yes\"";
        assert_eq!(complaints("6.1", &found), [expected]);
        assert!(complaints("6.12", &found)[0].contains("was not asked"));
    }

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
            let mut expected: Vec<_> = crate::checks::rules::all()
                .iter()
                .filter(|rule| rule.is_asked_on(line))
                .map(|rule| rule.name)
                .collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{line}: {MEND}");
        }
    }
}
