//! What takes the place of parts of the C library and of Rust's own in the program: an allocator for
//! one thread, and an unwinder that has nothing to do.

mod allocator;
#[cfg(target_env = "musl")]
mod malloc;
#[cfg(panic = "abort")]
mod unwind;
