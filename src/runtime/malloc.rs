//! The same memory for libkmod: what C calls to get some. musl's own is left out of the program then;
//! the GNU C library does not let go of its own.
#![allow(unsafe_code)]
// All pieces are aligned for everything.
#![allow(clippy::cast_ptr_alignment)]

use std::ptr::null_mut;

use libc::{c_void, size_t};

use super::allocator::{ALIGN, arena};

/// In front of what C gets: how much it asked for. C does not say so when it gives it back.
const HEAD: usize = ALIGN;

/// Puts the head in front of a piece that has room for it.
fn with_head(piece: *mut u8, bytes: usize) -> *mut c_void {
    if piece.is_null() {
        return null_mut();
    }
    // SAFETY: the piece is aligned, and has room for the head.
    unsafe {
        piece.cast::<usize>().write(bytes);
        piece.add(HEAD).cast()
    }
}

/// The piece of what C got, and for how much it asked.
///
/// # Safety
/// `memory` has to come from one of these functions.
unsafe fn head(memory: *mut c_void) -> (*mut u8, usize) {
    // SAFETY: the promise of the caller: `with_head` wrote it.
    unsafe {
        let piece = memory.cast::<u8>().sub(HEAD);
        (piece, piece.cast::<usize>().read())
    }
}

#[unsafe(no_mangle)]
extern "C" fn malloc(bytes: size_t) -> *mut c_void {
    with_head(arena().give(bytes.saturating_add(HEAD), ALIGN), bytes)
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: size_t, each: size_t) -> *mut c_void {
    let bytes = count.saturating_mul(each);
    let piece = arena().give(bytes.saturating_add(HEAD), ALIGN);
    if !piece.is_null() {
        // SAFETY: it has as many bytes.
        unsafe { piece.write_bytes(0, bytes + HEAD) };
    }
    with_head(piece, bytes)
}

/// # Safety
/// As the C standard has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(memory: *mut c_void, bytes: size_t) -> *mut c_void {
    if memory.is_null() {
        return malloc(bytes);
    }
    // SAFETY: C's promise.
    unsafe {
        let (piece, old) = head(memory);
        let piece = arena().resize(piece, old.saturating_add(HEAD), bytes.saturating_add(HEAD));
        with_head(piece, bytes)
    }
}

/// # Safety
/// As the C standard has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn free(memory: *mut c_void) {
    if !memory.is_null() {
        // SAFETY: C's promise.
        unsafe {
            let (piece, bytes) = head(memory);
            arena().take(piece, bytes.saturating_add(HEAD));
        }
    }
}
