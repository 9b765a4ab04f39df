//! `cargo xtask demo`: the main job, for somebody who sees it for the first time.

use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::commands::table::table;
use crate::machine::models::Kind;
use crate::machine::observed::HOST;
use crate::machine::run::Run;
use crate::machine::topology::{Device, Function, Iommu, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::arch::{self, Arch};
use crate::supplies::kernels::{self, Kernel};
use crate::supplies::{cross, packages};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Kernel line
    #[arg(long, value_name = "LINE", default_value = "6.1", value_parser = kernels::NAMES)]
    pub kernel: String,
    /// Processor of the machine
    #[arg(long, default_value = "amd64", value_parser = arch::NAMES)]
    pub arch: String,
    /// Boot by UEFI firmware; on arm64 it brings ACPI, and without it there is a device tree
    #[arg(long)]
    pub uefi: bool,
}

/// The graphics card with its audio, the network card and the USB controller, each with a guard.
const COMMAND_LINE: &str =
    "vfio.devs=1234:1111@01:00.0,8086:293e@01:00.1,8086:10d3@00:03.0,1b36:000d@00:04.0";

/// A desktop whose graphics card, network card and USB controller are for a virtual machine, and
/// whose disk stays with the host.
fn desktop(arch: Arch) -> Topology {
    let topology = Topology::new([
        Device::new("pcie-root-port", "01.0").named("graphics"),
        Device::new("VGA", "00.0").below("graphics"),
        Device::new("ich9-intel-hda", "00.1").below("graphics"),
        Device::new("e1000e", "03.0"),
        Device::new("qemu-xhci", "04.0"),
        Device::new("nvme", "05.0"),
    ]);
    let iommu = if arch == Arch::Arm64 { Iommu::Smmu } else { Iommu::Intel };
    Topology { arch, ..topology.iommu(iommu) }
}

/// Boots the desktop without vfio-early and with it, and prints what became of each device.
///
/// # Errors
/// When something cannot be set up, a machine does not come to its end, or a device is not where
/// it should be.
pub fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(packages::BOOT)?;
    let arch: Arch = arguments.arch.parse()?;
    packages::ensure(packages::cross(arch))?;
    let kernel = kernels::set_up(&kernels::named(&arguments.kernel, arch))?;
    let program = cross::program(arch)?;
    eprintln!("booting a desktop with kernel {} twice: without vfio-early, with it", kernel.line);
    let (without, with) = thread::scope(|scope| {
        let machine = || machine(&kernel, arguments.uefi);
        let without = scope.spawn(move || machine().without_program().boot());
        let with = machine().cmdline(COMMAND_LINE).program(&program).boot();
        (without.join(), with)
    });
    let without =
        without.map_err(|_| anyhow::anyhow!("the boot without vfio-early panicked"))??;
    let with = with?;

    let endpoints = endpoints(arch);
    print!("{}", answer(&endpoints, &without, &with));
    check(&endpoints, &without, &with)
}

fn machine(kernel: &Kernel, uefi: bool) -> Vm {
    let display = if kernel.line == "5.10" { "bochs_drm" } else { "bochs" };
    let modules = [display, "snd_hda_intel", "e1000e", "xhci_pci", "nvme"];
    let machine = vm(kernel).topology(desktop(kernel.arch)).host_modules(modules);
    if uefi { machine.uefi() } else { machine }
}

/// The desktop's devices without its bridges, and without what is on every such board.
fn endpoints(arch: Arch) -> Vec<Function> {
    let topology = desktop(arch);
    let addresses: Vec<String> = topology
        .devices
        .iter()
        .filter(|device| device.model.kind == Kind::Endpoint)
        .filter_map(|device| topology.address(&device.id))
        .collect();
    let functions = topology.functions().into_iter();
    functions.filter(|function| addresses.contains(&function.address)).collect()
}

fn entry<'a>(run: &'a Run, address: &str) -> Option<&'a Value> {
    let devices = run.report()["devices"].as_array()?;
    devices.iter().find(|device| device["address"] == address)
}

fn answer(endpoints: &[Function], without: &Run, with: &Run) -> String {
    let heading = ["device", "name", "asked for as", "without us", "with us", "group", "outcome"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for function in endpoints {
        let address = function.address.as_str();
        let driver = |run: &Run| run.at(HOST).driver(address).unwrap_or("-").to_owned();
        let text = |field: &str| entry(with, address).and_then(|entry| entry[field].as_str());
        let group = with.at(HOST).devices.get(address).and_then(|device| device.group);
        rows.push(vec![
            format!("{address} {}", function.id_text()),
            function.title.to_owned(),
            text("item").unwrap_or("-").to_owned(),
            driver(without),
            driver(with),
            group.map_or("-".to_owned(), |group| group.to_string()),
            text("outcome").unwrap_or("stays with the host").to_owned(),
        ]);
    }
    let log: Vec<&str> =
        with.console.lines().filter(|line| line.contains("] vfio-early: ")).collect();
    format!(
        "\nkernel {}, with this on its command line:\n\n    {COMMAND_LINE}\n\n\
         vfio-early ran in the initrd; then the host's drivers were loaded, as udev would:\n\n\
         {}\nthe kernel log, as the user sees it:\n\n{}\n\n\
         Try your own command line and devices: cargo xtask boot --help\n",
        with.kernel,
        table(&rows),
        log.join("\n")
    )
}

/// A demonstration that does not show what it promises is a failure.
fn check(endpoints: &[Function], without: &Run, with: &Run) -> Result<()> {
    let mut wrong = Vec::new();
    for function in endpoints {
        let address = function.address.as_str();
        let asked = entry(with, address).is_some();
        let wanted = if asked { Some("vfio-pci") } else { function.host_driver };
        for (run, wanted) in [(without, function.host_driver), (with, wanted)] {
            let found = run.at(HOST).driver(address);
            if found != wanted {
                wrong.push(format!("{address} is on {found:?}, and should be on {wanted:?}"));
            }
        }
    }
    let devices = with.report()["devices"].as_array().context("there is no report")?;
    if devices.len() != 4 || with.last().status != 0 {
        wrong.push(format!(
            "{} devices were asked for, exit status {}: should be 4, and 0",
            devices.len(),
            with.last().status
        ));
    }
    wrong.extend(without.log_complaints());
    wrong.extend(with.log_complaints());
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("the demonstration went wrong:\n  {}\n{}", wrong.join("\n  "), with.details())
}
