//! What a user lacks who is to start the VM.

use std::path::Path;

use nix::errno::Errno;

use crate::remedy::Why;
use crate::syscall::vfio::{User, may_open};
use crate::sysfs::Sysfs;

/// As `8G`; in bytes.
///
/// # Errors
/// When it is no such size.
pub fn memory(text: &str) -> Result<u64, String> {
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let unit = units.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (digits, bits) = unit.unwrap_or((text, 0));
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << bits));
    number.ok_or_else(|| format!("{text:?} is no size of memory, as in 8G"))
}

/// What that user lacks: files of others, and too little memory that may be locked; and a warning where
/// the second is not known.
pub(super) fn lacks(
    name: &str,
    files: &[String],
    memory: u64,
    sysfs: &Sysfs,
) -> (Vec<Why>, Option<String>) {
    let Some(user) = find(name, sysfs) else {
        let why = Why::new(
            format!("{name} is not in /etc/passwd"),
            "name a user that is there: others are not looked for",
        );
        return (vec![why], None);
    };
    let mut lacks = Vec::new();
    for (file, result) in files.iter().zip(may_open(&user, files)) {
        let Err(errno) = result else { continue };
        lacks.push(if errno == Errno::EPERM {
            Why::new(
                format!("whether {name} may open {file} is not known"),
                "run vfio-early as root",
            )
        } else {
            Why::new(
                format!("{name} may not open {file}: {}", errno.desc()),
                "let a rule of udev give it to that user, or to a group of the user's \
                 (SUBSYSTEM==\"vfio\", GROUP=\"kvm\"); libvirt's system instance needs none",
            )
        });
    }
    // root has CAP_IPC_LOCK.
    if user.uid == 0 {
        return (lacks, None);
    }
    match lock_limit(user.uid, sysfs) {
        Some((process, limit)) if limit < memory => lacks.push(Why::new(
            format!(
                "{name} may lock {} MiB of memory ({process}), and a VM of {} MiB needs all of its own",
                limit >> 20,
                memory >> 20
            ),
            "raise memlock in /etc/security/limits.conf, or LimitMEMLOCK= of the service that starts \
             it; libvirt's system instance does it by itself",
        )),
        Some(_) => {}
        None => {
            let warning = format!(
                "how much memory {name} may lock is not known, since no process of that user runs: \
                 log in as that user, and try again"
            );
            return (lacks, Some(warning));
        }
    }
    (lacks, None)
}

/// From `/etc/passwd` and `/etc/group`.
fn find(name: &str, sysfs: &Sysfs) -> Option<User> {
    let text = sysfs.text("etc/passwd").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = line.split(':').skip(1);
    let uid = fields.next()?.parse().ok()?;
    let mut gids = vec![fields.next()?.parse().ok()?];
    for line in sysfs.text("etc/group").unwrap_or_default().lines() {
        // NAME:PASSWORD:GID:USER,USER
        let mut fields = line.split(':').skip(2);
        let (gid, members) = (fields.next(), fields.next().unwrap_or_default());
        if members.split(',').any(|member| member == name) {
            gids.extend(gid.and_then(|gid| gid.parse::<u32>().ok()));
        }
    }
    Some(User { uid, gids })
}

/// The largest limit of a process of that user, in bytes, and which has it.
fn lock_limit(uid: u32, sysfs: &Sysfs) -> Option<(String, u64)> {
    let mut largest: Option<(String, u64)> = None;
    for name in sysfs.names(Path::new("proc")) {
        let Some(number) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let text = |file| sysfs.text(format!("proc/{number}/{file}")).unwrap_or_default();
        let status = text("status");
        let of = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split('\t').nth(1));
        if of.and_then(|of| of.parse().ok()) != Some(uid) {
            continue;
        }
        let limits = text("limits");
        let limit = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next());
        let limit = limit.map(|limit| limit.parse().unwrap_or(u64::MAX));
        if let Some(limit) = limit.filter(|limit| largest.as_ref().is_none_or(|it| it.1 < *limit)) {
            largest = Some((sysfs.process(number.parse().ok()?), limit));
        }
    }
    largest
}
