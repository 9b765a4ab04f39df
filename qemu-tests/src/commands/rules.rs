//! `cargo xtask rules`: real kernels are asked what the fake one claims of them.

use anyhow::Result;

use crate::checks::rules::record::{Record, path};
use crate::checks::rules::rule::Rule;
use crate::checks::rules::{ask, chapters, page};
use crate::supplies::{kernels, packages, step};

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

/// Rules with one of these texts in their name or their chapter's; all where there is no text.
fn wanted(filters: &[String]) -> Vec<Rule> {
    let chapters = chapters().into_iter();
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
            if arguments.write { page::write(&record) } else { Ok(()) }
        })?;
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    Ok(arguments.write || complaints.is_empty())
}
