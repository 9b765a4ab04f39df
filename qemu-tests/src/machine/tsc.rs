//! The frequency of the machine's time-stamp counter, which an emulated guest reads as its own.
//!
//! On a busy machine the guest's kernel measures it wrong by any factor, and then all of its
//! timeouts are wrong by that factor; `tsc_early_khz=` tells it (since Linux 5.11).
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// In kHz; measured once.
pub(crate) fn khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(|| {
        let mut measured: Vec<u64> = (0..5).map(|_| measure(Duration::from_millis(10))).collect();
        measured.sort_unstable();
        // One in which this was interrupted between the two clocks lies at an end.
        measured[measured.len() / 2]
    })
}

fn measure(time: Duration) -> u64 {
    let (start, first) = (Instant::now(), ticks());
    thread::sleep(time);
    let (elapsed, last) = (start.elapsed(), ticks());
    let khz = u128::from(last - first) * 1_000_000 / elapsed.as_nanos();
    u64::try_from(khz).unwrap_or(u64::MAX)
}

fn ticks() -> u64 {
    // SAFETY: reads a register that every x86-64 processor has, and nothing else.
    unsafe { std::arch::x86_64::_rdtsc() }
}
