//! What is installed or run as a shell script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::supplies::binary::workspace;

pub(super) fn scripts() -> Result<Vec<String>> {
    let mut scripts = Vec::new();
    for folder in ["initrd", "packaging"] {
        find(&workspace().join(folder), &mut scripts)?;
    }
    let mut complaints = shellcheck(&[], &scripts)?;
    // makepkg reads variables of the recipe, sets others, and stops at the first error.
    let recipe = ["--shell=bash", "--exclude=SC2034,SC2154,SC2164"];
    let files = ["PKGBUILD", "vfio-early.install"];
    let files = files.map(|name| workspace().join("packaging/arch").join(name));
    complaints.extend(shellcheck(&recipe, &files)?);
    Ok(complaints)
}

/// Those that say so in their first line.
fn find(folder: &Path, scripts: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, scripts)?;
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("no {}", path.display()))?;
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if first.starts_with(b"#!") && first.ends_with(b"sh") {
            scripts.push(path);
        }
    }
    Ok(())
}

fn shellcheck(words: &[&str], files: &[PathBuf]) -> Result<Vec<String>> {
    let output = Command::new("shellcheck")
        // Busybox' ash is checked as dash, which it is nearest to.
        .args(["--exclude=SC2187", "--format=gcc"])
        .args(words)
        .args(files)
        .stdin(Stdio::null())
        .output()
        .context("cannot run shellcheck")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let mut complaints: Vec<String> = said.lines().map(str::to_owned).collect();
    if !output.status.success() && complaints.is_empty() {
        complaints.push(format!("shellcheck ended with {}", output.status));
    }
    Ok(complaints)
}
