//! The `/usr` of the machine that runs the tests, in the guest.

use crate::machine::vm::Vm;

/// `guest/host/userland` and what it needs.
pub(super) fn with(machine: Vm) -> Vm {
    machine
        .arguments(["-fsdev", "local,id=usr,path=/usr,security_model=none,readonly=on"])
        .arguments(["-device", "virtio-9p-pci,fsdev=usr,mount_tag=usr,bus=pcie.0,addr=1c.0"])
        .memory(1024)
        .load(["virtio_pci", "9pnet_virtio", "9p"])
        .file("/harness/userland", include_str!("../../guest/host/userland"))
}
