//! Every write, and what else only a kernel can answer.
//!
//! Writes go through a trait because a folder does not answer a write: writing `drivers_probe`
//! in a copy of `/sys` makes no `driver` link. The tests put a small driver core behind it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::console::Version;
use crate::modules::{Modules, Needed};
use crate::syscall::{self, Uevents, Work};
use crate::sysfs::{self, HostModule, Sysfs, VGACON};
use crate::variant::Variants;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A value into an attribute; the path is below `/sys`.
    Store {
        /// As in `bus/pci/drivers_probe`.
        attribute: String,
        /// Without a newline.
        value: String,
    },
    /// Inserts one module.
    Insert {
        /// The module's name.
        module: String,
        /// The modules that have to be there before: inserted by earlier writes of the same
        /// [`Kernel::perform`], or there already.
        needs: Vec<String>,
    },
    /// Maps all virtual consoles to a framebuffer (`FBIOPUT_CON2FBMAP`).
    MapConsoles {
        /// As in `/dev/fb0`.
        framebuffer: u8,
    },
    /// Writes one line on the screen.
    Announce {
        /// The line.
        text: String,
    },
}

impl Write {
    /// How long the kernel may take before it is given up: a driver can hang in an unbind or a
    /// probe for ever, and a large module on a slow machine takes seconds.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        match self {
            Write::Store { .. } | Write::MapConsoles { .. } | Write::Announce { .. } => {
                Duration::from_secs(5)
            }
            Write::Insert { .. } => Duration::from_secs(10),
        }
    }
}

/// The kernel that devices are taken from.
pub trait Kernel {
    /// Performs the writes in order, each within its deadline; one that fails does not keep the
    /// others from being tried, but for the modules that need the one that failed: they fail as it
    /// does. Modules may be inserted side by side. The result of each, `ETIMEDOUT` for one that
    /// hangs.
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>>;

    /// The module and all that it needs, dependencies first; only those that are neither built in
    /// nor loaded. `None` where the initrd does not have it.
    fn modules_for(&mut self, module: &str) -> Option<Vec<Needed>>;

    /// The modules that drive a device, by its modalias (`pci:v…`); none where the initrd has none.
    fn modules_for_alias(&mut self, modalias: &str) -> Vec<HostModule>;

    /// The variants of vfio-pci that the initrd has.
    fn variants(&mut self) -> Variants;

    /// What a module would be told when it is loaded, as on a command line.
    fn options_of(&mut self, module: &str) -> String;

    /// Whether a VM could use the group now, by the kernel's own account
    /// (`VFIO_GROUP_GET_STATUS`); `None` where `/dev/vfio/N` is not there or is in use.
    fn group_viable(&mut self, group: u32) -> Option<bool>;

    /// From now on uevents are kept for [`Kernel::wait_for_uevent`].
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    fn listen(&mut self) -> io::Result<()>;

    /// Waits until devices came or changed since the last call, at most so long; false when
    /// nothing did.
    fn wait_for_uevent(&mut self, at_most: Duration) -> bool;
}

/// No `bind` takes longer than this, the wait for absent devices aside: writes that are left over
/// then fail with `ETIMEDOUT`.
pub const LONGEST_BIND: Duration = Duration::from_mins(1);

/// Modules side by side: those of vfio-pci are a chain of three, beside which there are others.
const MODULES: usize = 4;

/// Probes side by side, where each waits for its device: so many wait at once.
const PROBES: usize = 16;

/// Since 5.19 vfio-pci leaves its devices' power transitions to the kernel, which does not wait;
/// before, each probe waits 10 ms for each (`vfio_pci_set_power_state()`).
const QUICK_PROBE: Version = Version { major: 5, minor: 19, patch: 0 };

/// Lets the kernel bind a device by its override; the value is the address.
pub const PROBE: &str = "bus/pci/drivers_probe";

/// Which of the writes insert these modules.
fn inserted_before(writes: &[Write], modules: &[String]) -> Vec<usize> {
    let inserts =
        |write: &Write| matches!(write, Write::Insert { module, .. } if modules.contains(module));
    let writes = writes.iter().enumerate();
    writes.filter(|(_, write)| inserts(write)).map(|(index, _)| index).collect()
}

/// The running kernel.
#[derive(Debug)]
pub struct Live {
    root: PathBuf,
    /// Its `sys`: the kernel takes half as long for paths that begin here.
    sys: Option<OwnedFd>,
    modules: Option<Modules>,
    uevents: Option<Uevents>,
    /// When all writes have to be over: [`LONGEST_BIND`] after the first.
    end: Option<Instant>,
}

impl Live {
    /// The kernel behind `/sys`; with another root than `/`, for reading its modules only.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Live { root: root.into(), sys: None, modules: None, uevents: None, end: None }
    }

    fn write(&self, write: &Write) -> Result<(), Errno> {
        match write {
            Write::Store { attribute, value } => {
                let sys = self.sys.as_ref().ok_or(Errno::ENOENT)?;
                syscall::store(sys, attribute, value.as_bytes())
            }
            Write::Insert { module, .. } => match &self.modules {
                Some(modules) => modules.insert(module),
                None => Err(Errno::ENOENT),
            },
            Write::MapConsoles { framebuffer } => syscall::map_consoles(*framebuffer),
            Write::Announce { text } => {
                let text_mode = Sysfs::new(&self.root).vt_console(VGACON) == Some(true);
                syscall::announce(&format!("\r\nvfio-early: {text}\r\n"), text_mode)
            }
        }
    }

    /// How many children do such writes side by side.
    fn children(&self, write: &Write) -> usize {
        match write {
            Write::Insert { .. } => syscall::processors(MODULES),
            Write::Store { attribute, .. } if attribute == PROBE => {
                let slow = Sysfs::new(&self.root).kernel_version() < QUICK_PROBE;
                if slow { PROBES } else { 1 }
            }
            _ => 1,
        }
    }

    fn modules(&mut self) -> Option<&Modules> {
        if self.modules.is_none() {
            self.modules = Modules::open(&self.root);
        }
        self.modules.as_ref()
    }
}

impl Kernel for Live {
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let end = *self.end.get_or_insert_with(|| Instant::now() + LONGEST_BIND);
        if self.sys.is_none() {
            self.sys = sysfs::folder(&self.root).ok();
        }
        let deadlines: Vec<_> = writes.iter().map(Write::deadline).collect();
        let after = |index: usize| match &writes[index] {
            Write::Insert { needs, .. } => inserted_before(&writes[..index], needs),
            _ => Vec::new(),
        };
        syscall::supervise(&Work {
            deadlines: &deadlines,
            end,
            children: self.children(&writes[0]),
            after: &after,
            perform: &|index| self.write(&writes[index]),
        })
    }

    fn modules_for(&mut self, module: &str) -> Option<Vec<Needed>> {
        if self.root != Path::new("/") && !self.root.join("lib/modules").exists() {
            // Another machine's /proc and /sys alone say nothing about its modules.
            return Some(Vec::new());
        }
        self.modules()?.with_dependencies(module)
    }

    fn modules_for_alias(&mut self, modalias: &str) -> Vec<HostModule> {
        self.modules().map(|modules| modules.for_alias(modalias)).unwrap_or_default()
    }

    fn variants(&mut self) -> Variants {
        self.modules().map(Modules::variants).unwrap_or_default()
    }

    fn options_of(&mut self, module: &str) -> String {
        self.modules().map(|modules| modules.options_of(module)).unwrap_or_default()
    }

    fn group_viable(&mut self, group: u32) -> Option<bool> {
        syscall::group_viable(group)
    }

    fn listen(&mut self) -> io::Result<()> {
        if self.uevents.is_none() {
            self.uevents = Some(Uevents::open()?);
        }
        Ok(())
    }

    fn wait_for_uevent(&mut self, at_most: Duration) -> bool {
        self.uevents.as_ref().is_some_and(|uevents| uevents.wait(at_most))
    }
}
