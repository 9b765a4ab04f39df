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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::machine::initrd::{self, Compression, Contents, Step};
use crate::machine::observed::{BEFORE, HOST};
use crate::machine::qemu::{self, Asked, Orders};
use crate::machine::run::Run;
use crate::machine::topology::{self, Device, Iommu, Topology};
use crate::machine::tsc;
use crate::supplies::kernels::{self, Kernel};

/// The longest command line that an x86 kernel takes; one byte more and the guest hangs silently.
pub const COMMAND_LINE_LIMIT: usize = 2047;

/// What every guest is told: the console, to end at a panic (`-no-reboot`), and to skip what only
/// takes time in an emulated machine.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 tsc=reliable no_timer_check \
                            cryptomgr.notests mitigations=off";

fn own_command_line(pace: Pace) -> String {
    if pace == Pace::Instructions {
        // Its counter counts instructions, too. No address is drawn by lot.
        return format!("{COMMAND_LINE} tsc_early_khz=1000000 nokaslr norandmaps");
    }
    if qemu::kvm_is_usable() {
        return COMMAND_LINE.to_owned();
    }
    format!("{COMMAND_LINE} tsc_early_khz={}", tsc::khz())
}

/// A virtual machine to be booted; made by [`vm`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Vm {
    kernel: Kernel,
    topology: Topology,
    command_line: Vec<String>,
    contents: Contents,
    steps: Vec<Step>,
    host_modules: Vec<String>,
    asks_first: bool,
    without_program: bool,
    arguments: Vec<String>,
    memory: u32,
    processors: u8,
    pace: Pace,
    limit: Duration,
    firmware: Firmware,
    displays: Vec<String>,
    asks: bool,
    initrd: Option<PathBuf>,
    disks: Vec<String>,
}

/// What starts the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Firmware {
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
enum Pace {
    /// The machine's clock.
    #[default]
    Time,
    /// The guest's instructions, one a nanosecond.
    Instructions,
}

/// OVMF as Debian's package has it: the code, and the variables to start with.
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

/// Bytes of a disk; it takes no room before it is written to.
const DISK: u64 = 64 << 20;

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
        disks: Vec::new(),
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
        let mut words = vec![PROGRAM.to_owned()];
        words.extend(arguments.into_iter().map(Into::into));
        self.steps.push(Step::Run(words));
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

    /// Runs a line of shell; what it prints is in [`Run::shells`].
    pub fn shell(mut self, line: &str) -> Self {
        self.steps.push(Step::Shell(line.to_owned()));
        self
    }

    /// Loads the host's drivers at the end, as udev would, and notes the moment [`HOST`].
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

    /// Stores modules as `.ko.xz`, also for a kernel that cannot decompress them.
    pub fn compressed_modules(mut self) -> Self {
        self.contents.compression = Compression::Xz;
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

    /// Takes pictures of the graphics device of that name, see [`Vm::picture`].
    pub fn display(mut self, name: &str) -> Self {
        self.displays.push(name.to_owned());
        self
    }

    /// Takes a picture of every display at this point; they are in [`Run::picture`].
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

    /// Boots it, and waits until it has powered itself off.
    ///
    /// # Errors
    /// When the command line is too long, the initrd cannot be made, or the guest does not come to
    /// its end within its limit; the last holds QEMU's command, the console and the report.
    pub fn boot(mut self) -> Result<Run> {
        let command_line = self.full_command_line()?;
        let folder = tempfile::Builder::new().prefix("vfio-early-vm-").tempdir()?;
        let initrd = match self.initrd.take() {
            Some(initrd) => initrd,
            None => self.make_initrd(folder.path())?,
        };

        if self.firmware == Firmware::Uefi {
            fs::copy(OVMF[1], folder.path().join("variables"))
                .with_context(|| format!("cannot read {}: the package ovmf has it", OVMF[1]))?;
        }
        for disk in &self.disks {
            let path = folder.path().join(disk);
            let file = fs::File::create(&path).and_then(|file| file.set_len(DISK));
            file.with_context(|| format!("cannot make {}", path.display()))?;
        }

        let arguments = self.qemu_arguments(&command_line, &initrd, folder.path());
        let orders = Orders {
            hot_added: self
                .topology
                .devices
                .iter()
                .filter(|device| device.hot_added)
                .map(|device| device.properties(self.topology.is_multifunction(device)))
                .collect(),
            monitor: folder.path().join("monitor"),
            asked: self.is_asked().then(|| Asked {
                port: folder.path().join("asks"),
                displays: self.displays.iter().map(|name| topology::qemu_id(name)).collect(),
                folder: folder.path().to_owned(),
            }),
            limit: self.limit,
        };
        let ended = qemu::run(&arguments, &orders)?;

        let results = folder.path().join("results");
        let results = fs::read(&results)
            .with_context(|| format!("cannot read what the guest sent: {}", results.display()));
        let mut run = Run {
            kernel: format!("{}, {}", self.kernel.line, self.kernel.release),
            moments: BTreeMap::new(),
            executions: Vec::new(),
            shells: Vec::new(),
            parameters: BTreeMap::new(),
            command_line: String::new(),
            log: Vec::new(),
            console: ended.console,
            elapsed: ended.elapsed,
            command: qemu::to_paste(&arguments),
            folder,
        };
        let read = results.and_then(|sent| run.read(&String::from_utf8_lossy(&sent)));
        if let Some(problem) =
            ended.problem.or_else(|| read.err().map(|error| format!("{error:#}")))
        {
            let details = run.details();
            let folder = run.keep();
            bail!(
                "the virtual machine did not end well: {problem}\n{details}\n\
                 --- its files are kept in {}",
                folder.display()
            );
        }
        Ok(run)
    }

    fn make_initrd(&mut self, folder: &Path) -> Result<PathBuf> {
        if !self.without_program && self.contents.program.is_none() {
            self.contents.program = Some(crate::supplies::binary::build()?);
        }
        self.contents.steps = self.all_steps();
        let initrd = folder.join("initrd");
        initrd::write(&self.kernel, &self.contents, folder, &initrd)
            .with_context(|| format!("cannot make an initrd for kernel {}", self.kernel.line))?;
        // Only the archive is of use from here on.
        fs::remove_dir_all(folder.join("lib"))?;
        Ok(initrd)
    }

    /// # Errors
    /// When the guest would hang on it.
    fn full_command_line(&self) -> Result<String> {
        let own = own_command_line(self.pace);
        let mut text = own.clone();
        for part in &self.command_line {
            text.push(' ');
            text.push_str(part);
        }
        if text.len() > COMMAND_LINE_LIMIT {
            bail!(
                "the kernel's command line has {} bytes, and the kernel takes {COMMAND_LINE_LIMIT} \
                 at most ({} are the harness's own); leave something out, or use a wildcard or \
                 group item",
                text.len(),
                own.len() + 1
            );
        }
        Ok(text)
    }

    fn all_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_run = |step: &Step| matches!(step, Step::Run(_));
        let mut asked = self.steps.clone();
        if !self.without_program && !asked.iter().any(is_run) {
            asked.push(Step::Run(vec![PROGRAM.to_owned()]));
        }
        let mut noted = false;
        let mut runs = 0;
        for step in asked {
            let run = is_run(&step);
            // Before the moment, which shows that nothing came of it.
            steps.extend(check_before(&step).filter(|_| self.asks_first));
            if run && !noted {
                steps.push(Step::Moment(BEFORE.to_owned()));
                noted = true;
            }
            steps.push(step);
            if run {
                runs += 1;
                steps.push(Step::Moment(format!("after {runs}")));
            }
        }
        if !noted {
            steps.push(Step::Moment(BEFORE.to_owned()));
        }
        if !self.host_modules.is_empty() {
            steps.push(Step::Load(self.host_modules.clone()));
            steps.push(Step::Moment(HOST.to_owned()));
        }
        steps
    }

    fn is_asked(&self) -> bool {
        self.asks || self.steps.iter().any(|step| matches!(step, Step::Picture(_)))
    }

    fn qemu_arguments(&self, command_line: &str, initrd: &Path, folder: &Path) -> Vec<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments: Vec<String> = Vec::new();
        let mut put =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        if self.pace == Pace::Instructions {
            put(&["-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem", "-seed", "1"]);
            put(&["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
        } else if qemu::kvm_is_usable() {
            // Interrupt remapping needs the split interrupt controller there.
            put(&["-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host"]);
        } else {
            put(&["-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem"]);
        }
        if self.processors > 1 {
            put(&["-smp", &self.processors.to_string()]);
        }
        put(&["-m", &self.memory.to_string(), "-nodefaults", "-no-user-config", "-no-reboot"]);
        put(&["-display", "none", "-vga", "none"]);
        put(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        put(&["-serial", &format!("file:{}", path(folder.join("results")))]);
        let socket = |name: &str| format!("unix:{},server=on,wait=off", path(folder.join(name)));
        if self.is_asked() {
            put(&["-serial", &socket("asks")]);
        }
        if self.firmware == Firmware::Uefi {
            let pflash = |file: String| format!("if=pflash,format=raw,file={file}");
            put(&["-drive", &pflash(format!("{},readonly=on", OVMF[0]))]);
            put(&["-drive", &pflash(path(folder.join("variables")))]);
        }
        let image = match self.firmware {
            Firmware::None => &self.kernel.vmlinux,
            Firmware::Bios | Firmware::Uefi => &self.kernel.vmlinuz,
        };
        put(&["-kernel", &image.to_string_lossy()]);
        put(&["-initrd", &initrd.to_string_lossy()]);
        put(&["-append", command_line]);
        if self.topology.devices.iter().any(|device| device.hot_added) || self.is_asked() {
            put(&["-qmp", &socket("monitor")]);
        }
        for disk in &self.disks {
            let file = path(folder.join(disk));
            put(&["-drive", &format!("if=none,id={disk},format=raw,file={file}")]);
        }
        // Their devices first: the PCI function of an AMD IOMMU takes a slot that they leave.
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend(self.topology.qemu_arguments());
        arguments
    }
}

const PROGRAM: &str = "/bin/vfio-early";

fn check(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let words = [PROGRAM, "check", "--json"].map(str::to_owned);
    words.into_iter().chain(arguments).collect()
}

/// The question what a run of `bind` is going to do; none where the step is something else.
fn check_before(step: &Step) -> Option<Step> {
    let Step::Run(words) = step else { return None };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match words[..] {
        [PROGRAM] => &[][..],
        [PROGRAM, "bind", ref arguments @ ..] => arguments,
        _ => return None,
    };
    Some(Step::Check(check(arguments.iter().map(|word| (*word).to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            line: "6.1".to_owned(),
            release: "6.1.0".to_owned(),
            vmlinuz: PathBuf::new(),
            vmlinux: PathBuf::new(),
            modules: PathBuf::new(),
            package_version: String::new(),
        }
    }

    #[test]
    fn a_command_line_that_would_hang_the_guest_is_refused() {
        let room = COMMAND_LINE_LIMIT - own_command_line(Pace::Time).len() - 1;
        assert!(vm(&kernel()).cmdline(&"a".repeat(room)).full_command_line().is_ok());
        let error = vm(&kernel()).cmdline(&"a".repeat(room + 1)).full_command_line().unwrap_err();
        assert!(error.to_string().contains("2048 bytes"), "{error}");
    }

    #[test]
    fn the_binary_runs_once_when_nothing_else_is_said() {
        let moment = |name: &str| Step::Moment(name.to_owned());
        let machine = vm(&kernel()).load(["vfio-pci"]).host_modules(["e1000e"]);
        let steps = machine.asking_first().all_steps();
        assert_eq!(
            steps,
            [
                Step::Load(vec!["vfio-pci".to_owned()]),
                Step::Check(["/bin/vfio-early", "check", "--json"].map(str::to_owned).to_vec()),
                moment(BEFORE),
                Step::Run(vec!["/bin/vfio-early".to_owned()]),
                moment("after 1"),
                Step::Load(vec!["e1000e".to_owned()]),
                moment(HOST),
            ]
        );
    }
}
