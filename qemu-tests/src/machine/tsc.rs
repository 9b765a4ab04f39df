//! The frequency of the machine's time-stamp counter, which an emulated guest reads as its own.
//!
//! On a busy machine the guest's kernel measures it wrong by any factor, and then all of its
//! timeouts are wrong by that factor; `tsc_early_khz=` tells it (since Linux 5.11).
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Reads it, where this machine has one.
#[cfg(target_arch = "x86_64")]
// SAFETY: reads a register that every x86-64 processor has, and nothing else.
const TICKS: Option<fn() -> u64> = Some(|| unsafe { std::arch::x86_64::_rdtsc() });
#[cfg(not(target_arch = "x86_64"))]
const TICKS: Option<fn() -> u64> = None;

/// In kHz; measured once. None where this machine has none.
pub(crate) fn khz() -> Option<u64> {
    static KHZ: OnceLock<u64> = OnceLock::new();
    let ticks = TICKS?;
    Some(*KHZ.get_or_init(|| {
        let measure = |_| measure(ticks, Duration::from_millis(10));
        let mut measured: Vec<u64> = (0..5).map(measure).collect();
        measured.sort_unstable();
        // One in which this was interrupted between the two clocks lies at an end.
        measured[measured.len() / 2]
    }))
}

fn measure(ticks: fn() -> u64, time: Duration) -> u64 {
    let (start, first) = (Instant::now(), ticks());
    thread::sleep(time);
    let (elapsed, last) = (start.elapsed(), ticks());
    let khz = u128::from(last - first) * 1_000_000 / elapsed.as_nanos();
    u64::try_from(khz).unwrap_or(u64::MAX)
}
