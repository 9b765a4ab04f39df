//! Who is measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::machine::{guest_program, initrd};
use crate::supplies::arch::Arch;
use crate::supplies::kernels::Kernel;
use crate::supplies::{binary, step};

/// How a contender gets the list of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `vfio.devs=` with the addresses, or, where they do not fit, the devices' id.
    CommandLine,
    /// `vfio.devs=` with the devices' id.
    Id,
    /// As arguments: no way is cheaper.
    Arguments,
}

#[derive(Debug, PartialEq, Eq)]
enum Way {
    Program,
    /// The program by the name of its link for systemd.
    Generator,
    /// With these arguments in front of the modules.
    Floor(&'static [&'static str]),
    Script(Script),
}

/// A script with what it runs.
#[derive(Debug, PartialEq, Eq)]
struct Script {
    shell: &'static str,
    /// Name and text; the first is the one to run.
    files: &'static [(&'static str, &'static str)],
    /// Programs of this machine's Debian.
    programs: &'static [&'static str],
    /// Of its environment.
    variable: &'static str,
}

/// A way to give devices to vfio-pci.
#[derive(Debug, PartialEq, Eq)]
pub struct Contender {
    /// As `--only` takes it.
    pub name: &'static str,
    /// In a table or a legend.
    pub title: &'static str,
    /// What it does, and what it leaves undone.
    pub about: &'static str,
    /// Where its list comes from.
    pub shape: Shape,
    way: Way,
}

/// The program of this tree.
pub const PROGRAM: &str = "program";
/// What a boot with systemd runs, whether it asks for devices or not.
pub const GENERATOR: &str = "generator";
/// What the others are held against.
pub const FLOOR: &str = "floor";

const INITRDS: &str = "/bin/vfio-early-initrd";
/// The name is all that counts.
const LINK: &str = "/bench/bin/vfio-early-generator";
const KMOD: &str = "/usr/bin/kmod";
const BASH: &str = "/bin/bash";

macro_rules! scripts {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../guest/bench/", $name)))),+]
    };
}

/// All of them.
pub static CONTENDERS: &[Contender] = &[
    Contender {
        name: PROGRAM,
        title: "vfio-early",
        about: "this program, with the addresses up to 128 devices, and `pci:1234:11e8` beyond: \
                more addresses do not fit into a command line",
        shape: Shape::CommandLine,
        way: Way::Program,
    },
    Contender {
        name: "program-by-id",
        title: "vfio-early, by id",
        about: "this program, with `pci:1234:11e8`: it has to look at every device of the machine",
        shape: Shape::Id,
        way: Way::Program,
    },
    Contender {
        name: FLOOR,
        title: "floor",
        about: "a static C program with the fewest system calls after which a VM can start: \
                overrides, modules in an order that it is told, a look at each driver. It reads \
                nothing else, decides nothing and says nothing",
        shape: Shape::Arguments,
        way: Way::Floor(&[]),
    },
    Contender {
        name: "floor-reading",
        title: "floor that reads",
        about: "the same, which reads each device's `modalias` and the link to its IOMMU group \
                first: the least that a program has to know that decides anything. It still \
                decides nothing, looks at no other device and says nothing",
        shape: Shape::Arguments,
        way: Way::Floor(&["--read"]),
    },
    Contender {
        name: "loop-busybox",
        title: "loop, busybox",
        about: "the four lines of shell that most people have, with busybox; its modprobe knows no \
                soft dependencies, so `vfio_iommu_type1` is missing and no VM starts. It verifies \
                nothing and says nothing",
        shape: Shape::Arguments,
        way: Way::Script(Script {
            shell: "/bin/sh",
            files: scripts!("loop"),
            programs: &[],
            variable: "MODPROBE=modprobe",
        }),
    },
    Contender {
        name: "loop-kmod",
        title: "loop, kmod",
        about: "the same with Debian's modprobe. It verifies nothing and says nothing. It unpacks \
                `.ko.xz` (6.12) itself, which costs less than to let the kernel do it, as the \
                floor does",
        shape: Shape::Arguments,
        way: Way::Script(Script {
            shell: "/bin/sh",
            files: scripts!("loop"),
            programs: &[KMOD],
            variable: "MODPROBE=/bench/bin/modprobe -i",
        }),
    },
    Contender {
        name: "unraid",
        title: "as Unraid does",
        about: "for each device: check its id (lspci), find the members of its group (setpci), \
                modprobe, override, probe. It does not read back what the kernel did",
        shape: Shape::Arguments,
        way: Way::Script(Script {
            shell: "/bench/bin/bash",
            files: scripts!("unraid", "unraid-bind"),
            programs: &[KMOD, BASH, "/usr/bin/lspci", "/usr/bin/setpci"],
            variable: "PATH=/bench/bin:/bin",
        }),
    },
    Contender {
        name: "driverctl",
        title: "as driverctl does",
        about: "for each device: modprobe, override, probe, look for a driver, whichever; what \
                udev and systemd cost to start it is not counted",
        shape: Shape::Arguments,
        way: Way::Script(Script {
            shell: "/bench/bin/bash",
            files: scripts!("driverctl", "driverctl-load"),
            programs: &[KMOD, BASH],
            variable: "PATH=/bench/bin:/bin",
        }),
    },
    Contender {
        name: GENERATOR,
        title: "vfio-early's generator",
        about: "this program as systemd runs it in each boot, to learn which units that has; what \
                systemd itself does to start a generator is not counted. Only where nothing is \
                asked for",
        shape: Shape::CommandLine,
        way: Way::Generator,
    },
];

/// The contender of that name.
pub fn find(name: &str) -> Option<&'static Contender> {
    CONTENDERS.iter().find(|contender| contender.name == name)
}

impl Contender {
    /// Whether it is vfio-early.
    pub fn is_program(&self) -> bool {
        self.way == Way::Program
    }

    /// Whether it gives no device to vfio-pci, and so is of interest only where none is asked for.
    pub fn is_idle(&self) -> bool {
        self.way == Way::Generator
    }

    /// Whether it is one of scripts, which may fail in a way that is known.
    pub fn is_script(&self) -> bool {
        matches!(self.way, Way::Script(_))
    }

    /// Whether it consists of programs of this machine's own.
    pub fn is_of_this_machine(&self) -> bool {
        matches!(&self.way, Way::Script(script) if !script.programs.is_empty())
    }

    /// Its programs in the initrd, for that processor, besides the one that is measured.
    ///
    /// # Errors
    /// When one is not there, or cannot be compiled.
    pub fn tools(&self, arch: Arch, program: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut tools = BTreeMap::new();
        match &self.way {
            Way::Program => {}
            Way::Generator => {
                tools.insert(LINK.to_owned(), fs::read(binary::initrds(program))?);
            }
            Way::Floor(_) => {
                tools.insert("/bin/floor".to_owned(), guest_program::compile("floor", arch)?);
            }
            Way::Script(script) => {
                for (name, text) in script.files {
                    tools.insert(format!("/bench/{name}"), text.as_bytes().to_owned());
                }
                for program in script.programs {
                    // It is what it is called.
                    let name = match program.rsplit('/').next() {
                        Some("kmod") => "modprobe",
                        name => name.unwrap_or(program),
                    };
                    tools.extend(with_libraries(program, &format!("/bench/bin/{name}"))?);
                }
            }
        }
        Ok(tools)
    }

    /// Its environment and its words; `ADDRESSES` stands for the devices.
    ///
    /// # Errors
    /// When the kernel has no vfio-pci.
    pub fn words(&self, kernel: &Kernel) -> Result<Vec<String>> {
        let words = match &self.way {
            Way::Program => [INITRDS, "claim", "THEN", INITRDS, "bind"].map(str::to_owned).into(),
            // systemd names three folders, and only the first counts.
            Way::Generator => [LINK, "/run", "/run", "/run"].map(str::to_owned).to_vec(),
            Way::Floor(arguments) => {
                let mut words = vec!["MOMENT=3".to_owned(), "/bin/floor".to_owned()];
                words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
                words.extend(initrd::load_order(kernel, &["vfio_pci", "vfio_iommu_type1"])?);
                words.extend(["--", "ADDRESSES"].map(str::to_owned));
                words
            }
            Way::Script(script) => {
                let file = format!("/bench/{}", script.files[0].0);
                let words = [script.variable, script.shell, &file, "ADDRESSES"];
                words.map(str::to_owned).into()
            }
        };
        Ok(words)
    }
}

/// A program of this machine at that place in the initrd, and its libraries where it looks for
/// them.
///
/// # Errors
/// When it or a library is not there.
pub fn with_libraries(program: &str, place: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |path: &str| fs::read(path).with_context(|| format!("cannot read {path}"));
    let mut files = BTreeMap::from([(place.to_owned(), read(program)?)]);
    let listed = step::run(Command::new("ldd").arg(program))?;
    for line in String::from_utf8_lossy(&listed).lines() {
        // `name => /path (address)`, or `/path (address)` for the linker.
        if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            files.insert(path.to_owned(), read(path)?);
        }
    }
    Ok(files)
}
