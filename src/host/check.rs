//! `vfio-early check`: what `bind` would do here, in words.

use crate::apply::{self, Applied, Fate};
use crate::cmdline::{Foreign, Request};
use crate::escape;
use crate::host::page::{Look, Page, Style};
use crate::kernel::Kernel;
use crate::pci::Address;
use crate::plan::{self, Decision, Driver, OtherDisplay, Plan, RESERVED, Step};
use crate::remedy::{self, Cause, Sight, Why};
use crate::report::{self, DeviceReport, Outcome, Report, exit_status};
use crate::sysfs::{IOMMU_TYPE1, IOMMUFD, Machine, Sysfs, VFIO_PCI};
use crate::verdict::{ALLOW_UNSAFE, Verdict};

/// What would become of the devices, if the kernel did what it is told: all that is to be taken
/// is bound, unless its module is missing here.
pub fn expected(
    plan: &Plan,
    machine: &Machine,
    sysfs: &Sysfs,
    kernel: &mut impl Kernel,
) -> Applied {
    let mut applied = Applied::default();
    let no_framebuffer = plan.steps.iter().find_map(|step| match step {
        Step::HandOver { to, from } => {
            let screen = machine.screen.as_ref();
            let has_one = |it: &OtherDisplay| {
                !it.modules.is_empty()
                    || screen.is_some_and(|s| s.framebuffer_of(it.address).is_some())
            };
            (!to.iter().any(has_one)).then(|| (from, apply::no_framebuffer(to, sysfs)))
        }
        _ => None,
    });
    let vfio = kernel.modules_for("vfio").unwrap_or_default();
    let vfio_needs_iommufd = vfio.iter().any(|module| module.needs.iter().any(|n| n == IOMMUFD));
    let why = |module: &str, reason: &str| {
        let sight = Sight { module, ..Sight::of(&plan.foreign, &machine.platform) };
        remedy::why(Cause::NoModule, &sight, reason)
    };
    let mut why_missing = |module: &str| match kernel.modules_for(module) {
        None => Some(why(module, &format!("{module} is missing"))),
        Some(needed) => needed
            .iter()
            .find(|it| plan.foreign.is_blacklisted(&it.name))
            .map(|it| why(&it.name, &format!("module_blacklist= has {}", it.name))),
    };
    let mut missing: Vec<(&str, Why)> = Vec::new();
    for step in &plan.steps {
        let Step::Load(module) = step else { continue };
        let Some(why) = why_missing(module) else { continue };
        if module == IOMMU_TYPE1 && vfio_needs_iommufd {
            applied.warnings.push(format!("{}: {}", why.reason, plan::ONLY_BY_IOMMUFD));
        } else if module == IOMMU_TYPE1 {
            applied.no_interface = Some(why.clone());
        }
        missing.push((module, why));
    }
    let is_missing = |module: &str| missing.iter().any(|(name, _)| *name == module);
    for (address, target) in &plan.targets {
        let (name, failure) = match &target.decision {
            Decision::Refuse(_) => continue,
            Decision::Reserve(_) => (RESERVED, None),
            Decision::Take(_)
                if no_framebuffer.as_ref().is_some_and(|(of, _)| of.contains(address)) =>
            {
                (RESERVED, no_framebuffer.as_ref().map(|(_, why)| why.clone()))
            }
            // As `bind` does with a variant that does not load.
            Decision::Take(Driver::Variant(module)) if is_missing(module) => {
                let is_there = machine.drivers.iter().any(|name| name == VFIO_PCI);
                (VFIO_PCI, if is_there { None } else { why_missing(VFIO_PCI) })
            }
            Decision::Take(driver) => {
                let name = driver.module();
                let found = missing.iter().find(|(module, _)| *module == name);
                (name, found.map(|(_, why)| why.clone()))
            }
        };
        let is_bound = failure.is_none() && name != RESERVED;
        let before = machine.devices.get(address).and_then(|device| device.driver.clone());
        let fate = Fate {
            driver: if is_bound { Some(name.to_owned()) } else { before },
            driver_override: Some(name.to_owned()),
            failure,
            ..Fate::default()
        };
        applied.fates.insert(*address, fate);
    }
    applied
}

/// Whether VMs may start without remapped interrupts, by options of modules that are still to be loaded
/// or by the command line.
pub fn lets_vms_be_unsafe(foreign: &Foreign, machine: &Machine, kernel: &mut impl Kernel) -> bool {
    let allows = |module: &str| {
        foreign.is_told(&format!("{module}.{ALLOW_UNSAFE}"))
            || kernel.options_of(module).split_whitespace().any(|option| {
                let value = option.strip_prefix(ALLOW_UNSAFE);
                value.is_some_and(|value| matches!(value, "" | "=1" | "=y" | "=Y" | "=on"))
            })
    };
    machine.interrupt_remapping == Some(false) && [IOMMU_TYPE1, IOMMUFD].into_iter().any(allows)
}

/// The report that `bind` would write, and what it would do for it.
#[derive(Debug)]
pub struct Check {
    /// With the outcomes that are expected.
    pub report: Report,
    /// The steps.
    pub plan: Plan,
    /// Whether the host has its console on a screen that a device of the request could take.
    pub has_screen: bool,
    /// The displays that stay with the host while another goes: one has to take over the console.
    pub displays: Vec<Address>,
    /// What [`crate::host::next_initrd`] says, for a reader.
    pub next_initrd: Vec<String>,
}

impl Check {
    /// Where no device is asked for, or `vfio.off` is given: `bind` does not even read the machine.
    #[must_use]
    pub fn nothing(request: Request) -> Self {
        let (machine, plan) = (Machine::default(), Plan::default());
        let (applied, verdict) = (Applied::default(), Verdict::default());
        let report = report::report(request, &machine, &plan, &applied, &verdict);
        let report = Report { exit_status: exit_status(false, false), ..report };
        let (displays, next_initrd) = (Vec::new(), Vec::new());
        Check { report, plan, has_screen: false, displays, next_initrd }
    }
}

/// The displays that stay, where there is a screen and some display is to be taken.
#[must_use]
pub fn displays_that_stay(plan: &Plan, machine: &Machine) -> Vec<Address> {
    let is_any_taken = plan.taken().any(|(_, device, _)| device.class.is_display());
    if machine.screen.is_none() || !is_any_taken {
        return Vec::new();
    }
    plan::displays_that_stay(machine, &plan.targets).map(|(address, _)| address).collect()
}

fn device_words(page: &mut Page, device: &DeviceReport) {
    let name = match (&device.address, &device.id) {
        (Some(address), Some(id)) => format!("{address} {id}:"),
        _ => format!("{}:", escape::short(&device.item)),
    };
    let driver = device.driver.as_deref().unwrap_or("no driver");
    let (style, what) = match device.outcome {
        Outcome::Bound if device.driver == device.driver_before => {
            (Style::Green, format!("is bound to {driver} already"))
        }
        Outcome::Bound => {
            let mut text = format!("would be bound to {driver}");
            if let Some(before) = &device.driver_before {
                text.extend([", taken from ", before]);
            }
            if let Some(group) = device.group {
                text.extend([", group ", &group.to_string()]);
            }
            (Style::Green, text)
        }
        Outcome::Reserved => (Style::Yellow, "would be reserved:".to_owned()),
        Outcome::Refused => (Style::Red, "would be refused:".to_owned()),
        Outcome::Failed => (Style::Red, "would fail:".to_owned()),
        Outcome::Absent => (Style::Red, "is absent:".to_owned()),
        Outcome::Later => (Style::Yellow, "would come later:".to_owned()),
    };
    let mut why = String::new();
    if device.outcome != Outcome::Bound {
        let texts = [&device.reason, &device.remedy];
        why = texts.map(|text| text.as_deref().unwrap_or_default()).join("; ");
    }
    page.paragraph("", "    ", &[(Style::Bold, &name), (style, &what), (Style::Plain, &why)]);
    for warning in &device.warnings {
        warning_words(page, "    ", warning);
    }
}

fn warning_words(page: &mut Page, indented: &str, warning: &str) {
    let below = format!("{indented}    ");
    page.paragraph(indented, &below, &[(Style::Yellow, "warning:"), (Style::Plain, warning)]);
}

impl Check {
    /// For a reader.
    #[must_use]
    pub fn words(&self, look: Look) -> String {
        let mut page = Page::new(look);
        let request = &self.report.request;
        if !request.asks_for_devices() {
            let what =
                if request.off { "vfio.off: nothing is done" } else { "nothing is asked for" };
            page.paragraph("", "", &[(Style::Plain, what)]);
        }
        for rejected in &request.rejected {
            let text = format!("{:?}: is no item:", escape::short(&rejected.text));
            page.paragraph("", "    ", &[(Style::Red, &text), (Style::Plain, &rejected.reason)]);
        }
        for device in &self.report.devices {
            device_words(&mut page, device);
            for next in self.report.next_boot.iter().filter(|it| Some(it.address) == device.address)
            {
                let spans = [(Style::Yellow, "at the next boot"), (Style::Plain, &*next.text)];
                page.paragraph("    ", "        ", &spans);
            }
        }
        for obstacle in self.report.obstacles() {
            page.paragraph("", "    ", &[(Style::Red, &obstacle)]);
        }
        let console = self.plan.steps.iter().find_map(|step| match step {
            Step::HandOver { .. } => {
                let step = step.to_string();
                let to = step.strip_prefix("move the console to").unwrap_or(&step);
                Some(format!("would be kept, on{to}"))
            }
            Step::Announce(address) => Some(format!("would end: {address} takes it along")),
            _ => None,
        });
        let stays = || self.has_screen.then(|| "would stay where it is".to_owned());
        if let Some(console) = console.or_else(stays) {
            page.paragraph("", "    ", &[(Style::Bold, "the console"), (Style::Plain, &console)]);
        }
        for line in &self.next_initrd {
            let indented = if line.starts_with(' ') { "    " } else { "" };
            let style = if line.contains("MISSING") { Style::Red } else { Style::Plain };
            page.paragraph(indented, &format!("{indented}    "), &[(style, line)]);
        }
        for warning in &self.report.warnings {
            warning_words(&mut page, "", warning);
        }
        page.text
    }
}
