//! What a command has cost.

use std::fs;

/// The CPU time of all processes that this one has waited for, in seconds; none where `/proc` does
/// not tell.
#[must_use]
pub(crate) fn seconds() -> Option<f64> {
    // Fields 16 and 17, counted from the one after the name, which can hold spaces: in ticks, of
    // which the kernel tells 100 a second on every machine that this runs on.
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(f64::from(ticks(13)? + ticks(14)?) / 100.0)
}
