//! A virtual machine: configure, boot, ask.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let kernel = qemu_tests::supplies::kernels::get("6.1")?;
//! use qemu_tests::machine::vm::vm;
//!
//! let run = vm(&kernel)
//!     .device("e1000e", "03.0")
//!     .cmdline("vfio.devs=00:03.0")
//!     .host_modules(["e1000e"])
//!     .boot()?;
//! run.assert_driver("0000:00:03.0", "vfio-pci");
//! run.after_host_modules().assert_driver("0000:00:03.0", "vfio-pci");
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::initrd::{Compression, Contents, Step};
use super::loader::Loader;
use super::topology::{Device, Iommu, Topology};
use crate::supplies::kernels::{self, Kernel};

/// A virtual machine to be booted; made by [`vm`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Vm {
    pub(super) kernel: Kernel,
    pub(super) topology: Topology,
    pub(super) command_line: Vec<String>,
    pub(super) contents: Contents,
    pub(super) steps: Vec<Step>,
    pub(super) host_modules: Vec<String>,
    pub(super) asks_first: bool,
    pub(super) without_program: bool,
    pub(super) arguments: Vec<String>,
    pub(super) memory: u32,
    pub(super) processors: u8,
    pub(super) pace: Pace,
    pub(super) limit: Duration,
    pub(super) firmware: Firmware,
    pub(super) displays: Vec<String>,
    pub(super) asks: bool,
    pub(super) initrd: Option<PathBuf>,
    pub(super) unified: Option<PathBuf>,
    pub(super) disks: Vec<String>,
    pub(super) loader: Option<Loader>,
}

/// What starts the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Firmware {
    /// QEMU itself hands over to the kernel's ELF image (PVH): fast, and without any screen.
    #[default]
    None,
    /// `SeaBIOS`, which leaves VGA text mode.
    Bios,
    /// OVMF, which leaves a framebuffer.
    Uefi,
}

/// What the guest's clock follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pace {
    /// The machine's clock.
    #[default]
    Time,
    /// The guest's instructions, one a nanosecond.
    Instructions,
}

/// A machine `q35` with `intel-iommu` and no devices yet, that boots this kernel.
pub fn vm(kernel: &Kernel) -> Vm {
    Vm {
        kernel: kernel.clone(),
        topology: Topology::default(),
        command_line: Vec::new(),
        contents: Contents { modules: usual_modules(kernel), ..Contents::default() },
        steps: Vec::new(),
        host_modules: Vec::new(),
        asks_first: false,
        without_program: false,
        arguments: Vec::new(),
        memory: 512,
        processors: 1,
        pace: Pace::default(),
        limit: Duration::from_mins(2),
        firmware: Firmware::default(),
        displays: Vec::new(),
        asks: false,
        initrd: None,
        unified: None,
        disks: Vec::new(),
        loader: None,
    }
}

/// What gives devices to a VM.
fn usual_modules(kernel: &Kernel) -> BTreeSet<String> {
    let mut modules = BTreeSet::from(["vfio_pci".to_owned()]);
    // Without groups there is nothing for it to do; vfio itself needs iommufd there.
    if kernel.line != kernels::CDEV {
        modules.insert("vfio_iommu_type1".to_owned());
    }
    modules
}

impl Vm {
    /// Replaces the machine's devices and IOMMU.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Adds a device on the root bus: `.device("e1000e", "03.0")`.
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

    /// Adds to the kernel's command line.
    pub fn cmdline(mut self, text: &str) -> Self {
        self.command_line.push(text.to_owned());
        self
    }

    /// Loads these modules at this point: before the binary, or between two runs of it.
    pub fn load<I: IntoIterator<Item: Into<String>>>(mut self, modules: I) -> Self {
        let modules: Vec<String> = modules.into_iter().map(Into::into).collect();
        self.contents.modules.extend(modules.iter().cloned());
        self.steps.push(Step::Load(modules));
        self
    }

    /// Runs the binary with these arguments; when nothing says so it runs once, with none.
    pub fn run<I: IntoIterator<Item: Into<String>>>(mut self, arguments: I) -> Self {
        let arguments = arguments.into_iter().map(Into::into);
        self.steps.push(Step::Run(run(&arguments.collect::<Vec<String>>())));
        self
    }

    /// Runs the binary in its two moments, as a run of it, and loads the host's drivers beside the
    /// second.
    pub fn run_beside<I: IntoIterator<Item: Into<String>>>(mut self, modules: I) -> Self {
        let modules: Vec<String> = modules.into_iter().map(Into::into).collect();
        self.contents.modules.extend(modules.iter().cloned());
        self.steps.push(Step::RunBeside(modules));
        self
    }

    /// Asks before each run of `bind` what it is going to do; the answer is in
    /// [`Execution::prediction`](super::observed::Execution).
    pub fn asking_first(mut self) -> Self {
        self.asks_first = true;
        self
    }

    /// Asks what the next run is going to do.
    pub fn check<I: IntoIterator<Item: Into<String>>>(mut self, arguments: I) -> Self {
        self.steps.push(Step::Check(check(arguments.into_iter().map(Into::into))));
        self
    }

    /// Runs this program instead of the binary, which it runs in turn: counted as a run of it.
    pub fn run_by<I: IntoIterator<Item: Into<String>>>(mut self, words: I) -> Self {
        self.steps.push(Step::Run(words.into_iter().map(Into::into).collect()));
        self
    }

    /// Runs a line of shell; what it prints is in [`Run::shells`](super::run::Run::shells).
    pub fn shell(mut self, line: &str) -> Self {
        self.steps.push(Step::Shell(line.to_owned()));
        self
    }

    /// Loads the host's drivers at the end, as udev would, and notes the moment [`HOST`](super::observed::HOST).
    pub fn host_modules<I: IntoIterator<Item: Into<String>>>(mut self, modules: I) -> Self {
        let modules: Vec<String> = modules.into_iter().map(Into::into).collect();
        self.contents.modules.extend(modules.iter().cloned());
        self.host_modules.extend(modules);
        self
    }

    /// Puts modules into the initrd without loading them.
    pub fn modules<I: IntoIterator<Item: Into<String>>>(mut self, modules: I) -> Self {
        self.contents.modules.extend(modules.into_iter().map(Into::into));
        self
    }

    /// Leaves modules out of the initrd, although something needs them.
    pub fn without_modules<I: IntoIterator<Item: Into<String>>>(mut self, modules: I) -> Self {
        self.contents.left_out.extend(modules.into_iter().map(Into::into));
        self
    }

    /// Stores modules so, also for a kernel that cannot decompress them.
    pub fn compressed_modules(mut self, compression: Compression) -> Self {
        self.contents.compression = compression;
        self
    }

    /// Puts a file into the initrd.
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.contents.files.insert(path.to_owned(), content.into());
        self
    }

    /// The program to run; by default the binary of this tree, built when it is not.
    pub fn program(mut self, program: &Path) -> Self {
        self.contents.program = Some(program.to_owned());
        self
    }

    /// Boots without the binary: what becomes of the devices then.
    pub fn without_program(mut self) -> Self {
        self.without_program = true;
        self
    }

    /// Adds arguments for QEMU as they are.
    pub fn arguments<I: IntoIterator<Item: Into<String>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Memory in MiB, 512 by default; hundreds of devices need 2048.
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Processors, one by default.
    pub fn processors(mut self, number: u8) -> Self {
        self.processors = number;
        self
    }

    /// Lets the guest's clock count its instructions, one a nanosecond, whatever the machine is
    /// busy with; so the same work takes the same time, every time.
    pub fn counting_instructions(mut self) -> Self {
        self.pace = Pace::Instructions;
        self
    }

    /// A program for `/init` in place of the harness's own; steps are none of its business.
    pub fn init(mut self, program: impl Into<Vec<u8>>) -> Self {
        self.contents.init = Some(program.into());
        self
    }

    /// How long it may take from power-on to power-off, two minutes by default.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Boots by UEFI firmware, which draws on the first graphics card and leaves a framebuffer
    /// there.
    pub fn uefi(mut self) -> Self {
        self.firmware = Firmware::Uefi;
        self
    }

    /// Boots by BIOS firmware, which leaves the first graphics card in text mode.
    pub fn bios(mut self) -> Self {
        self.firmware = Firmware::Bios;
        self
    }

    /// Starts from a medium with that boot loader, by the firmware that is chosen besides.
    pub fn loader(mut self, loader: Loader) -> Self {
        self.loader = Some(loader);
        self
    }

    /// Takes pictures of the graphics device of that name, see [`Vm::picture`].
    pub fn display(mut self, name: &str) -> Self {
        self.displays.push(name.to_owned());
        self
    }

    /// Takes a picture of every display at this point; they are in [`Run::picture`](super::run::Run::picture).
    pub fn picture(mut self, name: &str) -> Self {
        self.steps.push(Step::Picture(name.to_owned()));
        self
    }

    /// The guest asks by itself, over its third serial port, a line each: for a picture of every
    /// display by its name, for text to be typed by `type TEXT`, with Enter by `enter TEXT`. It
    /// gets an empty line when that is done.
    pub fn asks(mut self) -> Self {
        self.asks = true;
        self
    }

    /// Loads modules that lie where the binary does not look for them: what the host has, but not
    /// its initrd.
    pub fn load_late<I: IntoIterator<Item: Into<String>>>(mut self, modules: I) -> Self {
        let modules: Vec<String> = modules.into_iter().map(Into::into).collect();
        self.contents.late.extend(modules.iter().cloned());
        self.steps.push(Step::LoadLate(modules));
        self
    }

    /// Boots this initrd instead of making one; steps, modules and files are none of it then.
    pub fn initrd(mut self, file: &Path) -> Self {
        self.initrd = Some(file.to_owned());
        self
    }

    /// Boots this unified kernel image by UEFI, from a disk of its own; what the command line has besides
    /// comes by SMBIOS, as systemd's stub takes it where there is no Secure Boot.
    pub fn unified(mut self, image: &Path) -> Self {
        self.unified = Some(image.to_owned());
        self.uefi()
    }

    /// Puts a program into the initrd.
    pub fn tool(mut self, path: &str, program: impl Into<Vec<u8>>) -> Self {
        self.contents.tools.insert(path.to_owned(), program.into());
        self
    }

    /// The name of the kernel that it boots, one of [`NAMES`](crate::supplies::kernels::NAMES).
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel.line
    }

    /// Makes an empty disk of 64 MiB that a device takes by `drive=ID`.
    pub fn disk(mut self, id: &str) -> Self {
        self.disks.push(id.to_owned());
        self
    }
}

/// The host's program.
pub(super) const PROGRAM: &str = "/bin/vfio-early";
/// What a boot has of it.
pub(super) const INITRDS: &str = "/bin/vfio-early-initrd";

/// A run of the initrd's program, where it can do that.
pub(super) fn run(arguments: &[String]) -> Vec<String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = match words[..] {
        [] | ["bind" | "claim" | "wait" | "status"] | ["bind", "--cmdline", _] => INITRDS,
        _ => PROGRAM,
    };
    [program].iter().map(|word| (*word).to_owned()).chain(arguments.iter().cloned()).collect()
}

pub(super) fn check(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let words = [PROGRAM, "check", "--json"].map(str::to_owned);
    words.into_iter().chain(arguments).collect()
}
