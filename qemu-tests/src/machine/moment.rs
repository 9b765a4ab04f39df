//! Every PCI device of a guest at one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One device, as sysfs showed it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// Vendor and device, `8086:10d3`.
    pub id: String,
    /// Vendor and device of the subsystem.
    pub subsystem: String,
    /// Six hex digits.
    pub class: String,
    /// Driver that it is bound to.
    pub driver: Option<String>,
    /// `driver_override`, if one is set.
    #[serde(rename = "override")]
    pub driver_override: Option<String>,
    /// Number of its IOMMU group.
    pub group: Option<u32>,
    /// Address of the bridge above; none on a root bus.
    pub parent: Option<String>,
}

/// Address to device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment {
    /// Address, such as `0000:00:03.0`, to device.
    pub devices: BTreeMap<String, Device>,
}

impl Moment {
    /// Reads what the guest printed: attributes as `ADDRESS/NAME:VALUE`, links as `ls -l` has them.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut moment = Self::default();
        for line in text.lines() {
            if let Some((link, target)) = line.split_once(" -> ") {
                let name = link.rsplit(' ').next().unwrap_or(link);
                moment.link(name, target);
            } else if let Some((path, value)) = line.split_once('.')
                && let Some((rest, value)) = value.split_once(':')
                && let Some((function, name)) = rest.split_once('/')
            {
                moment.attribute(&format!("{path}.{function}"), name, value);
            }
        }
        moment
    }

    fn device(&mut self, address: &str) -> &mut Device {
        self.devices.entry(address.to_owned()).or_default()
    }

    fn link(&mut self, name: &str, target: &str) {
        let last = target.rsplit('/').next().unwrap_or(target);
        match name.split_once('/') {
            Some((address, "driver")) => self.device(address).driver = Some(last.to_owned()),
            Some((address, "iommu_group")) => self.device(address).group = last.parse().ok(),
            Some(_) => {}
            None => {
                // …/devices/pci0000:00/0000:00:03.0/0000:01:00.0
                let above = target.rsplit('/').nth(1).filter(|above| !above.starts_with("pci"));
                self.device(name).parent = above.map(str::to_owned);
            }
        }
    }

    fn attribute(&mut self, address: &str, name: &str, value: &str) {
        let device = self.device(address);
        let hex = value.trim_start_matches("0x");
        match name {
            "vendor" => device.id = format!("{hex}:{}", device.id),
            "device" => device.id.push_str(hex),
            "subsystem_vendor" => device.subsystem = format!("{hex}:{}", device.subsystem),
            "subsystem_device" => device.subsystem.push_str(hex),
            "class" => hex.clone_into(&mut device.class),
            "driver_override" if value != "(null)" => {
                device.driver_override = Some(value.to_owned());
            }
            _ => {}
        }
    }

    /// Driver of a device; none also when there is no such device.
    #[must_use]
    pub fn driver(&self, address: &str) -> Option<&str> {
        self.devices.get(address)?.driver.as_deref()
    }

    /// Asserts the driver of a device; `None` asserts that it has none.
    ///
    /// # Panics
    /// When it has another, with the state of all devices.
    pub fn assert_driver<'a>(&self, address: &str, wanted: impl Into<Option<&'a str>>) {
        let wanted = wanted.into();
        let found = self.driver(address);
        assert!(found == wanted, "{address} is on {found:?} and not on {wanted:?}\n{self:#?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_from_what_grep_and_ls_print() {
        let moment = Moment::parse(
            "0000:01:00.0/vendor:0x8086\n\
             0000:01:00.0/device:0x10d3\n\
             0000:01:00.0/class:0x020000\n\
             0000:01:00.0/driver_override:vfio-pci\n\
             lrwxrwxrwx 1 0 0 0 Jan 1 00:00 0000:01:00.0/driver -> ../../../../bus/pci/drivers/e1000e\n\
             lrwxrwxrwx 1 0 0 0 Jan 1 00:00 0000:01:00.0/iommu_group -> ../../../../kernel/iommu_groups/7\n\
             lrwxrwxrwx 1 0 0 0 Jan 1 00:00 0000:01:00.0 -> ../../../devices/pci0000:00/0000:00:02.0/0000:01:00.0\n",
        );
        let device = &moment.devices["0000:01:00.0"];
        assert_eq!(device.id, "8086:10d3");
        assert_eq!(device.class, "020000");
        assert_eq!(device.driver.as_deref(), Some("e1000e"));
        assert_eq!(device.driver_override.as_deref(), Some("vfio-pci"));
        assert_eq!(device.group, Some(7));
        assert_eq!(device.parent.as_deref(), Some("0000:00:02.0"));
    }
}
