//! The item of `vfio.devs=` that chooses one device, to paste.

use crate::cmdline::Request;
use crate::pci::{Address, Id, Item};
use crate::plan;
use crate::sysfs::{Device, Machine};

/// Guarded by its id; below a bridge as a path, which survives other bus numbers, unless that
/// names another device, too.
#[must_use]
pub fn item(address: Address, machine: &Machine) -> String {
    let Id { vendor, device, .. } = machine.devices[&address].id;
    // Where the id could not be read there is nothing to guard by: zeros alone are no id.
    let guard = match (vendor, device) {
        (0, 0) => String::new(),
        _ => format!("{vendor:04x}:{device:04x}@"),
    };
    let mut hops = Vec::new();
    let mut top = address;
    while let Some(parent) = machine.devices.get(&top).and_then(Device::parent) {
        hops.push(top);
        top = parent;
        // No path has more bridges than there are devices, unless it leads in a circle.
        if hops.len() > machine.devices.len() {
            return guard + &short(address);
        }
    }
    let mut text = format!("{guard}{}", short(top));
    for hop in hops.iter().rev() {
        let hop = hop.to_string();
        text.extend(["/", hop.rsplit(':').next().unwrap_or_default()]);
    }
    let is_right = |item: Item| {
        let request = Request { items: vec![item], ..Request::default() };
        plan::requested(&request, machine) == [address]
    };
    if text.parse().is_ok_and(is_right) { text } else { guard + &short(address) }
}

/// Without domain 0.
#[must_use]
pub fn short(address: Address) -> String {
    let text = address.to_string();
    match text.strip_prefix("0000:") {
        Some(short) => short.to_owned(),
        None => text,
    }
}
