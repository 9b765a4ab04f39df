//! Gives chosen PCI devices to vfio-pci at boot, before any other driver can take them.
//!
//! The whole story is [`bind`]: the command line's text becomes a [`cmdline::Request`], the
//! machine is read ([`sysfs`]), both make a [`plan::Plan`], the plan is applied ([`apply`])
//! through the one door for writes ([`kernel::Kernel`]), and what reads back makes the
//! [`report::Report`].

pub mod apply;
pub mod cmdline;
pub mod kernel;
pub mod kmsg;
pub mod modules;
pub mod pci;
pub mod plan;
pub mod report;
pub mod report_file;
mod syscall;
pub mod sysfs;

use std::io;
use std::time::{Duration, Instant};

use cmdline::Request;
use kernel::Kernel;
use plan::Plan;
use report::Report;
use sysfs::{Machine, Sysfs};

/// Does what the command line asks for, and tells what became of it.
///
/// # Errors
/// When the PCI bus cannot be read; nothing was written then.
pub fn bind(request: Request, sysfs: &Sysfs, kernel: &mut impl Kernel) -> io::Result<Report> {
    let start = Instant::now();
    let (machine, late) = machine(&request, sysfs, kernel)?;
    let plan = plan::plan(&request, &machine, late);
    log::debug!("the plan:\n{plan}");
    let applied = apply::apply(&plan, sysfs, kernel);
    let mut report = report::report(request, &machine, &plan, &applied);
    report.elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(report)
}

/// What [`bind`] would do now; it does not wait for devices.
///
/// # Errors
/// When the PCI bus cannot be read.
pub fn dry_run(request: &Request, sysfs: &Sysfs) -> io::Result<Plan> {
    Ok(plan::plan(request, &sysfs.machine(request)?, false))
}

/// Reads the machine, again and again while devices are missing and the wait is not over; and
/// whether any came meanwhile.
fn machine(
    request: &Request,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> io::Result<(Machine, bool)> {
    let end = Instant::now() + Duration::from_secs(request.wait.into());
    if request.wait > 0 {
        // Before the first read, so that nothing comes unheard in between.
        kernel.listen()?;
    }
    let mut machine = sysfs.machine(request)?;
    let mut late = false;
    while plan::misses_a_device(request, &machine) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if !late {
            log::info!("waiting for devices that are not there yet, at most {} s", left.as_secs());
        }
        if !kernel.wait_for_uevent(left) {
            break;
        }
        late = true;
        machine = sysfs.machine(request)?;
    }
    Ok((machine, late))
}
