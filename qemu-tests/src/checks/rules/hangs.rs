//! What holds a device's lock for ever, and what waits for it.

use super::machines::{EDU, PAIR, SECOND_EDU, SECOND_SERIAL, SERIAL};
use super::rule::{Rule, of_device, rule};

const NO_LOCK: &str = "it is a file of a folder, which has no lock";

/// A write there waits for the device's lock.
fn enable(address: &str) -> String {
    format!("bus/pci/devices/{address}/enable")
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        rule("a write to enable changes nothing where a driver has the device")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .store(enable(EDU), "0")
            .store(enable(SERIAL), "0")
            .store(enable(SECOND_EDU), "0")
            .driver(EDU)
            .driver(SERIAL),
        rule("a removal that hangs has taken the links away and holds the device's lock")
            .hold(SERIAL)
            .unbind("serial", SERIAL)
            .driver(SERIAL)
            .exists(format!("sys/bus/pci/drivers/serial/{SERIAL}"))
            .store(format!("bus/pci/devices/{SERIAL}/driver/unbind"), SERIAL)
            .override_of(SERIAL)
            .but(NO_LOCK)
            .set(SERIAL, "vfio-pci")
            .probe(SERIAL)
            .store(enable(SERIAL), "0")
            .unbind("serial", SERIAL)
            .store(enable(SECOND_SERIAL), "0"),
        rule("a driver that is loaded waits for the lock of a device that it fits")
            .set(SERIAL, "vfio-pci")
            .set(SECOND_EDU, "vfio-pci")
            .set(PAIR, "vfio-pci")
            .hold(SERIAL)
            .unbind("serial", SERIAL)
            .load("vfio-pci")
            // In their order: one that comes before, and one that comes after.
            .driver(SECOND_EDU)
            .driver(PAIR)
            .probe(PAIR)
            .driver(PAIR),
        // The driver of serial ports has one lock for all of them, and the removal that hangs has
        // it.
        rule("a probe that hangs has made the links and holds the device's lock")
            .unbind("serial", SECOND_SERIAL)
            .hold(SERIAL)
            .unbind("serial", SERIAL)
            .probe(SECOND_SERIAL)
            .driver(SECOND_SERIAL)
            .exists(format!("sys/bus/pci/drivers/serial/{SECOND_SERIAL}"))
            .override_of(SECOND_SERIAL)
            .but(NO_LOCK)
            .store(enable(SECOND_SERIAL), "0")
            .set(SECOND_SERIAL, "vfio-pci")
            .probe(SECOND_SERIAL)
            .bind("serial", SECOND_SERIAL)
            .unbind("serial", SECOND_SERIAL)
            .read(of_device(SECOND_SERIAL, "class")),
    ]
}
