//! The scripted branch, booted: its text at its place in NixOS' stage 1.

use std::path::Path;

use anyhow::{Context, Result};

use super::expected;
use crate::machine::vm::vm;
use crate::supplies::kernels::Kernel;

/// Stage 1 as far as it matters here, for busybox' ash: the mounts are there, then
/// `boot.initrd.kernelModules` are loaded, then come `boot.initrd.preDeviceCommands`, then udev
/// loads a driver for each device, then come `boot.initrd.postDeviceCommands`. There `fail` asks for a
/// key, one of which is to go on.
const STAGE_1: &str = "\
fail() {
    echo 'fail'
}
state() {
    for device in 0000:00:03.0 0000:00:04.0; do
        driver=none
        if [ -e /sys/bus/pci/devices/$device/driver ]; then
            driver=$(basename $(readlink /sys/bus/pci/devices/$device/driver))
        fi
        echo \"$1: $device $driver\"
    done
}
modprobe nvme
state 'kernelModules'
@preDeviceCommands@
for alias in /sys/bus/pci/devices/*/modalias; do
    modprobe -q \"$(cat $alias)\"
done
@postDeviceCommands@
state 'postDeviceCommands'
";

/// Boots it with and without a device that is missing, and with and without `vfio.strict`.
///
/// # Errors
/// When a machine does not come to its end.
pub fn problems(kernel: &Kernel, program: &Path) -> Result<Vec<String>> {
    let expected = expected::read()?;
    let mut script = STAGE_1.to_owned();
    for name in ["preDeviceCommands", "postDeviceCommands"] {
        let commands = expected["configurations"]["scripted"]["initrd"][name].as_str();
        let commands = commands.with_context(|| format!("expected.json has no {name}"))?;
        script = script.replace(&format!("@{name}@"), commands.trim_end());
    }
    let stops = "vfio-early: vfio.strict is set, and not all devices are with their vfio driver\n\
                 fail\n";
    let mut problems = Vec::new();
    for (parameters, between) in [
        ("vfio.devs=00:03.0 vfio.strict", ""),
        ("vfio.devs=00:03.0,00:1e.0", ""),
        ("vfio.devs=00:03.0,00:1e.0 vfio.strict", stops),
    ] {
        let run = vm(kernel)
            .device("e1000e", "03.0")
            .device("nvme", "04.0")
            .program(program)
            .cmdline(parameters)
            .modules(["nvme", "e1000e"])
            .file("/harness/stage-1", script.clone())
            .shell("sh /harness/stage-1")
            .boot()?;
        let wanted = format!(
            "kernelModules: 0000:00:03.0 none\n\
             kernelModules: 0000:00:04.0 nvme\n\
             {between}\
             postDeviceCommands: 0000:00:03.0 vfio-pci\n\
             postDeviceCommands: 0000:00:04.0 nvme\n"
        );
        let said = run.shells.first().map_or("", |text| text.as_str()).trim_end();
        if said != wanted.trim_end() {
            problems
                .push(format!("{parameters}: expected\n{wanted}found\n{said}\n{}", run.details()));
        }
    }
    Ok(problems)
}
