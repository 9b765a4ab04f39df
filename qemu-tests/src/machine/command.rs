//! The command lines of a machine: QEMU's, and the kernel's in it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::initrd::Step;
use super::vm::{Firmware, Pace, Vm};
use super::{qemu, tsc};

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

/// OVMF as Debian's package has it: the code, and the variables to start with.
pub(super) const OVMF: [&str; 2] =
    ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

impl Vm {
    /// # Errors
    /// When the guest would hang on it.
    pub(super) fn full_command_line(&self) -> Result<String> {
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

    pub(super) fn is_asked(&self) -> bool {
        self.asks || self.steps.iter().any(|step| matches!(step, Step::Picture(_)))
    }

    pub(super) fn qemu_arguments(
        &self,
        command_line: &str,
        initrd: &Path,
        folder: &Path,
    ) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::vm::vm;
    use crate::supplies::kernels::Kernel;

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
}
