//! The requests of VFIO and iommufd that a VM monitor makes when it starts (`include/uapi/linux/vfio.h`
//! and `iommufd.h`), and access with a user's eyes.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{AccessFlags, access};

use super::{Work, errno, supervise};

/// Numbers of requests, all `_IO(';', …)`.
pub const CHECK_EXTENSION: u8 = 101;
/// `VFIO_SET_IOMMU`.
pub const SET_IOMMU: u8 = 102;
/// `VFIO_GROUP_GET_STATUS`.
const GROUP_STATUS: u8 = 103;
/// `VFIO_GROUP_SET_CONTAINER`.
const SET_CONTAINER: u8 = 104;
/// `VFIO_GROUP_GET_DEVICE_FD`.
const DEVICE_FILE: u8 = 106;
/// `VFIO_DEVICE_GET_REGION_INFO`.
pub const REGION_INFO: u8 = 108;
/// `VFIO_IOMMU_GET_INFO`.
pub const IOMMU_INFO: u8 = 112;
/// `VFIO_IOMMU_MAP_DMA`.
pub const MAP: u8 = 113;
/// `VFIO_IOMMU_UNMAP_DMA`.
pub const UNMAP: u8 = 114;
/// `VFIO_DEVICE_BIND_IOMMUFD`.
const BIND: u8 = 118;
/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
pub const ATTACH: u8 = 119;
/// `IOMMU_IOAS_ALLOC`.
pub const IOAS_ALLOC: u8 = 129;
/// `IOMMU_IOAS_MAP`.
pub const IOAS_MAP: u8 = 133;
/// `IOMMU_IOAS_UNMAP`.
pub const IOAS_UNMAP: u8 = 134;

/// `VFIO_TYPE1v2_IOMMU`.
pub const TYPE1_V2: usize = 3;

/// The group could be a VM's (`VFIO_GROUP_FLAGS_VIABLE`).
pub const VIABLE: u32 = 1;

/// `VFIO_GROUP_GET_STATUS`: flags.
pub fn group_status(group: &OwnedFd) -> Result<u32, Errno> {
    let mut status = Structure::new().room(4);
    status.request(group, GROUP_STATUS)?;
    Ok(status.word_at(4))
}

/// Opens a file of VFIO or iommufd. A child process does not get it.
pub fn open_device(path: &str) -> Result<OwnedFd, Errno> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(Into::into).map_err(|why| errno(&why))
}

/// A request that takes a number.
pub fn request(file: &OwnedFd, number: u8, argument: usize) -> Result<i32, Errno> {
    let request = nix::request_code_none!(b';', number);
    // SAFETY: the descriptor is open, and these requests take the number as it is.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) })
}

/// The structure of a request, which begins with its own size.
#[derive(Debug)]
pub struct Structure(Vec<u8>);

impl Structure {
    /// With the size alone, so far.
    #[must_use]
    pub fn new() -> Self {
        Structure(vec![0; 4])
    }

    /// Adds a field of four bytes.
    #[must_use]
    pub fn word(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Adds a field of eight bytes.
    #[must_use]
    pub fn long(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Adds room for what the kernel fills.
    #[must_use]
    pub fn room(mut self, size: usize) -> Self {
        self.0.resize(self.0.len() + size, 0);
        self
    }

    /// The four bytes from there on.
    #[must_use]
    pub fn word_at(&self, offset: usize) -> u32 {
        let bytes = self.0.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_ne_bytes(bytes.unwrap_or_default())
    }

    /// The eight bytes from there on.
    #[must_use]
    pub fn long_at(&self, offset: usize) -> u64 {
        let bytes = self.0.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    }

    /// Makes the request, which fills the structure. Memory that a mapping names has to stay where it is
    /// until it is unmapped, or the file closed: no device uses it here.
    pub fn request(&mut self, file: &OwnedFd, number: u8) -> Result<i32, Errno> {
        let size = u32::try_from(self.0.len()).unwrap_or(0);
        self.0[..4].copy_from_slice(&size.to_ne_bytes());
        let request = nix::request_code_none!(b';', number);
        // SAFETY: the descriptor is open, and the kernel reads and fills no more than the size says.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, self.0.as_mut_ptr()) })
    }
}

/// Puts a group into a container.
pub fn set_container(group: &OwnedFd, container: &OwnedFd) -> Result<i32, Errno> {
    let request = nix::request_code_none!(b';', SET_CONTAINER);
    let number = container.as_raw_fd();
    // SAFETY: the descriptors are open, and the request reads one number.
    Errno::result(unsafe { libc::ioctl(group.as_raw_fd(), request, &raw const number) })
}

/// Binds a device to iommufd: wakes and resets it.
pub fn bind_iommufd(device: &OwnedFd, iommufd: &OwnedFd) -> Result<i32, Errno> {
    let number = u32::try_from(iommufd.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    Structure::new().word(0).word(number).room(4).request(device, BIND)
}

/// The file of a device of the group: wakes and resets the device.
pub fn device_of_group(group: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let request = nix::request_code_none!(b';', DEVICE_FILE);
    // SAFETY: the descriptor is open, and the name ends with a NUL.
    let file = Errno::result(unsafe { libc::ioctl(group.as_raw_fd(), request, name.as_ptr()) })?;
    // SAFETY: the kernel has just made it, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// A user, by numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number of the user.
    pub uid: u32,
    /// Of its groups, the first one its own.
    pub gids: Vec<u32>,
}

/// Whether that user may read and write each of the files.
pub fn may_open(user: &User, files: &[String]) -> Vec<Result<(), Errno>> {
    let deadlines = vec![Duration::from_secs(5); files.len()];
    supervise(&Work {
        deadlines: &deadlines,
        end: Instant::now() + Duration::from_secs(5),
        children: 1,
        after: &|_| Vec::new(),
        perform: &|index| {
            become_user(user)?;
            access(files[index].as_str(), AccessFlags::R_OK | AccessFlags::W_OK)
        },
    })
}

/// Makes this process that user's, for good.
fn become_user(user: &User) -> Result<(), Errno> {
    let gid = user.gids.first().copied().unwrap_or(user.uid);
    // SAFETY: the list has so many numbers, and this process has one thread.
    unsafe {
        // Who is not root cannot change its groups, and need not for itself.
        if libc::geteuid() == user.uid {
            return Ok(());
        }
        Errno::result(libc::setgroups(user.gids.len(), user.gids.as_ptr()))?;
        Errno::result(libc::setgid(gid))?;
        Errno::result(libc::setuid(user.uid))?;
    }
    Ok(())
}
