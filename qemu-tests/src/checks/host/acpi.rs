//! A firmware that keeps memory for a device: an ACPI table with an RMRR in place of QEMU's, by the
//! initrd (`acpi_table_upgrade()` in `drivers/acpi/tables.c`).

use crate::machine::vm::Vm;

/// Where the memory is: reserved by a parameter of the kernel, or the table would be broken
/// (`arch_rmrr_sanity_check()`).
const START: u64 = 0x0800_0000;
const LAST: u64 = START + 0xfff;

/// Memory is kept for function 0 of that slot on the root bus.
pub(super) fn with_rmrr(machine: Vm, slot: u8) -> Vm {
    machine.cmdline("memmap=4K$0x8000000").file("/kernel/firmware/acpi/dmar.aml", dmar(slot))
}

/// "DMA Remapping Reporting Structure" of Intel's specification of VT-d: that of QEMU's `intel-iommu`
/// with remapped interrupts, of a higher revision, and an RMRR.
fn dmar(slot: u8) -> Vec<u8> {
    let mut table = Vec::new();
    table.extend(b"DMAR\0\0\0\0");
    // Revision of the format, checksum.
    table.extend([1, 0]);
    table.extend(b"BOCHS BXPC    ");
    // QEMU's own is of revision 1.
    table.extend(2_u32.to_le_bytes());
    table.extend(b"BXPC");
    table.extend(1_u32.to_le_bytes());
    // 39 bits of addresses; interrupts can be remapped.
    table.extend([38, 1]);
    table.resize(48, 0);
    // DRHD: all of segment 0, by the registers there; the I/O APIC, 00.0 on a bus of its own.
    table.extend([0, 0, 24, 0, 1, 0, 0, 0]);
    table.extend(0xfed9_0000_u64.to_le_bytes());
    table.extend([3, 8, 0, 0, 0, 0xff, 0, 0]);
    // RMRR: for an endpoint on bus 0.
    table.extend([1, 0, 32, 0, 0, 0, 0, 0]);
    table.extend(START.to_le_bytes());
    table.extend(LAST.to_le_bytes());
    table.extend([1, 8, 0, 0, 0, 0, slot, 0]);
    let length = u32::try_from(table.len()).expect("a short table");
    table[4..8].copy_from_slice(&length.to_le_bytes());
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = 0_u8.wrapping_sub(sum);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let table = dmar(3);
        assert_eq!(table.len(), 104);
        assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
