//! `docs/kernel-rules.md`: the record for readers.

use std::fmt::Write;
use std::fs;

use anyhow::Result;

use super::machines::{plain, two_cards};
use super::record::{Record, path};
use super::rule::{Place, Rule};
use super::{Chapter, NOT_ASKED, chapters};
use crate::machine::topology::Topology;
use crate::supplies::kernels::NAMES;

const HEAD: &str = "# What Linux does\n\n\
The tests put a fake kernel behind the binary (`tests/fake`). What that claims of Linux stands here, \
rule by rule, with the answers of real kernels. `cargo xtask rules --write` boots them, asks, and \
writes this page and `kernel-rules.json`; `cargo xtask test rules` boots them and complains of an \
answer that is not as it stands here, and of one in which the fake differs.\n";

const REST: &str = "Where kernels differ, each answer has its kernels before it. An answer of `ok` is \
a write that succeeded; `hangs` is one that sleeps in the kernel and does not come to an end.\n";

/// An answer in a cell; a long row of one letter is counted.
fn quoted(answer: &str) -> String {
    let (row, end) = answer.strip_suffix("\\n").map_or((answer, ""), |row| (row, " and `\\n`"));
    match answer.chars().next() {
        None => "nothing".to_owned(),
        Some(first) if row.len() > 40 && row.chars().all(|c| c == first) => {
            format!("`{first}`, {} times{end}", row.len())
        }
        Some(_) => format!("`{}`", answer.replace('|', "\\|")),
    }
}

/// The answers to a step, each with the kernels that gave it, in their order.
fn by_answer<'r>(
    record: &'r Record,
    rule: &Rule,
    step: usize,
) -> Vec<(&'r str, Vec<&'static str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for kernel in NAMES {
        let Some(answer) = record.answers(rule, kernel).and_then(|all| all.get(step)) else {
            continue;
        };
        match found.iter_mut().find(|(other, _)| other == answer) {
            Some((_, kernels)) => kernels.push(kernel),
            None => found.push((answer, vec![kernel])),
        }
    }
    found
}

fn cell(answers: &[(&str, Vec<&str>)]) -> String {
    match answers {
        [(answer, _)] => quoted(answer),
        answers => {
            let part = |(answer, kernels): &(&str, Vec<&str>)| {
                format!("{}: {}", kernels.join(", "), quoted(answer))
            };
            answers.iter().map(part).collect::<Vec<_>>().join("; ")
        }
    }
}

fn machine(text: &mut String, title: &str, topology: &Topology) {
    let _ = write!(text, "\n{title}\n\n| address | |\n| --- | --- |\n");
    for device in &topology.devices {
        let address = topology.address(&device.id).expect("it is one of its devices");
        let _ = writeln!(text, "| {address} | {} |", device.model.title);
    }
}

fn differences(text: &mut String, record: &Record, chapters: &[Chapter]) {
    text.push_str("\n## Where kernels differ\n\n| rule | step | answers |\n| --- | --- | --- |\n");
    for rule in chapters.iter().flat_map(|chapter| &chapter.rules) {
        for (number, step) in rule.steps.iter().enumerate() {
            let answers = by_answer(record, rule, number);
            if answers.len() > 1 {
                let name = if rule.place == Place::Plain {
                    rule.name.to_owned()
                } else {
                    format!("{}, step {}", rule.name, number + 1)
                };
                let _ = writeln!(text, "| {name} | {} | {} |", step.op, cell(&answers));
            }
        }
    }
}

fn exceptions(text: &mut String, chapters: &[Chapter]) {
    text.push_str(
        "\n## Where the fake kernel answers otherwise\n\n| rule | step | because |\n\
         | --- | --- | --- |\n",
    );
    for rule in chapters.iter().flat_map(|chapter| &chapter.rules) {
        for step in &rule.steps {
            if let Some(reason) = step.exception {
                let _ = writeln!(text, "| {} | {} | {reason} |", rule.name, step.op);
            }
        }
    }
    text.push_str("\nNo rule asks for:\n\n");
    for (claim, reason) in NOT_ASKED {
        let _ = writeln!(text, "- {claim}: {reason}.");
    }
}

/// Keeps the record, and the page that it makes.
///
/// # Errors
/// When one of the files cannot be written.
pub(crate) fn write(record: &Record) -> Result<()> {
    fs::write(path("kernel-rules.json"), serde_json::to_string_pretty(record)? + "\n")?;
    fs::write(path("kernel-rules.md"), of(record))?;
    Ok(())
}

/// The page.
fn of(record: &Record) -> String {
    let mut text = HEAD.to_owned();
    let versions = record.0.iter().map(|(name, kernel)| format!("{name} ({})", kernel.version));
    let mut versions: Vec<_> = versions.collect();
    versions
        .sort_by_key(|text| NAMES.iter().position(|name| text.starts_with(&format!("{name} "))));
    let _ = write!(text, "\nAsked were Debian's kernels {}. {REST}", versions.join(", "));
    let chapters = chapters();
    differences(&mut text, record, &chapters);
    exceptions(&mut text, &chapters);
    text.push_str("\n## The machines\n");
    machine(
        &mut text,
        "All rules but those of screens; besides, 0000:41:01.0 is one that the IOMMU does not see:",
        &plain(),
    );
    machine(
        &mut text,
        "Those of screens, with UEFI firmware that draws on the first:",
        &two_cards(),
    );
    for chapter in &chapters {
        let _ = write!(text, "\n## {}\n", chapter.name);
        for rule in &chapter.rules {
            let _ = write!(text, "\n### {}\n\n", rule.name);
            for (kernel, reason) in &rule.not_on {
                let _ = write!(text, "Not asked on {kernel}: {reason}.\n\n");
            }
            text.push_str("| | step | Linux |\n| ---: | --- | --- |\n");
            for (number, step) in rule.steps.iter().enumerate() {
                let answers = cell(&by_answer(record, rule, number));
                let _ = writeln!(text, "| {} | {} | {answers} |", number + 1, step.op);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::rules::record::{MEND, read};

    #[test]
    fn the_page_has_what_the_record_has() {
        let record = Record::read().unwrap();
        assert_eq!(read("kernel-rules.md").unwrap(), of(&record), "{MEND}");
    }
}
