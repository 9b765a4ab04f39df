//! `cargo xtask boot`: one virtual machine, any devices, any command line.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::commands::table::table;
use crate::machine::observed::{BEFORE, HOST};
use crate::machine::run::Run;
use crate::machine::topology::Iommu;
use crate::machine::vm::vm;
use crate::supplies::arch::{self, Arch};
use crate::supplies::{cross, kernels, packages};

/// Arguments of `cargo xtask boot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, to try a command line before trying it on metal:\n  \
    cargo xtask boot --append 'vfio.devs=8086:10d3@00:03.0' --host-modules e1000e \
    -- -device e1000e,addr=03.0")]
pub struct Arguments {
    /// Kernel line
    #[arg(long, value_name = "LINE", default_value = "6.1", value_parser = kernels::NAMES)]
    pub kernel: String,
    /// Processor of the machine
    #[arg(long, default_value = "amd64", value_parser = arch::NAMES)]
    pub arch: String,
    /// IOMMU of the machine; without it intel, or smmu on arm64
    #[arg(long, value_parser = ["intel", "amd", "virtio", "smmu", "none"])]
    pub iommu: Option<String>,
    /// Boot by UEFI firmware; on arm64 it brings ACPI, and without it there is a device tree
    #[arg(long)]
    pub uefi: bool,
    /// Text to add to the kernel command line (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub append: Vec<String>,
    /// Drivers to load before vfio-early runs
    #[arg(long, value_name = "MODULES", value_delimiter = ',')]
    pub modules_before: Vec<String>,
    /// Host drivers to load after vfio-early has run
    #[arg(long, value_name = "MODULES", value_delimiter = ',')]
    pub host_modules: Vec<String>,
    /// Run this program instead of the vfio-early of this tree
    #[arg(long, value_name = "PROGRAM")]
    pub binary: Option<PathBuf>,
    /// Memory of the machine in MiB; hundreds of devices need 2048
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub memory: u32,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Arguments for QEMU, such as its devices
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub qemu: Vec<String>,
}

/// Boots the machine and prints what became of its devices.
///
/// # Errors
/// When something cannot be set up, or the machine does not come to its end.
pub fn run(arguments: Arguments) -> Result<()> {
    packages::ensure(packages::BOOT)?;
    let arch: Arch = arguments.arch.parse()?;
    packages::ensure(packages::cross(arch))?;
    let kernel = kernels::set_up(&kernels::named(&arguments.kernel, arch))?;
    let program = match arguments.binary {
        Some(program) => program,
        None => cross::program(arch)?,
    };
    let iommu = match (arguments.iommu.as_deref(), arch) {
        (Some("amd"), _) => Iommu::Amd,
        (Some("none"), _) => Iommu::None,
        (Some("virtio"), _) => Iommu::Virtio,
        (Some("smmu"), _) | (None, Arch::Arm64) => Iommu::Smmu,
        (Some(_), _) | (None, Arch::Amd64) => Iommu::Intel,
    };
    let mut machine = vm(&kernel)
        .iommu(iommu)
        .program(&program)
        .memory(arguments.memory)
        .arguments(arguments.qemu)
        .host_modules(arguments.host_modules);
    for text in &arguments.append {
        machine = machine.cmdline(text);
    }
    if arguments.uefi {
        machine = machine.uefi();
    }
    if !arguments.modules_before.is_empty() {
        machine = machine.load(arguments.modules_before);
    }
    let run = machine.boot()?;
    if arguments.json {
        println!("{:#}", as_json(&run));
    } else {
        print!("{}", as_text(&run));
    }
    Ok(())
}

fn as_json(run: &Run) -> Value {
    let after = run.after_bind();
    let devices: Map<String, Value> = after
        .devices
        .iter()
        .map(|(address, device)| {
            let driver_at = |name: &str| run.moments.get(name).map(|moment| moment.driver(address));
            let value = json!({
                "id": device.id,
                "subsystem": device.subsystem,
                "class": device.class,
                "group": device.group,
                "parent": device.parent,
                "override": device.driver_override,
                "driver_before": driver_at(BEFORE),
                "driver": device.driver,
                // Null also when no host modules were asked for.
                "driver_after_host_modules": driver_at(HOST),
            });
            (address.clone(), value)
        })
        .collect();
    let log: Vec<Value> = run
        .own_log()
        .iter()
        .map(|record| json!({ "level": record.level, "text": record.text }))
        .collect();
    json!({
        "kernel": run.kernel,
        "command_line": run.command_line,
        "devices": devices,
        "exit_status": run.last().status,
        "stderr": run.last().stderr,
        "report": run.report(),
        "log": log,
        "parameters": run.parameters,
        "seconds": run.elapsed.as_secs_f64(),
        "qemu": run.command,
    })
}

fn as_text(run: &Run) -> String {
    let mut rows = vec![
        ["device", "id", "class", "group", "override", "before", "after", "with host modules"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (address, device) in &run.after_bind().devices {
        let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
        let driver_at =
            |name: &str| text(run.moments.get(name).and_then(|moment| moment.driver(address)));
        rows.push(vec![
            address.clone(),
            device.id.clone(),
            device.class.clone(),
            device.group.map_or("-".to_owned(), |group| group.to_string()),
            text(device.driver_override.as_deref()),
            driver_at(BEFORE),
            text(device.driver.as_deref()),
            driver_at(HOST),
        ]);
    }
    let log: Vec<&str> = run.own_log().iter().map(|record| record.text.as_str()).collect();
    let last = run.last();
    format!(
        "kernel {}\ncommand line: {}\n\n{}\n{}\n{}exit status {}, after {:.1} s\n",
        run.kernel,
        run.command_line,
        table(&rows),
        log.join("\n"),
        last.stderr,
        last.status,
        run.elapsed.as_secs_f64()
    )
}
