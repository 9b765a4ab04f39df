//! The IOMMUs of virtual machines.

/// The machine's IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Iommu {
    /// `intel-iommu`: a DMAR table, and nothing among the PCI devices.
    #[default]
    Intel,
    /// `amd-iommu`: an IVRS table, and a PCI function in the first free slot.
    Amd,
    /// `virtio-iommu-pci`: a VIOT table or a device tree, and a PCI function in the first free slot;
    /// its driver is a module.
    Virtio,
    /// The `smmuv3` of an Arm machine: an IORT table or a device tree.
    Smmu,
    /// None: no table, no groups.
    None,
}

impl Iommu {
    /// In short.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Iommu::Intel => "intel",
            Iommu::Amd => "amd",
            Iommu::Virtio => "virtio",
            Iommu::Smmu => "smmu",
            Iommu::None => "none",
        }
    }

    /// Whether a kernel of that line, one of [`LINES`](crate::supplies::kernels::LINES), makes a device's
    /// group only when a driver is first probed for it.
    #[must_use]
    pub fn has_groups_at_probe(self, line: &str) -> bool {
        matches!(self, Iommu::Virtio | Iommu::Smmu) && line != "7.2"
    }
}
