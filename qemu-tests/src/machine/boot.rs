//! A boot, from the initrd to what came out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::{self, Start};
use super::initrd::{self, Step};
use super::loader::Started;
use super::observed::{BEFORE, HOST};
use super::qemu::{self, Asked, Orders};
use super::run::Run;
use super::topology::{self, Iommu};
use super::vm::{Firmware, INITRDS, PROGRAM, Vm, check, run};
use crate::supplies::arch::Arch;
use crate::supplies::binary;

/// Bytes of a disk; it takes no room before it is written to.
const DISK: u64 = 64 << 20;

/// Makes the tree of an EFI system partition in that folder, with the image where firmware looks for one.
fn copy_to_esp(image: &Path, folder: &Path) -> Result<PathBuf> {
    let esp = folder.join("esp");
    let place = esp.join("EFI/BOOT");
    fs::create_dir_all(&place)?;
    fs::copy(image, place.join("BOOTX64.EFI"))
        .with_context(|| format!("cannot read {}", image.display()))?;
    Ok(esp)
}

impl Vm {
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

        let arch = self.kernel.arch;
        self.topology.arch = arch;
        if arch == Arch::Arm64 && self.topology.iommu == Iommu::default() {
            self.topology.iommu = Iommu::Smmu;
        }
        if self.firmware == Firmware::Uefi {
            let [_, variables, package] = command::firmware(arch);
            fs::copy(variables, folder.path().join("variables")).with_context(|| {
                format!("cannot read {variables}: the package {package} has it")
            })?;
        }
        for disk in &self.disks {
            let path = folder.path().join(disk);
            let file = fs::File::create(&path).and_then(|file| file.set_len(DISK));
            file.with_context(|| format!("cannot make {}", path.display()))?;
        }

        let started = Started { kernel: &self.kernel.vmlinuz, initrd: &initrd, own: &command_line };
        let medium = self.loader.as_ref().map(|loader| loader.medium(&started, folder.path()));
        let start = match (medium.transpose()?, &self.unified) {
            (Some(medium), _) => Start::Medium(medium),
            (None, Some(image)) => {
                let partition = copy_to_esp(image, folder.path())?;
                Start::Unified { partition, more: &command_line }
            }
            (None, None) => Start::Kernel { command_line: &command_line, initrd: &initrd },
        };
        let arguments = self.qemu_arguments(&start, folder.path());
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
        let ended = qemu::run(arch, &arguments, &orders)?;

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
            command: qemu::to_paste(arch, &arguments),
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
            self.contents.program = Some(binary::build()?);
        }
        if self.topology.iommu == Iommu::Virtio {
            // Without its driver no device has a group; the program loads it.
            self.contents.modules.insert("virtio_iommu".to_owned());
        }
        self.contents.steps = self.all_steps();
        let initrd = folder.join("initrd");
        initrd::write(&self.kernel, &self.contents, folder, &initrd)
            .with_context(|| format!("cannot make an initrd for kernel {}", self.kernel.line))?;
        // Only the archive is of use from here on.
        fs::remove_dir_all(folder.join("lib"))?;
        Ok(initrd)
    }

    fn all_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_run = |step: &Step| matches!(step, Step::Run(_) | Step::RunBeside(_));
        let mut asked = self.steps.clone();
        if !self.without_program && !asked.iter().any(is_run) {
            asked.push(Step::Run(run(&[])));
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
}

/// The question what a run of `bind` is going to do; none where the step is something else.
fn check_before(step: &Step) -> Option<Step> {
    let words = match step {
        Step::Run(words) => words.as_slice(),
        Step::RunBeside(_) => &run(&[]),
        _ => return None,
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match words[..] {
        [INITRDS] => &[][..],
        [PROGRAM | INITRDS, "bind", ref arguments @ ..] => arguments,
        _ => return None,
    };
    Some(Step::Check(check(arguments.iter().map(|word| (*word).to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::vm::vm;
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
                Step::Run(vec!["/bin/vfio-early-initrd".to_owned()]),
                moment("after 1"),
                Step::Load(vec!["e1000e".to_owned()]),
                moment(HOST),
            ]
        );
    }
}
