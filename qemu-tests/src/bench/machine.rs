//! The machine that everything is measured on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::contender::{Contender, Shape};
use crate::initrd::{self, Contents};
use crate::kernels::Kernel;
use crate::topology::{Device, Iommu, Topology};
use crate::vm::{Vm, vm};
use crate::{guest_program, kernels};

/// As many root ports as buses are left for: up to so many devices each has one of its own, and so
/// an IOMMU group of its own.
const PORTS: usize = 128;

/// Up to here the addresses are given one by one; more do not fit into a command line.
pub const ADDRESSES: usize = 128;

/// Id of the devices, and no others: `edu`, which no driver of the kernel takes.
pub const ID: &str = "1234:11e8";

/// What a run of a contender took, and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// From its start to its end, on the guest's clock; where that counts instructions, so many.
    pub nanoseconds: u64,
    /// The most memory that it, or a process that it started, had at once, in KiB.
    pub memory: u64,
    /// Its exit status.
    pub status: i32,
    /// Devices that vfio-pci has.
    pub bound: usize,
    /// Whether `vfio_iommu_type1` is loaded.
    pub type1: bool,
    /// What a VM's start would fail at; none where it would not, or where nothing was asked for.
    pub stopped: Option<String>,
}

impl Outcome {
    /// The time.
    pub fn milliseconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds).as_secs_f64() * 1e3
    }
}

/// What the machine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Counted instructions, one processor.
    Instructions,
}

/// Every contender's initrd, and what to boot it with.
pub struct Bench {
    kernel: Kernel,
    initrd: PathBuf,
    /// Holds the initrd.
    _folder: TempDir,
}

/// The devices, each behind a root port of its own as far as there are ports.
fn topology(devices: usize) -> Topology {
    let ports = devices.min(PORTS);
    let functions = devices.div_ceil(PORTS);
    let mut topology = Topology::new([]).iommu(Iommu::Amd);
    for port in 0..ports {
        let name = format!("port{port}");
        let place = format!("{:02x}.{}", 1 + port / 8, port % 8);
        topology.devices.push(Device::new("pcie-root-port", &place).named(&name));
        for function in 0..functions {
            topology.devices.push(Device::new("edu", &format!("00.{function}")).below(&name));
        }
    }
    topology
}

/// Their addresses, in order.
fn addresses(topology: &Topology) -> Vec<String> {
    let is_ours = |id: &String| id == ID;
    let functions = topology.functions().into_iter();
    functions.filter(|each| is_ours(&each.id_text())).map(|each| each.address).collect()
}

/// What the kernel's command line says for that contender.
fn command_line(shape: Shape, addresses: &[String]) -> String {
    let short = |address: &String| address.trim_start_matches("0000:").to_owned();
    let list = match shape {
        Shape::Arguments => return "quiet".to_owned(),
        _ if addresses.is_empty() => return "quiet".to_owned(),
        Shape::CommandLine if addresses.len() <= ADDRESSES => {
            addresses.iter().map(short).collect::<Vec<_>>().join(",")
        }
        Shape::CommandLine | Shape::Id => format!("pci:{ID}"),
    };
    format!("quiet vfio.devs={list}")
}

impl Bench {
    /// Makes the initrd: the same for all contenders and counts, so that no run begins with other
    /// memory than another.
    ///
    /// # Errors
    /// When something that goes into it is not there, or cannot be compiled.
    pub fn new(
        line: &str,
        contenders: &[Contender],
        counts: &[usize],
        program: &Path,
    ) -> Result<Self> {
        let kernel = kernels::set_up(line)?;
        let mut contents = Contents {
            modules: ["vfio_pci", "vfio_iommu_type1"].map(str::to_owned).into(),
            program: Some(program.to_owned()),
            init: Some(guest_program::compile("measure")?),
            ..Contents::default()
        };
        for contender in contenders {
            for (path, bytes) in contender.tools()? {
                contents.tools.insert(path, bytes);
            }
            let words = contender.words(&kernel)?.join("\n") + "\n";
            let path = format!("/bench/contenders/{}", contender.name);
            contents.files.insert(path, words.into());
        }
        for count in counts {
            let mut list = addresses(&topology(*count)).join("\n");
            list.push('\n');
            contents.files.insert(format!("/bench/devices/{count}"), list.into());
        }
        let folder = tempfile::Builder::new().prefix("vfio-early-bench-").tempdir()?;
        let initrd = folder.path().join("initrd");
        initrd::write(&kernel, &contents, folder.path(), &initrd)?;
        Ok(Self { kernel, initrd, _folder: folder })
    }

    fn machine(&self, contender: &Contender, count: usize, clock: Clock) -> Vm {
        // Where nothing is asked for, devices are there all the same.
        let topology = topology(if count == 0 { 3 } else { count });
        let list = if count == 0 { Vec::new() } else { addresses(&topology) };
        let machine = vm(&self.kernel)
            .memory(if count > 128 { 2048 } else { 512 })
            .topology(topology)
            .initrd(&self.initrd)
            .limit(Duration::from_mins(15))
            .cmdline(&command_line(contender.shape, &list));
        let machine = match clock {
            Clock::Instructions => machine.counting_instructions(),
        };
        // The kernel hands what follows to /init.
        machine.cmdline(&format!("-- {} {count}", contender.name))
    }

    /// Boots the machine and runs the contender in it, once.
    ///
    /// # Errors
    /// When the machine does not come to its end, or the contender did not do what it is for.
    pub fn run(&self, contender: &Contender, count: usize, clock: Clock) -> Result<Outcome> {
        let run = self.machine(contender, count, clock).boot()?;
        let text = run.shells.first().context("the guest sent no measurement")?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.with_context(|| format!("the guest sent no {name}: {text}"))
        };
        let outcome = Outcome {
            nanoseconds: field("ns")?.parse()?,
            memory: field("memory")?.parse()?,
            status: run.last().status,
            bound: field("bound")?.parse()?,
            type1: field("type1")? == "1",
            stopped: Some(field("stopped")?).filter(|step| *step != "-").map(str::to_owned),
        };
        let mut wrong = run.log_complaints();
        // What a shell loop passes to the module vfio is no fault of the machine.
        wrong.retain(|text| !text.contains("unknown parameter"));
        if outcome.status != 0 {
            wrong.push(format!("exit status {}", outcome.status));
        }
        if outcome.bound != count {
            wrong.push(format!("{} of {count} devices are bound", outcome.bound));
        }
        if !wrong.is_empty() {
            bail!(
                "kernel {}, {count} devices, {}: {}\n{}\n{}\n{}",
                self.kernel.line,
                contender.name,
                wrong.join("; "),
                run.last().stdout,
                run.log_text(),
                run.command
            );
        }
        Ok(outcome)
    }
}
