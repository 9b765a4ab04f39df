//! What real kernels answered, kept in `docs/kernel-rules.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::rule::{Rule, Step};
use crate::supplies::binary;
use crate::supplies::kernels::Kernel;

/// What makes the record anew.
pub(super) const MEND: &str = "`cargo xtask rules --write` keeps the kernels' answers anew";

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

/// What all kernels answered, by their names in [`NAMES`](crate::supplies::kernels::NAMES).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record(pub BTreeMap<String, OfKernel>);

/// The file of that name in `docs`.
pub(crate) fn path(name: &str) -> PathBuf {
    binary::workspace().join("docs").join(name)
}

pub(super) fn read(name: &str) -> Result<String> {
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
    pub(crate) fn note(&mut self, kernel: &Kernel, answers: Answers) {
        let of_kernel = self.0.entry(kernel.line.clone()).or_default();
        of_kernel.version.clone_from(&kernel.package_version);
        of_kernel.answers.extend(answers);
        let rules = super::all();
        let is_asked = |name: &str| {
            rules.iter().any(|rule| rule.name == name && rule.is_asked_on(&kernel.line))
        };
        of_kernel.answers.retain(|name, _| is_asked(name));
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
                let sentence = |(number, ((step, kept), found)): (usize, ((&Step, _), _))| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::rules::rule::rule;
    use crate::supplies::kernels::LINES;

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
    fn every_kernel_of_debian_was_asked_every_rule_and_no_other() {
        let record = Record::read().unwrap();
        for line in LINES {
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
