//! Mounts: what names them, what they are made of, and what asks for them.

use std::ffi::OsString;
use std::path::Path;

use super::Sysfs;

/// A line of `/proc/self/mountinfo`.
pub(super) struct Mount<'a> {
    /// As in `259:1`. File systems on several disks have a number of their own.
    pub number: &'a str,
    /// With blanks as `\040`.
    pub point: &'a str,
    pub kind: &'a str,
    pub source: &'a str,
    /// Those of the file system.
    options: &'a str,
}

/// In the order in which they were mounted.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount<'_>> {
    mountinfo.lines().map(mount).collect()
}

fn mount(line: &str) -> Mount<'_> {
    // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
    let (mount, source) = line.split_once(" - ").unwrap_or((line, ""));
    let (mut mount, mut source) = (mount.split(' ').skip(2), source.split(' '));
    let mut next = || mount.next().unwrap_or_default();
    let (number, _, point) = (next(), next(), next());
    let mut next = || source.next().unwrap_or_default();
    Mount { number, point, kind: next(), source: next(), options: next() }
}

/// A btrfs that is mounted.
pub(super) struct Btrfs {
    /// As in `/dev/disk/by-uuid`.
    pub id: String,
    pub disks: Vec<OsString>,
    /// By which its mounts can name it; they name one disk of it.
    pub nodes: Vec<String>,
}

impl Btrfs {
    fn is_named(&self, source: &str) -> bool {
        let name = source.rsplit(['/', '=']).next().unwrap_or_default();
        self.nodes.iter().any(|node| node == source) || name.eq_ignore_ascii_case(&self.id)
    }

    /// A name can be any, as `/dev/root`. One that is no btrfs' is taken for that of each which no mount
    /// names: in doubt a disk stays with the host.
    pub fn is_mounted_as(&self, mount: &Mount<'_>, all: &[Btrfs], mounts: &[Mount<'_>]) -> bool {
        let is_named = |it: &Btrfs| it.is_named(mount.source);
        mount.kind == "btrfs"
            && (is_named(self)
                || !all.iter().any(is_named)
                    && !mounts.iter().any(|it| it.kind == "btrfs" && self.is_named(it.source)))
    }
}

/// Paths in `/proc` have blanks and the like as three octal digits behind a backslash.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => bytes.push(code),
            None => bytes.push(b'\\'),
        }
        bytes.extend(&part.as_bytes()[if code.is_some() { 3 } else { 0 }..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// That a file is in: of all above it the nearest, and of several there the one on top.
pub(super) fn containing<'m, 'a>(mounts: &'m [Mount<'a>], path: &str) -> Option<&'m Mount<'a>> {
    let path = Path::new(path);
    let length = |mount: &&Mount<'_>| {
        let point = unescaped(mount.point);
        path.starts_with(&point).then(|| Path::new(&point).iter().count())
    };
    mounts.iter().filter(|mount| length(mount).is_some()).max_by_key(|mount| length(mount))
}

/// The name of the unit for a mount point (`systemd-escape --path --suffix=mount`).
fn unit(point: &str) -> String {
    let mut name = String::new();
    for (index, byte) in unescaped(point).trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name += "\\x2e",
            b':' | b'_' | b'.' => name.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            _ => name.extend(["\\x", &format!("{byte:02x}")]),
        }
    }
    name + ".mount"
}

impl Sysfs {
    /// Links in the folders of what is wanted or required, as `systemctl enable` makes them.
    pub(super) fn is_asked_for_by_unit(&self, point: &str) -> bool {
        let folder = Path::new("etc/systemd/system");
        let unit = unit(point);
        self.names(folder).iter().any(|name| {
            let is_of_target =
                [".wants", ".requires"].iter().any(|end| name.to_string_lossy().ends_with(end));
            is_of_target && self.is_there(folder.join(name).join(&unit))
        })
    }
}

/// A swap space: the path, and whether it is a file.
pub(super) fn swaps(text: &str) -> impl Iterator<Item = (String, bool)> {
    text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((unescaped(words.next()?), words.next() == Some("file")))
    })
}

/// That an overlay is made of.
pub(super) fn folders(mount: &Mount<'_>) -> Vec<String> {
    if mount.kind != "overlay" {
        return Vec::new();
    }
    let mut folders = Vec::new();
    for option in mount.options.split(',') {
        if let Some(("lowerdir" | "upperdir", value)) = option.trim_end_matches('+').split_once('=')
        {
            folders.extend(value.split(':').filter(|it| !it.is_empty()).map(unescaped));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_systemd_names_them() {
        for (point, expected) in [
            ("/home", "home.mount"),
            ("/srv/my-data", "srv-my\\x2ddata.mount"),
            ("/srv/a\\040b", "srv-a\\x20b.mount"),
            ("/.snapshots", "\\x2esnapshots.mount"),
            ("/srv/.x_1:2", "srv-.x_1:2.mount"),
        ] {
            assert_eq!(unit(point), expected, "{point}");
        }
    }

    #[test]
    fn paths_are_read_as_proc_writes_them() {
        for (text, expected) in [
            ("/a", "/a"),
            ("/a\\040b", "/a b"),
            ("\\134", "\\"),
            ("/a\\9", "/a\\9"),
            ("/a\\", "/a\\"),
            ("\\777", "\\777"),
        ] {
            assert_eq!(unescaped(text), expected, "{text}");
        }
    }
}
