//! `log::Log` over `/dev/kmsg` in an initrd, over standard error on a host.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::escape;

/// The kernel refuses a record of more than 976 bytes (`devkmsg_write()` and `LOG_LINE_MAX` in
/// `kernel/printk/printk.c`); this much is ours, level and name included.
const LONGEST: usize = 900;
const NAME: &str = "vfio-early: ";
/// In front of what does not fit into a record: where a text is cut must not decide what looks like
/// a line of ours.
const CONTINUED: &str = "... ";

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Kmsg,
    /// With the level in front, which systemd's journal reads (`SyslogLevelPrefix=`).
    Journal,
    Terminal,
}

impl Place {
    fn find() -> Place {
        if in_initrd() {
            Place::Kmsg
        } else if is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) {
            Place::Journal
        } else {
            Place::Terminal
        }
    }
}

/// Whether standard error is what `JOURNAL_STREAM` names by device and inode: a child of a unit has the
/// variable, too, wherever its own standard error goes (`systemd.exec(5)`).
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else {
        return false;
    };
    let stderr = nix::sys::stat::fstat(std::io::stderr());
    stderr.is_ok_and(|file| device.parse() == Ok(file.st_dev) && inode.parse() == Ok(file.st_ino))
}

/// Finds its place when there is something to log: a boot that asks for nothing does not pay for it.
#[derive(Debug)]
struct Logger(OnceLock<Place>);

static LOGGER: Logger = Logger(OnceLock::new());

/// From now on all goes into the kernel's log, wherever this runs: nobody reads what a generator of
/// systemd prints.
pub fn into_the_kernels_log() {
    // Fails only when something was logged already.
    let _ = LOGGER.0.set(Place::Kmsg);
}

/// Whether what was logged went there, as in an initrd.
#[must_use]
pub fn is_kernels_log() -> bool {
    LOGGER.0.get() == Some(&Place::Kmsg)
}

/// Starts logging; `debug` is for `vfio.debug`.
pub fn start(debug: bool) {
    // Fails only when there is a logger already.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
}

/// A line for who measures: `cargo xtask bench --phases` reads the times at which they are logged.
pub fn phase_over(name: &str) {
    log::debug!("phase over: {name}");
}

/// Whether this is an initrd that systemd runs: it marks one by a file.
#[must_use]
pub fn in_systemds_initrd() -> bool {
    Path::new("/etc/initrd-release").exists()
}

/// In other initrds the root is the kernel's own rootfs still. A host has `/proc`, so that without it
/// this must be an initrd, too.
#[must_use]
pub fn in_initrd() -> bool {
    // The names of mount points need not be UTF-8.
    let on_rootfs = |mounts: Vec<u8>| {
        String::from_utf8_lossy(&mounts).lines().any(|line| line.contains(" / rootfs "))
    };
    in_systemds_initrd() || fs::read("/proc/self/mounts").map_or(true, on_rootfs)
}

/// The level as `printk` numbers it (`include/linux/kern_levels.h`).
#[must_use]
pub fn printk_level(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Pieces of at most `longest` bytes, cut between characters.
fn pieces(text: &str, longest: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > longest {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(longest));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// One record. Each through a descriptor of its own: the kernel lets ten pass per open file in
/// five seconds and drops the rest in silence (`devkmsg_write()`).
fn to_kmsg(level: Level, text: &str) -> std::io::Result<()> {
    let record = format!("<{}>{NAME}{text}\n", printk_level(level));
    OpenOptions::new().write(true).open("/dev/kmsg")?.write_all(record.as_bytes())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // libkmod's wrapper traces every pointer.
        metadata.target().starts_with("vfio_early")
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = escape::line(&record.args().to_string());
        let level = record.level();
        let place = *self.0.get_or_init(Place::find);
        let room = LONGEST - NAME.len() - CONTINUED.len() - "<6>\n".len();
        for (index, text) in pieces(&text, room).into_iter().enumerate() {
            let text = &[if index == 0 { "" } else { CONTINUED }, text].concat();
            if place == Place::Kmsg && to_kmsg(level, text).is_ok() {
                continue;
            }
            let prefix = match place {
                Place::Journal => format!("<{}>", printk_level(level)),
                Place::Kmsg | Place::Terminal => NAME.to_owned(),
            };
            // There is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "{prefix}{text}");
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_printk() {
        for (level, expected) in
            [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6), (Level::Debug, 7)]
        {
            assert_eq!(printk_level(level), expected, "{level}");
        }
    }

    #[test]
    fn the_journal_is_where_standard_error_itself_goes_there() {
        let file = nix::sys::stat::fstat(std::io::stderr()).expect("there is a standard error");
        let (device, inode) = (file.st_dev, file.st_ino);
        for (stream, expected) in [
            (None, false),
            (Some(String::new()), false),
            (Some("9:9".to_owned()), false),
            (Some(format!("{device}")), false),
            (Some(format!("{device}:{}", inode + 1)), false),
            (Some(format!("{device}:{inode}")), true),
        ] {
            assert_eq!(is_journal(stream.as_deref()), expected, "JOURNAL_STREAM {stream:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_between_characters_and_lose_nothing() {
        for (text, expected) in [
            ("", &[""][..]),
            ("abc", &["abc"]),
            ("abcd", &["abc", "d"]),
            ("abü", &["ab", "ü"]),
            ("üüü", &["ü", "ü", "ü"]),
        ] {
            assert_eq!(pieces(text, 3), expected, "text {text:?}");
        }
    }
}
