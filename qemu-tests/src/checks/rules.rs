//! What the fake kernel claims of Linux, rule by rule.
//!
//! A rule is data: a sentence, and a few steps in a small common vocabulary ([`Op`]), each of which
//! has an answer. Real kernels are asked in a guest ([`ask`]); their answers are kept in
//! `docs/kernel-rules.json` ([`record`]), of which `docs/kernel-rules.md` is the readable form. The
//! fake kernel is asked the same in `tests/rules.rs`, and answers as the record has it, or a step
//! says why not (`.but(…)`).
//!
//! `cargo xtask rules --write` asks anew and keeps the answers; `cargo xtask test` asks anew and
//! complains of any that is not as it was kept.

pub mod ask;
mod binding;
mod devices;
mod groups;
mod hangs;
mod modules;
mod overrides;
mod page;
pub mod record;
mod screens;

use std::fmt;

use crate::machine::topology::{Device, Topology};

/// One thing that is done or asked. Paths are below the root, an attribute's is below `/sys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes into an attribute: `ok`, the errno, or `hangs`.
    Store {
        /// As in `bus/pci/drivers_probe`.
        attribute: String,
        /// All of it.
        value: String,
    },
    /// A file's content, or the errno.
    Read(String),
    /// The last part of what a link leads to, or the errno.
    Link(String),
    /// `yes` or `no`.
    Exists(String),
    /// Inserts a module and nothing that it needs: `ok`, the errno, or `hangs`.
    Insert(String),
    /// Inserts a module and what it needs, dependencies first: `ok`, the first errno, or `hangs`.
    Load(String),
    /// The modules that a module needs, by name, or `not there`; from `modules.dep`.
    Needs(String),
    /// Of the group of the device at that address: `viable`, `not viable`, or `no file` where there
    /// is no `/dev/vfio/N`.
    Viable(String),
    /// The device at that address goes away.
    Unplug(String),
    /// It comes back.
    Replug {
        /// Where it was.
        address: String,
        /// So many of the next steps are done when it has just been announced.
        announced: usize,
    },
    /// A program opens the serial port that the device is: from now on the unbind of its driver
    /// hangs.
    Hold(String),
    /// `/sys` is mounted read-only from now on.
    ReadOnly,
    /// Whether the option ROM of the device is the copy at 0xc0000: `yes` or `no`.
    RomShadow(String),
    /// Maps all virtual consoles to that framebuffer: `ok` or the errno.
    MapConsoles(u8),
    /// The framebuffer that the consoles are on, as in `fb0`, or `dark`.
    Console,
    /// Binds the console driver over all framebuffers: `ok` or the errno.
    BindConsole,
}

impl Op {
    /// The module that it is about, where that is inserted.
    #[must_use]
    pub fn inserted(&self) -> Option<&str> {
        match self {
            Op::Insert(module) | Op::Load(module) => Some(module),
            _ => None,
        }
    }
}

/// Text as it stands in an answer: in one line.
#[must_use]
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'\n' => "\\n".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    text.bytes().map(escape).collect()
}

/// A value for a reader: a long row of one letter is counted.
fn shown(value: &str) -> String {
    match value.chars().next() {
        Some(first) if value.len() > 40 && value.chars().all(|c| c == first) => {
            format!("`{first}`, {} times", value.len())
        }
        None => "nothing".to_owned(),
        _ => format!("`{}`", escaped(value)),
    }
}

fn short(path: &str) -> &str {
    path.trim_start_matches("sys/").trim_start_matches("bus/pci/").trim_start_matches("devices/")
}

/// As the page has it.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Store { attribute, value } => {
                write!(f, "write {} into `{}`", shown(value), short(attribute))
            }
            Op::Read(path) => write!(f, "read `{}`", short(path)),
            Op::Link(path) => write!(f, "`{}` leads to", short(path)),
            Op::Exists(path) => write!(f, "is there `{}`?", short(path)),
            Op::Insert(module) => write!(f, "insert {module} alone"),
            Op::Load(module) => write!(f, "load {module}"),
            Op::Needs(module) => write!(f, "{module} needs"),
            Op::Viable(address) => write!(f, "the group of {}", short(address)),
            Op::Unplug(address) => write!(f, "{} goes away", short(address)),
            Op::Replug { address, announced: 0 } => write!(f, "{} comes back", short(address)),
            Op::Replug { address, announced: 1 } => {
                write!(
                    f,
                    "{} comes back; when it has just been announced, one step:",
                    short(address)
                )
            }
            Op::Replug { address, announced } => write!(
                f,
                "{} comes back; when it has just been announced, {announced} steps:",
                short(address)
            ),
            Op::Hold(address) => write!(f, "a program opens the serial port {}", short(address)),
            Op::ReadOnly => write!(f, "make `/sys` read-only"),
            Op::RomShadow(address) => {
                write!(f, "is the ROM of {} the copy at 0xc0000?", short(address))
            }
            Op::MapConsoles(number) => write!(f, "map the consoles to fb{number}"),
            Op::Console => write!(f, "the consoles are on"),
            Op::BindConsole => write!(f, "bind the frame buffer console"),
        }
    }
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// Why the fake kernel answers otherwise.
    pub exception: Option<&'static str>,
}

/// The machine that a rule is asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// [`plain`]: all rules in one boot, and after each everything is as it was.
    Plain,
    /// [`two_cards`]: a boot for each rule, since no framebuffer comes back.
    TwoCards,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rule {
    /// A sentence.
    pub name: &'static str,
    /// Where it is asked.
    pub place: Place,
    /// What is done and asked, in order.
    pub steps: Vec<Step>,
    /// Kernels that cannot be asked, and why.
    pub not_on: Vec<(&'static str, &'static str)>,
}

fn rule(name: &'static str) -> Rule {
    Rule { name, place: Place::Plain, steps: Vec::new(), not_on: Vec::new() }
}

fn rule_of_screens(name: &'static str) -> Rule {
    Rule { place: Place::TwoCards, ..rule(name) }
}

fn of_device(address: &str, name: &str) -> String {
    format!("sys/bus/pci/devices/{address}/{name}")
}

impl Rule {
    /// Whether that kernel can be asked.
    #[must_use]
    pub fn is_asked_on(&self, kernel: &str) -> bool {
        !self.not_on.iter().any(|(other, _)| *other == kernel)
    }

    fn then(mut self, op: Op) -> Self {
        self.steps.push(Step { op, exception: None });
        self
    }

    /// The fake kernel answers the last step otherwise, for this reason.
    fn but(mut self, reason: &'static str) -> Self {
        self.steps.last_mut().expect("it comes after a step").exception = Some(reason);
        self
    }

    fn not_on(mut self, kernel: &'static str, reason: &'static str) -> Self {
        self.not_on.push((kernel, reason));
        self
    }

    fn store(self, attribute: impl Into<String>, value: impl Into<String>) -> Self {
        self.then(Op::Store { attribute: attribute.into(), value: value.into() })
    }

    /// Writes an override.
    fn set(self, address: &str, value: impl Into<String>) -> Self {
        self.store(format!("bus/pci/devices/{address}/driver_override"), value)
    }

    /// The override.
    fn override_of(self, address: &str) -> Self {
        self.read(of_device(address, "driver_override"))
    }

    fn probe(self, address: &str) -> Self {
        self.store("bus/pci/drivers_probe", address)
    }

    fn bind(self, driver: &str, address: &str) -> Self {
        self.store(format!("bus/pci/drivers/{driver}/bind"), address)
    }

    fn unbind(self, driver: &str, address: &str) -> Self {
        self.store(format!("bus/pci/drivers/{driver}/unbind"), address)
    }

    /// The driver, as the link has it.
    fn driver(self, address: &str) -> Self {
        self.then(Op::Link(of_device(address, "driver")))
    }

    fn read(self, path: impl Into<String>) -> Self {
        self.then(Op::Read(path.into()))
    }

    fn link(self, path: impl Into<String>) -> Self {
        self.then(Op::Link(path.into()))
    }

    fn exists(self, path: impl Into<String>) -> Self {
        self.then(Op::Exists(path.into()))
    }

    fn insert(self, module: &str) -> Self {
        self.then(Op::Insert(module.to_owned()))
    }

    fn load(self, module: &str) -> Self {
        self.then(Op::Load(module.to_owned()))
    }

    fn needs(self, module: &str) -> Self {
        self.then(Op::Needs(module.to_owned()))
    }

    fn viable(self, address: &str) -> Self {
        self.then(Op::Viable(address.to_owned()))
    }

    fn unplug(self, address: &str) -> Self {
        self.then(Op::Unplug(address.to_owned()))
    }

    /// So many of the next steps are done when it has just been announced.
    fn replug(self, address: &str, announced: usize) -> Self {
        self.then(Op::Replug { address: address.to_owned(), announced })
    }

    fn hold(self, address: &str) -> Self {
        self.then(Op::Hold(address.to_owned()))
    }

    fn rom_shadow(self, address: &str) -> Self {
        self.then(Op::RomShadow(address.to_owned()))
    }

    fn map_consoles(self, framebuffer: u8) -> Self {
        self.then(Op::MapConsoles(framebuffer))
    }

    fn console(self) -> Self {
        self.then(Op::Console)
    }

    /// The device whose framebuffer has that number.
    fn framebuffer(self, number: u8) -> Self {
        self.link(format!("sys/class/graphics/fb{number}/device"))
    }
}

/// Rules about one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// A heading.
    pub name: &'static str,
    /// In the order in which they are asked.
    pub rules: Vec<Rule>,
}

/// All of them.
#[must_use]
pub fn chapters() -> Vec<Chapter> {
    let chapter = |name, rules| Chapter { name, rules };
    vec![
        chapter("Devices", devices::rules()),
        chapter("driver_override", overrides::rules()),
        chapter("Binding and unbinding", binding::rules()),
        chapter("Modules", modules::rules()),
        chapter("Groups", groups::rules()),
        chapter("What hangs", hangs::rules()),
        chapter("Screens", screens::rules()),
    ]
}

/// As [`chapters`], without the headings.
#[must_use]
pub fn all() -> Vec<Rule> {
    chapters().into_iter().flat_map(|chapter| chapter.rules).collect()
}

/// Claims of the fake kernel that no rule asks for, and why.
pub const NOT_ASKED: &[(&str, &str)] = &[
    (
        "what a `Fault` makes go wrong: a write that fails, a probe that is refused, a module that \
         is broken, no netlink, framebuffers that come late or never, a device that goes away",
        "they are premises of a test and no claims; what follows from a hang and from a device that \
         goes away is asked here, and the rest is made to happen in `qemu-tests/src/checks/faults.rs`",
    ),
    (
        "which driver takes a device whose id it does not have, but whose override names it",
        "that it is tried is asked here with pci-stub and vfio-pci; the fake's drivers of the host \
         succeed with any device, and a real one may not",
    ),
    (
        "why a device of its own refuses vfio-pci (virtual functions that are on, a denylist, no \
         cache coherency)",
        "the errno is a premise of a test; that `bind` tells it, or on 5.10 does not, is asked here \
         with a device that is in no group, and with bridges",
    ),
    (
        "the function that an IOMMU of AMD is",
        "the kernel gives it to no driver, where the fake's vfio-pci refuses it for want of a group; \
         the binary refuses it before any driver is asked",
    ),
    (
        "releases and versions of kernels",
        "the fake has those that were measured once; how Debian and others write them is tabled in \
         `src/console.rs`",
    ),
    (
        "memory regions in `resource`, but for the shadowed ROM; and `/proc/iomem`, but for the \
         firmware's framebuffer",
        "nothing else of them is read; whether memory can be mapped is tried in \
         `qemu-tests/src/checks/screens.rs`",
    ),
    (
        "a default VGA device that is not the one whose memory the firmware's framebuffer is in",
        "the firmware here makes no such machine; the rule is tabled in `src/console.rs`",
    ),
    (
        "the modules for an alias, variants of vfio-pci, modules that are blacklisted or built in",
        "libkmod answers that and no kernel; `tests/naming.rs`, `tests/variants.rs` and scenarios on \
         real initrds have it",
    ),
];

/// Plain endpoints that no driver is for.
const EDU: &str = "0000:00:03.0";
const SECOND_EDU: &str = "0000:00:04.0";
/// A network card, of e1000e.
const NIC: &str = "0000:00:05.0";
/// Serial ports; their driver is built in.
const SERIAL: &str = "0000:00:06.0";
const SECOND_SERIAL: &str = "0000:00:07.0";
/// Two functions in one slot and one group: one that no driver is for, and one of e1000.
const PAIR: &str = "0000:00:08.0";
const PAIR_NIC: &str = "0000:00:08.1";
/// A bridge to a conventional bus, and two endpoints on that in the bridge's group.
const BRIDGE: &str = "0000:00:09.0";
const BEHIND: &str = "0000:02:01.0";
const ALSO_BEHIND: &str = "0000:02:02.0";
/// A root port without ACS, and an endpoint below it in the port's group.
pub const PORT: &str = "0000:00:02.0";
/// See [`PORT`].
pub const BELOW_PORT: &str = "0000:01:00.0";
/// An endpoint that the IOMMU does not see.
pub const NO_GROUP: &str = "0000:41:01.0";
const NOBODY: &str = "0000:00:1d.0";

/// The machine of [`Place::Plain`].
#[must_use]
pub fn plain() -> Topology {
    Topology::new([
        Device::new("pcie-root-port", "02.0").named("port").option("disable-acs=on"),
        Device::new("edu", "00.0").below("port"),
        Device::new("edu", "03.0"),
        Device::new("edu", "04.0"),
        Device::new("e1000e", "05.0"),
        Device::new("pci-serial", "06.0"),
        Device::new("pci-serial", "07.0"),
        Device::new("edu", "08.0"),
        Device::new("e1000", "08.1"),
        Device::new("pcie-pci-bridge", "09.0").named("bridge"),
        Device::new("e1000", "01.0").below("bridge"),
        Device::new("e1000", "02.0").below("bridge"),
    ])
}

/// Arguments for QEMU besides: [`NO_GROUP`], on a root bus of its own; and no ACPI slots below
/// bridges, which would keep shpchp away.
const PLAIN: &[&str] = &[
    "-device",
    "pxb-pcie,id=apart,bus_nr=64,bus=pcie.0,addr=0a.0,bypass_iommu=on",
    "-device",
    "pcie-pci-bridge,id=apart-bridge,bus=apart,addr=00.0,msi=off",
    "-device",
    "edu,bus=apart-bridge,addr=01.0",
    "-global",
    "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
];

/// The graphics card that the firmware draws on.
pub const FIRST_CARD: &str = "0000:00:01.0";
/// Another one, on the same bus.
pub const SECOND_CARD: &str = "0000:00:05.0";
/// A display of class 0380.
const NO_VGA: &str = "0000:00:06.0";
/// A third card, below a root port.
const CARD_BELOW: &str = "0000:01:00.0";

/// The machine of [`Place::TwoCards`]; UEFI firmware starts it.
#[must_use]
pub fn two_cards() -> Topology {
    Topology::new([
        Device::new("VGA", "01.0"),
        Device::new("pcie-root-port", "02.0").named("port"),
        Device::new("VGA", "00.0").below("port"),
        Device::new("VGA", "05.0"),
        Device::new("secondary-vga", "06.0"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_a_step() {
        let mut names: Vec<_> = all().iter().map(|rule| rule.name).collect();
        assert!(all().iter().all(|rule| !rule.steps.is_empty()));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_value_is_shown_in_one_line() {
        for (value, expected) in [
            ("vfio-pci", "`vfio-pci`"),
            ("one\ntwo\0", "`one\\ntwo\\x00`"),
            ("", "nothing"),
            (&"x".repeat(4095), "`x`, 4095 times"),
        ] {
            assert_eq!(shown(value), expected);
        }
    }
}
