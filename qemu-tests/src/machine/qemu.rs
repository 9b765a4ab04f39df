//! The QEMU process: started, listened to, ended.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::machine::keyboard;
use crate::machine::qmp::Qmp;
use crate::supplies::arch::Arch;
use crate::supplies::step;

/// QEMU's program.
fn program(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-system-x86_64",
        Arch::Arm64 => "qemu-system-aarch64",
    }
}

/// What is done with a machine while it runs.
pub(crate) struct Orders {
    /// Properties of devices to plug in as soon as the binary says that it is waiting.
    pub hot_added: Vec<Vec<(String, String)>>,
    /// Socket of the monitor.
    pub monitor: PathBuf,
    /// What the guest may ask for; none where it does not.
    pub asked: Option<Asked>,
    /// Time until the machine is taken for hung.
    pub limit: Duration,
}

/// What a guest asks for: pictures of its displays, and keys.
pub(crate) struct Asked {
    /// Socket of the serial port on which the guest asks, and waits for it.
    pub port: PathBuf,
    /// QEMU's ids of the graphics devices.
    pub displays: Vec<String>,
    /// Gets `NAME.DISPLAY.png`.
    pub folder: PathBuf,
}

/// A machine that has stopped.
pub(crate) struct Ended {
    pub console: String,
    pub elapsed: Duration,
    /// Why it did not stop by itself, or not well.
    pub problem: Option<String>,
}

/// Whether KVM works here for x86: `/dev/kvm` is there on machines that cannot run guests on it, too.
pub(crate) fn kvm_is_usable() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = flags
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    capable && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The PCI device id of QEMU's `amd-iommu`, which it is asked for; none where it has none.
pub(crate) fn id_of_amd_iommu() -> Option<u16> {
    static ID: OnceLock<Option<u16>> = OnceLock::new();
    *ID.get_or_init(|| {
        let quiet = ["-S", "-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none"];
        let mut child = Command::new(program(Arch::Amd64))
            .args(quiet)
            .args(["-device", "amd-iommu", "-monitor", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(b"info pci\nquit\n").ok()?;
        let said = child.wait_with_output().ok()?.stdout;
        id_in(&String::from_utf8_lossy(&said)).filter(|id| *id != PLACE_OF_AMD_IOMMU)
    })
}

/// What it says for an id in the slot that it has there.
const PLACE_OF_AMD_IOMMU: u16 = 1 << 3;

/// The device id of the only device of AMD that `info pci` lists.
fn id_in(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("PCI device 1022:")?;
    u16::from_str_radix(rest.get(..4)?, 16).ok()
}

/// The command for a shell.
pub(crate) fn to_paste(arch: Arch, arguments: &[String]) -> String {
    step::joined([program(arch)].into_iter().chain(arguments.iter().map(String::as_str)))
}

/// Runs QEMU until the guest powers off or its time is over.
///
/// # Errors
/// When QEMU cannot be started or asked.
pub(crate) fn run(arch: Arch, arguments: &[String], orders: &Orders) -> Result<Ended> {
    let (start, program) = (Instant::now(), program(arch));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}: `cargo xtask setup` installs it"))?;
    let (sender, events) = mpsc::channel();
    listen(child.stdout.take().context("QEMU's output is a pipe")?, sender.clone());
    if let Some(asked) = &orders.asked {
        listen_to_questions(asked.port.clone(), sender);
    }
    let mut stderr = child.stderr.take().context("QEMU's errors are a pipe")?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        // What is no text is of no use in a message either.
        let _ = stderr.read_to_string(&mut text);
        text
    });

    let followed = follow(&events, orders, start);
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

/// What a running machine says.
enum Event {
    /// A line of the console, without carriage returns.
    Line(String),
    /// The console is closed.
    Closed,
    /// The guest asks that, and waits for a line on this port.
    Asks(String, UnixStream),
}

fn listen(stdout: impl Read + Send + 'static, sender: Sender<Event>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).replace(['\r', '\n'], "");
            line.clear();
            if sender.send(Event::Line(text)).is_err() {
                return;
            }
        }
        // Nobody listens any more where this fails.
        let _ = sender.send(Event::Closed);
    });
}

/// Ends by itself: when QEMU does not make the port, and when it closes it.
fn listen_to_questions(port: PathBuf, sender: Sender<Event>) {
    thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(&port) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
                Err(_) => return,
            }
        };
        let Ok(reader) = stream.try_clone() else { return };
        for line in BufReader::new(reader).lines() {
            let (Ok(text), Ok(answer)) = (line, stream.try_clone()) else { return };
            if sender.send(Event::Asks(text, answer)).is_err() {
                return;
            }
        }
    });
}

struct Followed {
    console: String,
    problem: Option<String>,
}

fn follow(events: &Receiver<Event>, orders: &Orders, start: Instant) -> Followed {
    let mut console = String::new();
    let mut plugged = orders.hot_added.is_empty();
    let limit = orders.limit;
    let problem = loop {
        match events.recv_timeout((start + limit).saturating_duration_since(Instant::now())) {
            Ok(Event::Line(line)) => {
                console.push_str(&line);
                console.push('\n');
                if !plugged && line.contains("vfio-early") && line.contains("waiting for") {
                    plugged = true;
                    if let Err(error) = plug_all(orders) {
                        break Some(format!("{error:#}"));
                    }
                }
            }
            Ok(Event::Asks(text, mut answer)) => {
                let done = obey(orders, text.trim_end_matches('\r'));
                if let Err(error) = done.and_then(|()| Ok(answer.write_all(b"\n")?)) {
                    break Some(format!("{error:#}"));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("it had not powered off after {} s", limit.as_secs()));
            }
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    Followed { console, problem }
}

/// Plugs in what is to come when the binary waits.
fn plug_all(orders: &Orders) -> Result<()> {
    let mut monitor = Qmp::connect(&orders.monitor)?;
    orders
        .hot_added
        .iter()
        .try_for_each(|properties| plug(&mut monitor, properties.iter().cloned()))
}

fn plug(monitor: &mut Qmp, properties: impl IntoIterator<Item = (String, String)>) -> Result<()> {
    let properties = properties.into_iter().map(|(name, value)| (name, Value::String(value)));
    let arguments = Value::Object(properties.collect::<Map<_, _>>());
    monitor.execute("device_add", &arguments).map(drop)
}

/// Types, plugs a device in, or takes a picture of every display.
fn obey(orders: &Orders, text: &str) -> Result<()> {
    if let Some(text) = text.strip_prefix("type ") {
        return keyboard::type_text(&mut Qmp::connect(&orders.monitor)?, text);
    }
    if let Some(text) = text.strip_prefix("enter ") {
        return keyboard::type_text(&mut Qmp::connect(&orders.monitor)?, &format!("{text}\n"));
    }
    if let Some(properties) = text.strip_prefix("plug:") {
        let properties = properties.split(',').filter_map(|property| property.split_once('='));
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        return plug(&mut Qmp::connect(&orders.monitor)?, properties);
    }
    take_pictures(orders, text)
}

fn take_pictures(orders: &Orders, name: &str) -> Result<()> {
    let asked = orders.asked.as_ref().context("no picture can be taken")?;
    let mut monitor = Qmp::connect(&orders.monitor)?;
    for display in &asked.displays {
        let file = asked.folder.join(format!("{name}.{display}.png"));
        let arguments = json!({ "device": display, "filename": file, "format": "png" });
        monitor.execute("screendump", &arguments)?;
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
    fn the_id_of_amds_iommu_is_read_where_qemu_lists_it() {
        let host = "  Bus  0, device   0, function 0:\n    Host bridge: PCI device 8086:29c0\n";
        let listed = |id| format!("{host}    Class 2054: PCI device 1022:{id}\n      id \"\"\n");
        assert_eq!(id_in(&listed("1419")), Some(0x1419));
        assert_eq!(id_in(&listed("0008")), Some(PLACE_OF_AMD_IOMMU));
        assert_eq!(id_in(host), None);
        assert_eq!(id_in("PCI device 1022:14"), None);
    }

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let arguments = ["-append", "vfio.devs=\"01:00.0 it's\"", ""].map(str::to_owned);
        assert_eq!(
            to_paste(Arch::Amd64, &arguments),
            r#"qemu-system-x86_64 -append 'vfio.devs="01:00.0 it'\''s"' ''"#
        );
    }
}
