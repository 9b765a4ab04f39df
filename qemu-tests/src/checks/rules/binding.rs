//! `drivers_probe`, `bind` and `unbind`.

use super::machines::{BRIDGE, EDU, NIC, NO_GROUP, NOBODY, PORT, SECOND_EDU, SERIAL};
use super::rule::{Op, Rule, of_device, rule};

pub(super) fn rules() -> Vec<Rule> {
    [probing(), binding(), unbinding()].concat()
}

fn probing() -> Vec<Rule> {
    vec![
        rule("drivers_probe succeeds whatever comes of it")
            .probe(EDU)
            .driver(EDU)
            .load("vfio-pci")
            .set(NO_GROUP, "vfio-pci")
            .probe(NO_GROUP)
            .driver(NO_GROUP)
            .exists(format!("sys/bus/pci/drivers/vfio-pci/{NO_GROUP}"))
            .probe(SERIAL)
            .driver(SERIAL),
        rule("drivers_probe wants the address of a device")
            .probe(NOBODY)
            .probe("nonsense")
            .probe("00:03.0")
            .probe(""),
        rule("a newline behind an address does not matter")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .probe("0000:00:03.0\n")
            .driver(EDU)
            .unbind("vfio-pci", "0000:00:03.0\n")
            .driver(EDU)
            .bind("vfio-pci", "0000:00:03.0\n")
            .driver(EDU),
        rule("a driver that was there before gets a device by drivers_probe or bind, and not by the override alone")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .driver(EDU)
            .probe(EDU)
            .driver(EDU)
            .set(SECOND_EDU, "vfio-pci")
            .bind("vfio-pci", SECOND_EDU)
            .driver(SECOND_EDU),
        rule("drivers_probe leaves a bound device where it is")
            .load("vfio-pci")
            .set(SERIAL, "vfio-pci")
            .probe(SERIAL)
            .driver(SERIAL),
        rule("the first driver that fits has a device, in the order of their registration")
            .set(EDU, "no-such-driver")
            .load("vfio-pci")
            .load("pci-stub")
            .store("bus/pci/drivers/pci-stub/new_id", "1234 11e8")
            .store("bus/pci/drivers/vfio-pci/new_id", "1234 11e8")
            .driver(EDU)
            .set(EDU, "\n")
            .probe(EDU)
            .driver(EDU)
            .driver(SECOND_EDU)
            .not_on("nixos", "it has no pci-stub"),
        rule("an id that a driver is given binds every device of it that has no driver")
            .load("vfio-pci")
            .set(SECOND_EDU, "no-such-driver")
            .store("bus/pci/drivers/vfio-pci/new_id", "1234 11e8")
            .driver(EDU)
            .driver(SECOND_EDU)
            .store("bus/pci/drivers/vfio-pci/new_id", "1234 11e8")
            .store("bus/pci/drivers/vfio-pci/new_id", "nonsense"),
    ]
}

fn binding() -> Vec<Rule> {
    vec![
        rule("bind says that the device is bound already; 5.10 says it otherwise")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .bind("vfio-pci", EDU)
            .bind("vfio-pci", EDU)
            .set(SERIAL, "vfio-pci")
            .bind("vfio-pci", SERIAL)
            .driver(SERIAL),
        rule("bind says why a probe failed, but not on 5.10")
            .load("vfio-pci")
            .set(NO_GROUP, "vfio-pci")
            .bind("vfio-pci", NO_GROUP)
            .driver(NO_GROUP),
        rule("vfio-pci refuses a root port and a bridge to a conventional bus")
            .load("vfio-pci")
            .driver(PORT)
            .unbind("pcieport", PORT)
            .set(PORT, "vfio-pci")
            .bind("vfio-pci", PORT)
            .driver(PORT)
            .unbind("shpchp", BRIDGE)
            .set(BRIDGE, "vfio-pci")
            .bind("vfio-pci", BRIDGE)
            .driver(BRIDGE)
            .not_on("nixos", "it has no driver for the bridge"),
        rule("bind wants a driver that is there, and a device that is its own by override or id")
            .bind("vfio-pci", EDU)
            .load("vfio-pci")
            .bind("vfio-pci", EDU)
            .set(EDU, "no-such-driver")
            .bind("vfio-pci", EDU)
            .bind("vfio-pci", NOBODY)
            .load("e1000e")
            .bind("e1000e", EDU)
            .set(NIC, "vfio-pci")
            .bind("vfio-pci", NIC),
    ]
}

fn unbinding() -> Vec<Rule> {
    vec![
        rule("unbind takes the links away")
            .load("vfio-pci")
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .link(format!("sys/bus/pci/drivers/vfio-pci/{EDU}"))
            .unbind("vfio-pci", EDU)
            .driver(EDU)
            .exists(format!("sys/bus/pci/drivers/vfio-pci/{EDU}"))
            .override_of(EDU),
        rule("unbind wants a device that the driver has")
            .unbind("vfio-pci", EDU)
            .load("vfio-pci")
            .unbind("vfio-pci", EDU)
            .unbind("vfio-pci", NOBODY)
            .unbind("vfio-pci", SERIAL)
            .driver(SERIAL),
        rule("a device without a driver has no unbind")
            .store(format!("bus/pci/devices/{EDU}/driver/unbind"), EDU)
            .store(format!("bus/pci/devices/{SERIAL}/driver/unbind"), SERIAL)
            .driver(SERIAL)
            .probe(SERIAL)
            .driver(SERIAL),
        rule("nothing can be written where /sys is read-only")
            .load("vfio-pci")
            .then(Op::ReadOnly)
            .set(EDU, "vfio-pci")
            .override_of(EDU)
            .probe(EDU)
            .bind("vfio-pci", EDU)
            .store(format!("bus/pci/devices/{EDU}/driver/unbind"), EDU)
            .set(NOBODY, "vfio-pci")
            .exists(of_device(EDU, "driver")),
    ]
}
