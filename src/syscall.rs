//! The system calls that need `unsafe` or more than a line, and nothing else.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe};

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// One write of the whole value into an attribute.
pub fn store(attribute: &Path, value: &[u8]) -> Result<(), Errno> {
    // No O_CREAT: a missing attribute must say so itself.
    let mut file = OpenOptions::new().write(true).open(attribute).map_err(|e| errno(&e))?;
    file.write_all(value).map_err(|e| errno(&e))
}

/// Runs `work(0)`, `work(1)`, … in a child process, one for each deadline, and appends the
/// results. It ends early where one exceeds its deadline: that one's result is `ETIMEDOUT`, and
/// the caller goes on with the rest in a new child. The child is left behind: what hangs in the
/// kernel can neither be killed nor waited for, and a thread in that state would keep this
/// process from exiting.
pub fn supervise(
    deadlines: impl Iterator<Item = Duration>,
    work: impl Fn(usize) -> Result<(), Errno>,
    results: &mut Vec<Result<(), Errno>>,
) {
    let deadlines: Vec<_> = deadlines.collect();
    // SAFETY: this process has one thread, so the child may do whatever the parent could; it
    // leaves by _exit and never returns into the caller.
    let forked = pipe().and_then(|ends| Ok((ends, unsafe { fork() }?)));
    let ((from_child, to_parent), child) = match forked {
        Ok((ends, ForkResult::Parent { child })) => (ends, child),
        Ok(((_, to_parent), ForkResult::Child)) => {
            let mut to_parent = File::from(to_parent);
            for index in 0..deadlines.len() {
                let result = work(index).map_or_else(|errno| errno as i32, |()| 0);
                if to_parent.write_all(&result.to_ne_bytes()).is_err() {
                    break;
                }
            }
            // SAFETY: _exit only ends the process; no destructor of the parent's runs twice.
            unsafe { libc::_exit(0) }
        }
        Err(why) => {
            log::warn!("no child process ({why}): writing without a deadline");
            results.extend((0..deadlines.len()).map(work));
            return;
        }
    };
    drop(to_parent);
    let mut from_child = File::from(from_child);
    for deadline in deadlines {
        let mut result = [0; 4];
        if !readable(&from_child, deadline) {
            // It may be over before the signal; either way it does no further write.
            let _ = kill(child, Signal::SIGKILL);
            results.push(Err(Errno::ETIMEDOUT));
            return;
        }
        results.push(match from_child.read_exact(&mut result) {
            Ok(()) => match i32::from_ne_bytes(result) {
                0 => Ok(()),
                number => Err(Errno::from_raw(number)),
            },
            // The child died, as the kernel's out-of-memory killer does it.
            Err(_) => Err(Errno::ECHILD),
        });
    }
    let _ = waitpid(child, None);
}

/// Waits until there is something to read (or the other end is closed), at most so long.
fn readable(file: &impl AsFd, at_most: Duration) -> bool {
    let end = Instant::now() + at_most;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Rounded up: rounded down, the last millisecond would be a busy loop.
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], left) {
            Err(Errno::EINTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

mod ioctl {
    /// `struct vfio_group_status` in `include/uapi/linux/vfio.h`.
    #[repr(C)]
    pub struct GroupStatus {
        pub argsz: u32,
        pub flags: u32,
    }
    pub const VIABLE: u32 = 1;

    // VFIO_GROUP_GET_STATUS is _IO(';', 100 + 3): it has no size although it has an argument.
    nix::ioctl_read_bad!(group_get_status, nix::request_code_none!(b';', 103), GroupStatus);

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

    // FBIOPUT_CON2FBMAP is older than the encoding of direction and size.
    nix::ioctl_write_ptr_bad!(put_console_map, 0x4610, ConsoleToFramebuffer);
}

/// `VFIO_GROUP_GET_STATUS` on `/dev/vfio/N`; `None` where it cannot be opened.
pub fn group_viable(group: u32) -> Option<bool> {
    let path = format!("/dev/vfio/{group}");
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let argsz = u32::try_from(size_of::<ioctl::GroupStatus>()).ok()?;
    let mut status = ioctl::GroupStatus { argsz, flags: 0 };
    // SAFETY: the descriptor is open, and the structure is the one that this request fills.
    unsafe { ioctl::group_get_status(file.as_raw_fd(), &raw mut status) }.ok()?;
    Some(status.flags & ioctl::VIABLE != 0)
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
