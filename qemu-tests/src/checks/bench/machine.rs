//! The machine that everything is measured on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::contender::{self, Contender, Shape};
use crate::machine::guest_program;
use crate::machine::initrd::{self, Contents};
use crate::machine::run::Run;
use crate::machine::topology::{Device, Iommu, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::arch::Arch;
use crate::supplies::kernels;
use crate::supplies::kernels::Kernel;

/// Device counts; with 0 nothing is asked for.
pub(crate) const COUNTS: [usize; 8] = [0, 1, 3, 16, 64, 128, 256, 512];

/// Up to so many devices each has a root port of its own, and so an IOMMU group of its own. With
/// more ports, machines of hundreds of devices take minutes to boot.
const PORTS: usize = 64;

/// Up to here the addresses are given one by one; more do not fit into a command line.
const ADDRESSES: usize = 128;

/// Id of the devices, and no others: `edu`, which no driver of the kernel takes.
const ID: &str = "1234:11e8";

/// What a run of a contender took, and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// From its start to its end, on the guest's clock; where that counts instructions, so many.
    pub nanoseconds: u64,
    /// Until no other driver could have the devices, and udev might have started; who has no such
    /// moment makes all wait until its end.
    #[serde(default)]
    pub claimed: u64,
    /// From the kernel's start to that of its first program.
    #[serde(skip)]
    pub boot: u64,
    /// The same of a second run in the same boot, where there was one.
    #[serde(skip)]
    pub again: Option<u64>,
    /// The most memory that it, or a process that it started, had at once, in KiB.
    pub memory_kib: u64,
    /// Its exit status.
    pub status: i32,
    /// Devices that vfio-pci has.
    pub bound: usize,
    /// Whether `vfio_iommu_type1` is loaded.
    pub iommu_type1: bool,
    /// What a VM's start fails at; none where it does not, or where nothing was asked for.
    pub stopped: Option<String>,
}

impl Outcome {
    /// The time.
    pub fn milliseconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds).as_secs_f64() * 1e3
    }

    /// The time until udev might start.
    pub fn milliseconds_claimed(&self) -> f64 {
        Duration::from_nanos(self.claimed).as_secs_f64() * 1e3
    }

    /// The time of the second run.
    pub fn milliseconds_again(&self) -> Option<f64> {
        Some(Duration::from_nanos(self.again?).as_secs_f64() * 1e3)
    }

    /// Whether all of so many devices can be given to VMs now.
    pub fn is_complete(&self, devices: usize) -> bool {
        self.status == 0 && self.bound == devices && self.stopped.is_none()
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Counted instructions, on one processor.
    Cost,
    /// As [`Look::Cost`], with `vfio.debug`.
    Phases,
    /// As [`Look::Cost`], under strace.
    Calls,
    /// The machine's own time, on two processors.
    Wall,
}

/// An initrd with all contenders, and the kernel to boot it with.
pub struct Bench {
    kernel: Kernel,
    initrd: PathBuf,
    /// Holds the initrd.
    _folder: TempDir,
}

/// The devices, each behind a root port of its own as far as there are ports.
fn topology(devices: usize, arch: Arch) -> Topology {
    let iommu = if arch == Arch::Arm64 { Iommu::Smmu } else { Iommu::Amd };
    let mut topology = Topology { arch, ..Topology::new([]).iommu(iommu) };
    for port in 0..devices.min(PORTS) {
        let name = format!("port{port}");
        let place = format!("{:02x}.{}", 1 + port / 8, port % 8);
        topology
            .devices
            .push(Device::new("pcie-root-port", &place).named(&name).option("hotplug=off"));
        for function in 0..devices.div_ceil(PORTS) {
            topology.devices.push(Device::new("edu", &format!("00.{function}")).below(&name));
        }
    }
    topology
}

/// Their addresses, in order.
fn addresses(topology: &Topology) -> Vec<String> {
    let functions = topology.functions().into_iter();
    functions.filter(|each| each.id_text() == ID).map(|each| each.address).collect()
}

/// What the kernel's command line says for that contender. Like everywhere, the kernel is quiet.
fn command_line(shape: Shape, addresses: &[String]) -> String {
    if shape == Shape::Arguments || addresses.is_empty() {
        return "quiet".to_owned();
    }
    let short: Vec<&str> =
        addresses.iter().map(|address| address.trim_start_matches("0000:")).collect();
    let list = match shape {
        Shape::CommandLine if addresses.len() <= ADDRESSES => short.join(","),
        _ => format!("pci:{ID}"),
    };
    format!("quiet vfio.devs={list}")
}

impl Bench {
    /// Makes the initrd, with strace where system calls may be counted. It is the same for all
    /// counts and looks, so that no run begins with other memory than another.
    ///
    /// # Errors
    /// When something that goes into it is not there, or cannot be compiled.
    pub fn new(
        line: &str,
        contenders: &[&Contender],
        counts: &[usize],
        program: &Path,
        traced: bool,
    ) -> Result<Self> {
        let kernel = kernels::set_up(line)?;
        let mut contents = Contents {
            modules: ["vfio_pci", "vfio_iommu_type1"].map(str::to_owned).into(),
            program: Some(program.to_owned()),
            init: Some(guest_program::compile("measure", kernel.arch)?),
            ..Contents::default()
        };
        if traced {
            let strace = contender::with_libraries("/usr/bin/strace", "/bench/bin/strace")?;
            contents.tools.extend(strace);
        }
        for contender in contenders {
            contents.tools.extend(contender.tools(kernel.arch, program)?);
            let words = contender.words(&kernel)?;
            let mut put = |name: &str, words: &[String]| {
                let path = format!("/bench/contenders/{name}");
                contents.files.insert(path, (words.join("\n") + "\n").into());
            };
            put(contender.name, &words);
            // Its environment comes first.
            let variables = words.iter().take_while(|word| word.contains('=')).count();
            let strace = |to: &str| ["/bench/bin/strace", "-f", "-c", "-o", to].map(str::to_owned);
            let mut traced = words;
            if let Some(then) = traced.iter().position(|word| word == "THEN") {
                let second = traced.split_off(then + 1);
                traced.extend(strace("/run/bench-calls-then").into_iter().chain(second));
            }
            traced.splice(variables..variables, strace("/run/bench-calls"));
            put(&format!("{}-calls", contender.name), &traced);
        }
        for count in counts {
            let addresses =
                if *count == 0 { Vec::new() } else { addresses(&topology(*count, kernel.arch)) };
            for address in &addresses {
                let file = format!("/etc/driverctl.d/pci-{address}");
                contents.files.insert(file, "vfio-pci\n".into());
            }
            contents.files.insert(format!("/bench/devices/{count}"), addresses.join("\n").into());
        }
        let folder = tempfile::Builder::new().prefix("vfio-early-bench-").tempdir()?;
        let initrd = folder.path().join("initrd");
        initrd::write(&kernel, &contents, folder.path(), &initrd)?;
        Ok(Self { kernel, initrd, _folder: folder })
    }

    /// The kernel that it boots.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    fn machine(&self, contender: &Contender, count: usize, look: Look) -> Vm {
        // Where nothing is asked for, devices are there all the same.
        let topology = topology(if count == 0 { 3 } else { count }, self.kernel.arch);
        let asked = if count == 0 { Vec::new() } else { addresses(&topology) };
        let machine = vm(&self.kernel)
            .memory(if count > ADDRESSES { 2048 } else { 512 })
            .topology(topology)
            .initrd(&self.initrd)
            .limit(Duration::from_hours(1))
            .cmdline(&command_line(contender.shape, &asked));
        let machine = match look {
            Look::Cost | Look::Calls => machine.counting_instructions(),
            Look::Phases => machine.counting_instructions().cmdline("vfio.debug"),
            Look::Wall => machine.processors(2).cmdline("AGAIN=1"),
        };
        // The kernel hands what follows to /init.
        let suffix = if look == Look::Calls { "-calls" } else { "" };
        machine.cmdline(&format!("-- {}{suffix} {count}", contender.name))
    }

    /// Boots the machine and runs the contender in it, once.
    ///
    /// # Errors
    /// When the machine does not come to its end, or when vfio-early or the floor, whose work is
    /// known, did not do all of it.
    pub fn run(&self, contender: &Contender, count: usize, look: Look) -> Result<(Outcome, Run)> {
        let run = self.machine(contender, count, look).boot()?;
        let text = run.shells.first().context("the guest sent no measurement")?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.with_context(|| format!("the guest sent no {name}: {text}"))
        };
        let outcome = Outcome {
            nanoseconds: field("ns")?.parse()?,
            claimed: field("claimed")?.parse()?,
            boot: field("boot")?.parse()?,
            again: field("again")?.parse().ok(),
            memory_kib: field("memory")?.parse()?,
            status: run.last().status,
            bound: field("bound")?.parse()?,
            iommu_type1: field("type1")? == "1",
            stopped: Some(field("stopped")?).filter(|step| *step != "-").map(str::to_owned),
        };
        let must = !contender.is_script();
        ensure!(
            !must || outcome.is_complete(count),
            "kernel {}, {count} devices, {} did not do its work: {outcome:?}\n{}\n{}\n{}",
            self.kernel.line,
            contender.name,
            run.last().stdout,
            run.log_text(),
            run.command
        );
        Ok((outcome, run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_so_many_devices_and_a_list_that_fits() {
        for count in COUNTS.into_iter().filter(|count| *count > 0) {
            let addresses = addresses(&topology(count, Arch::default()));
            assert_eq!(addresses.len(), count);
            let length = command_line(Shape::CommandLine, &addresses).len();
            assert!(length < 1500, "{count} devices: {length} bytes");
        }
    }
}
