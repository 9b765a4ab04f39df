//! An emulated device, as QEMU is told of it.

use crate::machine::models::{self, Kind, Model};

/// One emulated device function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub model: &'static Model,
    /// QEMU's id, by which devices below a bridge name it.
    pub id: String,
    /// Id of the bridge that it sits below; none: the root bus.
    pub below: Option<String>,
    /// Device number on its bus.
    pub slot: u8,
    /// Function number in its slot.
    pub function: u8,
    /// Further properties for QEMU, `key=value`.
    pub options: Vec<String>,
    /// It is not there at power-on, but plugged in later.
    pub hot_added: bool,
}

impl Device {
    /// A device on the root bus, at `slot.function` in hexadecimal: `Device::new("e1000e", "03.0")`.
    ///
    /// # Panics
    /// When the model is not in [`models::MODELS`], or the place is not a place: such a table is
    /// wrong.
    #[must_use]
    pub fn new(model: &str, place: &str) -> Self {
        let model = models::find(model)
            .unwrap_or_else(|| panic!("{model} is no known device model: add it to models.rs"));
        let (slot, function) = parse_place(place)
            .unwrap_or_else(|| panic!("{place} is no place: two hex digits, a dot, 0 to 7"));
        Self {
            model,
            id: default_id(slot, function),
            below: None,
            slot,
            function,
            options: Vec::new(),
            hot_added: false,
        }
    }

    /// Names it, for devices below it; by default `d` and its place, such as `d030`.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// Puts it below the bridge of that name.
    #[must_use]
    pub fn below(mut self, bridge: &str) -> Self {
        // The same place exists on every bus; a name that was given stays.
        if self.id == default_id(self.slot, self.function) {
            self.id = format!("{bridge}-{}", self.id);
        }
        self.below = Some(bridge.to_owned());
        self
    }

    /// Adds a property for QEMU, `key=value`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Lets an `nvme` show two virtual functions; the machine needs the device
    /// `nvme-subsys` of the id `subsystem` for it.
    #[must_use]
    pub fn virtual_functions(self) -> Self {
        // Each gets its share of queues and vectors.
        self.option("subsys=subsystem")
            .option("sriov_max_vfs=2")
            .option("sriov_vq_flexible=4")
            .option("sriov_vi_flexible=2")
            .option("max_ioqpairs=6")
            .option("msix_qsize=7")
    }

    /// Leaves it out at power-on; it is plugged in while the binary waits.
    #[must_use]
    pub fn hot_added(mut self) -> Self {
        self.hot_added = true;
        self
    }

    /// Everything that QEMU is told of it, in order; `driver` comes first.
    #[must_use]
    pub fn properties(&self, multifunction: bool) -> Vec<(String, String)> {
        let mut properties = vec![
            ("driver".to_owned(), self.model.name.to_owned()),
            ("id".to_owned(), qemu_id(&self.id)),
            ("bus".to_owned(), self.below.as_deref().map_or("pcie.0".to_owned(), qemu_id)),
            ("addr".to_owned(), format!("{:02x}.{}", self.slot, self.function)),
        ];
        let mut put = |key: &str, value: String| properties.push((key.to_owned(), value));
        if multifunction {
            put("multifunction", "on".to_owned());
        }
        if self.model.rom {
            put("romfile", String::new());
        }
        if self.model.name == "nvme" {
            put("serial", self.id.clone());
        }
        if self.model.kind == Kind::RootPort {
            // Physical slots must differ between ports, chassis and slot together.
            put("chassis", (u16::from(self.slot) * 8 + u16::from(self.function)).to_string());
        }
        for option in &self.options {
            let (key, value) = option.split_once('=').unwrap_or((option, "on"));
            put(key, value.to_owned());
        }
        properties
    }
}

/// QEMU crashes on an id that is the name of a property.
pub(crate) fn qemu_id(id: &str) -> String {
    format!("x-{id}")
}

fn default_id(slot: u8, function: u8) -> String {
    format!("d{slot:02x}{function}")
}

fn parse_place(place: &str) -> Option<(u8, u8)> {
    let (slot, function) = place.split_once('.')?;
    let slot = u8::from_str_radix(slot, 16).ok().filter(|slot| *slot < 32)?;
    let function = function.parse().ok().filter(|function| *function < 8)?;
    Some((slot, function))
}
