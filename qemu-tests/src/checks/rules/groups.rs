//! IOMMU groups, and whether a VM could use them.

use super::machines::{
    ALSO_BEHIND, BEHIND, BELOW_PORT, BRIDGE, EDU, PAIR, PAIR_NIC, PORT, SECOND_EDU, SERIAL,
};
use super::rule::{Rule, of_device, rule, rule_of_virtio};

fn together(one: &str, other: &str) -> String {
    of_device(one, &format!("iommu_group/devices/{other}"))
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        rule("a group shows its members")
            .exists(together(PAIR, PAIR_NIC))
            .exists(together(PAIR, PAIR))
            .exists(together(PAIR, EDU))
            .exists(together(BEHIND, BRIDGE))
            .exists(together(BEHIND, ALSO_BEHIND))
            .exists(together(BELOW_PORT, PORT)),
        rule("a group has a file while a vfio driver has a member")
            .viable(EDU)
            .load("vfio-pci")
            .viable(EDU)
            .set(EDU, "vfio-pci")
            .probe(EDU)
            .viable(EDU)
            .unbind("vfio-pci", EDU)
            .viable(EDU)
            .viable(SERIAL),
        rule("a member without a driver does no harm, one that the host has does")
            .set(PAIR, "vfio-pci")
            .load("vfio-pci")
            .viable(PAIR)
            .load("e1000")
            .driver(PAIR_NIC)
            .viable(PAIR)
            .viable(PAIR_NIC)
            .unbind("e1000", PAIR_NIC)
            .viable(PAIR)
            .set(PAIR_NIC, "vfio-pci")
            .probe(PAIR_NIC)
            .viable(PAIR),
        rule("pci-stub may have a member")
            .set(PAIR, "vfio-pci")
            .set(PAIR_NIC, "pci-stub")
            .load("vfio-pci")
            .load("pci-stub")
            .driver(PAIR_NIC)
            .viable(PAIR)
            .not_on("nixos", "it has no pci-stub"),
        rule("vfio-pci takes a member of a group in which the host has another")
            .load("e1000")
            .driver(PAIR_NIC)
            .set(PAIR, "vfio-pci")
            .load("vfio-pci")
            .driver(PAIR)
            .viable(PAIR),
        rule("a driver of the host takes a member of a group in which vfio-pci has another")
            .load("vfio-pci")
            .unbind("shpchp", BRIDGE)
            .set(BEHIND, "vfio-pci")
            .probe(BEHIND)
            .viable(BEHIND)
            .load("e1000")
            .driver(ALSO_BEHIND)
            .viable(BEHIND),
        rule("pcieport may have a member")
            .driver(PORT)
            .set(BELOW_PORT, "vfio-pci")
            .load("vfio-pci")
            .driver(BELOW_PORT)
            .viable(BELOW_PORT),
        rule("another driver may have a bridge in the group until 5.19")
            .set(BEHIND, "vfio-pci")
            .set(ALSO_BEHIND, "vfio-pci")
            .load("vfio-pci")
            .driver(BRIDGE)
            .viable(BEHIND)
            .unbind("shpchp", BRIDGE)
            .viable(BEHIND)
            .probe(BRIDGE)
            .driver(BRIDGE)
            .viable(BEHIND)
            .not_on("nixos", "it has no driver for that bridge"),
        rule_of_virtio("until the driver of a virtio-iommu comes no driver is probed")
            .set(EDU, "vfio-pci")
            .load("vfio-pci")
            .driver(EDU)
            .probe(EDU)
            .bind("vfio-pci", EDU)
            .exists(of_device(EDU, "iommu_group")),
        rule_of_virtio(
            "what a VIOT table tells of has its group before Linux 6.15 when a driver is first probed",
        )
        .load("virtio-iommu")
        .exists(of_device(EDU, "iommu_group"))
        .exists(of_device(PAIR_NIC, "iommu_group"))
        .set(EDU, "vfio-pci")
        .set(PAIR, "vfio-pci")
        .load("vfio-pci")
        .driver(EDU)
        .exists(of_device(EDU, "iommu_group"))
        .exists(of_device(SECOND_EDU, "iommu_group"))
        .exists(together(PAIR, PAIR_NIC))
        .viable(PAIR)
        .load("e1000")
        .exists(together(PAIR, PAIR_NIC))
        .viable(PAIR),
    ]
}
