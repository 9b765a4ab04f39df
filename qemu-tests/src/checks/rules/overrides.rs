//! `driver_override`.

use super::machines::{EDU, NIC, NOBODY, SECOND_EDU};
use super::rule::{Rule, rule};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        rule("an override takes any name, also of a driver that is not there")
            .override_of(EDU)
            .set(EDU, "no-such-driver")
            .override_of(EDU)
            .set(EDU, " two words ")
            .override_of(EDU),
        rule("an override ends at the first newline or NUL")
            .set(EDU, "vfio-pci\n")
            .override_of(EDU)
            .set(EDU, "one\ntwo")
            .override_of(EDU)
            .set(EDU, "three\0four")
            .override_of(EDU),
        rule("a newline alone clears an override, an empty write is not handed on")
            .set(EDU, "no-such-driver")
            .set(EDU, "")
            .override_of(EDU)
            .set(EDU, "\n")
            .override_of(EDU),
        rule("an override is shorter than a page, with room for a newline")
            .set(EDU, "x".repeat(4094))
            .override_of(EDU)
            .set(EDU, "y".repeat(4095))
            .set(EDU, "y".repeat(4096))
            .set(EDU, "y".repeat(9000))
            .override_of(EDU),
        rule("a device that is not there has no override").set(NOBODY, "vfio-pci"),
        rule("an override leaves a bound device where it is")
            .load("e1000e")
            .driver(NIC)
            .set(NIC, "no-such-driver")
            .driver(NIC)
            .set(NIC, "\n")
            .driver(NIC),
        rule("an override that no driver has keeps every driver away")
            .set(NIC, "no-such-driver")
            .load("e1000e")
            .driver(NIC)
            .probe(NIC)
            .driver(NIC)
            .bind("e1000e", NIC)
            .set(NIC, "\n")
            .driver(NIC)
            .probe(NIC)
            .driver(NIC),
        rule("an override stays when the driver goes, and goes with the device")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .unbind("vfio-pci", EDU)
            .override_of(EDU)
            .unplug(EDU)
            .replug(EDU, 0)
            .override_of(EDU),
        rule("an override lets a driver have a device whose id it does not have")
            .load("vfio-pci")
            .probe(EDU)
            .driver(EDU)
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .driver(EDU)
            .driver(SECOND_EDU),
    ]
}
