//! A scenario is data: what is there, what is asked, what comes out. Here is the table of them, how
//! one is run, and what is held of each. Uses [`mod@crate::check`] and what that uses.
//!
//! The same table runs in QEMU and over the fake kernel. Both sides fill in an [`Observed`](crate::machine::observed::Observed), and
//! [`Scenario::complaints`] holds it against what is expected, and against what holds always: no
//! device that was not asked for is touched, every warning is one that was expected.
//!
//! The fake kernel's side of a scenario:
//! - its tree has [`Topology::functions`], less those that are hot-added; they have no groups when
//!   [`Scenario::iommu_off`] is set, and interrupt remapping as the topology says;
//! - host drivers have their devices where [`Scenario::bound_at_power_on`] says so, then those
//!   of the modules in [`Scenario::before`] take theirs;
//! - the binary's library runs once for each of [`Scenario::runs`], with
//!   [`Scenario::command_line`], and without the modules in [`Scenario::left_out`];
//!   in the first one the drivers of [`Scenario::beside`] take what they can get between `claim` and
//!   `bind`;
//! - then those of [`Scenario::host_modules`] do;
//! - before each of them it is asked what is going to come of it, and nothing comes of the question;
//! - what was seen on the way is an `Observed`: the report as JSON with `644` as its mode, the
//!   moments `before`, `after 1` … and, with host modules, `host`, and the log's lines;
//! - [`Scenario::complaints`] must be empty, and [`answers::keep`] leaves
//!   the answer for the same scenario in QEMU.

pub mod answers;
mod complaints;
pub mod matrix;
pub(crate) mod run;
pub mod table;

use std::collections::BTreeMap;
use std::path::Path;

use crate::check::prediction::Unforeseen;
use crate::machine::initrd::Compression;
use crate::machine::topology::{Device, Function, Iommu, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::kernels::{self, Kernel};

/// Where a scenario can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// In QEMU and over the fake kernel.
    Both,
    /// In QEMU only, for this reason.
    QemuOnly(&'static str),
}

/// What is to become of one requested device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The item as written; none where several name the device.
    pub item: Option<String>,
    /// Address of the device; none where the item matches nothing.
    pub address: Option<String>,
    /// `bound`, `refused`, `failed` or `absent`.
    pub outcome: &'static str,
    /// Each stands in the reason, the remedy or a warning; and each warning has one of them.
    pub texts: Vec<&'static str>,
    /// Each stands in what keeps it from a VM, and each such has one of them; none where a VM could
    /// have it.
    pub obstacles: Vec<&'static str>,
    /// The driver that it is to get.
    pub driver: &'static str,
    /// Where `check` cannot know that.
    pub unforeseen: Option<Unforeseen>,
}

/// The driver that devices get when nothing else is asked for, and no variant is for them.
const VFIO_PCI: &str = "vfio-pci";

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// The machine.
    pub topology: Topology,
    /// Added to the kernel's command line.
    pub command_line: String,
    /// The IOMMU is there, and the kernel has it off: a table, but no groups.
    pub iommu_off: bool,
    /// Kernels that it runs on each time; the [matrix] has it on the others, too.
    pub kernels: &'static [&'static str],
    /// The only kernels on which it makes sense, and why.
    pub only_on: Option<(&'static [&'static str], &'static str)>,
    /// The only IOMMU with which it makes sense, and why.
    pub only_with: Option<(Iommu, &'static str)>,
    /// Why virtual machines have one IOMMU for it, though it makes sense with each.
    pub one_iommu: Option<&'static str>,
    /// Modules that are not in the initrd.
    pub left_out: Vec<&'static str>,
    /// Modules that are in the initrd besides vfio's usual ones and the host's.
    pub also_there: Vec<&'static str>,
    /// Modules lie in the initrd as `.ko.xz`.
    pub compressed: bool,
    /// Further files of the initrd.
    pub files: BTreeMap<&'static str, &'static str>,
    /// Host drivers that are built into the kernels of this scenario, besides those of bridges and
    /// serial ports.
    pub built_in: Vec<&'static str>,
    /// Host drivers that the kernel does not have at all.
    pub lacking: Vec<&'static str>,
    /// Modules that are loaded before the binary runs.
    pub before: Vec<&'static str>,
    /// Arguments of each run of the binary.
    pub runs: Vec<Vec<&'static str>>,
    /// Host drivers that are loaded beside the second moment of the first run, which is in one where
    /// there are none.
    pub beside: Vec<&'static str>,
    /// Host drivers that are loaded at the end.
    pub host_modules: Vec<&'static str>,
    /// Where it can run.
    pub sides: Sides,
    /// Every device of the report, in any order.
    pub wanted: Vec<Wanted>,
    /// Texts of the items that are rejected.
    pub rejected: Vec<&'static str>,
    /// Each stands in a machine-wide warning; and each of those has one of them.
    pub warnings: Vec<&'static str>,
    /// Exit status of every run, if it is not what the outcomes say.
    pub exit_status: Option<i32>,
    /// Each stands in a line that the binary logs.
    pub log: Vec<&'static str>,
    /// Each stands in the standard output of the first run.
    pub stdout: Vec<&'static str>,
    /// Module parameters at the end: `vfio_pci/parameters/disable_vga` to `Y`.
    pub parameters: BTreeMap<&'static str, &'static str>,
    /// Whether there is a report at the end.
    pub reports: bool,
    /// Whether vfio's modules are loaded at the end; not looked at when none.
    pub loads_vfio: Option<bool>,
}

/// The kernel lines that a scenario runs on unless it says otherwise.
pub const USUAL: &[&str] = &["6.1", "6.12"];

/// All of Debian's.
pub const ALL: &[&str] = &["5.10", "6.1", "6.12", "7.2"];

/// All of Debian's, and the one as NixOS has it.
pub const EVERY: &[&str] = &["5.10", "6.1", "6.12", "7.2", kernels::NIXOS];

/// The usual ones, and the one as NixOS has it.
pub const USUAL_AND_NIXOS: &[&str] = &["6.1", "6.12", kernels::NIXOS];

/// A scenario without devices that asks for nothing.
pub fn scenario(name: &'static str) -> Scenario {
    Scenario {
        name,
        topology: Topology::default(),
        command_line: String::new(),
        iommu_off: false,
        kernels: USUAL,
        only_on: None,
        only_with: None,
        one_iommu: None,
        left_out: Vec::new(),
        also_there: Vec::new(),
        compressed: false,
        files: BTreeMap::new(),
        built_in: Vec::new(),
        lacking: Vec::new(),
        before: Vec::new(),
        runs: vec![Vec::new()],
        beside: Vec::new(),
        host_modules: Vec::new(),
        sides: Sides::Both,
        wanted: Vec::new(),
        rejected: Vec::new(),
        warnings: Vec::new(),
        exit_status: None,
        log: Vec::new(),
        stdout: Vec::new(),
        parameters: BTreeMap::new(),
        reports: true,
        loads_vfio: None,
    }
}

impl Scenario {
    /// Adds a device on the root bus.
    pub fn device(self, model: &str, place: &str) -> Self {
        self.with(Device::new(model, place))
    }

    /// Adds a device.
    pub fn with(mut self, device: Device) -> Self {
        self.topology.devices.push(device);
        self
    }

    /// Gives the machine that IOMMU.
    pub fn iommu(mut self, iommu: Iommu) -> Self {
        self.topology.iommu = iommu;
        self
    }

    /// Leaves interrupt remapping out of the IOMMU.
    pub fn without_interrupt_remapping(mut self) -> Self {
        self.topology = self.topology.without_interrupt_remapping();
        self
    }

    /// Has the kernel leave the IOMMU off by that parameter.
    pub fn iommu_off(mut self, parameter: &str) -> Self {
        self.iommu_off = true;
        self.cmdline(parameter)
    }

    /// Adds to the command line.
    pub fn cmdline(mut self, text: &str) -> Self {
        if !self.command_line.is_empty() {
            self.command_line.push(' ');
        }
        self.command_line.push_str(text);
        self
    }

    /// Runs on these kernel lines.
    pub fn kernels(mut self, kernels: &'static [&'static str]) -> Self {
        self.kernels = kernels;
        self
    }

    /// Makes no sense on other kernels, for this reason. A line stands for all of Debian's kernels of
    /// it.
    pub fn only_on(mut self, kernels: &'static [&'static str], why: &'static str) -> Self {
        self.only_on = Some((kernels, why));
        self
    }

    /// Has that IOMMU, and makes no sense with another, for this reason.
    pub fn only_with(mut self, iommu: Iommu, why: &'static str) -> Self {
        self.only_with = Some((iommu, why));
        self.iommu(iommu)
    }

    /// Leaves a module out of the initrd.
    pub fn left_out(mut self, module: &'static str) -> Self {
        self.left_out.push(module);
        self
    }

    /// Puts a module into the initrd.
    pub fn also_there(mut self, module: &'static str) -> Self {
        self.also_there.push(module);
        self
    }

    /// Stores modules as `.ko.xz`.
    pub fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Puts a file into the initrd.
    pub fn file(mut self, path: &'static str, content: &'static str) -> Self {
        self.files.insert(path, content);
        self
    }

    /// Says that a host driver's module is built into the kernels of this scenario.
    pub fn built_in(mut self, module: &'static str) -> Self {
        self.built_in.push(module);
        self
    }

    /// Loads a module before the binary runs.
    pub fn loaded_before(mut self, module: &'static str) -> Self {
        self.before.push(module);
        self
    }

    /// Replaces the runs of the binary by these, each with its arguments.
    pub fn runs<const N: usize>(mut self, runs: [&[&'static str]; N]) -> Self {
        self.runs = runs.iter().map(|arguments| arguments.to_vec()).collect();
        self
    }

    /// Loads host drivers at the end.
    pub fn host_modules<const N: usize>(mut self, modules: [&'static str; N]) -> Self {
        self.host_modules.extend(modules);
        self
    }

    /// Keeps it away from the fake kernel.
    pub fn qemu_only(mut self, reason: &'static str) -> Self {
        self.sides = Sides::QemuOnly(reason);
        self
    }

    fn want(mut self, item: Option<&str>, address: Option<&str>, outcome: &'static str) -> Self {
        self.wanted.push(Wanted {
            item: item.map(str::to_owned),
            address: address.map(str::to_owned),
            outcome,
            texts: Vec::new(),
            obstacles: Vec::new(),
            driver: VFIO_PCI,
            unforeseen: None,
        });
        self
    }

    /// Expects the device at that address to be bound, and to stay so; asked for by that item.
    pub fn bound(self, item: &str, address: &str) -> Self {
        self.want(Some(item), Some(address), "bound")
    }

    /// Expects it to be left to the host.
    pub fn refused(self, item: &str, address: &str) -> Self {
        self.want(Some(item), Some(address), "refused")
    }

    /// Expects the same, whichever of several items the report names.
    pub fn refused_by_any(self, address: &str) -> Self {
        self.want(None, Some(address), "refused")
    }

    /// Expects it to be bound, whichever of several items the report names.
    pub fn bound_by_any(self, address: &str) -> Self {
        self.want(None, Some(address), "bound")
    }

    /// Expects it to be kept from the host's drivers, without the vfio driver having it.
    pub fn failed(self, item: &str, address: &str) -> Self {
        self.want(Some(item), Some(address), "failed")
    }

    /// Expects the item to match nothing.
    pub fn absent(self, item: &str) -> Self {
        self.want(Some(item), None, "absent")
    }

    /// Expects that text in the reason, remedy or warnings of the device that was named last.
    ///
    /// # Panics
    /// When none was named yet.
    pub fn saying(mut self, text: &'static str) -> Self {
        self.wanted.last_mut().expect("a device comes first").texts.push(text);
        self
    }

    /// Expects that no VM could have the device that was named last, and that text in the reason or
    /// its remedy.
    ///
    /// # Panics
    /// When none was named yet.
    pub fn unusable(mut self, text: &'static str) -> Self {
        self.wanted.last_mut().expect("a device comes first").obstacles.push(text);
        self
    }

    /// Expects the device that was named last to get that driver.
    ///
    /// # Panics
    /// When none was named yet.
    pub fn on(mut self, driver: &'static str) -> Self {
        self.wanted.last_mut().expect("a device comes first").driver = driver;
        self
    }

    /// Lets `check` expect something else of the device that was named last, for this reason: an
    /// outcome, or `bound to` a driver.
    ///
    /// # Panics
    /// When none was named yet.
    pub fn unforeseen(mut self, expected: &'static str, why: &'static str) -> Self {
        let last = self.wanted.last_mut().expect("a device comes first");
        last.unforeseen = Some(Unforeseen { expected, why });
        self
    }

    /// Expects an item to be rejected.
    pub fn rejected(mut self, text: &'static str) -> Self {
        self.rejected.push(text);
        self
    }

    /// Expects a machine-wide warning with that text.
    pub fn warning(mut self, text: &'static str) -> Self {
        self.warnings.push(text);
        self
    }

    /// Expects that exit status of every run.
    pub fn exits(mut self, status: i32) -> Self {
        self.exit_status = Some(status);
        self
    }

    /// Expects a line of the binary with that text in the log.
    pub fn logs(mut self, text: &'static str) -> Self {
        self.log.push(text);
        self
    }

    /// Expects that text on the standard output of the first run.
    pub fn prints(mut self, text: &'static str) -> Self {
        self.stdout.push(text);
        self
    }

    /// Expects a module parameter at the end.
    pub fn parameter(mut self, name: &'static str, value: &'static str) -> Self {
        self.parameters.insert(name, value);
        self
    }

    /// Expects no report and no module of vfio: nothing was to be done.
    pub fn does_nothing(mut self) -> Self {
        self.reports = false;
        self.loads_vfio = Some(false);
        self
    }

    /// The host's driver for a function, where the kernel has one.
    #[must_use]
    pub fn host_driver(&self, function: &Function) -> Option<&'static str> {
        let is_lacking = |module: &str| self.lacking.contains(&module);
        function.host_driver.filter(|_| !function.host_module.is_some_and(is_lacking))
    }

    /// Host drivers that have their devices at power-on.
    #[must_use]
    pub fn bound_at_power_on(&self, function: &Function) -> bool {
        let always = function.host_driver.is_some() && function.host_module.is_none();
        always || function.host_module.is_some_and(|module| self.built_in.contains(&module))
    }

    /// The virtual machine of this scenario.
    pub fn machine(&self, kernel: &Kernel, program: &Path) -> Vm {
        let mut machine = vm(kernel)
            .topology(self.topology.clone())
            .program(program)
            .asking_first()
            .modules(self.also_there.iter().copied())
            .without_modules(self.left_out.iter().copied())
            .host_modules(self.host_modules.iter().copied());
        let below_a_bridge = self.topology.devices.iter().any(|device| device.below.is_some());
        if self.topology.iommu == Iommu::Amd && below_a_bridge {
            // QEMU's amd-iommu notes the bus of a device before the firmware has numbered buses, so
            // that DMA from behind a bridge is translated by another device's table, or by none:
            // without translation host drivers such as nvme come up all the same.
            machine = machine.cmdline("iommu=pt");
        }
        if self.compressed {
            machine = machine.compressed_modules(Compression::Xz);
        }
        // Last, since it may end with what the kernel does not read.
        machine = machine.cmdline(&self.command_line);
        for (path, content) in &self.files {
            machine = machine.file(path, *content);
        }
        if !self.before.is_empty() {
            machine = machine.load(self.before.iter().copied());
        }
        let mut runs = self.runs.iter();
        if !self.beside.is_empty() {
            runs.next();
            machine = machine.run_beside(self.beside.iter().copied());
        }
        for arguments in runs {
            machine = machine.run(arguments.iter().copied());
        }
        machine
    }

    /// Exit status that every run is to have.
    #[must_use]
    pub fn expected_status(&self) -> i32 {
        let all_bound = self.wanted.iter().all(|wanted| wanted.outcome == "bound");
        self.exit_status.unwrap_or(i32::from(!all_bound || !self.rejected.is_empty()))
    }
}
