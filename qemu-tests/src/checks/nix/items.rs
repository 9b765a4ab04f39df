//! The grammar of `vfio.devs=` items, in the module and in the binary: the same verdicts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use super::evaluation::Nix;
use crate::supplies::binary::workspace;

const TABLE: &str = "initrd/nixos/tests/items.json";

/// What stands in the table.
#[derive(Deserialize)]
struct Table {
    items: Vec<String>,
    others: Vec<String>,
}

/// Holds the module's and the binary's verdicts on the table, and on thousands of texts that are
/// nearly such items, against each other.
///
/// # Errors
/// When one of them gives no verdict.
pub fn problems(nix: &Nix, program: &Path) -> Result<Vec<String>> {
    let table = fs::read_to_string(workspace().join(TABLE)).context(TABLE)?;
    let table: Table = serde_json::from_str(&table).context(TABLE)?;
    let written: Vec<&String> = table.items.iter().chain(&table.others).collect();
    let mut texts: BTreeSet<String> = written.iter().map(|text| (*text).clone()).collect();
    texts.extend(written.iter().flat_map(|text| neighbours(text)));
    let texts: Vec<String> = texts.into_iter().collect();

    let answer = nix.evaluate_with("tests.areItems input", &json!(texts))?;
    let by_module: Vec<bool> = serde_json::from_value(answer).context("no verdicts")?;
    let by_binary = verdicts(program, &texts)?;
    let mut problems: Vec<String> = texts
        .iter()
        .zip(by_module.iter().zip(&by_binary))
        .filter(|(_, (module, binary))| module != binary)
        .map(|(text, (module, binary))| {
            format!("item {text:?}: {module} for the module, {binary} for the binary")
        })
        .collect();
    for (wanted, list) in [(true, &table.items), (false, &table.others)] {
        for text in list {
            let index = texts.binary_search(text).ok().context("a text of the table is lost")?;
            if by_binary[index] != wanted {
                problems.push(format!("{TABLE} says {wanted} for {text:?}, the binary not"));
            }
        }
    }
    Ok(problems)
}

/// Texts that differ by one character; none that has a separator of the list.
fn neighbours(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    for index in 0..=characters.len() {
        let (before, after) = characters.split_at(index);
        let join = |middle: Option<char>, after: &[char]| {
            before.iter().chain(&middle).chain(after).collect::<String>()
        };
        for character in "0178fFgG:./*@p".chars() {
            found.push(join(Some(character), after));
            if let Some((_, rest)) = after.split_first() {
                found.push(join(Some(character), rest));
            }
        }
        if let Some((_, rest)) = after.split_first() {
            found.push(join(None, rest));
        }
    }
    found.retain(|text| !text.is_empty());
    found
}

/// Whether the binary takes each for an item, on a machine without devices.
fn verdicts(program: &Path, texts: &[String]) -> Result<Vec<bool>> {
    let root = tempfile::tempdir()?;
    for folder in ["proc", "sys/bus/pci/devices"] {
        fs::create_dir_all(root.path().join(folder))?;
    }
    let mut verdicts = Vec::new();
    // An argument can have 128 KiB.
    for texts in texts.chunks(2000) {
        let output = Command::new(program)
            .args(["--dry-run", "--cmdline", &format!("vfio.devs={}", texts.join(","))])
            .arg("--root")
            .arg(root.path())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1),
            "{} has {}:\n{said}",
            program.display(),
            output.status
        );
        let rejected: BTreeSet<&str> = said
            .lines()
            .filter_map(|line| line.split_once('"')?.1.rsplit_once("; write an address as "))
            .filter_map(|(line, _)| Some(line.split_once("\": ")?.0))
            .collect();
        verdicts.extend(texts.iter().map(|text| {
            let quoted = format!("{text:?}");
            !rejected.contains(quoted.trim_matches('"'))
        }));
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ_by_one_character() {
        let found = neighbours("1:");
        for text in ["1", ":", "01:", "1::", "1:0", "g:", "1*"] {
            assert!(found.iter().any(|other| other == text), "{text}");
        }
        assert!(!found.iter().any(|text| text.contains(',') || text.contains(' ')));
    }
}
