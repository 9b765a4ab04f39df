//! `cargo xtask findings`: what real tools do that nobody would guess, seen once more.
//!
//! The scripts are in `findings/`; CONTRIBUTING.md has their form. They download what they look at, in
//! pinned versions that a mirror may not have any more, so they are no part of the tests.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::supplies::binary::workspace;

/// Arguments of `cargo xtask findings`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only scripts whose name contains one of these texts
    pub filters: Vec<String>,
}

/// Runs them one after the other, and says what each saw; whether all saw what they were written for.
///
/// # Errors
/// When there is none of that name, or one cannot be started.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let wanted = |name: &str| {
        arguments.filters.is_empty() || arguments.filters.iter().any(|text| name.contains(text))
    };
    let scripts: Vec<PathBuf> = scripts(&workspace().join("findings"))?
        .into_iter()
        .filter(|path| wanted(&name(path)))
        .collect();
    ensure!(!scripts.is_empty(), "no finding has {} in its name", arguments.filters.join(" or "));
    let mut changed = Vec::new();
    for script in &scripts {
        let start = Instant::now();
        let output = Command::new("bash")
            .arg(script)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        let is_seen = output.status.success();
        let verdict = if is_seen { "ok" } else { "CHANGED" };
        println!("{verdict} {} ({:.1} s)", name(script), start.elapsed().as_secs_f64());
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).lines().for_each(|line| println!("    {line}"));
        changed.extend((!is_seen).then(|| name(script)));
    }
    for name in &changed {
        println!("changed, or not to be had any more: {name}");
    }
    println!("{} seen again, {} not", scripts.len() - changed.len(), changed.len());
    Ok(changed.is_empty())
}

/// The scripts in that folder, by name; what they source is none.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("sh")) {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}

fn name(script: &Path) -> String {
    script.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_what_was_guessed_and_what_was_seen() {
        let scripts = scripts(&workspace().join("findings")).unwrap();
        assert!(!scripts.is_empty());
        for script in scripts {
            let text = fs::read_to_string(&script).unwrap();
            let mut lines = text.lines();
            assert_eq!(lines.next(), Some("#!/bin/bash"), "{}", script.display());
            // Program, version, and where that is from.
            let title = lines.next().unwrap_or_default();
            let has_version =
                title.starts_with("# ") && title.contains(|c: char| c.is_ascii_digit());
            assert!(has_version, "{}: {title}", script.display());
            for wanted in ["\n# Guessed: ", "\n# Seen: ", "\nunpack ", "expect "] {
                assert!(text.contains(wanted), "{} has no {wanted:?}", script.display());
            }
        }
    }
}
