//! What comes of a module that is inserted.

use super::machines::{EDU, NIC, PAIR_NIC, SECOND_EDU, SERIAL};
use super::rule::{Rule, rule};

const INSERTED: &str = "`Modules::insert()` takes EEXIST for success";

pub(super) fn rules() -> Vec<Rule> {
    vec![
        rule("which modules vfio-pci needs, each kernel says for itself")
            .needs("vfio-pci")
            .needs("vfio-pci-core")
            .needs("vfio_virqfd")
            .needs("vfio_iommu_type1")
            .needs("vfio")
            .needs("irqbypass"),
        rule("a module wants what it needs to be there before")
            .insert("vfio-pci")
            .insert("vfio_iommu_type1")
            .load("vfio-pci")
            .insert("vfio_iommu_type1"),
        rule("a module goes in once")
            .load("vfio-pci")
            .insert("vfio-pci")
            .but(INSERTED)
            .exists("sys/bus/pci/drivers/vfio-pci"),
        rule("loading vfio-pci binds the devices that have no driver and whose override names it")
            .set(EDU, "vfio-pci")
            .set(SERIAL, "vfio-pci")
            .set(NIC, "no-such-driver")
            .load("vfio-pci")
            .driver(EDU)
            .driver(SECOND_EDU)
            .driver(SERIAL)
            .driver(NIC),
        rule("loading a driver of the host binds the devices of its ids that have none, less those whose override names another")
            .load("vfio-pci")
            .set(NIC, "vfio-pci")
            .load("e1000e")
            .load("e1000")
            .driver(NIC)
            .driver(PAIR_NIC)
            .probe(NIC)
            .driver(NIC),
        rule("a driver shows which module it is of, and a module which drivers it has")
            .load("vfio-pci")
            .link("sys/module/vfio_pci/drivers/pci:vfio-pci")
            .read("sys/module/vfio_pci/initstate")
            .exists("sys/bus/pci/drivers/vfio-pci/bind")
            .exists("sys/bus/pci/drivers/vfio-pci/unbind")
            .exists("sys/bus/pci/drivers/vfio-pci/new_id")
            .exists("sys/bus/pci/drivers/vfio-pci/remove_id")
            .exists("sys/bus/pci/drivers/vfio-pci/uevent")
            .exists("sys/module/vfio_pci/drivers/pci:e1000e"),
        rule("modules have parameters")
            .exists("sys/module/vfio_pci/parameters/ids")
            .load("vfio-pci")
            .load("vfio_iommu_type1")
            .read("sys/module/vfio_pci/parameters/ids")
            .read("sys/module/vfio_pci/parameters/disable_vga")
            .read("sys/module/vfio_pci/parameters/disable_idle_d3")
            .read("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"),
    ]
}
