//! The system calls that need `unsafe` or more than a line, and nothing else.
#![allow(unsafe_code)]

pub mod vfio;

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe, write};

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Makes standard input, output and error usable, as Rust's start-up would: one that is closed gets
/// `/dev/null`, since else the next file that is opened would be in its place and get what is
/// logged. That nobody reads a pipe any more is an error, and no end of the program.
pub fn standard_files() {
    // SAFETY: the numbers are looked at only, and one that is no open file is reported as such.
    let files = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let mut files = files.map(|file| PollFd::new(file, PollFlags::empty()));
    let is_closed = |file: &PollFd| file.revents() == Some(PollFlags::POLLNVAL);
    if poll(&mut files, PollTimeout::ZERO).is_ok() {
        for _ in files.iter().filter(|file| is_closed(file)) {
            // The lowest number that is free. Where there is no /dev yet, it stays free.
            if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
                let _ = null.into_raw_fd();
            }
        }
    }
    // SAFETY: no handler is set that could do anything unsafe.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// The words that `main` gets: with musl, `std::env::args` has them from Rust's own start-up alone.
///
/// # Safety
/// `words` has to have `count` pointers to C strings.
#[must_use]
pub unsafe fn arguments(count: c_int, words: *const *const c_char) -> Vec<OsString> {
    let at = |index| {
        // SAFETY: the caller's promise; `index` is below `count`.
        let word = unsafe { CStr::from_ptr(*words.add(index)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    (0..usize::try_from(count).unwrap_or(0)).map(at).collect()
}

/// One write of the whole value into an attribute, whose path is below `folder`.
pub fn store(folder: &OwnedFd, attribute: &str, value: &[u8]) -> Result<(), Errno> {
    // No O_CREAT: a missing attribute must say so itself.
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = openat(folder, attribute, flags, Mode::empty())?;
    match write(file, value)? {
        // The kernel takes all of it or none.
        written if written == value.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

/// The target of a link, whose path is below `folder`; `ENAMETOOLONG` where the buffer does not hold
/// it. `nix` would allocate a page for each.
pub fn read_link<'b>(
    folder: &OwnedFd,
    path: &str,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Errno> {
    let length = path.with_nix_path(|path| {
        let (to, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the path ends with a NUL, and there is room for so much.
        Errno::result(unsafe { libc::readlinkat(folder.as_raw_fd(), path.as_ptr(), to, room) })
    })??;
    match usize::try_from(length) {
        Ok(length) if length < buffer.len() => Ok(&buffer[..length]),
        _ => Err(Errno::ENAMETOOLONG),
    }
}

/// How many processors this process may run on, counted up to `most`.
pub fn processors(most: usize) -> usize {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let is_set = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    (0..CpuSet::count()).filter(is_set).take(most).count().max(1)
}

/// Pieces of work for child processes.
pub struct Work<'a> {
    /// How long each may take.
    pub deadlines: &'a [Duration],
    /// When all of it has to be over.
    pub end: Instant,
    /// At most so many children work side by side, each on the first piece that none has taken.
    pub children: usize,
    /// The pieces that have to be over before a piece, all of them earlier ones; where one of them
    /// fails, so does this, untried.
    pub after: &'a dyn Fn(usize) -> Vec<usize>,
    /// Does a piece.
    pub perform: &'a dyn Fn(usize) -> Result<(), Errno>,
}

/// What the children tell the parent; the memory is shared.
#[repr(C)]
struct Piece {
    /// When it was begun, in nanoseconds since the start; 0 where it was not.
    begun: AtomicU64,
    /// The number of the child that has it, from 1.
    child: AtomicU32,
    /// [`PENDING`], or 0, or the errno.
    result: AtomicI32,
}

const PENDING: i32 = -1;

impl Piece {
    fn result(&self) -> Option<Result<(), Errno>> {
        match self.result.load(Ordering::Acquire) {
            PENDING => None,
            0 => Some(Ok(())),
            number => Some(Err(Errno::from_raw(number))),
        }
    }

    /// Waits in a child until another one is through with it.
    fn wait(&self) -> Result<(), Errno> {
        loop {
            if let Some(result) = self.result() {
                return result;
            }
            let (word, no_timeout) = (&raw const self.result, std::ptr::null::<libc::timespec>());
            // SAFETY: the word is mapped as long as `self` is, and there is no timeout to read.
            unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, PENDING, no_timeout) };
        }
    }

    fn finish(&self, result: Result<(), Errno>) {
        let number = result.map_or_else(|errno| errno as i32, |()| 0);
        self.result.store(number, Ordering::Release);
        let word = &raw const self.result;
        // SAFETY: the word is mapped as long as `self` is.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
    }

    /// Unless the child was quicker.
    fn give_up(&self, errno: Errno) {
        if self.result().is_none() {
            self.finish(Err(errno));
        }
    }
}

/// Memory that the parent shares with its children: as many pieces, and which is the next.
struct Shared {
    memory: NonNull<libc::c_void>,
    length: NonZeroUsize,
    count: usize,
}

impl Shared {
    fn new(count: usize) -> nix::Result<Self> {
        // The first one's place is that of the counter.
        let length = NonZeroUsize::MIN.saturating_add(count).saturating_mul(PIECE);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, wherever there is room.
        let memory = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
        let shared = Shared { memory, length, count };
        for piece in shared.pieces() {
            piece.result.store(PENDING, Ordering::Relaxed);
        }
        Ok(shared)
    }

    fn next(&self) -> &AtomicUsize {
        // SAFETY: the mapping begins at a page, lives as long as this and is seen through atomics
        // alone, for which all bits are valid.
        unsafe { self.memory.cast().as_ref() }
    }

    fn pieces(&self) -> &[Piece] {
        // SAFETY: as above; the mapping has room for one more than `count`.
        unsafe { slice::from_raw_parts(self.memory.cast().add(1).as_ptr(), self.count) }
    }
}

const PIECE: NonZeroUsize = NonZeroUsize::new(size_of::<Piece>()).unwrap();

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: this is the mapping of `new`, and no reference to it outlives this.
        let _ = unsafe { munmap(self.memory, self.length.get()) };
    }
}

/// Claims a disk for a moment.
///
/// # Errors
/// `EBUSY` where it is somebody's already: a mounted file system's, a pool's, a RAID's
/// (`bd_may_claim()` in `block/bdev.c`); `EACCES` where this is not root; `ETIMEDOUT` where the disk
/// does not answer.
pub fn claim(disk: &str) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_EXCL | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let deadline = Duration::from_secs(5);
    let results = supervise(&Work {
        deadlines: &[deadline],
        end: Instant::now() + deadline,
        children: 1,
        after: &|_| Vec::new(),
        perform: &|_| open(disk, flags, Mode::empty()).map(drop),
    });
    results[0]
}

/// A child process.
struct Child {
    /// See [`Piece::child`].
    number: u32,
    pid: Pid,
    /// The end of a pipe whose other end is closed with the child.
    alive: OwnedFd,
}

/// Does the work; the result of each piece. One that takes longer than it may has `ETIMEDOUT`, and
/// what is left is done by a new child. The old one is left behind: what hangs in the kernel can
/// neither be killed nor waited for, and a thread in that state would keep this process from
/// exiting.
pub fn supervise(work: &Work) -> Vec<Result<(), Errno>> {
    let count = work.deadlines.len();
    let shared = match Shared::new(count) {
        Ok(shared) => shared,
        Err(why) => {
            log::warn!("no memory to share ({why}): writing without a deadline");
            return (0..count).map(work.perform).collect();
        }
    };
    let (pieces, next) = (shared.pieces(), shared.next());
    let start = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    let mut number = 0;
    loop {
        let is_left = next.load(Ordering::Relaxed) < count;
        while is_left && children.len() < work.children.min(count) {
            number += 1;
            match child(number, work, &shared, start) {
                Ok(child) => children.push(child),
                Err(_) if !children.is_empty() => break,
                Err(why) => {
                    log::warn!("no child process ({why}): writing without a deadline");
                    take_pieces(number, work, &shared, start);
                    break;
                }
            }
        }
        if children.is_empty() {
            break;
        }
        watch(&mut children, work, &shared, start);
    }
    let result = |piece: &Piece| piece.result().unwrap_or(Err(Errno::ECHILD));
    pieces.iter().map(result).collect()
}

fn child(number: u32, work: &Work, shared: &Shared, start: Instant) -> nix::Result<Child> {
    let (alive, end) = pipe()?;
    // SAFETY: this process has one thread, so the child may do whatever the parent could; it
    // leaves by _exit and never returns into the caller.
    match unsafe { fork() }? {
        ForkResult::Parent { child: pid } => Ok(Child { number, pid, alive }),
        ForkResult::Child => {
            // What is written is opened: where there are few descriptors, it is by this one.
            drop(alive);
            take_pieces(number, work, shared, start);
            drop(end);
            // SAFETY: _exit only ends the process; no destructor of the parent's runs twice.
            unsafe { libc::_exit(0) }
        }
    }
}

/// What a child does: takes pieces as long as there are any.
fn take_pieces(number: u32, work: &Work, shared: &Shared, start: Instant) {
    let pieces = shared.pieces();
    loop {
        let index = shared.next().fetch_add(1, Ordering::Relaxed);
        let Some(piece) = pieces.get(index) else { return };
        piece.child.store(number, Ordering::Relaxed);
        let earlier = (work.after)(index);
        let ready = earlier.into_iter().try_for_each(|earlier| pieces[earlier].wait());
        piece.begun.store(nanoseconds(start.elapsed()).max(1), Ordering::Relaxed);
        piece.finish(ready.and_then(|()| (work.perform)(index)));
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits until a child is through or has to be given up, and takes it off the list.
fn watch(children: &mut Vec<Child>, work: &Work, shared: &Shared, start: Instant) {
    let pieces = shared.pieces();
    let left = |index: usize, piece: &Piece| {
        let begun = Some(piece.begun.load(Ordering::Relaxed)).filter(|begun| *begun != 0)?;
        let end = Duration::from_nanos(begun) + work.deadlines[index];
        piece.result().is_none().then(|| end.saturating_sub(start.elapsed()))
    };
    let of_all = work.end.saturating_duration_since(Instant::now());
    let running = pieces.iter().enumerate().filter_map(|(index, piece)| left(index, piece));
    // A piece that is begun while this waits has a deadline, too.
    let shortest = work.deadlines.iter().copied().chain([of_all]).chain(running).min();
    wait_for(children.iter().map(|child| &child.alive), shortest.unwrap_or_default());
    children.retain(|child| {
        let is_over = readable(&child.alive, Duration::ZERO);
        if is_over {
            let _ = waitpid(child.pid, None);
        }
        !is_over
    });
    let is_over = work.end <= Instant::now();
    for (index, piece) in pieces.iter().enumerate() {
        if is_over || left(index, piece).is_some_and(|left| left.is_zero()) {
            piece.give_up(Errno::ETIMEDOUT);
            children.retain(|child| {
                let hangs = child.number == piece.child.load(Ordering::Relaxed);
                if hangs || is_over {
                    // It may be over before the signal; either way it does no further write.
                    let _ = kill(child.pid, Signal::SIGKILL);
                }
                !hangs && !is_over
            });
        }
    }
    // Those of a child that died, as the kernel's out-of-memory killer does it.
    let taken = shared.next().load(Ordering::Relaxed).min(pieces.len());
    for piece in &pieces[..taken] {
        let number = piece.child.load(Ordering::Relaxed);
        if !children.iter().any(|child| child.number == number) {
            piece.give_up(Errno::ECHILD);
        }
    }
}

/// Waits until there is something to read (or the other end is closed), at most so long.
fn readable(file: &OwnedFd, at_most: Duration) -> bool {
    wait_for([file].into_iter(), at_most)
}

/// As [`readable`], in any of them.
fn wait_for<'f>(files: impl Iterator<Item = &'f OwnedFd>, at_most: Duration) -> bool {
    let mut files: Vec<_> =
        files.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
    let end = Instant::now() + at_most;
    loop {
        // Rounded up: rounded down, the last millisecond would be a busy loop.
        let left = end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut files, left) {
            Err(Errno::EINTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

mod ioctl {
    /// `struct fb_con2fbmap` in `include/uapi/linux/fb.h`.
    #[repr(C)]
    pub struct ConsoleToFramebuffer {
        pub console: u32,
        pub framebuffer: u32,
    }
    /// `MAX_NR_CONSOLES` in `include/uapi/linux/vt.h`.
    pub const LAST_CONSOLE: u32 = 63;

    /// `KD_TEXT` and `KD_GRAPHICS` in `include/uapi/linux/kd.h`.
    pub const TEXT: libc::c_int = 0;
    pub const GRAPHICS: libc::c_int = 1;

    // KDSETMODE and KDGETMODE, too, are older than the encoding of direction and size.
    nix::ioctl_write_int_bad!(set_terminal_mode, 0x4b3a);
    nix::ioctl_read_bad!(terminal_mode, 0x4b3b, libc::c_int);

    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

    // FBIOPUT_CON2FBMAP is older than the encoding of direction and size.
    nix::ioctl_write_ptr_bad!(put_console_map, 0x4610, ConsoleToFramebuffer);
}

/// `VFIO_GROUP_GET_STATUS` on `/dev/vfio/N`; `None` where it cannot be opened.
pub fn group_viable(group: u32) -> Option<bool> {
    let file = vfio::open_device(&format!("/dev/vfio/{group}")).ok()?;
    Some(vfio::group_status(&file).ok()? & vfio::VIABLE != 0)
}

/// `FBIOPUT_CON2FBMAP` for every virtual console; any framebuffer takes the request.
pub fn map_consoles(framebuffer: u8) -> Result<(), Errno> {
    let path = format!("/dev/fb{framebuffer}");
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| errno(&e))?;
    let map = || {
        for console in 1..=ioctl::LAST_CONSOLE {
            let map = ioctl::ConsoleToFramebuffer { console, framebuffer: framebuffer.into() };
            // SAFETY: the descriptor is open, and the structure is the one that this request reads.
            unsafe { ioctl::put_console_map(file.as_raw_fd(), &raw const map) }?;
        }
        Ok(())
    };
    match front_terminal() {
        // Each request draws the whole screen (`con2fb_init_display()`): 63 times, which takes
        // seconds on a large one.
        Ok(terminal) => without_drawing(&terminal, map),
        Err(_) => map(),
    }
}

/// Writes on the terminal in front.
///
/// In text mode the card shows a part of its memory that moves along when the screen scrolls. When
/// the card is taken away the kernel goes back to the first part (`vgacon_deinit()`), which shows
/// what was there long ago. Graphics mode and back make the first part the one that is shown.
pub fn announce(text: &str, text_mode: bool) -> Result<(), Errno> {
    let terminal = front_terminal()?;
    (&terminal).write_all(text.as_bytes()).map_err(|e| errno(&e))?;
    if text_mode {
        without_drawing(&terminal, || ());
    }
    Ok(())
}

/// A serial `/dev/console` would not be the screen.
fn front_terminal() -> Result<File, Errno> {
    OpenOptions::new().write(true).open("/dev/tty0").map_err(|e| errno(&e))
}

/// Does the work with the terminal in graphics mode, in which the kernel does not draw; back in
/// text mode it draws once. One that is in graphics mode already, as a splash screen's, stays so.
fn without_drawing<T>(terminal: &File, work: impl FnOnce() -> T) -> T {
    let descriptor = terminal.as_raw_fd();
    let mut mode = ioctl::GRAPHICS;
    // SAFETY: the descriptor is open, and the request fills one number.
    let known = unsafe { ioctl::terminal_mode(descriptor, &raw mut mode) }.is_ok();
    if !known || mode != ioctl::TEXT {
        return work();
    }
    // A mode that cannot be set changes nothing but the time that the work takes.
    // SAFETY: the descriptor is open, and the request takes a plain number.
    let _ = unsafe { ioctl::set_terminal_mode(descriptor, ioctl::GRAPHICS) };
    let done = work();
    // SAFETY: as above.
    let _ = unsafe { ioctl::set_terminal_mode(descriptor, ioctl::TEXT) };
    done
}

/// Columns of the terminal; `None` where it is none, or has no size.
pub fn columns(terminal: &impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the structure is the one that this request fills.
    unsafe { ioctl::window_size(terminal.as_fd().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// The kernel's uevents, as udevd hears them.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Hears all that comes after this.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Group 1 is the kernel's, 2 is udev's (MONITOR_GROUP_KERNEL in systemd's sd-device).
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Uevents(socket))
    }

    /// Waits for at least one and forgets all that came; false when none came.
    pub fn wait(&self, at_most: Duration) -> bool {
        if !readable(&self.0, at_most) {
            return false;
        }
        let mut message = [0; 4096];
        // Until it would block. ENOBUFS tells of lost messages, which count like any other.
        while !matches!(
            recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()),
            Err(Errno::EAGAIN | Errno::EBADF)
        ) {}
        true
    }
}
