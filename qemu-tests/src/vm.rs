//! A virtual machine: QEMU, its deadline, and what it said.
