//! Debians without anything of ours, as tar archives in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::namespace::{TREE, as_root};
use crate::supplies::{archive, cache, packages, step};

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 12, whose kernel is 6.1.
    Bookworm,
    /// Debian 13, whose kernel is 6.12.
    Trixie,
    /// What becomes the next one: it moves, and the signature of its index expires after a week.
    Sid,
}

impl Suite {
    /// Its name in Debian's archive.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// A Debian before a recipe adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Debian {
    /// What recipes need that bring their own kernel, by debootstrap alone.
    Small(Suite),
    /// A fresh one: its kernel package, and with that what makes its initrd, by apt, with what they
    /// recommend; and these packages, before the kernel.
    Fresh(Suite, &'static [&'static str]),
}

/// One debootstrap for all recipes is cheaper than several.
const SMALL: &[&str] =
    &["systemd", "systemd-sysv", "udev", "kmod", "dracut-core", "busybox", "zstd"];

const KERNEL: &str = "linux-image-amd64";

const MAKE_ARCHIVE: &str = include_str!("../../guest/distro/make-archive");

impl Debian {
    /// Which one.
    #[must_use]
    pub fn suite(self) -> Suite {
        let (Self::Small(suite) | Self::Fresh(suite, _)) = self;
        suite
    }

    /// Whether it has a kernel of its own.
    #[must_use]
    pub fn has_kernel(self) -> bool {
        matches!(self, Self::Fresh(..))
    }

    /// What debootstrap installs, and what apt does then, one step each.
    fn packages(self) -> (String, Vec<String>) {
        match self {
            Self::Small(_) => (SMALL.join(","), Vec::new()),
            Self::Fresh(_, packages) => {
                let mut steps = vec!["systemd-sysv".to_owned()];
                steps.extend((!packages.is_empty()).then(|| packages.join(" ")));
                steps.push(KERNEL.to_owned());
                (String::new(), steps)
            }
        }
    }

    /// Its name in the cache.
    pub(super) fn name(self) -> String {
        format!(
            "distro/{}-{}",
            self.suite().name(),
            cache::key(&(self.packages(), TREE, MAKE_ARCHIVE))
        )
    }

    /// The archive; made where it is not in the cache.
    ///
    /// # Errors
    /// When Debian's mirror is out of reach, or this user cannot become root.
    pub(crate) fn set_up(self) -> Result<PathBuf> {
        packages::ensure(packages::DISTRO)?;
        let is_whole = |entry: &Path| entry.join("root.tar").exists();
        let suite = self.suite().name();
        let entry = cache::entry(&self.name(), is_whole, |new| {
            let start = Instant::now();
            let (first, then) = self.packages();
            let what = if self.has_kernel() {
                format!(", then apt: {}", then.join(" "))
            } else {
                String::new()
            };
            step::say(format_args!("Debian {suite}: running debootstrap{what}"));
            let archive = new.join("new.tar");
            let said = step::run(
                as_root(MAKE_ARCHIVE, new)?
                    .args([suite, &archive::mirror()?, &first])
                    .arg(&archive)
                    .args(then),
            )?;
            // That its index has expired.
            String::from_utf8_lossy(&said).lines().for_each(step::say);
            fs::rename(archive, new.join("root.tar"))?;
            step::say(format_args!("Debian {suite}: done in {:.0?}", start.elapsed()));
            Ok(())
        })?;
        Ok(entry.join("root.tar"))
    }
}
