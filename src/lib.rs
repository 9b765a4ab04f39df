//! Gives chosen PCI devices to vfio-pci at boot, before any other driver can take them.
//!
//! The whole story is [`bind`]: the command line's text becomes a [`cmdline::Request`], the
//! machine is read ([`sysfs`]), both make a [`plan::Plan`], the plan is applied ([`apply`])
//! through the one door for writes ([`kernel::Kernel`]), what a VM needs besides is looked at
//! ([`verdict`]), and what reads back makes the [`report::Report`].

pub mod apply;
pub mod claimed;
pub mod cmdline;
pub mod console;
pub mod escape;
pub mod generator;
pub mod host;
pub mod keep;
pub mod kernel;
pub mod kmsg;
pub mod modules;
pub mod others;
pub mod pci;
pub mod plan;
pub mod remedy;
pub mod report;
pub mod report_file;
pub mod stray;
mod syscall;
pub mod sysfs;
pub mod variant;
pub mod verdict;

pub use syscall::{arguments, standard_files};

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use apply::Applied;
use claimed::Claimed;
use cmdline::{Foreign, Request};
use host::check::Check;
use host::vfs::Functions;
use keep::Record;
use kernel::Kernel;
use kmsg::phase_over;
use pci::Address;
use plan::Plan;
use report::Report;
use sysfs::{Iommu, Machine, Sysfs};
use verdict::Question;

/// Does what the command line asks for, and tells what became of it; goes on from where [`claim`] has
/// left off, if `sysfs` knows of that.
///
/// # Errors
/// When the PCI bus cannot be read; nothing was written then.
pub fn bind(request: Request, sysfs: &Sysfs, kernel: &mut impl Kernel) -> io::Result<Report> {
    let start = Instant::now();
    let (machine, plan) = look(&request, sysfs, kernel)?;
    carry_out(request, machine, plan, sysfs, kernel, start)
}

/// What came of a [`claim`].
#[derive(Debug)]
pub enum Claim {
    /// The overrides are written, and no other driver can have the devices: udev may start, and
    /// [`bind`] goes on beside it.
    Claimed(Claimed),
    /// What is asked for could not go on beside udev: it is done.
    Done(Box<Report>),
}

/// Does what has to be done before udev starts. That is to write the overrides, or all of it
/// ([`Plan::can_go_on_beside_udev`]).
///
/// # Errors
/// As [`bind`].
pub fn claim(request: Request, sysfs: &Sysfs, kernel: &mut impl Kernel) -> io::Result<Claim> {
    let start = Instant::now();
    let (mut machine, plan) = look(&request, sysfs, kernel)?;
    if !plan.can_go_on_beside_udev(&request, &machine) {
        let report = carry_out(request, machine, plan, sysfs, kernel, start)?;
        return Ok(Claim::Done(Box::new(report)));
    }
    for (address, name) in apply::claim(&plan, sysfs, kernel) {
        if let Some(device) = machine.devices.get_mut(&address) {
            device.claimed = Some(name);
        }
    }
    phase_over("override");
    Ok(Claim::Claimed(Claimed { took_us: micros(start), devices: machine.devices }))
}

/// Reads the machine, and makes the plan.
fn look(request: &Request, sysfs: &Sysfs, kernel: &mut impl Kernel) -> io::Result<(Machine, Plan)> {
    phase_over("parse");
    let (machine, late) = machine(request, sysfs, kernel)?;
    phase_over("read");
    let plan = plan::plan(request, &machine, late);
    phase_over("plan");
    if log::max_level() >= log::Level::Debug {
        plan.to_string().lines().for_each(|line| log::debug!("plan: {line}"));
        phase_over("log of the plan");
    }
    Ok((machine, plan))
}

/// Since then.
fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn carry_out(
    request: Request,
    mut machine: Machine,
    mut plan: Plan,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
    start: Instant,
) -> io::Result<Report> {
    let mut applied = apply::apply(&plan, sysfs, kernel);
    if machine.has_groups_later() {
        (machine, plan, applied) =
            with_later_groups(&request, machine, plan, applied, sysfs, kernel)?;
    }
    let given = applied.bound();
    let verdict = verdict::judge(&Question::of(&machine, &plan, &applied, &given, false), sysfs);
    phase_over("verdict");
    let is_asked = |address: &Address| plan.is_for_vfio(address);
    applied.warnings.extend(others::told(&applied.given, &plan.foreign, sysfs, &is_asked));
    phase_over("others");
    let mut report = report::report(request, &machine, &plan, &applied, &verdict);
    report.elapsed_us = micros(start);
    Ok(report)
}

/// Where the kernel makes a group only when a driver is probed: how it is now, and what an item
/// `group:` means besides by that.
fn with_later_groups(
    request: &Request,
    mut machine: Machine,
    mut plan: Plan,
    applied: Applied,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> io::Result<(Machine, Plan, Applied)> {
    let targets = |plan: &Plan| plan.targets.keys().copied().collect::<Vec<_>>();
    sysfs.read_later_groups(&mut machine, &targets(&plan));
    let requested = plan::requested(request, &machine);
    if requested.iter().all(|address| plan.targets.contains_key(address)) {
        for (address, target) in &mut plan.targets {
            target.device.group = machine.devices.get(address).and_then(|device| device.group);
        }
        return Ok((machine, plan, applied));
    }
    let mut machine = sysfs.machine(request)?;
    complete(&mut machine, request, &sysfs.record(), sysfs, kernel);
    let mut again = plan::plan(request, &machine, plan.late);
    let applied = apply::apply(&again, sysfs, kernel);
    sysfs.read_later_groups(&mut machine, &targets(&again));
    for (address, target) in &mut again.targets {
        target.device.group = machine.devices.get(address).and_then(|device| device.group);
        // Not taken out of it: nothing else needs that of a tree, which is 3 kB of the program.
        if let Some(before) = plan.targets.get(address) {
            target.device.driver.clone_from(&before.device.driver);
        }
    }
    Ok((machine, again, applied))
}

/// Does what the run that made this report had to leave, and nothing else; `None` where that is
/// nothing.
///
/// # Errors
/// When the PCI bus cannot be read; nothing was written then.
pub fn finish(
    request: Request,
    then: &Value,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> io::Result<Option<Report>> {
    let mut functions = Functions::find(request, true, sysfs, kernel)?;
    let machine = sysfs.machine(&functions.request)?;
    let mut left = host::finish::left(
        functions.request.clone(),
        &machine,
        &functions.without_made(then),
        sysfs,
    );
    functions.leave_to_host(&mut left, &machine);
    if left.items.is_empty() && !functions.are_told() {
        functions.put_back(kernel).iter().for_each(|why| log::warn!("{why}"));
        return Ok(None);
    }
    functions.over(bind(left, sysfs, kernel), sysfs, kernel).map(Some)
}

/// As [`bind`], on the host: virtual functions are made where they are asked for.
///
/// # Errors
/// As [`bind`].
pub fn bind_on_host(
    request: Request,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> io::Result<Report> {
    let functions = Functions::find(request, true, sysfs, kernel)?;
    let report = bind(functions.request.clone(), sysfs, kernel);
    functions.over(report, sysfs, kernel)
}

/// Takes a device that has just come, where the request means it; `None` where it does not.
///
/// # Errors
/// When the PCI bus cannot be read; nothing was written then.
pub fn hotplug(
    request: Request,
    address: Address,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> io::Result<Option<Report>> {
    let request = host::vfs::each_there(request, sysfs);
    let machine = sysfs.machine(&request)?;
    let one = host::finish::of_one(request, address, &machine, sysfs);
    if one.items.is_empty() { Ok(None) } else { bind(one, sysfs, kernel).map(Some) }
}

/// What [`bind`] would do now, and the report that it would make if the kernel did as it is told.
/// It does not wait for devices and writes nothing.
///
/// # Errors
/// When the PCI bus cannot be read.
pub fn check(mut request: Request, sysfs: &Sysfs, kernel: &mut impl Kernel) -> io::Result<Check> {
    if !request.asks_for_devices() {
        return Ok(Check::nothing(request));
    }
    // A list alone leaves the rest of the command line as it is.
    if request.foreign == Foreign::default() {
        request.foreign = cmdline::parse(&sysfs.cmdline().unwrap_or_default()).foreign;
    }
    let functions = Functions::find(request, false, sysfs, kernel)?;
    let request = functions.request.clone();
    let mut machine = sysfs.machine(&request)?;
    let mut record = sysfs.record();
    // In an initrd nobody can see that, and on a host it is what an initrd would be told.
    let lives_from = if sysfs.is_initrd() {
        None
    } else {
        let record = host::keep::record(sysfs, true);
        record.inspect_err(|why| log::warn!("what the host lives from is not known: {why}")).ok()
    };
    record.add(lives_from.iter().flat_map(|record| record.entries.clone()));
    complete(&mut machine, &request, &record, sysfs, kernel);
    let plan = plan::plan(&request, &machine, false);
    if machine.has_groups_later() {
        let targets: Vec<_> = plan.targets.keys().copied().collect();
        sysfs.read_later_groups(&mut machine, &targets);
    }
    let expected = host::check::expected(&plan, &machine, sysfs, kernel);
    let next_boot =
        lives_from.map(|it| host::next_boot::next_boot(&request, &machine, &plan, &it, sysfs));
    let given = expected.bound();
    let is_unsafe = host::check::lets_vms_be_unsafe(&plan.foreign, &machine, kernel);
    let question = Question::of(&machine, &plan, &expected, &given, is_unsafe);
    let verdict = verdict::judge(&question, sysfs);
    let mut report = report::report(request, &machine, &plan, &expected, &verdict);
    let is_asked = |address: &Address| plan.is_for_vfio(address);
    report.warnings.extend(others::foretold(&plan.foreign, sysfs, &is_asked));
    if next_boot.is_some() && plan.taken().any(|(_, device, _)| device.class.may_have_disks()) {
        report.warnings.extend(host::keep::untold(sysfs));
    }
    report.warnings.extend(sysfs.hidden_users());
    functions.tell(&mut report, sysfs);
    Ok(Check {
        report: Report { next_boot: next_boot.unwrap_or_default(), ..report },
        has_screen: machine.screen.is_some(),
        displays: host::check::displays_that_stay(&plan, &machine),
        next_initrd: Vec::new(),
        plan,
    })
}

/// How long a device that has just been plugged in may take until it has its group: the kernel shows
/// it in sysfs before that, and announces it after (`device_add()` in `drivers/base/core.c`).
const GROUP: Duration = Duration::from_secs(1);

/// Reads the machine, again and again while devices are missing and the wait is not over; and
/// whether any came meanwhile.
fn machine(
    request: &Request,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> io::Result<(Machine, bool)> {
    let mut wait = Duration::from_secs(request.wait.into());
    // Before the first read, so that nothing comes unheard in between.
    if !wait.is_zero()
        && let Err(why) = kernel.listen()
    {
        log::warn!("not waiting for devices: uevents cannot be heard: {why}");
        wait = Duration::ZERO;
    }
    let end = Instant::now() + wait;
    let mut machine = sysfs.machine(request)?;
    let mut late = false;
    if !wait.is_zero() && plan::misses_a_device(request, &machine) {
        log::info!("waiting for devices that are not there yet, at most {} s", wait.as_secs());
    }
    let mut wait_while = |misses: fn(&Request, &Machine) -> bool, end: Instant| {
        while misses(request, &machine) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !kernel.wait_for_uevent(left) {
                break;
            }
            late = true;
            machine = sysfs.machine(request)?;
        }
        io::Result::Ok(())
    };
    wait_while(plan::misses_a_device, end)?;
    wait_while(plan::misses_a_group, end.min(Instant::now() + GROUP))?;
    complete(&mut machine, request, &sysfs.record(), sysfs, kernel);
    Ok((machine, late))
}

/// Adds what is only asked of the devices that the request means, and of the modules.
fn complete(
    machine: &mut Machine,
    request: &Request,
    record: &Record,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) {
    if !record.entries.is_empty() {
        sysfs.know(record, machine);
    }
    let requested = plan::requested(request, machine);
    let groups: Vec<_> = requested.iter().filter_map(|it| machine.devices[it].group).collect();
    for (address, device) in &mut machine.devices {
        let is_of_host = |driver: &str| !plan::is_vfio_driver(driver);
        if !device.driver.as_deref().is_some_and(is_of_host) {
            continue;
        }
        let is_concerned = device.group.map_or_else(
            || requested.contains(address),
            |group| groups.contains(&group) && !device.class.is_pci_bridge(),
        );
        if is_concerned {
            device.usage = sysfs.usage(*address);
        }
    }
    let mut variants = None;
    for address in &requested {
        let Some(device) = machine.devices.get_mut(address) else { continue };
        let is_given = device.driver.as_deref().is_some_and(plan::is_vfio_driver);
        if !is_given && request.driver.is_none() {
            let variants = variants.get_or_insert_with(|| kernel.variants());
            device.variant = variants.module_for(device.id, device.class).map(str::to_owned);
        }
    }
    if machine.iommu == Iommu::VirtioOff && kernel.modules_for("virtio_iommu").is_some() {
        let mut is_to_load =
            |module: &&str| kernel.modules_for(module).is_some_and(|needed| !needed.is_empty());
        let modules = ["virtio_pci", "virtio_iommu"].into_iter().filter(|it| is_to_load(it));
        machine.iommu_modules = modules.map(str::to_owned).collect();
    }
    if machine.screen.is_none() {
        return;
    }
    for device in machine.devices.values_mut() {
        if device.class.is_display() && device.driver.is_none() {
            let modalias = variant::modalias(device.id, device.class);
            device.modules = kernel.modules_for_alias(&format!("pci:{modalias}"));
        }
    }
}
