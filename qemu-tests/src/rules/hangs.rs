//! What holds a device's lock for ever, and what waits for it.

use super::{EDU, Rule, SECOND_SERIAL, SERIAL, of_device, rule};

const NO_LOCK: &str = "it is a file of a folder, which has no lock";

pub(super) fn rules() -> Vec<Rule> {
    vec![
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
            .unbind("serial", SERIAL)
            .set(EDU, "vfio-pci")
            .load("vfio-pci")
            .driver(EDU),
        rule("a driver that is loaded waits for the lock of a device that it fits")
            .set(SERIAL, "vfio-pci")
            .hold(SERIAL)
            .unbind("serial", SERIAL)
            .load("vfio-pci"),
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
            .set(SECOND_SERIAL, "vfio-pci")
            .probe(SECOND_SERIAL)
            .bind("serial", SECOND_SERIAL)
            .unbind("serial", SECOND_SERIAL)
            .read(of_device(SECOND_SERIAL, "class")),
    ]
}
