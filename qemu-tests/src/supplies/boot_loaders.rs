//! Boot loaders and what makes media for them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::supplies::arch::Arch;
use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{cache, packages, step};

/// Installs GRUB's tools.
///
/// # Errors
/// When they cannot be installed.
pub(crate) fn ensure_grub() -> Result<()> {
    packages::ensure(packages::GRUB)
}

/// Debian 13's systemd-boot, systemd-stub and ukify, unpacked: Debian 12 has no ukify.
///
/// # Errors
/// When its archive cannot be reached.
pub(crate) fn of_systemd() -> Result<PathBuf> {
    of_debian_13("systemd", &["systemd-boot-efi", "systemd-ukify"], "usr/lib/systemd/ukify")
}

/// Debian 13's rEFInd, unpacked.
///
/// # Errors
/// When its archive cannot be reached.
pub(crate) fn refind() -> Result<PathBuf> {
    of_debian_13("refind", &["refind"], "usr/share/refind/refind/refind_x64.efi")
}

fn of_debian_13(name: &str, wanted: &[&str], has: &str) -> Result<PathBuf> {
    packages::ensure(packages::SYSTEM_PARTITION)?;
    let is_whole = |entry: &Path| entry.join(has).exists();
    cache::entry(&format!("boot-loaders/{name}-trixie"), is_whole, |entry| {
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
        step::say(format_args!("fetching {} of Debian 13", wanted.join(" and ")));
        let kind = Kind::Binary { arch: Arch::Amd64, security: false };
        let archive = Archive::open(&work.path().join("apt"), "trixie", kind)?;
        let wanted = wanted.iter().map(|name| archive.newest(name));
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        for file in archive.download(&wanted, work.path())? {
            step::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(entry))?;
        }
        Ok(())
    })
}
