//! [`Plan`] to [`Fate`]s: performs the steps, then believes only what reads back.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{self, discriminant};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cmdline::Console;
use crate::console::Framebuffer;
use crate::kernel::{Kernel, PROBE, Write};
use crate::kmsg::phase_over;
use crate::modules::Needed;
use crate::others;
use crate::pci::Address;
use crate::plan::{self, Driver, ONLY_BY_IOMMUFD, OtherDisplay, Plan, Step};
use crate::remedy::{self, Cause, Sight, Why};
use crate::sysfs::{IOMMU_TYPE1, Sysfs, VFIO_PCI, VGACON};

/// What became of a device that was to be taken or reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// The driver that has it now.
    pub driver: Option<String>,
    /// What its `driver_override` is; `None` where it could not be written.
    pub driver_override: Option<String>,
    /// Why the vfio driver has not got it; `None` where it has.
    pub failure: Option<Why>,
    /// Whether it is bound, but not by the driver that it was to get.
    pub fallback: Option<String>,
}

impl Fate {
    fn is_bound(&self) -> bool {
        self.driver.is_some() && self.driver == self.driver_override
    }
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Of each device that was to be taken or reserved.
    pub fates: BTreeMap<Address, Fate>,
    /// Of each group of a device that is bound, whether a VM could use it now; see
    /// [`Kernel::group_viable`].
    pub viable: BTreeMap<u32, Option<bool>>,
    /// Why no VM can start, whatever devices it gets.
    pub no_interface: Option<Why>,
    /// What concerns the machine as a whole.
    pub warnings: Vec<String>,
    /// The devices that vfio-pci and pci-stub have, and the drivers that were asked for, whoever gave
    /// them away.
    pub given: BTreeSet<Address>,
}

impl Applied {
    /// The devices that are bound.
    #[must_use]
    pub fn bound(&self) -> Vec<Address> {
        let bound = self.fates.iter().filter(|(_, fate)| fate.failure.is_none() && fate.is_bound());
        bound.map(|(address, _)| *address).collect()
    }
}

/// How long a device that has just been plugged in may take until drivers can bind to it: the
/// kernel announces it before `pci_bus_add_device()` lets them.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a display's driver may take to make its framebuffer.
const FRAMEBUFFER: Duration = Duration::from_secs(2);

/// How long where somebody else, such as udev, is loading that driver.
const COMING: Duration = Duration::from_secs(10);

/// The console driver over all framebuffers (`drivers/video/fbdev/core/fbcon.c`).
const FBCON: &str = "frame buffer device";

/// Writes the first overrides of the plan: from then on no other driver can have the devices. What was
/// written, each to the device's `driver_override`.
pub fn claim(plan: &Plan, sysfs: &Sysfs, kernel: &mut impl Kernel) -> Vec<(Address, String)> {
    let mut run = Run::new(plan, sysfs, kernel);
    run.write_each(plan.first_overrides());
    let written =
        |(address, fate): (&Address, &Fate)| Some((*address, fate.driver_override.clone()?));
    run.fates.iter().filter_map(written).collect()
}

/// Performs the plan, less the overrides that a `claim` has written.
pub fn apply(plan: &Plan, sysfs: &Sysfs, kernel: &mut impl Kernel) -> Applied {
    let mut run = Run::new(plan, sysfs, kernel);
    let had_console = run.takes_a_display() && run.has_console();
    for batch in plan.steps.chunk_by(|one, next| discriminant(one) == discriminant(next)) {
        run.perform(batch);
        phase_over(batch[0].phase());
    }
    let given = run.read_given();
    run.read_back();
    run.look_after_the_console(had_console);
    phase_over("verify");
    let Run { fates, viable, no_interface, warnings, .. } = run;
    Applied { fates, viable, no_interface, warnings, given }
}

struct Run<'a, K> {
    plan: &'a Plan,
    sysfs: &'a Sysfs,
    kernel: &'a mut K,
    fates: BTreeMap<Address, Fate>,
    viable: BTreeMap<u32, Option<bool>>,
    no_interface: Option<Why>,
    warnings: Vec<String>,
    /// Vfio drivers with what was read of them.
    drivers: Vec<(String, BTreeSet<Address>)>,
}

const SEE_DMESG: &str = "see the kernel log (dmesg)";

fn lock_is_held() -> Why {
    Why::new(
        "ETIMEDOUT: a driver hangs with the device's lock held (an earlier bind?)",
        "only a reboot frees it; see the kernel log (dmesg)",
    )
}

/// Why a display that would take the console stays: nothing else can have it.
pub(crate) fn no_framebuffer(to: &[OtherDisplay], sysfs: &Sysfs) -> Why {
    let reason = "binding it now would take the console, and no other display got a framebuffer";
    match to.iter().find(|display| sysfs.has_no_monitor(display.address)) {
        Some(OtherDisplay { address, .. }) => Why::new(
            format!("{reason}: without a monitor the driver of {address} makes none"),
            "connect one and run vfio-early bind, or add vfio.console=release to give the console \
             away",
        ),
        None => Why::new(
            reason,
            "vfio-early bind, run when the other display's driver has come up, finishes it",
        ),
    }
}

/// What a driver has, which is read once.
fn devices_of<'d>(
    driver: &str,
    drivers: &'d mut Vec<(String, BTreeSet<Address>)>,
    sysfs: &Sysfs,
) -> &'d BTreeSet<Address> {
    let index = drivers.iter().position(|(name, _)| name == driver).unwrap_or_else(|| {
        drivers.push((driver.to_owned(), sysfs.devices_of(driver)));
        drivers.len() - 1
    });
    &drivers[index].1
}

fn words(errno: Errno) -> String {
    format!("{} ({errno:?})", errno.desc())
}

fn store(attribute: impl Into<String>, value: impl Into<String>) -> Write {
    Write::Store { attribute: attribute.into(), value: value.into() }
}

/// Modules, once each, by how many others they need one behind the other: so that of those who insert
/// them side by side none waits while another module could go in. A module's dependencies are in front
/// of it in `modules`.
fn by_level<'a>(modules: impl Iterator<Item = &'a Needed>) -> Vec<&'a Needed> {
    let mut sorted: Vec<(usize, &Needed)> = Vec::new();
    for module in modules {
        if sorted.iter().any(|(_, there)| *there == module) {
            continue;
        }
        let needs = |(_, there): &&(usize, &Needed)| module.needs.contains(&there.name);
        let level = sorted.iter().filter(needs).map(|(below, _)| below + 1).max().unwrap_or(0);
        let at = sorted.partition_point(|(other, _)| *other <= level);
        sorted.insert(at, (level, module));
    }
    sorted.into_iter().map(|(_, module)| module).collect()
}

impl<'a, K: Kernel> Run<'a, K> {
    fn new(plan: &'a Plan, sysfs: &'a Sysfs, kernel: &'a mut K) -> Self {
        let mut fates = BTreeMap::<_, Fate>::new();
        for (address, target) in &plan.targets {
            if let Some(name) = &target.device.claimed {
                fates.entry(*address).or_default().driver_override = Some(name.clone());
            }
        }
        Run {
            plan,
            sysfs,
            kernel,
            fates,
            viable: BTreeMap::new(),
            no_interface: None,
            warnings: Vec::new(),
            drivers: Vec::new(),
        }
    }

    fn attribute(&self, address: Address, name: &str) -> String {
        [&self.plan.targets[&address].device.folder, "/", name].concat()
    }

    fn override_of(&self, address: Address, driver: &str) -> Write {
        store(self.attribute(address, "driver_override"), driver)
    }

    /// Performs steps of one kind, leaving out devices that failed before.
    fn perform(&mut self, batch: &[Step]) {
        if let Some(Step::Unbind(..)) = batch.first() {
            for step in batch {
                self.unbind(step);
            }
            return;
        }
        if let Some(Step::Probe(_)) = batch.first() {
            self.read_bound();
            self.take_from_late_drivers(batch);
        }
        self.write_each(batch);
        if let Some(Step::Override(..)) = batch.first() {
            self.find_hung(&self.bound_before());
        }
        let mut modules = Vec::new();
        for step in batch {
            match step {
                Step::Load(module) => modules.push(module.as_str()),
                Step::HandOver { to, from } => self.hand_over(to, from),
                Step::LoadIommu(modules) => self.load_iommu(modules),
                Step::Rename(address, module) => self.rename(*address, module),
                _ => {}
            }
        }
        if !modules.is_empty() {
            self.load_drivers(&modules);
        }
    }

    /// Performs the writes of steps that are no more than one.
    fn write_each(&mut self, batch: &[Step]) {
        let mut steps = Vec::new();
        let mut writes = Vec::new();
        for step in batch {
            if let Some(write) = self.write(step) {
                steps.push(step);
                writes.push(write);
            }
        }
        for (step, result) in steps.into_iter().zip(self.kernel.perform(&writes)) {
            match (step, result) {
                (Step::Override(address, driver), Ok(())) => self.overridden(*address, driver),
                (step, Err(errno)) => self.failed(step, errno),
                _ => {}
            }
        }
    }

    /// Takes a device from a host driver, one at a time: between the look at what uses it and the
    /// write there is nothing.
    fn unbind(&mut self, step: &Step) {
        let Step::Unbind(address, driver) = step else { return };
        let Some(write) = self.write(step) else { return };
        let usage = self.sysfs.usage(*address);
        if let Some(usage) = usage.filter(|usage| !plan::is_released(usage, self.plan.host)) {
            let reason =
                format!("{driver} has it, and the host has come to use it: {}", usage.words);
            self.give_up(*address, Why::new(reason, plan::remedy_for(usage.by)));
        } else if let [Err(errno)] = self.kernel.perform(&[write])[..] {
            self.failed(step, errno);
        }
    }

    /// Host drivers can have come between the look at the machine and the override: they have the
    /// devices, though no step says so.
    fn take_from_late_drivers(&mut self, probes: &[Step]) {
        for probe in probes {
            let Step::Probe(address) = probe else { continue };
            // Where the folder of the vfio driver has it, it need not be asked itself.
            let reads_as_bound = self.fates.get(address).is_some_and(Fate::is_bound);
            if reads_as_bound || self.is_given_up(*address) || self.is_bound(*address) {
                continue;
            }
            let Some(driver) = self.fates.get(address).and_then(|fate| fate.driver.clone()) else {
                continue;
            };
            if self.may_have_the_console(*address) {
                let reason = format!("{driver} has it: it came while this was at work");
                let remedy = "run vfio-early bind again: it looks after the console anew";
                self.give_up(*address, Why::new(reason, remedy));
            } else {
                self.unbind(&Step::Unbind(*address, driver));
            }
        }
    }

    /// Whether it is a display that got its driver only now, and with it perhaps the console, which
    /// the plan did not look after.
    fn may_have_the_console(&self, address: Address) -> bool {
        let hands_it_over =
            |step: &Step| matches!(step, Step::HandOver { from, .. } if from.contains(&address));
        let device = &self.plan.targets[&address].device;
        device.class.is_display()
            && device.driver.is_none()
            && self.plan.console == Console::Keep
            && !self.plan.steps.iter().any(hands_it_over)
    }

    fn overridden(&mut self, address: Address, driver: &str) {
        self.fates.entry(address).or_default().driver_override = Some(driver.to_owned());
    }

    /// Gives a device up, for the first reason that comes.
    fn give_up(&mut self, address: Address, why: Why) {
        self.fates.entry(address).or_default().failure.get_or_insert(why);
    }

    /// Why a device is given up that was pulled since the machine was read: it is not there, or
    /// another one is in its place.
    fn pulled(&self, address: Address) -> Option<Why> {
        let device = &self.plan.targets[&address].device;
        match self.sysfs.id_in(&device.folder) {
            Some(id) if id == device.id => None,
            Some(other) => {
                let reason = format!("another device, {other}, has come in its place");
                Some(Why::new(reason, "correct the item, or run vfio-early bind again"))
            }
            None => Some(went_away()),
        }
    }

    /// Whether a step for it is still of use: it is neither given up nor pulled.
    fn is_of_use(&mut self, address: Address) -> bool {
        if let (false, Some(why)) = (self.is_given_up(address), self.pulled(address)) {
            self.give_up(address, why);
        }
        !self.is_given_up(address)
    }

    fn is_given_up(&self, address: Address) -> bool {
        self.fates.get(&address).is_some_and(|fate| fate.failure.is_some())
    }

    /// The write of a step that is no more than one and still of use.
    fn write(&mut self, step: &Step) -> Option<Write> {
        let (address, write) = match step {
            Step::Override(address, driver) => {
                let fate = self.fates.get(address);
                // By a `claim`, which has left only what it had written.
                if fate.is_some_and(|fate| fate.driver_override.as_ref() == Some(driver)) {
                    return None;
                }
                (address, self.override_of(*address, driver))
            }
            // Its own `unbind`, and not that of the link `driver`: whatever else has the device by now
            // keeps it.
            Step::Unbind(address, driver) => {
                (address, store(format!("bus/pci/drivers/{driver}/unbind"), address.to_string()))
            }
            // Loading the driver has bound the devices that no other driver had.
            Step::Probe(address) if self.fates.get(address).is_some_and(Fate::is_bound) => {
                return None;
            }
            Step::Probe(address) => (address, store(PROBE, address.to_string())),
            Step::Announce(address) => {
                let text = format!(
                    "{address} is given away with the screen (vfio.console=release): this \
                     picture stops here, and the boot goes on"
                );
                (address, Write::Announce { text })
            }
            Step::HandOver { .. } | Step::LoadIommu(_) | Step::Load(_) | Step::Rename(..) => {
                return None;
            }
        };
        // The first overrides come right after the look at the machine; before the others there is
        // time to change cards.
        let is_first = match step {
            Step::Override(..) => {
                self.fates.get(address).is_none_or(|f| f.driver_override.is_none())
            }
            _ => matches!(step, Step::Announce(_)),
        };
        let is_of_use =
            if is_first { !self.is_given_up(*address) } else { self.is_of_use(*address) };
        is_of_use.then_some(write)
    }

    fn failed(&mut self, step: &Step, errno: Errno) {
        let (address, why) = match step {
            Step::Override(address, _) if !self.sysfs.has_device(*address) => {
                (address, went_away())
            }
            Step::Override(address, _) if errno == Errno::ETIMEDOUT => (address, lock_is_held()),
            Step::Override(address, _) => {
                let reason = format!("writing driver_override: {}", words(errno));
                (address, self.why(Cause::ReadOnly, Some(*address), "", &reason))
            }
            Step::Unbind(address, driver) if errno == Errno::ETIMEDOUT => (
                address,
                Why::new(
                    format!("{driver} does not let go of it: the unbind hangs"),
                    format!("keep {driver} from loading before, or stop what uses the device"),
                ),
            ),
            Step::Probe(address) if errno == Errno::ETIMEDOUT => {
                (address, Why::new("the probe hangs", SEE_DMESG))
            }
            Step::Announce(address) => {
                log::warn!("{address}: no word of it on the screen: {}", words(errno));
                return;
            }
            // An unbind fails where the driver had let go by itself; the read-back tells the rest.
            _ => return,
        };
        self.give_up(*address, why);
    }

    /// As the table of remedies has it.
    fn why(&self, cause: Cause, address: Option<Address>, module: &str, reason: &str) -> Why {
        let platform = self.sysfs.platform();
        let device = address.map(|address| &self.plan.targets[&address].device);
        let (id, class) = device.map_or_else(Default::default, |device| (device.id, device.class));
        let sight = Sight { id, class, module, ..Sight::of(&self.plan.foreign, &platform) };
        remedy::why(cause, &sight, reason)
    }

    /// Inserts what the modules need and them, each once; why each is not there afterwards, unless it
    /// is.
    fn load<'m>(&mut self, modules: &[&'m str]) -> Vec<(&'m str, Option<Why>)> {
        let needs: Vec<_> =
            modules.iter().map(|module| (*module, self.kernel.modules_for(module))).collect();
        let inserts = by_level(needs.iter().filter_map(|(_, needed)| needed.as_ref()).flatten());
        let write = |Needed { name, needs }: &Needed| Write::Insert {
            module: name.clone(),
            needs: needs.clone(),
        };
        let writes: Vec<_> = inserts.iter().map(|module| write(module)).collect();
        let results = self.kernel.perform(&writes);
        if results.contains(&Err(Errno::ETIMEDOUT)) {
            let fates = self.fates.iter().filter(|(_, fate)| fate.failure.is_none());
            let addresses: Vec<_> = fates.map(|(address, _)| *address).collect();
            self.find_hung(&addresses);
        }
        let errno_of = |needed: &Needed| {
            let at = inserts.iter().position(|module| module.name == needed.name)?;
            results[at].err()
        };
        let why = |(module, needed): &(&str, Option<Vec<Needed>>)| match needed {
            None => {
                let reason = format!("{module} is not in this initrd");
                Some(self.why(Cause::NoModule, None, module, &reason))
            }
            Some(needed) => needed.iter().find_map(|needed| {
                let errno = errno_of(needed)?;
                let hint = match errno {
                    Errno::EPERM if self.plan.foreign.is_blacklisted(&needed.name) => {
                        ", as module_blacklist= has it"
                    }
                    Errno::EPERM => ", as lockdown does",
                    // Of a kernel without MODULE_DECOMPRESS, and libkmod unpacks xz alone.
                    Errno::ENOSYS => ", as neither this kernel nor vfio-early unpacks it",
                    _ => "",
                };
                let reason = format!("loading {}: {}{hint}", needed.name, words(errno));
                Some(self.why(Cause::ModuleFails, None, &needed.name, &reason))
            }),
        };
        needs.iter().map(|need| (need.0, why(need))).collect()
    }

    /// Gives up those of the devices whose lock a driver that hangs has: the link `driver` is there
    /// before the driver's probe is over, so it tells nothing. Neither `drivers_probe` nor, since
    /// 7.1 and in later releases of 6.12, `driver_override` waits for the lock. `enable` does, and
    /// then changes nothing where the device has a driver (`enable_store()`).
    fn find_hung(&mut self, addresses: &[Address]) {
        let writes: Vec<_> = addresses
            .iter()
            .map(|address| store(self.attribute(*address, "enable"), "0"))
            .collect();
        for (address, result) in addresses.iter().zip(self.kernel.perform(&writes)) {
            // That took its time: what was read before is not taken for the kernel's answer.
            self.fates.entry(*address).or_default().driver = None;
            if result == Err(Errno::ETIMEDOUT) {
                self.give_up(*address, lock_is_held());
            }
        }
    }

    /// Devices that have been on the driver that they are to get since before this run.
    fn bound_before(&self) -> Vec<Address> {
        let fates = self.fates.iter().filter(|(_, fate)| fate.failure.is_none());
        let was_on = |address: &Address| self.plan.targets[address].device.driver.as_ref();
        let bound = fates.filter(|(address, fate)| {
            fate.driver_override.is_some() && was_on(address) == fate.driver_override.as_ref()
        });
        bound.map(|(address, _)| *address).collect()
    }

    /// What does not load here is told by what becomes of the devices.
    fn load_iommu(&mut self, modules: &[String]) {
        let modules: Vec<_> = modules.iter().map(String::as_str).collect();
        for why in self.load(&modules).into_iter().filter_map(|(_, why)| why) {
            log::warn!("the IOMMU: {}", why.reason);
        }
    }

    /// Loads the modules for the devices, and fails those whose driver is still missing.
    fn load_drivers(&mut self, modules: &[&str]) {
        for (module, why) in self.load(modules) {
            match why {
                Some(why) if module == IOMMU_TYPE1 => self.type1_missing(&why),
                None if module == IOMMU_TYPE1 => {}
                why => self.driver_missing(module, why),
            }
        }
    }

    /// What to say of it, where a VM needs it. Without vfio no device is bound, and whether it has
    /// groups here is not known.
    fn type1_missing(&mut self, why: &Why) {
        if !self.sysfs.has_groups() {
            return;
        }
        let Why { reason, remedy } = why;
        if self.sysfs.has_iommufd() {
            self.warnings.push(format!("{reason}: {ONLY_BY_IOMMUFD}; {remedy}"));
        } else {
            self.no_interface = Some(why.clone());
        }
    }

    fn driver_missing(&mut self, module: &str, why: Option<Why>) {
        let why = why.unwrap_or_else(|| {
            let reason = format!("{module} is loaded, but has no PCI driver");
            Why::new(reason, "let vfio.driver= name one that has")
        });
        // Asked once, for however many devices.
        let is_registered = self.sysfs.has_driver(module);
        for (address, _, driver) in self.plan.taken().filter(|(_, _, d)| d.module() == module) {
            let is_missing = match driver {
                Driver::Named(_) => !is_registered,
                Driver::Asked(module) => self.sysfs.pci_driver_of(module).is_none(),
                Driver::Variant(_) => false,
            };
            if is_missing {
                self.give_up(address, why.clone());
            }
        }
    }

    /// Writes the name of a module's driver, which only the loaded module tells; where a variant
    /// did not load, plain vfio-pci has to do.
    fn rename(&mut self, address: Address, module: &str) {
        if self.is_given_up(address) {
            return;
        }
        let driver = self.sysfs.pci_driver_of(module);
        if driver.is_none() {
            log::warn!("{address}: {module} did not load; trying {VFIO_PCI}");
        }
        let driver = driver.unwrap_or_else(|| VFIO_PCI.to_owned());
        if driver == VFIO_PCI {
            self.load(&[VFIO_PCI]);
        } else {
            log::info!("{address}: {driver}, a variant of {VFIO_PCI}, is chosen for it");
        }
        if !self.is_of_use(address) {
            return;
        }
        match self.kernel.perform(&[self.override_of(address, &driver)])[..] {
            [Err(errno)] => self.failed(&Step::Override(address, driver), errno),
            _ => self.overridden(address, &driver),
        }
    }

    /// Gives the consoles to the first display that gets a framebuffer. Loading its driver is not
    /// enough: when the framebuffer that they are mapped to goes, the kernel does not look for
    /// another (`fbcon_fb_unregistered()`).
    fn hand_over(&mut self, to: &[OtherDisplay], from: &[Address]) {
        for OtherDisplay { address, modules } in to {
            let Some(framebuffer) = self.framebuffer_of(*address, modules) else { continue };
            let map = Write::MapConsoles { framebuffer: framebuffer.number };
            let number = framebuffer.number;
            if let [Err(errno)] = self.kernel.perform(&[map])[..] {
                log::warn!("{address}: the consoles do not go to fb{number}: {}", words(errno));
                continue;
            }
            log::info!("the console goes on at {address} (fb{number})");
            return;
        }
        // They are reserved.
        for address in from {
            if self.is_of_use(*address) {
                self.give_up(*address, no_framebuffer(to, self.sysfs));
            }
        }
    }

    /// Loads a display's driver and waits, not for long, for its framebuffer.
    fn framebuffer_of(&mut self, address: Address, modules: &[String]) -> Option<Framebuffer> {
        let find = |sysfs: &Sysfs| sysfs.screen()?.framebuffer_of(address);
        if let Some(framebuffer) = find(self.sysfs) {
            return Some(framebuffer);
        }
        let heard = self.kernel.listen();
        if let Err(why) = &heard {
            log::warn!("uevents cannot be heard: {why}");
        }
        let modules: Vec<_> = modules.iter().map(String::as_str).collect();
        for (_, why) in self.load(&modules) {
            if let Some(why) = why {
                log::warn!("{address}: {}", why.reason);
            }
        }
        let start = Instant::now();
        loop {
            let found = find(self.sysfs);
            let is_coming = |module: &str| self.sysfs.is_coming(module);
            let is_coming = modules.iter().any(|module| is_coming(module))
                || self.sysfs.module_of(address).is_some_and(|module| is_coming(&module));
            // That a module has come up is no uevent, so it is looked at twice a second.
            let (at_most, slice) =
                if is_coming { (COMING, COMING / 20) } else { (FRAMEBUFFER, FRAMEBUFFER) };
            let left = (start + at_most).saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            let is_last = slice >= left || heard.is_err();
            if !self.kernel.wait_for_uevent(left.min(slice)) && is_last {
                return find(self.sysfs);
            }
        }
    }

    /// Reads which driver has the device; whether that is the one in its override.
    fn is_bound(&mut self, address: Address) -> bool {
        let folder = &self.plan.targets[&address].device.folder;
        let driver = self.sysfs.driver_in(folder).ok().flatten();
        let fate = self.fates.entry(address).or_default();
        fate.driver = driver;
        fate.is_bound()
    }

    /// Reads which devices the vfio drivers have: a folder for each driver instead of a link for
    /// each device.
    fn read_bound(&mut self) {
        for (address, fate) in &mut self.fates {
            let Some(wanted) = &fate.driver_override else { continue };
            if devices_of(wanted, &mut self.drivers, self.sysfs).contains(address) {
                fate.driver = Some(wanted.clone());
            }
        }
    }

    /// What others gave away is read before the devices that were asked for: of these the last look is
    /// their own.
    fn read_given(&mut self) -> BTreeSet<Address> {
        for driver in others::DRIVERS {
            devices_of(driver, &mut self.drivers, self.sysfs);
        }
        let mut given = BTreeSet::new();
        for (_, devices) in mem::take(&mut self.drivers) {
            given.extend(devices);
        }
        given
    }

    fn read_back(&mut self) {
        let mut not_bound = Vec::new();
        for (address, device, driver) in self.plan.taken() {
            let fate = self.fates.entry(address).or_default();
            // Nothing was written for it since it read as bound.
            let is_known = fate.is_bound();
            if let (Some(wanted), None) = (fate.driver_override.clone(), &fate.failure)
                && !is_known
                && let Err(why) = self.verify(address, &wanted, driver)
            {
                self.give_up(address, why);
                not_bound.push(address);
            }
            let is_given_up = self.is_given_up(address);
            let fate = self.fates.entry(address).or_default();
            if let Driver::Variant(module) = driver
                && fate.driver_override.as_deref() == Some(VFIO_PCI)
            {
                fate.fallback = Some(format!("{module} did not take it"));
            }
            let group = || device.group.or_else(|| self.sysfs.group_in(&device.folder));
            if !is_given_up && let Some(group) = group() {
                self.viable.entry(group).or_insert(None);
            }
        }
        for (group, viable) in &mut self.viable {
            *viable = self.kernel.group_viable(*group);
        }
        for (address, fate) in &mut self.fates {
            if !fate.is_bound() {
                fate.driver = self.sysfs.driver(*address).ok().flatten();
                // It may have come to it by itself in the end, as one that was just plugged in does.
                if fate.is_bound() && not_bound.contains(address) {
                    fate.failure = None;
                }
            }
        }
    }

    /// Takes the kernel's answer; where it is no, `bind` tells why, and a variant gives way to
    /// vfio-pci.
    fn verify(&mut self, address: Address, wanted: &str, driver: &Driver) -> Result<(), Why> {
        let answer = self.settle(address, wanted);
        match (&answer, driver) {
            (Err(why), Driver::Variant(_)) if wanted != VFIO_PCI => {
                log::warn!("{address}: {}; trying {VFIO_PCI}", why.reason);
                self.load(&[VFIO_PCI]);
                if let Some(why) = self.pulled(address) {
                    return Err(why);
                }
                let probe = store(PROBE, address.to_string());
                self.kernel.perform(&[self.override_of(address, VFIO_PCI), probe]);
                self.overridden(address, VFIO_PCI);
                self.settle(address, VFIO_PCI)
            }
            _ => answer,
        }
    }

    /// `Ok` once the driver has it; else why it has not.
    fn settle(&mut self, address: Address, wanted: &str) -> Result<(), Why> {
        let end = Instant::now() + SETTLE;
        loop {
            if self.is_bound(address) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.plan.late && !left.is_zero() && self.kernel.wait_for_uevent(left) {
                continue;
            }
            if let Some(why) = self.pulled(address) {
                return Err(why);
            }
            let bind = format!("bus/pci/drivers/{wanted}/bind");
            let bind = store(bind, address.to_string());
            let answer = self.kernel.perform(&[bind]).pop().unwrap_or(Ok(()));
            if self.is_bound(address) {
                return Ok(());
            }
            let driver = self.fates.get(&address).and_then(|fate| fate.driver.as_deref());
            let gone = !self.sysfs.has_device(address);
            let device = &self.plan.targets[&address].device;
            let is_without_group =
                device.group.is_none() && self.sysfs.group_in(&device.folder).is_none();
            return Err(match (driver, answer) {
                (None, Err(Errno::EINVAL)) if !gone && is_without_group => Why::new(
                    format!(
                        "{wanted} refuses it: it has no IOMMU group, not after this probe either"
                    ),
                    "the firmware's tables (IORT, VIOT) or the device tree leave it out of the IOMMU",
                ),
                (None, Err(errno @ Errno::EINVAL)) if !gone => {
                    let reason = format!("{wanted} refuses it: {}", words(errno));
                    self.why(Cause::Refused, Some(address), "", &reason)
                }
                (driver, answer) => not_bound(wanted, driver, answer.err(), gone),
            });
        }
    }

    /// Frees a given graphics device's memory where the firmware's framebuffer keeps it, and
    /// brings the console back where the binding took it all the same.
    fn look_after_the_console(&mut self, had_console: bool) {
        if !self.takes_a_display() {
            return;
        }
        // The console needs it no longer: it may go, or a display that stays has it.
        let may_go = self.plan.console == Console::Release || self.has_other_framebuffer();
        if let (Some(device), true) = (self.kept_memory(), may_go) {
            let unbind = format!("bus/platform/devices/{device}/driver/unbind");
            self.kernel.perform(&[store(unbind, device)]);
        }
        // Without its driver, simpledrm's memory is still set apart (BOOTFB).
        if let Some(address) =
            self.sysfs.firmware_memory().filter(|address| self.is_given(*address))
        {
            let reason = "the firmware's framebuffer keeps its memory: the start of a VM will fail \
                          (\"BAR 0: can't reserve\")";
            let Why { reason, remedy } = self.why(Cause::Framebuffer, None, "", reason);
            self.warnings.push(format!("{address}: {reason}; {remedy}"));
        }
        // Only where this took it, or a run before that was killed on the way: it may have been
        // unbound on purpose.
        let hands_over = |step: &Step| matches!(step, Step::HandOver { .. });
        let is_unbound = self.sysfs.vt_console(FBCON) == Some(false);
        let was_ours = had_console || is_unbound && self.plan.steps.iter().any(hands_over);
        if self.plan.console == Console::Release || !was_ours || self.has_console() {
            return;
        }
        if let Some(folder) = self.sysfs.vt_console_folder(FBCON) {
            self.kernel.perform(&[store(format!("{folder}/bind"), "1")]);
        }
        if !self.has_console() {
            self.warnings.push(
                "the console is lost: a graphics driver of the host brings it back".to_owned(),
            );
        }
    }

    fn takes_a_display(&self) -> bool {
        self.plan.taken().any(|(_, device, _)| device.class.is_display())
    }

    /// Whether the virtual terminals can be seen.
    fn has_console(&self) -> bool {
        [FBCON, VGACON].iter().any(|driver| self.sysfs.vt_console(driver) == Some(true))
    }

    fn has_other_framebuffer(&self) -> bool {
        let framebuffers = self.sysfs.screen().map(|screen| screen.framebuffers);
        framebuffers.unwrap_or_default().iter().any(|framebuffer| framebuffer.owner.is_some())
    }

    /// The firmware's framebuffer, where it is in the memory of a device that is bound.
    fn kept_memory(&self) -> Option<String> {
        let firmware = self.sysfs.screen()?.firmware?;
        if self.is_given(firmware.owner?) { firmware.device } else { None }
    }

    fn is_given(&self, address: Address) -> bool {
        let fate = self.fates.get(&address);
        fate.is_some_and(|fate| fate.failure.is_none() && fate.driver.is_some())
    }
}

fn went_away() -> Why {
    Why::new("the device went away", "if it comes back later, add vfio.wait=10")
}

/// Sources: `vfio_pci_core_register_device()`, `vfio_pci_core_init_dev()` and the denylist in
/// `drivers/vfio/pci/`.
fn not_bound(wanted: &str, driver: Option<&str>, errno: Option<Errno>, gone: bool) -> Why {
    match (driver, errno) {
        _ if gone => went_away(),
        (Some(driver), _) => Why::new(
            format!("{driver} has it"),
            format!("keep {driver} from loading before vfio-early"),
        ),
        (None, Some(Errno::EAGAIN)) => Why::new(
            "the kernel puts its probe off: something that it needs, as its IOMMU, has no driver yet",
            "add that driver to the initrd (virtio_iommu for a virtio-iommu); when it comes, the kernel \
             binds the device by itself",
        ),
        (None, Some(Errno::EBUSY)) => Why::new(
            format!("{wanted} refuses it: {}", words(Errno::EBUSY)),
            "an SR-IOV device with virtual functions on: write 0 to its sriov_numvfs",
        ),
        (None, Some(errno)) => {
            Why::new(format!("{wanted} does not bind to it: {}", words(errno)), SEE_DMESG)
        }
        (None, None) => Why::new(
            format!("{wanted} does not bind to it, and the kernel does not say why"),
            SEE_DMESG,
        ),
    }
}
