//! A rule: a sentence, and a few steps in a small common vocabulary.

use std::fmt;

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
    /// [`plain`](super::machines::plain): all rules in one boot, and after each everything is as it was.
    Plain,
    /// [`two_cards`](super::machines::two_cards): a boot for each rule, since no framebuffer comes back.
    TwoCards,
    /// [`guest`](super::machines::guest): a boot for each rule, since no module of an IOMMU goes again.
    Guest,
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

pub(super) fn rule(name: &'static str) -> Rule {
    Rule { name, place: Place::Plain, steps: Vec::new(), not_on: Vec::new() }
}

pub(super) fn rule_of_screens(name: &'static str) -> Rule {
    Rule { place: Place::TwoCards, ..rule(name) }
}

/// Of a virtio-iommu, for which kernels since 6.12 have a driver.
pub(super) fn rule_of_virtio(name: &'static str) -> Rule {
    let rule = Rule { place: Place::Guest, ..rule(name) };
    let without = ["5.10", "6.1", "nixos"].into_iter();
    without.fold(rule, |rule, kernel| rule.not_on(kernel, "it has no driver for a virtio-iommu"))
}

pub(super) fn of_device(address: &str, name: &str) -> String {
    format!("sys/bus/pci/devices/{address}/{name}")
}

impl Rule {
    /// Whether that kernel can be asked.
    #[must_use]
    pub fn is_asked_on(&self, kernel: &str) -> bool {
        !self.not_on.iter().any(|(other, _)| *other == kernel)
    }

    pub(super) fn then(mut self, op: Op) -> Self {
        self.steps.push(Step { op, exception: None });
        self
    }

    /// The fake kernel answers the last step otherwise, for this reason.
    pub(super) fn but(mut self, reason: &'static str) -> Self {
        self.steps.last_mut().expect("it comes after a step").exception = Some(reason);
        self
    }

    pub(super) fn not_on(mut self, kernel: &'static str, reason: &'static str) -> Self {
        self.not_on.push((kernel, reason));
        self
    }

    pub(super) fn store(self, attribute: impl Into<String>, value: impl Into<String>) -> Self {
        self.then(Op::Store { attribute: attribute.into(), value: value.into() })
    }

    /// Writes an override.
    pub(super) fn set(self, address: &str, value: impl Into<String>) -> Self {
        self.store(format!("bus/pci/devices/{address}/driver_override"), value)
    }

    /// The override.
    pub(super) fn override_of(self, address: &str) -> Self {
        self.read(of_device(address, "driver_override"))
    }

    pub(super) fn probe(self, address: &str) -> Self {
        self.store("bus/pci/drivers_probe", address)
    }

    pub(super) fn bind(self, driver: &str, address: &str) -> Self {
        self.store(format!("bus/pci/drivers/{driver}/bind"), address)
    }

    pub(super) fn unbind(self, driver: &str, address: &str) -> Self {
        self.store(format!("bus/pci/drivers/{driver}/unbind"), address)
    }

    /// The driver, as the link has it.
    pub(super) fn driver(self, address: &str) -> Self {
        self.then(Op::Link(of_device(address, "driver")))
    }

    pub(super) fn read(self, path: impl Into<String>) -> Self {
        self.then(Op::Read(path.into()))
    }

    pub(super) fn link(self, path: impl Into<String>) -> Self {
        self.then(Op::Link(path.into()))
    }

    pub(super) fn exists(self, path: impl Into<String>) -> Self {
        self.then(Op::Exists(path.into()))
    }

    pub(super) fn insert(self, module: &str) -> Self {
        self.then(Op::Insert(module.to_owned()))
    }

    pub(super) fn load(self, module: &str) -> Self {
        self.then(Op::Load(module.to_owned()))
    }

    pub(super) fn needs(self, module: &str) -> Self {
        self.then(Op::Needs(module.to_owned()))
    }

    pub(super) fn viable(self, address: &str) -> Self {
        self.then(Op::Viable(address.to_owned()))
    }

    pub(super) fn unplug(self, address: &str) -> Self {
        self.then(Op::Unplug(address.to_owned()))
    }

    /// So many of the next steps are done when it has just been announced.
    pub(super) fn replug(self, address: &str, announced: usize) -> Self {
        self.then(Op::Replug { address: address.to_owned(), announced })
    }

    pub(super) fn hold(self, address: &str) -> Self {
        self.then(Op::Hold(address.to_owned()))
    }

    pub(super) fn rom_shadow(self, address: &str) -> Self {
        self.then(Op::RomShadow(address.to_owned()))
    }

    pub(super) fn map_consoles(self, framebuffer: u8) -> Self {
        self.then(Op::MapConsoles(framebuffer))
    }

    pub(super) fn console(self) -> Self {
        self.then(Op::Console)
    }

    /// The device whose framebuffer has that number.
    pub(super) fn framebuffer(self, number: u8) -> Self {
        self.link(format!("sys/class/graphics/fb{number}/device"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
