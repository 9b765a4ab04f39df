//! The initrd of a virtual machine.
