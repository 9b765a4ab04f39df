//! Commands that are run on the way, and what the user sees of them.
//!
//! Everything goes to standard error: standard output belongs to the answer.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Says what is being done, in one line.
pub fn say(text: impl Display) {
    eprintln!("setup: {text}");
}

/// Runs a command whose output matters only when it fails; returns its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has the command and all that it said.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", typed(command)))?;
    succeeded(command, &output)?;
    Ok(output.stdout)
}

/// Runs a command that shows its own progress: on a terminal as it comes, else only when it fails.
///
/// # Errors
/// As [`run`].
pub fn run_with_progress(command: &mut Command) -> Result<()> {
    if !stderr().is_terminal() {
        return run(command).map(drop);
    }
    let status = command
        .stdin(Stdio::null())
        .stdout(stderr())
        .status()
        .with_context(|| format!("cannot run `{}`", typed(command)))?;
    // What it said is on the terminal already.
    succeeded(command, &Output { status, stdout: Vec::new(), stderr: Vec::new() })
}

/// The command as one would type it.
#[must_use]
pub fn typed(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    joined(words.iter().map(|word| &**word))
}

/// Words as a shell takes them.
pub(crate) fn joined<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./,:+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn succeeded(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said += &String::from_utf8_lossy(&output.stderr);
    bail!("`{}` failed ({})\n{}", typed(command), output.status, said.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("apt-get");
        command.args(["download", "linux-image=6.1.192-2", "", "it's $HOME"]);
        assert_eq!(typed(&command), r"apt-get download linux-image=6.1.192-2 '' 'it'\''s $HOME'");
    }

    #[test]
    fn a_failed_command_tells_all_that_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = run(&mut command).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.ends_with("one\ntwo"), "{error}");
    }
}
