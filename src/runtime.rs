//! What takes the place of parts of the C library and of Rust's own in the program: an allocator for
//! one thread, and an unwinder that has nothing to do.

mod allocator;
#[cfg(target_env = "musl")]
mod malloc;
#[cfg(panic = "abort")]
mod unwind;

use std::ffi::c_char;
use std::process::exit;

use libc::c_int;

/// What the C library starts. Rust's own start-up reads `/proc/self/maps` for the message of a
/// stack overflow, which takes longer than all the rest of it, and a tenth of the binary for the C
/// library's `scanf`.
// SAFETY: the C library calls it once, and nothing else in the program has this name.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    vfio_early::standard_files();
    // SAFETY: this is what the C library gives to `main`.
    let words = unsafe { vfio_early::arguments(count, words) };
    // Also flushes what was printed.
    exit(crate::run(words).into())
}
