//! Memory for a program of one thread that runs for a moment: what is given back is given out again
//! for something of the same size, and nothing goes back to the kernel.
//!
//! A C library's allocator is prepared for threads, for mistakes of its callers and for years, which
//! each boot would pay for.
#![allow(unsafe_code)]
// All pieces are aligned for everything.
#![allow(clippy::cast_ptr_alignment)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{self, NonNull, null_mut};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// What every address is a multiple of; C asks for no more (`max_align_t`).
pub(super) const ALIGN: usize = 16;

/// Up to here there is a size for each multiple of [`ALIGN`]; above for each power of two.
const SMALL: usize = 512;

/// The number of sizes.
const SIZES: usize = SMALL / ALIGN + usize::BITS as usize;

/// As much is taken from the kernel at once, or more where more is asked for.
const CHUNK: usize = 256 << 10;

/// A piece that was given back; in its first bytes is the next one of its size.
type Free = Option<NonNull<Piece>>;

struct Piece {
    next: Free,
}

/// All of it.
pub(super) struct Arena {
    /// Where the part of the chunk begins that was never given out.
    start: usize,
    end: usize,
    /// By the number of the size.
    free: [Free; SIZES],
}

/// The program's memory.
pub struct Allocator(UnsafeCell<Arena>);

#[global_allocator]
static MEMORY: Allocator =
    Allocator(UnsafeCell::new(Arena { start: 0, end: 0, free: [None; SIZES] }));

// SAFETY: the program has one thread, and no handler of a signal.
unsafe impl Sync for Allocator {}

/// The size that is given out for so many bytes, and its number; `None` for absurdly many. Where the
/// number of bytes is known to the compiler, nothing is left of it to be done.
#[allow(clippy::inline_always)]
#[inline(always)]
fn size(bytes: usize) -> Option<(usize, usize)> {
    if bytes <= SMALL {
        let number = bytes.saturating_sub(1) / ALIGN;
        return Some(((number + 1) * ALIGN, number));
    }
    let size = bytes.checked_next_power_of_two()?;
    Some((size, SMALL / ALIGN + size.trailing_zeros() as usize))
}

impl Arena {
    pub(super) fn give(&mut self, bytes: usize, align: usize) -> *mut u8 {
        let Some((size, number)) = size(bytes) else { return null_mut() };
        if align > ALIGN {
            return self.cut(size, align);
        }
        match self.free[number] {
            Some(piece) => {
                // SAFETY: it was put here by `take`, which wrote it, and nobody has it since.
                self.free[number] = unsafe { piece.as_ref() }.next;
                piece.as_ptr().cast()
            }
            None => self.cut(size, ALIGN),
        }
    }

    /// Cuts a piece off the chunk.
    fn cut(&mut self, size: usize, align: usize) -> *mut u8 {
        let start = self.start.next_multiple_of(align);
        if self.end.saturating_sub(start) >= size {
            self.start = start + size;
            return ptr::with_exposed_provenance_mut(start);
        }
        let length = size.saturating_add(align).max(CHUNK);
        let Ok(length) = length.try_into() else { return null_mut() };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, wherever there is room.
        match unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) } {
            Ok(chunk) => {
                self.start = chunk.as_ptr().expose_provenance();
                self.end = self.start + length.get();
                self.cut(size, align)
            }
            Err(_) => null_mut(),
        }
    }

    /// # Safety
    /// `piece` has to come from `give`, of as many bytes and [`ALIGN`], and nobody may use it any
    /// more.
    pub(super) unsafe fn take(&mut self, piece: *mut u8, bytes: usize) {
        let Some((_, number)) = size(bytes) else { return };
        let Some(piece) = NonNull::new(piece.cast::<Piece>()) else { return };
        // SAFETY: every piece is large enough for it, aligned, and nobody's.
        unsafe { piece.write(Piece { next: self.free[number] }) };
        self.free[number] = Some(piece);
    }

    /// # Safety
    /// As of `take`.
    pub(super) unsafe fn resize(&mut self, piece: *mut u8, from: usize, to: usize) -> *mut u8 {
        let (Some((old, _)), Some((new, _))) = (size(from), size(to)) else { return null_mut() };
        if old == new {
            return piece;
        }
        // The piece that was cut last grows where it is.
        let start = piece.expose_provenance();
        if start + old == self.start && start.saturating_add(new) <= self.end {
            self.start = start + new;
            return piece;
        }
        let moved = self.give(to, ALIGN);
        if !moved.is_null() {
            // SAFETY: both have as many bytes, and they are two pieces.
            unsafe {
                ptr::copy_nonoverlapping(piece, moved, from.min(to));
                self.take(piece, from);
            }
        }
        moved
    }
}

// SAFETY: a piece is nobody else's until it is given back, has the size and the alignment that are
// asked for, and nothing here panics.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and nothing in here comes back to this.
        unsafe { &mut *self.0.get() }.give(layout.size(), layout.align())
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // One with another alignment stays where it is: there is hardly any.
        if layout.align() <= ALIGN {
            // SAFETY: as above, and by the promise of the caller.
            unsafe { (*self.0.get()).take(piece, layout.size()) };
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if layout.align() > ALIGN {
            // SAFETY: the promise of the caller: it is rounded up to no more than fits.
            let new = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
            // SAFETY: as above; both have as many bytes, and they are two pieces.
            unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(piece, moved, layout.size().min(bytes));
                }
                return moved;
            }
        }
        // SAFETY: as above, and by the promise of the caller.
        unsafe { (*self.0.get()).resize(piece, layout.size(), bytes) }
    }
}

/// The program's memory, for a moment.
#[cfg(target_env = "musl")]
pub(super) fn arena() -> &'static mut Arena {
    // SAFETY: one thread, and no two of those who call this are at work at once.
    unsafe { &mut *MEMORY.0.get() }
}
