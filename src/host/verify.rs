//! `vfio-early verify`: what a VM monitor does when it starts, up to the step before it touches a
//! device; with `--open`, that one, too.

mod attempt;
mod user;

pub use attempt::{Attempt, Step, live};
pub use user::memory;

use std::fmt;

use nix::errno::Errno;
use serde::Serialize;

use crate::cmdline::Request;
use crate::escape;
use crate::host::list::filter::Filter;
use crate::host::{status, udev};
use crate::pci::{Address, Id};
use crate::plan::is_vfio_driver;
use crate::remedy::Why;
use crate::report::exit_status;
use crate::sysfs::{Machine, Sysfs};
use crate::verdict::Verdict;

/// What is asked for besides devices.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Go on to the device itself, which resets it.
    pub open: bool,
    /// Whether this user could start the VM.
    pub user: Option<String>,
    /// The memory of the VM, in bytes.
    pub memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { open: false, user: None, memory: 1 << 30 }
    }
}

/// The devices that the filters fit; without any, those that the request means, or, where it means none,
/// those that a vfio driver has. And the filters and items that fit none.
#[must_use]
pub fn choose(
    filters: &[Filter],
    request: &Request,
    machine: &Machine,
) -> (Vec<Address>, Vec<String>) {
    let of_request = || request.items.iter().cloned().map(Filter::Item);
    let asked = if filters.is_empty() { of_request().collect() } else { filters.to_vec() };
    let (mut chosen, mut missing) = (Vec::new(), Vec::new());
    for filter in &asked {
        let before = chosen.len();
        filter.choose(machine, &mut chosen);
        if chosen.len() == before {
            missing.push(filter.text().to_owned());
        }
    }
    if filters.is_empty() {
        missing.extend(request.rejected.iter().map(|rejected| rejected.text.clone()));
        if !request.asks_for_devices() {
            let given = machine.devices.keys().copied().filter(|it| is_given(*it, machine));
            chosen = given.collect();
            missing.clear();
        }
    }
    // In address order, each once.
    let is_it = |address: &Address| chosen.contains(address);
    let is_bridge = |address: &Address| machine.devices[address].class.is_pci_bridge();
    let chosen = machine.devices.keys().copied().filter(|it| is_it(it) && !is_bridge(it));
    (chosen.collect(), missing)
}

/// What came of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The request, or the file.
    pub step: String,
    /// As `EPERM`; `None` where it succeeded.
    pub errno: Option<String>,
}

/// What came of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Where it is.
    pub address: Address,
    /// Vendor and device.
    pub id: Id,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The number of its IOMMU group.
    pub group: Option<u32>,
    /// Whether a VM can have it, or has it.
    pub usable: bool,
    /// The process that has its group, which is proof enough.
    pub held_by: Option<String>,
    /// In their order, up to the first that fails.
    pub steps: Vec<Done>,
    /// Why no VM can have it.
    pub obstacles: Vec<Why>,
    /// What the user lacks who is asked about.
    pub lacks: Vec<Why>,
    /// What a VM that gets it has to put up with.
    pub warnings: Vec<String>,
}

/// What `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Of the format: 1.
    pub version: u32,
    /// In the order of their addresses.
    pub devices: Vec<Verified>,
    /// Filters and items that no device here fits.
    pub missing: Vec<String>,
    /// 0 where a VM can have, or has, each; 1 where something is missing or on no vfio driver; else
    /// [`status::UNUSABLE`].
    pub exit_status: u8,
}

/// How a VM gets at a device.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// By the file of its group.
    Group(u32),
    /// By its own file, as `vfio0`.
    Device(String),
    /// By none.
    Nowhere,
}

/// Tries each device that was [chosen](choose), each group once.
pub fn verify(
    (chosen, missing): (Vec<Address>, Vec<String>),
    options: &Options,
    machine: &Machine,
    sysfs: &Sysfs,
    attempt: Attempt<'_>,
) -> Verification {
    let given: Vec<Address> = chosen.iter().copied().filter(|it| is_given(*it, machine)).collect();
    let verdict = status::verdict_of(machine, &given, sysfs);
    let mut devices: Vec<Verified> = Vec::new();
    for address in chosen {
        let Some(device) = machine.devices.get(&address) else { continue };
        let mut verified = Verified {
            address,
            id: device.id,
            driver: device.driver.clone(),
            group: device.group,
            usable: false,
            held_by: None,
            steps: Vec::new(),
            obstacles: Vec::new(),
            lacks: Vec::new(),
            warnings: verdict.warnings(address).collect(),
        };
        let known = || devices.iter().find(|it| it.group == device.group && !it.steps.is_empty());
        if !given.contains(&address) {
            let on = device.driver.as_deref().unwrap_or("no driver");
            let why = Why::new(
                format!("{on} has it"),
                "vfio-early bind gives what vfio.devs= lists to vfio-pci",
            );
            verified.obstacles.push(why);
        } else if let (false, Some(known)) = (options.open, known()) {
            let Verified { held_by, steps, obstacles, lacks, .. } = known.clone();
            verified = Verified { held_by, steps, obstacles, lacks, ..verified };
        } else {
            try_it(&mut verified, options, &verdict, sysfs, attempt);
        }
        verified.usable = verified.obstacles.is_empty() && verified.lacks.is_empty();
        devices.push(verified);
    }
    let is_bound = |it: &Verified| it.driver.as_deref().is_some_and(is_vfio_driver);
    let unmet = devices.is_empty() || !missing.is_empty() || !devices.iter().all(is_bound);
    let is_unusable = devices.iter().any(|device| !device.usable);
    let exit_status =
        if is_unusable && !unmet { status::UNUSABLE } else { exit_status(unmet, false) };
    Verification { version: 1, devices, missing, exit_status }
}

fn is_given(address: Address, machine: &Machine) -> bool {
    let driver = machine.devices.get(&address).and_then(|device| device.driver.as_deref());
    driver.is_some_and(is_vfio_driver)
}

fn way(address: Address, group: Option<u32>, sysfs: &Sysfs) -> Way {
    match (group, sysfs.device_file(address)) {
        (Some(group), _) if sysfs.is_there(format!("dev/vfio/{group}")) => Way::Group(group),
        (_, Some(name)) => Way::Device(name),
        _ => Way::Nowhere,
    }
}

fn try_it(
    verified: &mut Verified,
    options: &Options,
    verdict: &Verdict,
    sysfs: &Sysfs,
    attempt: Attempt<'_>,
) {
    let driver = verified.driver.as_deref().unwrap_or_default();
    let known = verdict.obstacles(verified.group, driver);
    let way = way(verified.address, verified.group, sysfs);
    let (steps, files) = attempt::steps(&way, options.open.then_some(verified.address));
    if way == Way::Nowhere && known.is_empty() {
        verified.obstacles.push(Why::new(
            "neither its group nor the device itself has a file in /dev",
            "devtmpfs makes it: mount that on /dev",
        ));
        return;
    }
    if !steps.is_empty() && udev::is_busy(sysfs) && !udev::settles(sysfs) {
        verified.obstacles.push(Why::new(
            "udev is at work, and what it binds meanwhile would fail",
            "wait for it (udevadm settle), and try again",
        ));
        return;
    }
    let results = attempt(&steps);
    let mut failed = None;
    for (step, result) in steps.iter().zip(results) {
        let errno = result.err();
        let errno_name = errno.map(|errno| format!("{errno:?}"));
        verified.steps.push(Done { step: step.to_string(), errno: errno_name });
        if let Some(errno) = errno {
            failed = Some((step, errno));
            break;
        }
    }
    match failed {
        Some((Step::OpenGroup(_) | Step::Bind, Errno::EBUSY)) => {
            // Not the second file, which all VMs have open.
            let holders = sysfs.holders(&files[..1]).map(|(holders, _)| holders.join(", "));
            verified.held_by = Some(holders.unwrap_or_else(|| "some process".to_owned()));
            return;
        }
        Some((step, errno)) => verified.obstacles = explain(step, errno, &known),
        // Where nothing is tried, sysfs decides.
        None if steps.is_empty() => verified.obstacles = known,
        None => {}
    }
    if let Some(name) = options.user.as_deref().filter(|_| verified.obstacles.is_empty()) {
        let (lacks, warning) = user::lacks(name, &files, options.memory, sysfs);
        verified.lacks = lacks;
        verified.warnings.extend(warning);
    }
}

/// Why a step failed: what sysfs says, where that says something.
fn explain(step: &Step, errno: Errno, known: &[Why]) -> Vec<Why> {
    let why = match (step, errno) {
        (Step::OpenGroup(file) | Step::Open(file), Errno::EACCES | Errno::EPERM) => Why::new(
            format!("{file} may not be opened: {}", errno.desc()),
            "run vfio-early as root, and with --user for another user",
        ),
        (Step::Map, Errno::ENOMEM) => {
            Why::new("this process may lock less than 2 MiB of memory", "see ulimit -l")
        }
        (_, Errno::ETIMEDOUT) => {
            Why::new("it hangs", "see the kernel log (dmesg); a child process is left")
        }
        (_, Errno::ENODEV | Errno::ENOENT) if known.is_empty() => Why::new(
            format!("{}: it was unbound meanwhile, or vfio lacks something", errno.desc()),
            "run vfio-early status",
        ),
        _ if !known.is_empty() => return known.to_vec(),
        _ => Why::new(errno.desc(), "see the kernel log (dmesg)"),
    };
    vec![why]
}

/// One line a device, and one for each obstacle and warning.
impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tell = |text: &str| writeln!(f, "{}", escape::line(text));
        for device in &self.devices {
            let name = format!("{} {}", device.address, device.id);
            let last = device.steps.last();
            match (&device.held_by, last) {
                (Some(holder), _) => tell(&format!("{name}: a VM can have it: {holder} has it"))?,
                (None, Some(last)) if device.usable => {
                    tell(&format!("{name}: a VM can have it: tried up to {}", last.step))?;
                }
                _ if device.usable => tell(&format!(
                    "{name}: nothing keeps a VM from it; only --open, which resets it, tells more"
                ))?,
                _ => {}
            }
            for Why { reason, remedy } in &device.obstacles {
                let at = match last {
                    Some(Done { step, errno: Some(errno) }) => format!(" at {step} ({errno})"),
                    _ => String::new(),
                };
                tell(&format!("{name}: no VM can have it{at}: {reason}; {remedy}"))?;
            }
            for Why { reason, remedy } in &device.lacks {
                tell(&format!("{name}: no VM of that user can have it: {reason}; {remedy}"))?;
            }
            for warning in &device.warnings {
                tell(&format!("{name}: warning: {warning}"))?;
            }
        }
        for text in &self.missing {
            tell(&format!("{:?}: no device here is that", escape::short(text)))?;
        }
        Ok(())
    }
}
