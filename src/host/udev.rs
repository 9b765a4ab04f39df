//! Whether udev is at work, and may give devices to drivers.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::sysfs::Sysfs;

/// There while udevd has events to handle; `udevadm settle` waits until it goes
/// (`src/udev/udev-manager.c` of systemd).
const QUEUE: &str = "run/udev/queue";

/// There while udevd runs.
const CONTROL: &str = "run/udev/control";

/// How long it may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rule that has the program look at each PCI device that comes: not for the events that `udevadm
/// trigger` makes, as at boot (`SYNTH_UUID`). `PROGRAM` is run before any module is loaded for the device,
/// wherever the rule stands; and `settle` waits for it.
#[must_use]
pub fn rule(program: &str) -> String {
    format!(
        "ACTION==\"add\", SUBSYSTEM==\"pci\", ENV{{SYNTH_UUID}}!=\"?*\", \\\n  \
         PROGRAM=\"{program} hotplug $kernel\"\n"
    )
}

/// Whether it is at work.
#[must_use]
pub fn is_busy(sysfs: &Sysfs) -> bool {
    sysfs.is_there(QUEUE)
}

/// Whether its first pass over all devices is still to come, as in an initrd before it is started.
#[must_use]
pub fn is_to_come(sysfs: &Sysfs) -> bool {
    sysfs.is_initrd() && !sysfs.is_there(CONTROL)
}

/// Waits until it is through, not for long; whether it was at work, and is no more. It is not waited
/// for in an initrd, nor in another machine's tree.
#[must_use]
pub fn settles(sysfs: &Sysfs) -> bool {
    let is_here = sysfs.root() == Path::new("/") && !sysfs.is_there("etc/initrd-release");
    let end = Instant::now() + PATIENCE;
    let was_busy = is_here && is_busy(sysfs);
    while was_busy && is_busy(sysfs) {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    was_busy
}
