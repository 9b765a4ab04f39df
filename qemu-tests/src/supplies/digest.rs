//! SHA-256 of files, by which inputs and results are told from others.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::step;

/// The file's SHA-256, as 64 hex digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    // From standard input: a name with a backslash would be escaped in the answer.
    let said = step::run(Command::new("sh").args(["-euc", "sha256sum <\"$1\"", "sh"]).arg(file))?;
    let said = String::from_utf8(said)?;
    said.split_whitespace()
        .next()
        .map(str::to_owned)
        .with_context(|| format!("sha256sum says nothing of {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_files_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a\\b c");
        std::fs::write(&file, "abc").unwrap();
        assert_eq!(
            sha256(&file).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        sha256(&folder.path().join("none")).unwrap_err();
    }
}
