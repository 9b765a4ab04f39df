//! The command lines of a machine: QEMU's, and the kernel's in it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::initrd::Step;
use super::vm::{Firmware, Pace, Vm};
use super::{qemu, tsc};
use crate::supplies::arch::Arch;

/// The longest command line that an x86 kernel takes; one byte more and the guest hangs silently.
pub const COMMAND_LINE_LIMIT: usize = 2047;

/// What every guest is told: the console, to end at a panic (`-no-reboot`), and to skip what only
/// takes time in an emulated machine.
fn own_command_line(arch: Arch, pace: Pace) -> String {
    let (console, timers) = match arch {
        Arch::Amd64 => ("ttyS0", "tsc=reliable no_timer_check "),
        Arch::Arm64 => ("ttyAMA0", ""),
    };
    let khz = match (arch, pace) {
        (Arch::Arm64, _) => None,
        // Its counter counts instructions, too.
        (Arch::Amd64, Pace::Instructions) => Some(1_000_000),
        (Arch::Amd64, Pace::Time) if qemu::kvm_is_usable() => None,
        (Arch::Amd64, Pace::Time) => tsc::khz(),
    };
    let khz = khz.map_or(String::new(), |khz| format!(" tsc_early_khz={khz}"));
    // No address is drawn by lot.
    let addresses = if pace == Pace::Instructions { " nokaslr norandmaps" } else { "" };
    format!("console={console} panic=-1 {timers}cryptomgr.notests mitigations=off{khz}{addresses}")
}

/// UEFI firmware as Debian has it: the code, the variables to start with, and the package's name.
pub(super) fn firmware(arch: Arch) -> [&'static str; 3] {
    match arch {
        Arch::Amd64 => {
            ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"]
        }
        Arch::Arm64 => {
            ["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"]
        }
    }
}
/// What the machine starts.
pub(super) enum Start<'s> {
    /// The kernel.
    Kernel { command_line: &'s str, initrd: &'s Path },
    /// What is on a disk.
    Medium(PathBuf),
    /// The unified kernel image in the tree of an EFI system partition; `more` is what its command line
    /// has besides.
    Unified { partition: PathBuf, more: &'s str },
}

impl Vm {
    /// # Errors
    /// When the guest would hang on it.
    pub(super) fn full_command_line(&self) -> Result<String> {
        let own = own_command_line(self.kernel.arch, self.pace);
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

    pub(super) fn qemu_arguments(&self, start: &Start<'_>, folder: &Path) -> Vec<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments: Vec<String> = Vec::new();
        let mut put =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        let arch = self.kernel.arch;
        let virt = self.topology.machine_options();
        if arch == Arch::Arm64 {
            put(&["-machine", &virt, "-accel", "tcg", "-cpu", "cortex-a57"]);
        } else if self.pace == Pace::Time && qemu::kvm_is_usable() {
            // Interrupt remapping needs the split interrupt controller there.
            put(&["-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host"]);
        } else {
            put(&["-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem"]);
        }
        if self.pace == Pace::Instructions {
            put(&["-seed", "1", "-icount", "shift=0,sleep=off"]);
            put(&["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
        }
        if self.processors > 1 {
            put(&["-smp", &self.processors.to_string()]);
        }
        put(&["-m", &self.memory.to_string(), "-nodefaults", "-no-user-config", "-no-reboot"]);
        put(&["-display", "none"]);
        put(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        let socket = |name: &str| format!("{},server=on,wait=off", path(folder.join(name)));
        put(&["-chardev", &format!("file,id=results,path={}", path(folder.join("results")))]);
        let mut ports = vec!["results"];
        if self.is_asked() {
            put(&["-chardev", &format!("socket,id=asks,path={}", socket("asks"))]);
            ports.push("asks");
        }
        if arch == Arch::Amd64 {
            put(&["-vga", "none"]);
            for port in ports {
                put(&["-serial", &format!("chardev:{port}")]);
            }
        } else {
            // It has one serial port alone; these are no PCI devices.
            put(&["-device", "virtio-serial-device"]);
            for port in ports {
                put(&["-device", &format!("virtserialport,chardev={port},name={port}")]);
            }
        }
        if self.firmware == Firmware::Uefi {
            let pflash = |file: String| format!("if=pflash,format=raw,file={file}");
            put(&["-drive", &pflash(format!("{},readonly=on", firmware(arch)[0]))]);
            put(&["-drive", &pflash(path(folder.join("variables")))]);
        }
        match start {
            Start::Kernel { command_line, initrd } => {
                let image = match self.firmware {
                    Firmware::None => &self.kernel.vmlinux,
                    Firmware::Bios | Firmware::Uefi => &self.kernel.vmlinuz,
                };
                put(&["-kernel", &image.to_string_lossy()]);
                put(&["-initrd", &initrd.to_string_lossy()]);
                put(&["-append", command_line]);
            }
            Start::Medium(medium) => {
                let file = medium.to_string_lossy();
                put(&["-drive", &format!("if=none,id=medium,format=raw,snapshot=on,file={file}")]);
                put(&["-device", "ide-hd,bus=ide.0,drive=medium,bootindex=0"]);
            }
            Start::Unified { partition, more } => {
                let drive = format!(
                    "if=none,id=esp,format=raw,readonly=on,file=fat:{}",
                    partition.display()
                );
                put(&["-drive", &drive]);
                put(&["-device", "virtio-blk-pci,drive=esp,addr=1d.0,bootindex=0"]);
                let text = format!("io.systemd.stub.kernel-cmdline-extra={more}");
                put(&["-smbios", &format!("type=11,value={}", text.replace(',', ",,"))]);
            }
        }
        if self.topology.devices.iter().any(|device| device.hot_added) || self.is_asked() {
            put(&["-qmp", &format!("unix:{}", socket("monitor"))]);
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
    use crate::supplies::arch::Arch;
    use crate::supplies::kernels::Kernel;

    fn kernel() -> Kernel {
        Kernel {
            line: "6.1".to_owned(),
            arch: Arch::default(),
            release: "6.1.0".to_owned(),
            vmlinuz: PathBuf::new(),
            vmlinux: PathBuf::new(),
            modules: PathBuf::new(),
            package_version: String::new(),
        }
    }

    #[test]
    fn a_command_line_that_would_hang_the_guest_is_refused() {
        let own = own_command_line(Arch::default(), Pace::Time);
        let room = COMMAND_LINE_LIMIT - own.len() - 1;
        assert!(vm(&kernel()).cmdline(&"a".repeat(room)).full_command_line().is_ok());
        let error = vm(&kernel()).cmdline(&"a".repeat(room + 1)).full_command_line().unwrap_err();
        assert!(error.to_string().contains("2048 bytes"), "{error}");
    }
}
