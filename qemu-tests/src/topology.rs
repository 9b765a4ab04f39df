//! PCI devices of a virtual machine, and where they sit.
