//! The QEMU process: started, listened to, ended.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::qmp::Qmp;

/// QEMU's program.
const PROGRAM: &str = "qemu-system-x86_64";

/// What is done with a machine while it runs.
pub(crate) struct Orders {
    /// Properties of devices to plug in as soon as the binary says that it is waiting.
    pub hot_added: Vec<Vec<(String, String)>>,
    /// Socket of the monitor.
    pub monitor: PathBuf,
    /// Time until the machine is taken for hung.
    pub limit: Duration,
}

/// A machine that has stopped.
pub(crate) struct Ended {
    pub console: String,
    pub elapsed: Duration,
    /// Why it did not stop by itself, or not well.
    pub problem: Option<String>,
}

/// Whether KVM works here: `/dev/kvm` is there on machines that cannot run guests on it, too.
pub(crate) fn kvm_is_usable() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = flags
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    capable && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The command for a shell.
pub(crate) fn to_paste(arguments: &[String]) -> String {
    let words = arguments.iter().map(|argument| quoted(argument));
    [PROGRAM.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs QEMU until the guest powers off or its time is over.
///
/// # Errors
/// When QEMU cannot be started or asked.
pub(crate) fn run(arguments: &[String], orders: &Orders) -> Result<Ended> {
    let start = Instant::now();
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {PROGRAM}: `cargo xtask setup` installs it"))?;
    let lines = listen(child.stdout.take().context("QEMU's output is a pipe")?);
    let mut stderr = child.stderr.take().context("QEMU's errors are a pipe")?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        // What is no text is of no use in a message either.
        let _ = stderr.read_to_string(&mut text);
        text
    });

    let followed = follow(&lines, orders, start);
    let mut problem = match followed.problem {
        Some(problem) => {
            child.kill().context("cannot end QEMU")?;
            Some(problem)
        }
        None => None,
    };
    let status = wait(&mut child, start + orders.limit)?;
    let errors = errors.join().unwrap_or_default();
    if problem.is_none() && !status.is_some_and(|status| status.success()) {
        problem = Some(match status {
            Some(status) => format!("QEMU ended with {status}"),
            None => "QEMU closed its console but did not end".to_owned(),
        });
    }
    if let Some(problem) = &mut problem
        && !errors.trim().is_empty()
    {
        *problem = format!("{problem}; QEMU says: {}", errors.trim());
    }
    Ok(Ended { console: followed.console, elapsed: start.elapsed(), problem })
}

/// Lines of the console as they come, without carriage returns.
fn listen(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).replace(['\r', '\n'], "");
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    lines
}

struct Followed {
    console: String,
    problem: Option<String>,
}

fn follow(lines: &Receiver<String>, orders: &Orders, start: Instant) -> Followed {
    let mut console = String::new();
    let mut plugged = orders.hot_added.is_empty();
    let limit = orders.limit;
    let problem = loop {
        match lines.recv_timeout((start + limit).saturating_duration_since(Instant::now())) {
            Ok(line) => {
                console.push_str(&line);
                console.push('\n');
                if !plugged && line.contains("vfio-early") && line.contains("waiting for") {
                    plugged = true;
                    if let Err(error) = plug(orders) {
                        break Some(format!("{error:#}"));
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("it had not powered off after {} s", limit.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    Followed { console, problem }
}

fn plug(orders: &Orders) -> Result<()> {
    let mut monitor = Qmp::connect(&orders.monitor)?;
    for properties in &orders.hot_added {
        let arguments: Map<String, Value> = properties
            .iter()
            .map(|(key, value)| (key.clone(), Value::String(value.clone())))
            .collect();
        monitor.execute("device_add", &Value::Object(arguments))?;
    }
    Ok(())
}

/// Waits for the end; none when there is none before the deadline, and then it is killed.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    // Its console is closed, so that this takes a moment at most.
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait().map(Some).context("cannot wait for QEMU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let arguments = ["-append", "vfio.devs=\"01:00.0 it's\"", ""].map(str::to_owned);
        assert_eq!(
            to_paste(&arguments),
            r#"qemu-system-x86_64 -append 'vfio.devs="01:00.0 it'\''s"' ''"#
        );
    }
}
