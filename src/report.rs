//! What happened, once: log lines, JSON and exit status all come from the [`Report`].

use log::Level;
use serde::Serialize;

use crate::apply::{Applied, Fate};
use crate::cmdline::Request;
use crate::escape;
use crate::pci::{Address, Class, Id};
use crate::plan::{Absent, Decision, Plan, RESERVED, Target};
use crate::remedy::Why;
use crate::sysfs::{Device, Machine, may_share_a_group};
use crate::verdict::{self, Verdict};

/// Where a requested device ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The kernel says that the vfio driver has it.
    Bound,
    /// Kept from every driver until a later `bind`.
    Reserved,
    /// Left to the host, untouched.
    Refused,
    /// Taken from the host, but the vfio driver did not get it.
    Failed,
    /// No such device.
    Absent,
    /// Not there before the real root, where it is taken.
    Later,
}

impl Outcome {
    /// Whether that is what was asked for, as far as it can be had by now.
    #[must_use]
    pub fn is_well(self) -> bool {
        matches!(self, Outcome::Bound | Outcome::Later)
    }
}

/// One member of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub id: Id,
    /// Its class code.
    pub class: Class,
    /// The driver that had it when this read the machine.
    pub driver: Option<String>,
    /// Whether it was asked for and its override says so.
    pub requested: bool,
}

/// An IOMMU group, which a VM gets whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// As in `/sys/kernel/iommu_groups`.
    pub number: u32,
    /// Whether a VM could use it at the moment, by the kernel's account; `None` unknown.
    pub viable: Option<bool>,
    /// In address order.
    pub members: Vec<Member>,
}

/// What became of one requested device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// The item that asks for it, as written.
    pub item: String,
    /// `None` where the item could not be resolved.
    pub address: Option<Address>,
    /// Vendor and device id.
    pub id: Option<Id>,
    /// Class code.
    pub class: Option<Class>,
    /// The driver that had it before.
    pub driver_before: Option<String>,
    /// The driver that has it now.
    pub driver: Option<String>,
    /// What was written to its `driver_override`; `None` where nothing was.
    #[serde(rename = "override")]
    pub driver_override: Option<String>,
    /// The number of its IOMMU group, which [`Report::groups`] has; `None` without one.
    pub group: Option<u32>,
    /// Where it ended.
    pub outcome: Outcome,
    /// Why, where it is not bound.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Whether a VM could have it, as far as that is known without one; `None` where it is not bound, or
    /// who is in its group cannot be foretold.
    pub usable: Option<bool>,
    /// Why no VM can have it although it is bound.
    pub obstacles: Vec<Why>,
    /// What will be a problem although it is bound.
    pub warnings: Vec<String>,
}

/// A device that will fare otherwise at the next boot than it would now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextBoot {
    /// Where it is.
    pub address: Address,
    /// In words.
    pub text: String,
}

/// The whole report; as JSON in `/run/vfio-early/report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of the format: 1. New fields may come without a new version.
    pub version: u32,
    /// The command line that was read.
    pub command_line: String,
    /// As `uname -r` has it.
    pub kernel: Option<String>,
    /// What was asked for.
    pub request: Request,
    /// In the order of their addresses, then the items that ask for none.
    pub devices: Vec<DeviceReport>,
    /// The IOMMU groups of the devices, in the order of their numbers.
    pub groups: Vec<Group>,
    /// What concerns the machine as a whole.
    pub warnings: Vec<String>,
    /// In address order; [`crate::check`] alone tells it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next_boot: Vec<NextBoot>,
    /// See [`exit_status`].
    pub exit_status: u8,
    /// Microseconds from the start of the program to the last check.
    pub elapsed_us: u64,
    /// Microseconds that `claim` took before, where udev started after that; `None` where all was done
    /// before it.
    pub claimed_us: Option<u64>,
}

/// From here on only devices that are not bound get a line of their own.
const LINES_FOR_ALL: usize = 32;

/// So many items for which there is no device get a line of their own, and as many malformed ones: a
/// longer list would push all else out of the kernel's log.
const LINES_FOR_UNKNOWN: usize = 256;

/// A line for those that get none.
fn more(count: usize, what: &str) -> Option<(Level, String)> {
    let more = count.checked_sub(LINES_FOR_UNKNOWN).filter(|more| *more > 0)?;
    Some((Level::Error, format!("{more} more items are {what}; the report has them all")))
}

/// Makes the report; `elapsed_us`, `claimed_us`, `command_line` and `kernel` are the caller's.
#[must_use]
pub fn report(
    request: Request,
    machine: &Machine,
    plan: &Plan,
    applied: &Applied,
    verdict: &Verdict,
) -> Report {
    let is_target = |address: &Address| plan.targets.contains_key(address);
    let with_targets = machine.groups.iter().filter(|(_, members)| members.iter().any(is_target));
    let groups: Vec<_> = with_targets.map(|(number, _)| group(*number, machine, applied)).collect();
    let strangers: Vec<_> = groups.iter().map(|group| strangers(group, machine, plan)).collect();
    let mut devices = Vec::new();
    for (address, target) in &plan.targets {
        let group = target.device.group;
        let at = group.and_then(|number| groups.binary_search_by_key(&number, |g| g.number).ok());
        let strangers = at.and_then(|at| strangers[at].as_ref());
        let fate = applied.fates.get(address);
        let mut report = device(*address, target, strangers, fate, verdict);
        if machine.has_groups_later() && report.outcome == Outcome::Bound {
            let warning = may_come(*address, target, machine, plan);
            if warning.is_some() && group.is_none() {
                report.usable.take_if(|usable| *usable);
            }
            report.warnings.extend(warning);
        }
        devices.push(report);
    }
    devices.extend(plan.absent.iter().map(absent));
    let unmet =
        !request.rejected.is_empty() || devices.iter().any(|device| !device.outcome.is_well());
    let warnings =
        [request.warnings.as_slice(), plan.warnings.as_slice(), applied.warnings.as_slice()];
    Report {
        version: 1,
        command_line: String::new(),
        kernel: None,
        exit_status: exit_status(unmet, request.strict),
        warnings: warnings.concat(),
        next_boot: Vec::new(),
        request,
        devices,
        groups,
        elapsed_us: 0,
        claimed_us: None,
    }
}

/// 0: all is bound, or nothing was asked for. 1: something is not. 3: the same, and
/// `vfio.strict` wants the boot to stop.
#[must_use]
pub fn exit_status(unmet: bool, strict: bool) -> u8 {
    match (unmet, strict) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 3,
    }
}

fn group(number: u32, machine: &Machine, applied: &Applied) -> Group {
    let member = |(address, device): (Address, &Device)| {
        let fate = applied.fates.get(&address);
        Member {
            address,
            id: device.id,
            class: device.class,
            driver: fate.map_or(&device.driver, |fate| &fate.driver).clone(),
            requested: fate.is_some_and(|fate| fate.driver_override.is_some()),
        }
    };
    let viable = applied.viable.get(&number).copied().flatten();
    Group { number, viable, members: machine.group(number).map(member).collect() }
}

fn absent(Absent { item, why, is_later }: &Absent) -> DeviceReport {
    DeviceReport {
        item: item.clone(),
        address: None,
        id: None,
        class: None,
        driver_before: None,
        driver: None,
        driver_override: None,
        group: None,
        outcome: if *is_later { Outcome::Later } else { Outcome::Absent },
        reason: Some(why.reason.clone()),
        remedy: Some(why.remedy.clone()),
        usable: None,
        obstacles: Vec::new(),
        warnings: Vec::new(),
    }
}

fn device(
    address: Address,
    target: &Target,
    strangers: Option<&String>,
    fate: Option<&Fate>,
    verdict: &Verdict,
) -> DeviceReport {
    let device = &target.device;
    let mut report = DeviceReport {
        item: target.item.clone(),
        address: Some(address),
        id: Some(device.id),
        class: Some(device.class),
        driver_before: device.driver.clone(),
        driver: device.driver.clone(),
        driver_override: None,
        group: device.group,
        outcome: Outcome::Bound,
        reason: None,
        remedy: None,
        usable: None,
        obstacles: Vec::new(),
        warnings: target.warnings.clone(),
    };
    if let Some(fate) = fate {
        report.driver.clone_from(&fate.driver);
        report.driver_override.clone_from(&fate.driver_override);
    }
    let is_reserved = report.driver_override.as_deref() == Some(RESERVED);
    let (outcome, why) = match (&target.decision, fate.and_then(|fate| fate.failure.as_ref())) {
        (Decision::Take(_), None) => (Outcome::Bound, None),
        (Decision::Refuse(why), _) => (Outcome::Refused, Some(why)),
        (Decision::Reserve(why), None) | (_, Some(why)) if is_reserved => {
            (Outcome::Reserved, Some(why))
        }
        (Decision::Reserve(why), None) | (_, Some(why)) => (Outcome::Failed, Some(why)),
    };
    report.outcome = outcome;
    report.reason = why.map(|why| why.reason.clone());
    report.remedy = why.map(|why| why.remedy.clone());
    if outcome == Outcome::Bound {
        let driver = report.driver.as_deref().unwrap_or_default();
        report.obstacles = verdict.obstacles(report.group, driver);
        report.usable = Some(report.obstacles.is_empty());
        report.warnings.extend(verdict.warnings(address));
        report.warnings.extend(strangers.cloned());
        report.warnings.extend(fate.and_then(|fate| fate.fallback.clone()));
    }
    report
}

/// Members that udev will give to the host, which leaves the group to no VM: before udev most have no
/// driver yet. Bridges do not count. Those that have a driver already are an obstacle.
fn strangers(group: &Group, machine: &Machine, plan: &Plan) -> Option<String> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for Member { address, id, class, driver, requested } in &group.members {
        if !requested && !class.is_bridge() && driver.is_none() {
            names.push(format!("{address} {id}"));
            addresses.push(*address);
        }
    }
    (!names.is_empty()).then(|| {
        let advice = verdict::advice(&addresses, machine, Some(plan), None);
        let advice = advice.as_deref().unwrap_or("list it, too");
        format!(
            "its IOMMU group {} also has {}: once the host's driver takes that, no VM can have the \
             group; {advice}",
            group.number,
            names.join(", ")
        )
    })
}

/// What may turn out to be in the device's group, which the kernel tells when a driver is first probed
/// for it.
fn may_come(address: Address, target: &Target, machine: &Machine, plan: &Plan) -> Option<String> {
    let own = (address, target.device.folder.as_str());
    let taken = |other: &Address| plan.taken().any(|(taken, _, _)| taken == *other);
    let may_come = machine.devices.iter().filter(|(other, device)| {
        (device.group.is_none() || target.device.group.is_none())
            && !device.class.is_bridge()
            && !device.is_virtio_iommu()
            && may_share_a_group(own, (**other, &device.folder))
            && !taken(other)
    });
    let list: Vec<_> = may_come.map(|(other, device)| format!("{other} {}", device.id)).collect();
    let then = if target.item.contains("group:") {
        "run vfio-early bind then, which takes what is in the group"
    } else {
        "if vfio-early list shows them together then, list it, too"
    };
    (!list.is_empty()).then(|| {
        format!(
            "its IOMMU group may also have {}, which this kernel tells only when a driver is probed; \
             {then}",
            list.join(", ")
        )
    })
}

impl DeviceReport {
    /// Address and id, or the item where there is no device.
    fn name(&self) -> String {
        match (&self.address, &self.id) {
            (Some(address), Some(id)) => format!("{address} {id}"),
            _ => escape::short(&self.item),
        }
    }

    fn line(&self) -> (Level, String) {
        let name = self.name();
        let why = || {
            let texts = [&self.reason, &self.remedy];
            texts.map(|text| text.as_deref().unwrap_or_default()).join("; ")
        };
        let driver = self.driver.as_deref().unwrap_or("no driver");
        match self.outcome {
            Outcome::Bound => {
                let group = self.group.map_or(String::new(), |group| format!(", group {group}"));
                let was = match &self.driver_before {
                    Some(before) if before == driver => " already".to_owned(),
                    Some(before) => format!(" (was {before})"),
                    None => String::new(),
                };
                (Level::Info, format!("{name}: bound to {driver}{was}{group}"))
            }
            Outcome::Reserved => (Level::Warn, format!("{name}: reserved: {}", why())),
            Outcome::Refused => (Level::Error, format!("{name}: refused: {}", why())),
            Outcome::Failed => (Level::Error, format!("{name}: failed: {}", why())),
            Outcome::Absent => (Level::Error, format!("{name}: absent: {}", why())),
            Outcome::Later => (Level::Info, format!("{name}: later: {}", why())),
        }
    }
}

impl Report {
    /// The log, in order; the last line sums up.
    #[must_use]
    pub fn lines(&self) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for rejected in self.request.rejected.iter().take(LINES_FOR_UNKNOWN) {
            let text = escape::short(&rejected.text);
            lines.push((Level::Error, format!("{text:?}: {}", rejected.reason)));
        }
        lines.extend(more(self.request.rejected.len(), "malformed"));
        let all = self.devices.len() <= LINES_FOR_ALL || self.request.debug;
        let mut absent = 0;
        for device in &self.devices {
            absent += usize::from(device.address.is_none());
            if device.address.is_none() && absent > LINES_FOR_UNKNOWN {
                continue;
            }
            if all || device.outcome != Outcome::Bound {
                lines.push(device.line());
            }
            let warnings = device.warnings.iter();
            lines.extend(warnings.map(|text| (Level::Warn, format!("{}: {text}", device.name()))));
        }
        lines.extend(more(absent, "absent"));
        lines.extend(self.obstacles().into_iter().map(|line| (Level::Error, line)));
        lines.extend(self.warnings.iter().map(|text| (Level::Warn, text.clone())));
        lines.push(self.summary());
        lines
    }

    /// Each obstacle once, with the first of the devices that it keeps from a VM.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let mut found: Vec<(&Why, &DeviceReport, usize)> = Vec::new();
        for device in &self.devices {
            for why in &device.obstacles {
                match found.iter_mut().find(|(there, ..)| *there == why) {
                    Some((_, _, more)) => *more += 1,
                    None => found.push((why, device, 0)),
                }
            }
        }
        let mut lines = Vec::new();
        for (why, device, more) in found {
            let mut line = "no VM can have ".to_owned() + &device.name();
            if more > 0 {
                line.extend([" and ", &more.to_string(), " more"]);
            }
            line.extend([": ", &why.reason, "; ", &why.remedy]);
            lines.push(line);
        }
        lines
    }

    fn summary(&self) -> (Level, String) {
        let count = |outcome| self.devices.iter().filter(|d| d.outcome == outcome).count();
        let unusable = self.devices.iter().filter(|device| device.usable == Some(false)).count();
        let bound = count(Outcome::Bound);
        let asked = self.devices.len() + self.request.rejected.len();
        let mut line = format!("{bound} of {asked} bound");
        for (number, what) in [
            (count(Outcome::Reserved), "reserved"),
            (count(Outcome::Refused), "refused"),
            (count(Outcome::Failed), "failed"),
            (count(Outcome::Absent), "absent"),
            (count(Outcome::Later), "later"),
            (self.request.rejected.len(), "malformed"),
            (unusable, "unusable"),
        ] {
            if number > 0 {
                line = line + ", " + &number.to_string() + " " + what;
            }
        }
        let (whole, part) = (self.elapsed_us / 1000, self.elapsed_us % 1000 / 100);
        let is_well = self.exit_status == 0 && unusable == 0;
        let level = if is_well { Level::Info } else { Level::Error };
        (level, line + &format!(", in {whole}.{part} ms"))
    }
}
