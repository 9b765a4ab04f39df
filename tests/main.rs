//! `bind` over a fake kernel: a small driver core acting on a temporary sysfs.

mod fake;
mod faults;
mod journal;
mod linux;
mod machine;
mod naming;
mod order;
mod outcome;
mod table;
