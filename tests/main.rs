//! `bind` over a fake kernel: a small driver core acting on a temporary sysfs.

mod blacklist;
mod bytes;
mod check;
mod completions;
mod console;
mod fake;
mod faults;
mod fuzz;
mod groups;
mod hostile;
mod interruptions;
mod journal;
<<<<<<< HEAD
mod keep;
=======
mod layers;
>>>>>>> 126ea6a (tests, modules: hold that no file uses one that uses it)
mod linux;
mod list;
mod machine;
mod manual;
mod model;
mod naming;
mod next_initrd;
mod order;
mod outcome;
mod pages;
mod program;
mod report;
mod rules;
mod soak;
mod table;
mod usage;
mod variants;
mod vfio_flavours;
mod waiting;
