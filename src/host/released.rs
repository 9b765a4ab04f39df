//! What was released stays with the host, for whatever comes later in this boot: a file beside the report,
//! with a line for each device, as `10de:1c03@0000:01:00.0`.

use std::fmt::Display;
use std::io;
use std::path::Path;

use crate::report::{Outcome, Report};
use crate::report_file;
use crate::sysfs::Sysfs;

/// Its name there.
const NAME: &str = "released";

/// The devices that were released, and not bound since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released(Vec<String>);

/// Of a device; that address with another device is another line.
#[must_use]
pub fn line(address: &dyn Display, id: &dyn Display) -> String {
    format!("{id}@{address}")
}

/// The [`line()`] of each device that a run was asked for, and has not refused: it is released no more.
#[must_use]
pub fn taken(report: &Report) -> Vec<String> {
    let devices = report.devices.iter().filter(|it| it.outcome != Outcome::Refused);
    devices.filter_map(|it| Some(line(&it.address?, &it.id?))).collect()
}

impl Released {
    /// Of this boot; none where the file is not there.
    #[must_use]
    pub fn read(sysfs: &Sysfs) -> Released {
        let text = sysfs.text("run/vfio-early/released").unwrap_or_default();
        Released(text.lines().map(str::to_owned).collect())
    }

    /// Whether that device is among them, by its address and its vendor and device id.
    #[must_use]
    pub fn has(&self, address: &dyn Display, id: &dyn Display) -> bool {
        self.0.contains(&line(address, id))
    }

    /// Adds [`line()`]s, or takes them away, and writes the file.
    ///
    /// # Errors
    /// When it cannot be written; what is in it stays.
    pub fn change(self, lines: &[String], is_added: bool, folder: &Path) -> io::Result<()> {
        if !is_added && self.0.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        let kept = self.0.iter().filter(|known| !lines.contains(known));
        for line in kept.chain(lines.iter().filter(|_| is_added)) {
            text = text + line + "\n";
        }
        report_file::write(NAME, text.as_bytes(), folder)
    }
}
