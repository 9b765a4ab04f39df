//! The steps themselves, in QEMU's order.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Way;
use crate::pci::Address;
use crate::syscall::vfio::{self, Structure};
use crate::syscall::{Work, supervise};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a group's file: `EBUSY` where somebody has it.
    OpenGroup(String),
    /// `VFIO_GROUP_GET_STATUS`, before and after the group is in a container: `EPERM` where it is not
    /// viable. Linux before 5.19 does not refuse what must not be done then.
    Status,
    /// Open another file.
    Open(String),
    /// `VFIO_CHECK_EXTENSION` for type1v2: `ENODEV` where it is not there.
    Extension,
    /// `VFIO_GROUP_SET_CONTAINER`.
    SetContainer,
    /// `VFIO_SET_IOMMU`.
    SetIommu,
    /// `VFIO_IOMMU_GET_INFO`: where memory can be mapped.
    Ranges,
    /// Map 2 MiB.
    Map,
    /// And unmap them.
    Unmap,
    /// `VFIO_GROUP_GET_DEVICE_FD`, which resets the device.
    OpenDevice(Address),
    /// `VFIO_DEVICE_BIND_IOMMUFD`, which resets it, too.
    Bind,
    /// `IOMMU_IOAS_ALLOC`.
    Alloc,
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
    Attach,
    /// Read the device's configuration space: its vendor is there.
    Read,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::OpenGroup(file) | Step::Open(file) => return write!(f, "open {file}"),
            Step::OpenDevice(address) => return write!(f, "VFIO_GROUP_GET_DEVICE_FD {address}"),
            Step::Status => "VFIO_GROUP_GET_STATUS",
            Step::Extension => "VFIO_CHECK_EXTENSION",
            Step::SetContainer => "VFIO_GROUP_SET_CONTAINER",
            Step::SetIommu => "VFIO_SET_IOMMU",
            Step::Ranges => "VFIO_IOMMU_GET_INFO",
            Step::Map => "the map of 2 MiB",
            Step::Unmap => "the unmap of 2 MiB",
            Step::Bind => "VFIO_DEVICE_BIND_IOMMUFD",
            Step::Alloc => "IOMMU_IOAS_ALLOC",
            Step::Attach => "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            Step::Read => "the configuration space",
        })
    }
}

/// Performs steps in order; the result of each, with that of the first that fails for those after it.
pub type Attempt<'a> = &'a dyn Fn(&[Step]) -> Vec<Result<(), Errno>>;

const CONTAINER: &str = "/dev/vfio/vfio";
const IOMMUFD: &str = "/dev/iommu";

/// The steps for a device, to be opened or not, and the files that they open. Without a group's file
/// nothing tells anything without a reset of the device.
pub(super) fn steps(way: &Way, open: Option<Address>) -> (Vec<Step>, Vec<String>) {
    match way {
        Way::Group(group) => {
            let file = format!("/dev/vfio/{group}");
            let mut steps = vec![
                Step::OpenGroup(file.clone()),
                Step::Status,
                Step::Open(CONTAINER.to_owned()),
                Step::Extension,
                Step::SetContainer,
                Step::Status,
                Step::SetIommu,
                Step::Ranges,
                Step::Map,
                Step::Unmap,
            ];
            if let Some(address) = open {
                steps.extend([Step::OpenDevice(address), Step::Read]);
            }
            (steps, vec![file, CONTAINER.to_owned()])
        }
        Way::Device(name) => {
            let file = format!("/dev/vfio/devices/{name}");
            let steps = [
                Step::Open(file.clone()),
                Step::Open(IOMMUFD.to_owned()),
                Step::Bind,
                Step::Alloc,
                Step::Attach,
                Step::Map,
                Step::Unmap,
                Step::Read,
            ];
            let steps = if open.is_some() { steps.to_vec() } else { Vec::new() };
            (steps, vec![file, IOMMUFD.to_owned()])
        }
        Way::Nowhere => (Vec::new(), Vec::new()),
    }
}

/// No step may take longer: a reset can hang with the device's lock held.
const DEADLINE: Duration = Duration::from_secs(10);

/// On the running kernel, in a child process, whose end detaches and closes all.
#[must_use]
pub fn live(steps: &[Step]) -> Vec<Result<(), Errno>> {
    let monitor = RefCell::new(Monitor::default());
    let deadlines = vec![DEADLINE; steps.len()];
    supervise(&Work {
        deadlines: &deadlines,
        end: Instant::now() + 6 * DEADLINE,
        children: 1,
        after: &|index| index.checked_sub(1).into_iter().collect(),
        perform: &|index| monitor.borrow_mut().perform(&steps[index]),
    })
}

/// What is mapped, at an address that is a multiple of it.
const SIZE: usize = 2 << 20;

/// A VM monitor as far as it has come.
#[derive(Default)]
struct Monitor {
    /// The group's file, or the device's own with iommufd.
    first: Option<OwnedFd>,
    /// The container's, or iommufd's.
    second: Option<OwnedFd>,
    device: Option<OwnedFd>,
    memory: Vec<u8>,
    /// Where the memory is mapped.
    place: u64,
    /// iommufd's address space.
    space: u32,
}

fn long(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Monitor {
    fn perform(&mut self, step: &Step) -> Result<(), Errno> {
        if let Step::OpenGroup(path) | Step::Open(path) = step {
            let file = Some(vfio::open_device(path)?);
            *(if self.first.is_none() { &mut self.first } else { &mut self.second }) = file;
            return Ok(());
        }
        let first = self.first.as_ref().ok_or(Errno::EBADF)?;
        if *step == Step::Status {
            let viable = vfio::group_status(first)? & vfio::VIABLE != 0;
            return if viable { Ok(()) } else { Err(Errno::EPERM) };
        }
        let second = self.second.as_ref().ok_or(Errno::EBADF)?;
        let is_iommufd = self.space != 0;
        match step {
            Step::OpenGroup(_) | Step::Open(_) | Step::Status => Ok(()),
            Step::Extension => {
                match vfio::request(second, vfio::CHECK_EXTENSION, vfio::TYPE1_V2)? {
                    0 => Err(Errno::ENODEV),
                    _ => Ok(()),
                }
            }
            Step::SetContainer => vfio::set_container(first, second).map(drop),
            Step::SetIommu => vfio::request(second, vfio::SET_IOMMU, vfio::TYPE1_V2).map(drop),
            Step::Ranges => {
                let mut info = Structure::new().room(4092);
                info.request(second, vfio::IOMMU_INFO)?;
                self.place = place(&info).ok_or(Errno::ENOSPC)?;
                Ok(())
            }
            Step::Map => {
                self.memory = vec![0; 2 * SIZE];
                let start = self.memory.as_ptr().addr();
                let memory = long(start.next_multiple_of(SIZE));
                if is_iommufd {
                    // Readable, writable, at any place.
                    let map = Structure::new().word(6).word(self.space).word(0);
                    let mut map = map.long(memory).long(long(SIZE)).long(0);
                    map.request(second, vfio::IOAS_MAP)?;
                    self.place = map.long_at(32);
                } else {
                    let map = Structure::new().word(3).long(memory).long(self.place);
                    map.long(long(SIZE)).request(second, vfio::MAP)?;
                }
                Ok(())
            }
            Step::Unmap if is_iommufd => {
                let unmap = Structure::new().word(self.space).long(self.place).long(long(SIZE));
                { unmap }.request(second, vfio::IOAS_UNMAP).map(drop)
            }
            Step::Unmap => {
                let unmap = Structure::new().word(0).long(self.place).long(long(SIZE));
                { unmap }.request(second, vfio::UNMAP).map(drop)
            }
            Step::OpenDevice(address) => {
                self.device = Some(vfio::device_of_group(first, &address.to_string())?);
                Ok(())
            }
            Step::Bind => vfio::bind_iommufd(first, second).map(drop),
            Step::Alloc => {
                let mut alloc = Structure::new().word(0).room(4);
                alloc.request(second, vfio::IOAS_ALLOC)?;
                self.space = alloc.word_at(8);
                Ok(())
            }
            Step::Attach => {
                let mut attach = Structure::new().word(0).word(self.space);
                attach.request(first, vfio::ATTACH).map(drop)
            }
            Step::Read => read(self.device.as_ref().unwrap_or(first)),
        }
    }
}

/// `VFIO_PCI_CONFIG_REGION_INDEX`.
const CONFIGURATION: u32 = 7;

/// Each region is told, and the configuration space begins with a vendor that there is.
fn read(device: &OwnedFd) -> Result<(), Errno> {
    let mut place = 0;
    for index in 0..=CONFIGURATION {
        let mut region = Structure::new().word(0).word(index).room(20);
        region.request(device, vfio::REGION_INFO)?;
        place = region.long_at(24);
    }
    let mut vendor = [0xff; 2];
    let file = File::from(device.try_clone().map_err(|_| Errno::EMFILE)?);
    file.read_exact_at(&mut vendor, place).map_err(|_| Errno::EIO)?;
    if vendor == [0xff; 2] { Err(Errno::EIO) } else { Ok(()) }
}

/// An address for [`SIZE`] bytes, of the ranges in `struct vfio_iommu_type1_info`; where the kernel tells
/// none, as before 5.4, any will do.
fn place(info: &Structure) -> Option<u64> {
    const RANGES: u32 = 1;
    let word = |at: u64| info.word_at(usize::try_from(at).unwrap_or(usize::MAX));
    let half = |at| word(at) & 0xffff;
    let mut capability = u64::from(info.word_at(16));
    // Each lies behind the one before.
    while capability >= 20 {
        if half(capability) == RANGES {
            let count = u64::from(word(capability + 8));
            for range in 0..count.min(256) {
                let at = usize::try_from(capability + 16 + 16 * range).ok()?;
                let start = info.long_at(at).checked_next_multiple_of(long(SIZE));
                let end = start.and_then(|start| start.checked_add(long(SIZE) - 1));
                if end.is_some_and(|end| end <= info.long_at(at + 8)) {
                    return start;
                }
            }
            return None;
        }
        let next = u64::from(word(capability + 4));
        if next <= capability {
            break;
        }
        capability = next;
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With these ranges in a second capability, behind one of another kind.
    fn info(ranges: &[(u64, u64)]) -> Structure {
        let info = Structure::new().word(3).long(0x1000).word(24).word(0);
        // Number, version; where the next one is.
        let other = info.word(0x0001_0002).word(40).long(0);
        let count = u32::try_from(ranges.len()).unwrap();
        let list = other.word(0x0001_0001).word(0).word(count).word(0);
        ranges.iter().fold(list, |list, (start, last)| list.long(*start).long(*last))
    }

    #[test]
    fn the_map_is_where_the_iommu_takes_it() {
        const MIB: u64 = 1 << 20;
        for (ranges, expected) in [
            (&[(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX)][..], Some(0)),
            // The lower ones are too small, or lie so that no multiple fits.
            (&[(0, MIB - 1), (MIB, 4 * MIB - 2), (5 * MIB, 8 * MIB - 1)], Some(6 * MIB)),
            (&[(0, MIB - 1)], None),
            (&[(u64::MAX - MIB, u64::MAX)], None),
            (&[], None),
        ] {
            assert_eq!(place(&info(ranges)), expected, "{ranges:x?}");
        }
        // Before Linux 5.4 there are none.
        assert_eq!(place(&Structure::new().word(1).long(0x1000).word(0).word(0)), Some(0));
        // One that leads back to itself, and one that leads out.
        for next in [24, 4000] {
            let circle = Structure::new().word(3).long(0x1000).word(24).word(0);
            assert_eq!(place(&circle.word(0x0001_0002).word(next)), Some(0), "{next}");
        }
    }
}
