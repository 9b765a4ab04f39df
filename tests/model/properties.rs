//! What must hold, whatever others do and whenever they do it.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use vfio_early::kernel::Write;
use vfio_early::plan::is_vfio_driver;
use vfio_early::report::{DeviceReport, Outcome, Report};

use super::case::Case;
use super::rival::Act;
use super::world::World;
use crate::fake::{Fake, Seen, device_attribute};

/// Of each device its id, driver and override.
type Devices = BTreeMap<String, (Id, Option<String>, Option<String>)>;
type Id = (u16, u16);

/// What the properties need to know of the way of one device.
#[derive(Debug, Default, Hash)]
struct Way {
    /// Its override, where we wrote it and nobody else has since.
    ours: Option<String>,
    /// Whether it ever was.
    was_ours: bool,
    /// The driver that it had when we last looked.
    seen: Option<String>,
    /// Whether somebody else has done something to it since.
    rival_since: bool,
    /// Whether others did what excuses that it is not bound.
    excused: bool,
}

/// What has happened so far, as far as the properties need it.
#[derive(Debug, Default, Hash)]
pub struct Watch {
    ways: BTreeMap<String, Way>,
    /// Devices that our writes changed or named.
    touched: BTreeSet<(String, Id)>,
    /// Whether we have loaded a module.
    loaded: bool,
    /// Whether others took a display from its driver, or away.
    rival_took_display: bool,
    /// Whether our last operations are a look at what is in use, and what has come into use since.
    looks: bool,
    too_late: BTreeSet<String>,
    pub complaints: BTreeSet<String>,
}

/// All devices as they are now.
pub fn devices(fake: &Fake) -> Devices {
    let owned = |name: Option<&str>| name.map(str::to_owned);
    let devices = fake.devices().map(|device| {
        let state = (device.id, owned(device.driver), owned(device.driver_override));
        (device.address.to_owned(), state)
    });
    devices.collect()
}

impl Watch {
    fn way(&mut self, address: &str) -> &mut Way {
        self.ways.entry(address.to_owned()).or_default()
    }

    fn saw(&mut self, address: &str, driver: Option<&str>) {
        let way = self.way(address);
        way.seen = driver.map(str::to_owned);
        way.rival_since = false;
    }

    /// A read, and what it tells of drivers.
    pub fn read(&mut self, how: &str, path: &str, fake: &Fake) {
        if path.ends_with("/class/block") || path.ends_with("/mountinfo") {
            self.looks = true;
            self.too_late.clear();
        }
        let device = |address: &str| fake.devices().find(|device| device.address == address);
        if how == "link"
            && let Some(folder) = path.strip_suffix("/driver")
            && let Some((_, address)) = folder.rsplit_once('/')
        {
            let driver = device(address).and_then(|device| device.driver);
            self.saw(address, driver);
        } else if path.ends_with("/sys/bus/pci/drivers") {
            fake.devices().for_each(|device| self.saw(device.address, None));
        } else if let Some((_, driver)) = path.rsplit_once("/sys/bus/pci/drivers/") {
            let devices = fake.devices().filter(|device| device.driver == Some(driver));
            devices.for_each(|device| self.saw(device.address, Some(driver)));
        }
    }

    /// No driver gets a device but the one that our override names.
    fn only_ours_gets(&mut self, what: &str, before: &Devices, after: &Devices) {
        for (address, (_, driver, _)) in after {
            let Some(ours) = self.ways.get(address).and_then(|way| way.ours.clone()) else {
                continue;
            };
            let had = before.get(address).and_then(|(_, driver, _)| driver.as_ref());
            if let Some(got) =
                driver.as_ref().filter(|driver| Some(*driver) != had && **driver != ours)
            {
                self.complain(format!("{what}: {got} got {address}, whose override is {ours}"));
            }
        }
    }

    fn complain(&mut self, text: String) {
        self.complaints.insert(text);
    }

    /// Somebody else did that.
    pub fn after_act(&mut self, act: &Act, before: &Devices, fake: &Fake) {
        let after = devices(fake);
        if let Act::Release(address) = act {
            let way = self.way(address);
            (way.ours, way.excused) = (None, true);
        }
        self.only_ours_gets(&act.to_string(), before, &after);
        let addresses: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        for address in
            addresses.iter().filter(|address| before.get(*address) != after.get(*address))
        {
            let way = self.way(address);
            way.rival_since = true;
        }
        match act {
            Act::Override(address, _) => {
                let way = self.way(address);
                way.excused |= way.ours.take().is_some();
            }
            Act::Plug(address, _) => {
                let way = self.way(address);
                way.rival_since = true;
                way.excused = true;
            }
            Act::Unplug(address) => {
                let way = self.way(address);
                (way.ours, way.excused) = (None, true);
                self.rival_took_display = true;
            }
            Act::Mount(address) => {
                self.way(address).excused = true;
                if self.looks {
                    self.too_late.insert(address.clone());
                }
            }
            Act::Unbind(address) => {
                let (_, driver, _) = &before[address];
                let way = self.way(address);
                way.excused |= *driver == way.ours;
                self.rival_took_display = true;
            }
            Act::Load(_)
            | Act::Settle(_)
            | Act::Probe(_)
            | Act::Bind(..)
            | Act::Release(_)
            | Act::Open(_) => {}
        }
    }

    /// We wrote that.
    pub fn after_write(
        &mut self,
        write: &Write,
        result: Result<(), Errno>,
        before: &Devices,
        fake: &Fake,
        mounted: &BTreeSet<String>,
    ) {
        let after = devices(fake);
        let what = format!("{write:?}");
        if let Write::Store { attribute, value } = write {
            for (address, (id, ..)) in before {
                // A device below a bridge has the bridge's address in its path, too.
                let of_device = device_attribute(attribute);
                if value == address || of_device.is_some_and(|(named, _)| named == address) {
                    self.touched.insert((address.clone(), *id));
                }
                if result.is_ok() && of_device == Some((address.as_str(), "driver_override")) {
                    let (loaded, way) = (self.loaded, self.way(address));
                    way.ours = Some(value.clone());
                    if !std::mem::replace(&mut way.was_ours, true) && loaded {
                        self.complain(format!("{what}: comes after the first module"));
                    }
                }
            }
        }
        self.loaded |= matches!(write, Write::Insert { .. });
        self.only_ours_gets(&what, before, &after);
        for (address, (id, had, ..)) in before {
            if before.get(address) == after.get(address) {
                continue;
            }
            self.touched.insert((address.clone(), *id));
            let lost = after.get(address).is_none_or(|(_, driver, _)| driver != had);
            if let Some(had) = had.as_ref().filter(|_| lost) {
                if mounted.contains(address) && !self.too_late.contains(address) {
                    self.complain(format!("{what}: takes {address} from {had}, and it is mounted"));
                }
                if is_vfio_driver(had) {
                    self.complain(format!("{what}: takes {address} from {had}"));
                }
            }
        }
    }

    /// udev starts. From now on no driver may get what is asked for, and what would be taken from one
    /// that has it has been.
    pub fn at_claimed(&mut self, case: &Case, fake: &Fake, done: bool) {
        if self.loaded && !done {
            self.complain("a module was loaded before udev started".to_owned());
        }
        for (address, guard) in case.asked {
            let device = fake.devices().find(|device| device.address == *address);
            let Some(device) = device.filter(|it| guard.is_none_or(|id| id == it.id)) else {
                continue;
            };
            let way = self.way(address);
            if way.ours.is_none() && !way.excused && !way.rival_since {
                self.complain(format!("udev starts, and {address} is not claimed"));
            }
            let of_host = device.driver.filter(|driver| !is_vfio_driver(driver));
            if let (Some(driver), false, false) = (of_host, done, self.way(address).rival_since) {
                self.complain(format!("udev starts, and {driver} has {address}"));
            }
        }
    }

    /// We did something else than to read.
    pub fn other(&mut self) {
        self.looks = false;
        self.too_late.clear();
    }

    /// At the end of a run.
    pub fn finish(&mut self, case: &Case, report: &Report, fake: &Fake, undisturbed: bool) {
        for (address, guard) in case.asked {
            let device = fake.devices().find(|device| device.address == *address);
            let reported = find(report, address);
            if let Some(reported) = reported {
                self.is_true(address, reported, device.and_then(|device| device.driver));
            }
            let excused = self.ways.get(*address).is_some_and(|way| way.excused);
            let Some(device) = device.filter(|_| !excused) else { continue };
            let mut wanted = case.end_of(address, guard.is_none_or(|id| id == device.id));
            if undisturbed {
                wanted = &wanted[..1];
            }
            let outcome = reported.map_or("missing", |reported| word(reported.outcome));
            if !wanted.contains(&outcome) {
                let why = reported.and_then(|reported| reported.reason.as_deref()).unwrap_or("-");
                self.complain(format!("{address} is {outcome} ({why}), not {wanted:?}"));
            }
        }
        self.others_are_left_alone(case, report);
        self.has_console(case, report, fake);
    }

    /// What is reported is what was read last, and nothing that we did later made it untrue.
    fn is_true(&mut self, address: &str, reported: &DeviceReport, now: Option<&str>) {
        let DeviceReport { outcome, driver, driver_override, .. } = reported;
        let way = self.ways.get(address);
        let seen = way.and_then(|way| way.seen.clone());
        let rival_since = way.is_some_and(|way| way.rival_since);
        if *driver != seen {
            self.complain(format!("{address} is reported on {driver:?}, but {seen:?} was read"));
        }
        if driver.as_deref() != now && !rival_since {
            self.complain(format!("{address} is reported on {driver:?}, but is on {now:?}"));
        }
        let is_bound = driver.is_some() && driver == driver_override;
        if is_bound != (*outcome == Outcome::Bound) {
            self.complain(format!(
                "{address} is {}, on {driver:?} with {driver_override:?}",
                word(*outcome)
            ));
        }
    }

    /// What was refused, was not asked for, or is another device by now: it is neither named in a
    /// write nor changed by one.
    fn others_are_left_alone(&mut self, case: &Case, report: &Report) {
        for (address, id) in self.touched.clone() {
            let reported = find(report, &address);
            let ours = reported.is_some_and(|reported| {
                let its = reported.id.expect("it has an address");
                reported.outcome != Outcome::Refused && (its.vendor, its.device) == id
            });
            if !ours && !case.displays.contains(&address.as_str()) {
                let (vendor, device) = id;
                let text =
                    format!("{address} {vendor:04x}:{device:04x} is not ours and was touched");
                self.complain(text);
            }
        }
    }

    /// Who had a console keeps it, or is told.
    fn has_console(&mut self, case: &Case, report: &Report, fake: &Fake) {
        if case.machine.firmware_on.is_none() || self.rival_took_display {
            return;
        }
        let driver = fake.screen.console().map(|address| fake.driver(address));
        let is_alive =
            driver.as_ref().is_some_and(|driver| !driver.as_deref().is_some_and(is_vfio_driver));
        let is_told = report.warnings.iter().any(|warning| warning.contains("console is lost"));
        if !is_alive && !is_told {
            self.complain(format!("the console is lost: {driver:?}"));
        }
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Bound => "bound",
        Outcome::Reserved => "reserved",
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
        Outcome::Absent => "absent",
        Outcome::Later => "later",
    }
}

fn find<'r>(report: &'r Report, address: &str) -> Option<&'r DeviceReport> {
    report.devices.iter().find(|d| d.address.is_some_and(|a| a.to_string() == address))
}

/// When the others are through, `bind` comes to the right end, and doing it again changes nothing.
pub fn after_the_others(world: &mut World) -> Vec<String> {
    let case = std::rc::Rc::clone(&world.case);
    let mut complaints = Vec::new();
    let coming: Vec<_> = world.fake.devices().filter(|device| !device.attachable).collect();
    let coming: Vec<String> = coming.iter().map(|device| device.address.to_owned()).collect();
    for address in coming {
        world.fake.settle(&address);
    }
    // A disk is gone with its driver.
    let is_used = |d: &Seen<'_>| {
        world.mounted.contains(d.address) && d.driver.is_some_and(|name| case.disks.contains(&name))
    };
    let used = world.fake.devices().filter(is_used).map(|device| device.address.to_owned());
    let used: Vec<String> = used.collect();
    let report = world.fake.bind(case.text);
    let again = outcomes_at(&report, &case);
    for (address, guard) in case.asked {
        let device = world.fake.devices().find(|device| device.address == *address);
        let wanted = match device {
            None => &["absent"][..],
            Some(device) if used.iter().any(|used| used == device.address) => &["refused"],
            Some(device) => case.end_of(address, guard.is_none_or(|id| id == device.id)),
        };
        if !wanted.contains(&again[address]) {
            let why = find(&report, address).and_then(|reported| reported.reason.clone());
            complaints.push(format!(
                "run again, {address} is {} ({}), not {wanted:?}",
                again[address],
                why.unwrap_or_default()
            ));
        }
    }
    let files = world.fake.tree.everything();
    let third = world.fake.bind(case.text);
    if outcomes_at(&third, &case) != again {
        complaints.push(format!("run a third time: {:?}", outcomes_at(&third, &case)));
    }
    if world.fake.tree.everything() != files {
        complaints.push("run a third time, it changes something".to_owned());
    }
    complaints
}

/// How each of the devices ended that are asked for.
fn outcomes_at<'c>(report: &Report, case: &'c Case) -> BTreeMap<&'c str, &'static str> {
    let outcome = |address| find(report, address).map_or("absent", |device| word(device.outcome));
    case.asked.iter().map(|(address, _)| (*address, outcome(address))).collect()
}
