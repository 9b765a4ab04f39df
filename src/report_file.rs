//! The report as a file that survives into the real root, and the record beside it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkdir;

use crate::escape;
use crate::report::Report;

/// Where the report goes.
pub const FOLDER: &str = "/run/vfio-early";
/// Its name there.
pub const NAME: &str = "report.json";
/// That of the initrd's record of what the host lives from.
pub const RECORD: &str = "keep";

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
    match mkdir(folder, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => {
            // A link there is none of ours, and what it leads to is neither written nor tidied.
            if !fs::symlink_metadata(folder)?.is_dir() {
                return Err(io::Error::other("it is no folder: remove it"));
            }
            remove_leftovers(name, folder);
        }
        made => made?,
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
