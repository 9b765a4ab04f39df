//! The report as a file that survives into the real root, and what else is beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkdir;
use serde_json::Value;

use crate::claimed::Left;
use crate::escape;
use crate::report::Report;

/// Where the report goes.
pub const FOLDER: &str = "/run/vfio-early";
/// Its name there.
pub const NAME: &str = "report.json";
/// That of the initrd's record of what the host lives from.
pub const RECORD: &str = "keep";
/// That of what `claim` leaves for `bind`.
const CLAIMED: &str = "claimed";
/// That of the lock.
const LOCK: &str = "lock";

/// Writes the report.
///
/// # Errors
/// As [`write()`].
pub fn save(report: &Report, folder: &Path) -> io::Result<()> {
    write(NAME, (escape::json(report)? + "\n").as_bytes(), folder)
}

/// Writes a file whole or not at all: into a temporary file (mode 0644), then a rename. The folder is
/// made where need be, but not `/run`: what is written there before it is mounted is lost.
///
/// # Errors
/// When the folder cannot be made or written; a file that was there before stays.
pub fn write(name: &str, text: &[u8], folder: &Path) -> io::Result<()> {
    if !make(folder)? {
        remove_leftovers(name, folder);
    }
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&temporary, folder.join(name)));
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes the temporary files of runs that were killed.
fn remove_leftovers(name: &str, folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!(".{name}.")) {
            // They cost room, and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes the folder; whether it was not there.
fn make(folder: &Path) -> io::Result<bool> {
    match mkdir(folder, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => {
            // A link there is none of ours, and what it leads to is neither written nor tidied.
            if !fs::symlink_metadata(folder)?.is_dir() {
                return Err(io::Error::other("it is no folder: remove it"));
            }
            Ok(false)
        }
        made => Ok(made.map(|()| true)?),
    }
}

/// Leaves what `bind` goes on from.
///
/// # Errors
/// As [`write()`].
pub fn leave(left: &Left, folder: &Path) -> io::Result<()> {
    write(CLAIMED, left.text().as_bytes(), folder)
}

/// Takes away what a `claim` has left, so that no later run goes by it; `None` where there is nothing,
/// or nothing that can be read, about which there is a line in the log.
#[must_use]
pub fn take(folder: &Path) -> Option<Left> {
    let file = folder.join(CLAIMED);
    let text = fs::read_to_string(&file);
    if let Err(why) = &text
        && why.kind() == io::ErrorKind::NotFound
    {
        return None;
    }
    let removed = fs::remove_file(&file);
    let left = text.as_ref().ok().and_then(|text| Left::parse(text)).filter(|_| removed.is_ok());
    if left.is_none() {
        log::warn!("{} cannot be gone by: all is looked at anew", file.display());
    }
    left
}

/// The exit status of the run that wrote the report; `None` without one.
#[must_use]
pub fn exit_status(folder: &Path) -> Option<u8> {
    let report: Value = serde_json::from_slice(&fs::read(folder.join(NAME)).ok()?).ok()?;
    report["exit_status"].as_u64()?.try_into().ok()
}

/// As long as it lives, no other process has it. A child that hangs in the kernel does not keep it, nor
/// does a process that was killed: it is the process's, not the file's.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits until no other process has the lock, at most so long; `None` when that is over.
///
/// # Errors
/// When the folder cannot be made or written.
pub fn lock(folder: &Path, at_most: Duration) -> io::Result<Option<Lock>> {
    make(folder)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o644);
    let file = file.open(folder.join(LOCK))?;
    let of_all = libc::flock {
        l_type: libc::F_WRLCK.try_into().map_err(io::Error::other)?,
        l_whence: libc::SEEK_SET.try_into().map_err(io::Error::other)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let end = Instant::now() + at_most;
    loop {
        match fcntl(&file, FcntlArg::F_SETLK(&of_all)) {
            Ok(_) => return Ok(Some(Lock { _file: file })),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
            Err(why) => return Err(why.into()),
        }
    }
}
