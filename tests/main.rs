//! `bind` over a fake kernel: a small driver core acting on a temporary sysfs.

mod bytes;
mod check;
mod completions;
mod console;
mod fake;
mod faults;
mod groups;
mod hostile;
mod interruptions;
mod journal;
mod linux;
mod list;
mod machine;
mod manual;
mod naming;
mod next_initrd;
mod order;
mod outcome;
mod program;
mod report;
mod rules;
mod table;
mod usage;
mod variants;
mod waiting;
