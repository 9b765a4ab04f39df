//! [`Plan`] to [`Fate`]s: performs the steps, then believes only what reads back.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::kernel::{Kernel, Write};
use crate::pci::Address;
use crate::plan::{IOMMU_TYPE1, Plan, Step};
use crate::sysfs::Sysfs;

/// Why a device was not bound, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, with the errno where there was one.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// What became of a device that was to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The driver that has it now.
    pub driver: Option<String>,
    /// Whether its `driver_override` was written.
    pub overridden: bool,
    /// Why that is not the vfio driver.
    pub failure: Option<Failure>,
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Of each device that was to be taken.
    pub fates: BTreeMap<Address, Fate>,
    /// What the kernel says of their groups; see [`Kernel::group_viable`].
    pub viable: BTreeMap<u32, Option<bool>>,
    /// What concerns the machine as a whole.
    pub warnings: Vec<String>,
}

/// How long a device that has just been plugged in may take until drivers can bind to it: the
/// kernel announces it before `pci_bus_add_device()` lets them.
const SETTLE: Duration = Duration::from_secs(1);

/// Performs the plan.
pub fn apply(plan: &Plan, sysfs: &Sysfs, kernel: &mut impl Kernel) -> Applied {
    let (failures, applied) = (BTreeMap::new(), Applied::default());
    let mut run = Run { plan, sysfs, kernel, wanted: BTreeMap::new(), failures, applied };
    for (address, _, driver) in plan.taken() {
        run.wanted.insert(address, driver);
    }
    for batch in plan.steps.chunk_by(|one, next| discriminant(one) == discriminant(next)) {
        run.perform(batch);
    }
    run.read_back();
    run.applied
}

struct Run<'a, K> {
    plan: &'a Plan,
    sysfs: &'a Sysfs,
    kernel: &'a mut K,
    wanted: BTreeMap<Address, &'a str>,
    /// The devices given up, and whether their override was written.
    failures: BTreeMap<Address, (Failure, bool)>,
    applied: Applied,
}

fn words(errno: Errno) -> String {
    format!("{} ({errno:?})", errno.desc())
}

impl<K: Kernel> Run<'_, K> {
    /// Performs steps of one kind, leaving out devices that failed before.
    fn perform(&mut self, batch: &[Step]) {
        let (steps, writes): (Vec<_>, Vec<_>) =
            batch.iter().filter_map(|step| Some((step, self.write(step)?))).unzip();
        for (step, result) in steps.into_iter().zip(self.kernel.perform(&writes)) {
            if let Err(errno) = result {
                self.failed(step, errno);
            }
        }
        self.load(batch);
    }

    /// The write of a step that concerns one device and is still of use.
    fn write(&self, step: &Step) -> Option<Write> {
        let (address, attribute, value) = match step {
            Step::Override(address, driver) => {
                (address, format!("bus/pci/devices/{address}/driver_override"), driver.clone())
            }
            Step::Unbind(address, _) => {
                (address, format!("bus/pci/devices/{address}/driver/unbind"), address.to_string())
            }
            // Loading the driver has bound the devices that no other driver had.
            Step::Probe(address) if self.is_bound(*address) => return None,
            Step::Probe(address) => (address, "bus/pci/drivers_probe".into(), address.to_string()),
            Step::Load(_) => return None,
        };
        (!self.failures.contains_key(address)).then_some(Write::Store { attribute, value })
    }

    fn failed(&mut self, step: &Step, errno: Errno) {
        let (Step::Override(address, _) | Step::Unbind(address, _) | Step::Probe(address)) = step
        else {
            return;
        };
        let (reason, remedy, overridden) = match step {
            Step::Override(..) if !self.sysfs.has_device(*address) => (
                "the device went away".to_owned(),
                "if it comes back later, add vfio.wait=10".to_owned(),
                false,
            ),
            Step::Override(..) => (
                format!("writing driver_override: {}", words(errno)),
                "/sys must be writable, and vfio-early run as root".to_owned(),
                false,
            ),
            Step::Unbind(_, driver) if errno == Errno::ETIMEDOUT => (
                format!("{driver} does not let go of it: the unbind hangs"),
                format!(
                    "keep {driver} from loading before vfio-early, or stop what uses the device"
                ),
                true,
            ),
            Step::Probe(_) if errno == Errno::ETIMEDOUT => (
                "the probe hangs".to_owned(),
                "see the kernel log (dmesg) for the device".to_owned(),
                true,
            ),
            // An unbind fails where the driver had let go by itself; the read-back tells the rest.
            _ => return,
        };
        self.failures.insert(*address, (Failure { reason, remedy }, overridden));
    }

    /// Loads the modules of a batch, each once, and fails the devices whose driver is still
    /// missing afterwards.
    fn load(&mut self, batch: &[Step]) {
        let wanted: Vec<_> = batch
            .iter()
            .filter_map(|step| match step {
                Step::Load(module) => Some((module, self.kernel.modules_for(module))),
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            return;
        }
        let mut modules = Vec::new();
        for module in wanted.iter().filter_map(|(_, needed)| needed.as_ref()).flatten() {
            if !modules.contains(&module) {
                modules.push(module);
            }
        }
        let inserts: Vec<_> =
            modules.iter().map(|module| Write::Insert { module: (*module).clone() }).collect();
        let results = self.kernel.perform(&inserts);
        let errno_of = |module| {
            let (_, result) = modules.iter().zip(&results).find(|(name, _)| **name == module)?;
            result.err()
        };
        for (module, needed) in &wanted {
            let why = match needed {
                None => Some(format!("{module} is not in this initrd")),
                Some(needed) => needed.iter().find_map(|needed| {
                    let errno = errno_of(needed)?;
                    Some(format!("loading {needed}: {}", words(errno)))
                }),
            };
            if module.as_str() == IOMMU_TYPE1 {
                self.applied.warnings.extend(why.map(|why| {
                    format!(
                        "{why}: no VM can use the devices until it is loaded; add \
                         {IOMMU_TYPE1} to the initrd"
                    )
                }));
            } else {
                self.driver_missing(module, why);
            }
        }
    }

    fn driver_missing(&mut self, driver: &str, why: Option<String>) {
        if self.sysfs.has_driver(driver) {
            return;
        }
        let failure = Failure {
            reason: why.unwrap_or_else(|| {
                format!("{driver} is loaded, but there is no PCI driver of that name")
            }),
            remedy: format!("add {driver} and {IOMMU_TYPE1}"),
        };
        for (address, _) in self.wanted.iter().filter(|(_, wanted)| **wanted == driver) {
            self.failures.entry(*address).or_insert_with(|| (failure.clone(), true));
        }
    }

    fn is_bound(&self, address: Address) -> bool {
        self.sysfs.driver(address).ok().flatten().as_deref() == self.wanted.get(&address).copied()
    }

    fn read_back(&mut self) {
        for (address, device, wanted) in self.plan.taken() {
            let fate = match self.failures.remove(&address) {
                Some((failure, overridden)) => Fate {
                    driver: self.sysfs.driver(address).ok().flatten(),
                    overridden,
                    failure: Some(failure),
                },
                None => self.verify(address, wanted),
            };
            if let (Some(group), None) = (device.group, &fate.failure) {
                let kernel = &mut *self.kernel;
                self.applied.viable.entry(group).or_insert_with(|| kernel.group_viable(group));
            }
            self.applied.fates.insert(address, fate);
        }
    }

    /// The kernel's answer; where it is no, `bind` tells why.
    fn verify(&mut self, address: Address, wanted: &str) -> Fate {
        let fate = |driver, failure| Fate { driver, overridden: true, failure };
        let end = Instant::now() + SETTLE;
        loop {
            let driver = match self.sysfs.driver(address) {
                Ok(driver) => driver,
                Err(error) => {
                    let remedy = "see the kernel log (dmesg)".to_owned();
                    return fate(None, Some(Failure { reason: error.to_string(), remedy }));
                }
            };
            if driver.as_deref() == Some(wanted) {
                return fate(driver, None);
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.plan.late && !left.is_zero() && self.kernel.wait_for_uevent(left) {
                continue;
            }
            let bind = Write::Store {
                attribute: format!("bus/pci/drivers/{wanted}/bind"),
                value: address.to_string(),
            };
            let answer = self.kernel.perform(&[bind]).pop().unwrap_or(Ok(()));
            let driver = self.sysfs.driver(address).ok().flatten();
            if driver.as_deref() == Some(wanted) {
                return fate(driver, None);
            }
            let failure = not_bound(wanted, driver.as_deref(), answer.err());
            return fate(driver, Some(failure));
        }
    }
}

/// Sources: `vfio_pci_core_register_device()`, `vfio_pci_core_init_dev()` and the denylist in
/// `drivers/vfio/pci/`.
fn not_bound(wanted: &str, driver: Option<&str>, errno: Option<Errno>) -> Failure {
    let (reason, remedy) = match (driver, errno) {
        (Some(driver), _) => {
            (format!("{driver} has it"), format!("keep {driver} from loading before vfio-early"))
        }
        (None, Some(Errno::EINVAL)) => (
            format!("{wanted} refuses it: {}", words(Errno::EINVAL)),
            "a device on the denylist (QAT, DSA, IAX), or without cache coherency; see the \
             kernel log (dmesg)"
                .to_owned(),
        ),
        (None, Some(Errno::EBUSY)) => (
            format!("{wanted} refuses it: {}", words(Errno::EBUSY)),
            "an SR-IOV device with virtual functions on: write 0 to its sriov_numvfs".to_owned(),
        ),
        (None, Some(errno)) => (
            format!("{wanted} does not bind to it: {}", words(errno)),
            "see the kernel log (dmesg)".to_owned(),
        ),
        (None, None) => (
            format!("{wanted} does not bind to it, and the kernel does not say why"),
            "see the kernel log (dmesg)".to_owned(),
        ),
    };
    Failure { reason, remedy }
}
