//! The Debians that are tried.

use crate::machine::distro::{Debian, Suite};

/// All that is bound, or else the boot stops.
pub(super) const ALL_BOUND: &str =
    "vfio.strict vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0";

/// What makes the initrd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generator {
    /// By scripts, with busybox.
    InitramfsTools,
    /// With systemd in the initrd.
    Dracut,
}

/// A Debian, and what makes its initrd.
#[derive(Debug, Clone, Copy)]
pub(super) struct System {
    /// Begins the names of its checks.
    pub name: &'static str,
    /// The line of its kernel, one of [`LINES`](crate::supplies::kernels::LINES).
    pub kernel: &'static str,
    /// What it is made of.
    pub debian: Debian,
    /// What makes its initrd.
    pub generator: Generator,
    /// The part of the command line in its unified kernel image, where it boots one.
    pub unified: Option<&'static str>,
}

/// Its installer puts these into a root on an encrypted disk.
const ENCRYPTION: &[&str] = &["cryptsetup-initramfs", "lvm2"];

/// What a fresh one is.
pub(super) const DEBIAN_13: System = System {
    name: "Debian 13: initramfs-tools",
    kernel: "6.12",
    debian: Debian::Fresh(Suite::Trixie, ENCRYPTION),
    generator: Generator::InitramfsTools,
    unified: None,
};
const DEBIAN_12: System = System {
    name: "Debian 12: initramfs-tools",
    kernel: "6.1",
    debian: Debian::Fresh(Suite::Bookworm, &[]),
    generator: Generator::InitramfsTools,
    unified: None,
};

const DEBIAN_13_DRACUT: System = System {
    name: "Debian 13: dracut",
    kernel: "6.12",
    debian: Debian::Fresh(Suite::Trixie, &["dracut"]),
    generator: Generator::Dracut,
    unified: None,
};
/// By kernel-install and ukify, with the initrd of initramfs-tools.
const DEBIAN_13_UNIFIED: System = System {
    name: "Debian 13: unified kernel image",
    kernel: "6.12",
    debian: Debian::Fresh(Suite::Trixie, &["systemd-ukify", "systemd-boot-efi"]),
    generator: Generator::InitramfsTools,
    unified: Some(ALL_BOUND),
};
/// What a fresh one gets by its kernel's package.
const SID: System = System {
    name: "Debian sid: dracut",
    kernel: "7.2",
    debian: Debian::Fresh(Suite::Sid, &[]),
    generator: Generator::Dracut,
    unified: None,
};

/// All of them.
pub(super) const SYSTEMS: &[System] =
    &[DEBIAN_13, DEBIAN_13_DRACUT, DEBIAN_13_UNIFIED, SID, DEBIAN_12];

impl System {
    /// Whether its root can be booted from an encrypted disk, too.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.debian, Debian::Fresh(_, packages) if packages == ENCRYPTION)
    }

    /// Whether what is in /etc/modprobe.d comes into the initrd: dracut 106 makes one for any machine, unless
    /// it is told otherwise.
    pub fn has_options(&self) -> bool {
        self.generator == Generator::InitramfsTools || self.debian.suite() == Suite::Sid
    }
}
