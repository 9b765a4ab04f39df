//! The report as a file that survives into the real root.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::report::Report;

/// Where the report goes.
pub const FOLDER: &str = "/run/vfio-early";
/// Its name there.
pub const NAME: &str = "report.json";

/// Writes the report whole or not at all: into a temporary file (mode 0644), then a rename.
///
/// # Errors
/// When the folder cannot be made or written; a report that was there before stays.
pub fn save(report: &Report, folder: &Path) -> io::Result<()> {
    let mut text = serde_json::to_vec(report)?;
    text.push(b'\n');
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let temporary = folder.join(format!(".{NAME}.{}", std::process::id()));
    // A run that was killed may have left one, and process numbers are the same in every boot.
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&temporary, folder.join(NAME)));
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}
