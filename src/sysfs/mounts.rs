//! Mounts: what names them, what they are made of, and what asks for them.

use std::ffi::OsString;
use std::path::Path;

use super::{Sysfs, User};

/// A line of `/proc/self/mountinfo`.
pub(super) struct Mount<'a> {
    /// As in `259:1`. File systems on several disks have a number of their own.
    pub number: &'a str,
    /// With blanks as `\040`.
    pub point: &'a str,
    /// The same with blanks.
    path: String,
    pub kind: &'a str,
    pub source: &'a str,
    /// Those of the file system.
    options: &'a str,
    /// What it is to the host, by itself.
    pub by: User,
}

/// Where the host has what it runs from; `/sysroot` in an initrd.
const OF_THE_HOST: [&str; 9] =
    ["/", "/boot", "/boot/efi", "/efi", "/nix", "/nix/store", "/sysroot", "/usr", "/var"];

pub(super) fn mount(line: &str) -> Mount<'_> {
    // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
    let (mount, source) = line.split_once(" - ").unwrap_or((line, ""));
    let (mut mount, mut source) = (mount.split(' ').skip(2), source.split(' '));
    let mut next = || mount.next().unwrap_or_default();
    let (number, _, point) = (next(), next(), next());
    let mut next = || source.next().unwrap_or_default();
    let (kind, source, options) = (next(), next(), next());
    Mount { number, point, path: unescaped(point), kind, source, options, by: User::Storage }
}

/// A btrfs that is mounted.
pub(super) struct Btrfs {
    /// As in `/dev/disk/by-uuid`.
    pub id: String,
    pub disks: Vec<OsString>,
    /// By which its mounts can name it; they name one disk of it.
    pub nodes: Vec<String>,
    /// Whether one does.
    pub has_name: bool,
}

impl Btrfs {
    pub fn is_named(&self, source: &str) -> bool {
        let name = source.rsplit(['/', '=']).next().unwrap_or_default();
        self.nodes.iter().any(|node| node == source) || name.eq_ignore_ascii_case(&self.id)
    }

    /// A name can be any, as `/dev/root`. One that is no btrfs' is taken for that of each which no mount
    /// names: in doubt a disk stays with the host.
    pub fn is_mounted_as(&self, mount: &Mount<'_>, all: &[Btrfs]) -> bool {
        let is_named = |it: &Btrfs| it.is_named(mount.source);
        mount.kind == "btrfs" && (is_named(self) || !self.has_name && !all.iter().any(is_named))
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
        path.starts_with(&mount.path).then(|| Path::new(&mount.path).iter().count())
    };
    mounts.iter().filter(|mount| length(mount).is_some()).max_by_key(|mount| length(mount))
}

/// The name of the unit for a mount point (`systemd-escape --path --suffix=mount`).
fn unit(path: &str) -> String {
    let mut name = String::new();
    for (index, byte) in path.trim_matches('/').bytes().enumerate() {
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
    /// In the order in which they were mounted.
    pub(super) fn mounts<'a>(&self, mountinfo: &'a str) -> Vec<Mount<'a>> {
        let mut mounts: Vec<_> = mountinfo.lines().map(mount).collect();
        let asked = self.asked_for();
        let mut asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        asked.sort_unstable();
        let is_asked = |name: &str| asked.binary_search(&name).is_ok();
        for mount in &mut mounts {
            if OF_THE_HOST.contains(&mount.point) {
                mount.by = User::Host;
            } else if is_asked(&mount.path) || is_asked(&unit(&mount.path)) {
                mount.by = User::Boot;
            }
        }
        mounts
    }

    /// What a boot mounts, and does not go on without: paths of `/etc/fstab`, and of the units that an
    /// administrator has enabled, as `systemctl enable` links them, the names.
    fn asked_for(&self) -> Vec<String> {
        let fstab = self.text("etc/fstab").unwrap_or_default();
        let path = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (point, options) = (words.next()?, words.nth(1).unwrap_or_default());
            let is_asked = !options.split(',').any(|option| matches!(option, "noauto" | "nofail"));
            let is_line = is_asked && !line.trim_start().starts_with('#');
            is_line.then(|| unescaped(point.trim_end_matches('/')))
        };
        let mut asked: Vec<_> = fstab.lines().filter_map(path).collect();
        let folder = Path::new("etc/systemd/system");
        for name in self.names(folder) {
            let is_of_target =
                [".wants", ".requires"].iter().any(|end| name.to_string_lossy().ends_with(end));
            if is_of_target {
                let units = self.names(&folder.join(name)).into_iter();
                asked.extend(units.filter_map(|unit| unit.into_string().ok()));
            }
        }
        asked
    }
}

/// A swap space: the path, and whether it is a file.
pub(super) fn swaps(text: &str) -> Vec<(String, bool)> {
    let mut swaps = Vec::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        if let Some(path) = words.next() {
            swaps.push((unescaped(path), words.next() == Some("file")));
        }
    }
    swaps
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
            ("/srv/a b", "srv-a\\x20b.mount"),
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
