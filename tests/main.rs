//! `bind` over a fake kernel: a small driver core acting on a temporary sysfs.

// The fake kernel, machines for it, and what is logged and reported over it.
mod fake;
mod journal;
mod machine;
mod outcome;

// It answers as Linux does, and to the VM harness's scenarios.
mod linux;
mod rules;
mod soak;
mod strays;
mod table;

// What is asked for, and what becomes of it.
mod blacklist;
mod console;
mod groups;
mod keep;
mod later_groups;
mod naming;
mod order;
mod others;
mod usage;
mod variants;
mod verdict;
mod vfio_flavours;
mod waiting;

// What goes wrong, or is done meanwhile.
mod faults;
mod finish;
mod hotplug;
mod interruptions;
mod model;
mod vfs;

// Input of any kind.
mod bytes;
mod fuzz;
mod hostile;

// The program's commands, and what they tell.
mod check;
mod claim;
mod list;
mod next_initrd;
mod paste;
mod program;
mod release;
mod remedies;
mod report;
mod verify;

// The tree: its layers, and what is written for readers and shells.
mod completions;
mod layers;
mod manual;
mod pages;
