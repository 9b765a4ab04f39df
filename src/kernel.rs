//! Every write, and what else only a kernel can answer.
//!
//! Writes go through a trait because a folder does not answer a write: writing `drivers_probe`
//! in a copy of `/sys` makes no `driver` link. The tests put a small driver core behind it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::modules::Modules;
use crate::syscall::{self, Uevents};

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
    /// Inserts one module, whose dependencies are there already.
    Insert {
        /// The module's name.
        module: String,
    },
}

impl Write {
    /// How long the kernel may take before it is given up: a driver can hang in an unbind or a
    /// probe for ever, and a large module on a slow machine takes seconds.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        match self {
            Write::Store { .. } => Duration::from_secs(5),
            Write::Insert { .. } => Duration::from_secs(10),
        }
    }
}

/// The kernel that devices are taken from.
pub trait Kernel {
    /// Performs the writes in order, each within its deadline; one that fails does not keep the
    /// others from being tried. The result of each, `ETIMEDOUT` for one that hangs.
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>>;

    /// The module and all that it needs, dependencies first; only those that are not built in.
    /// `None` where the initrd does not have it.
    fn modules_for(&mut self, module: &str) -> Option<Vec<String>>;

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

/// The running kernel.
#[derive(Debug)]
pub struct Live {
    sys: PathBuf,
    modules: Option<Modules>,
    uevents: Option<Uevents>,
}

impl Live {
    /// The kernel behind `/sys`.
    #[must_use]
    pub fn new() -> Self {
        Live { sys: PathBuf::from("/sys"), modules: None, uevents: None }
    }

    fn write(&self, write: &Write) -> Result<(), Errno> {
        match write {
            Write::Store { attribute, value } => {
                syscall::store(&self.sys.join(attribute), value.as_bytes())
            }
            Write::Insert { module } => match &self.modules {
                Some(modules) => modules.insert(module),
                None => Err(Errno::ENOENT),
            },
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel for Live {
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>> {
        let mut results = Vec::with_capacity(writes.len());
        while let Some(rest) = writes.get(results.len()..).filter(|rest| !rest.is_empty()) {
            let deadlines = rest.iter().map(Write::deadline);
            syscall::supervise(deadlines, |index| self.write(&rest[index]), &mut results);
        }
        results
    }

    fn modules_for(&mut self, module: &str) -> Option<Vec<String>> {
        if self.modules.is_none() {
            self.modules = Modules::open();
        }
        self.modules.as_ref()?.with_dependencies(module)
    }

    fn group_viable(&mut self, group: u32) -> Option<bool> {
        syscall::group_viable(group)
    }

    fn listen(&mut self) -> io::Result<()> {
        self.uevents = Some(Uevents::open()?);
        Ok(())
    }

    fn wait_for_uevent(&mut self, at_most: Duration) -> bool {
        self.uevents.as_ref().is_some_and(|uevents| uevents.wait(at_most))
    }
}
