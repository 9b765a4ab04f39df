//! Every read: `/sys` and `/proc` to [`Machine`], from a root path.

mod details;
mod files;
mod in_use;
mod iommu;
mod keep;
mod modprobe;
mod mounts;
mod platform;
mod screen;
mod untold;
mod usage;
mod vm;

pub use details::Input;
pub use files::LONGEST;
pub use iommu::Iommu;
pub use keep::{RECORD, RECORD_OF_BOOT};
pub use platform::{Maker, Owner, Platform};
pub use screen::VGACON;
pub use usage::{Usage, User};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::utsname::uname;
use nix::unistd::read;

use crate::cmdline::Request;
use crate::console::{Display, Screen};
use crate::keep::Kept;
use crate::pci::{self, Address, Choice, Class, Id, Item};
use crate::syscall;

/// One PCI function as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Vendor, device and subsystem. Source: `PCI_ID`, `PCI_SUBSYS_ID` in `uevent`.
    pub id: Id,
    /// Source: `PCI_CLASS` in `uevent`.
    pub class: Class,
    /// The driver that has it. Source: the link `driver`.
    pub driver: Option<String>,
    /// Its IOMMU group; `None` without an IOMMU. Source: the link `iommu_group`.
    pub group: Option<u32>,
    /// Its folder below `/sys`, without links on the way to it, which would cost the kernel half of
    /// each access: `devices/pci0000:00/0000:00:01.0/0000:01:00.0`.
    pub folder: String,
    /// Of a graphics device.
    pub display: Option<Display>,
    /// What the host uses it for; asked only of a requested device and those of its group, where a
    /// host driver has them.
    pub usage: Option<Usage>,
    /// What the host lives from it, by the record in the initrd ([`Sysfs::record`]).
    pub kept: Vec<Kept>,
    /// The module of its variant of vfio-pci; asked only of a requested device.
    pub variant: Option<String>,
    /// The host's modules for it that the initrd has; asked only of a graphics device that no
    /// driver has.
    pub modules: Vec<HostModule>,
    /// What `claim` has written to its `driver_override`, where this goes on from there.
    pub claimed: Option<String>,
}

/// A module of the host's for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostModule {
    /// Its name.
    pub name: String,
    /// Whether the administrator does not want it loaded for a device (`blacklist` in modprobe.d,
    /// `modprobe.blacklist=`, `module_blacklist=`).
    pub is_blacklisted: bool,
}

/// What the plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The devices that the request can mean, and the other members of their groups.
    pub devices: BTreeMap<Address, Device>,
    /// The members of each IOMMU group in address order.
    pub groups: BTreeMap<u32, Vec<Address>>,
    /// Names of drivers on the PCI bus: those of the devices, and the one to be given.
    pub drivers: Vec<String>,
    /// Whether the module `vfio_iommu_type1` is there already, or of no use: see
    /// [`Sysfs::has_no_groups`].
    pub iommu_type1: bool,
    /// Read only where a device has no group.
    pub iommu: Iommu,
    /// Modules by which an IOMMU would work that does not yet, where the initrd has them; asked only
    /// where a device has no group.
    pub iommu_modules: Vec<String>,
    /// Whether the interrupts of devices are kept apart; `None` where it cannot be told.
    pub interrupt_remapping: Option<bool>,
    /// How many devices that are not here the host's keyboards hang on, by the record.
    pub keyboards_elsewhere: usize,
    /// Whether the firmware can turn that on, where they are not.
    pub remaps_by_firmware: bool,
    /// Read only where a device has no group, or interrupts are not remapped.
    pub platform: Platform,
    /// The host's screen; read only where the request can mean a graphics device, and `None`
    /// where there is none.
    pub screen: Option<Screen>,
}

impl Device {
    /// The bridge right above it, `None` on a root bus: there is a `pci0000:00` instead.
    #[must_use]
    pub fn parent(&self) -> Option<Address> {
        Path::new(&self.folder).parent()?.file_name()?.to_str()?.parse().ok()
    }

    /// Whether it is a virtio-iommu, by which other devices have their groups.
    #[must_use]
    pub fn is_virtio_iommu(&self) -> bool {
        (self.id.vendor, self.id.device) == (0x1af4, 0x1057)
    }

    /// The device whose driver makes the root bus that this one is below, as Intel's VMD has it, and
    /// with it this device: it goes with that driver, and is in that device's IOMMU group
    /// (`pci_real_dma_dev()`). The root bus of all others is the firmware's.
    #[must_use]
    pub fn made_by(&self) -> Option<Address> {
        let (mut maker, mut above) = (None, None);
        for part in self.folder.split('/') {
            if part.starts_with("pci") {
                maker = above;
            }
            above = part.parse().ok();
        }
        maker
    }
}

impl Machine {
    /// The members of an IOMMU group in address order.
    pub fn group(&self, number: u32) -> impl Iterator<Item = (Address, &Device)> {
        let members = self.groups.get(&number).map(Vec::as_slice).unwrap_or_default();
        members.iter().map(|address| (*address, &self.devices[address]))
    }

    /// Whether a device that has no group may get one when a driver is probed for it.
    #[must_use]
    pub fn has_groups_later(&self) -> bool {
        self.iommu == Iommu::GroupsAtProbe || !self.iommu_modules.is_empty()
    }
}

/// The driver that is taken where nothing else is asked for.
pub const VFIO_PCI: &str = "vfio-pci";

/// The module that a VM needs to use a group; only a soft dependency of vfio, which nobody
/// requests later.
pub const IOMMU_TYPE1: &str = "vfio_iommu_type1";

/// The module that stands in for it, and for groups as a whole, where the kernel has it; vfio needs
/// it there.
pub const IOMMUFD: &str = "iommufd";

/// Reads below a root folder, `/` but for tests and support cases.
#[derive(Debug)]
pub struct Sysfs {
    root: PathBuf,
    /// Its `sys`, where that is there: paths that begin here are short.
    sys: Option<OwnedFd>,
    /// The root, where it is another than that of the running kernel.
    confined: Option<OwnedFd>,
    /// What `claim` has read, which is not read again.
    known: BTreeMap<Address, Device>,
}

/// The folder `sys` below a root, as a place where paths begin.
///
/// # Errors
/// When it is not there.
pub fn folder(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(&root.join("sys"), flags, Mode::empty())?)
}

/// `Ok(None)` for what is not there.
fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An error that names the file.
fn at<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// The name at the end of a path, where it is one: `..` is none.
fn last_name(path: &str) -> Option<String> {
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}

/// The last part of a link's target.
fn link_name(link: &Path) -> io::Result<Option<String>> {
    files::reading("link", link);
    let target = at(link, optional(fs::read_link(link)))?;
    Ok(target.and_then(|target| Some(target.file_name()?.to_str()?.to_owned())))
}

/// More than a modalias has, so that one read gets all of it.
const ATTRIBUTE: usize = 256;

/// More than a link of sysfs has.
const LINK: usize = 512;

impl Sysfs {
    /// Below `root`, which holds `sys` and `proc`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let sys = folder(&root).ok();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let is_other = root != Path::new("/");
        let confined = is_other.then(|| open(&root, flags, Mode::empty()).ok()).flatten();
        Sysfs { root, sys, confined, known: BTreeMap::new() }
    }

    /// The same, with devices that are taken for what they were when `claim` read them.
    #[must_use]
    pub fn knowing(self, known: BTreeMap<Address, Device>) -> Self {
        Sysfs { known, ..self }
    }

    /// What all paths are below.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn sys(&self) -> Result<&OwnedFd, Errno> {
        self.sys.as_ref().ok_or(Errno::ENOENT)
    }

    /// The target of a link; the path is below `/sys`.
    fn link(&self, path: &str) -> Result<String, Errno> {
        self.link_in(path, &mut [0; LINK]).map(str::to_owned)
    }

    fn link_in<'b>(&self, path: &str, buffer: &'b mut [u8; LINK]) -> Result<&'b str, Errno> {
        files::reading("link", Path::new(path));
        let target = syscall::read_link(self.sys()?, path, buffer)?;
        str::from_utf8(target).map_err(|_| Errno::EILSEQ)
    }

    /// The last part of the target of a link; the path is below `/sys`.
    fn link_name(&self, path: &str) -> Result<Option<String>, Errno> {
        match self.link_in(path, &mut [0; LINK]) {
            Ok(target) => Ok(last_name(target)),
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// The text of an attribute, in one read; the path is below `/sys`.
    fn attribute<'b>(&self, path: &str, buffer: &'b mut [u8; ATTRIBUTE]) -> Result<&'b str, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = if self.confined.is_some() {
            let file = self.file(Path::new("sys").join(path));
            file.map_err(|why| why.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?.into()
        } else {
            openat(self.sys()?, path, flags, Mode::empty())?
        };
        let length = read(&file, buffer)?;
        Ok(str::from_utf8(&buffer[..length]).unwrap_or_default())
    }

    fn pci(&self) -> PathBuf {
        self.root.join("sys/bus/pci")
    }

    fn device_folder(&self, address: Address) -> PathBuf {
        self.pci().join("devices").join(address.to_string())
    }

    /// The kernel command line, without its newline. Source: `/proc/cmdline`.
    ///
    /// # Errors
    /// When `/proc` is not mounted; the error names the file.
    pub fn cmdline(&self) -> io::Result<Vec<u8>> {
        let path = self.root.join("proc/cmdline");
        let mut text = at(&path, self.bytes(&path))?;
        text.truncate(text.trim_ascii_end().len());
        Ok(text)
    }

    /// The kernel's release, as `uname -r` has it. Source: `/proc/sys/kernel/osrelease`, and the
    /// kernel itself where that is not there.
    #[must_use]
    pub fn kernel_release(&self) -> Option<String> {
        if let Ok(text) = self.text("proc/sys/kernel/osrelease") {
            return Some(text.trim_end().to_owned());
        }
        let running = (self.root == Path::new("/")).then(|| uname().ok()).flatten()?;
        Some(running.release().to_str()?.to_owned())
    }

    /// The driver that has the device now. Source: the link `driver`, which is the kernel's
    /// answer; writes to `driver_override` and `drivers_probe` succeed regardless.
    ///
    /// # Errors
    /// When the link cannot be read; not when there is none.
    pub fn driver(&self, address: Address) -> io::Result<Option<String>> {
        self.driver_in(&format!("bus/pci/devices/{address}"))
    }

    /// As [`Sysfs::driver`], of the device in a folder ([`Device::folder`]).
    ///
    /// # Errors
    /// When the link cannot be read; not when there is none.
    pub fn driver_in(&self, folder: &str) -> io::Result<Option<String>> {
        Ok(self.link_name(&[folder, "/driver"].concat())?)
    }

    /// The number of the IOMMU group of the device in a folder ([`Device::folder`]).
    #[must_use]
    pub fn group_in(&self, folder: &str) -> Option<u32> {
        self.link_name(&[folder, "/iommu_group"].concat()).ok()??.parse().ok()
    }

    /// The id of what is now in a device's folder ([`Device::folder`]); `None` where nothing is.
    #[must_use]
    pub fn id_in(&self, folder: &str) -> Option<Id> {
        let mut buffer = [0; ATTRIBUTE];
        let modalias = self.attribute(&[folder, "/modalias"].concat(), &mut buffer).ok()?;
        Some(id_and_class(modalias).0)
    }

    /// Whether somebody wrote an override for the device in a folder ([`Device::folder`]).
    #[must_use]
    pub fn has_override(&self, folder: &str) -> bool {
        let mut buffer = [0; ATTRIBUTE];
        let driver = self.attribute(&format!("{folder}/driver_override"), &mut buffer);
        !matches!(driver.map(str::trim_end), Ok("(null)" | "") | Err(_))
    }

    /// Whether the kernel still has the device.
    #[must_use]
    pub fn has_device(&self, address: Address) -> bool {
        self.is_there(self.device_folder(address))
    }

    /// Whether a driver of that name is registered on the PCI bus.
    #[must_use]
    pub fn has_driver(&self, driver: &str) -> bool {
        self.is_there(self.pci().join("drivers").join(driver))
    }

    /// Whether vfio is there and has a file for each device alone, none for groups
    /// (`CONFIG_VFIO_GROUP`): there is no container then, nor a module `vfio_iommu_type1`, and VMs go
    /// by iommufd. Source: vfio's classes (`vfio_group_init()` and `vfio_init()` in `drivers/vfio`).
    #[must_use]
    pub fn has_no_groups(&self) -> bool {
        self.is_there("sys/class/vfio-dev") && !self.has_groups()
    }

    /// Whether vfio is there and has a file for each group.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.is_there("sys/class/vfio")
    }

    /// Whether iommufd is there. Source: its class device (`drivers/iommu/iommufd/main.c`).
    #[must_use]
    pub fn has_iommufd(&self) -> bool {
        self.is_there("sys/class/misc/iommu")
    }

    /// The name of the PCI driver that a loaded module has, the first where it has several.
    /// Source: `/sys/module/X/drivers/pci:NAME`.
    #[must_use]
    pub fn pci_driver_of(&self, module: &str) -> Option<String> {
        let folder = self.root.join("sys/module").join(module.replace('-', "_")).join("drivers");
        let mut names = self.names(&folder).into_iter();
        names.find_map(|name| Some(name.to_str()?.strip_prefix("pci:")?.to_owned()))
    }

    /// The devices that a driver has. Source: the links in its folder, which the
    /// kernel makes and removes together with a device's link `driver` (`driver_sysfs_add()`).
    #[must_use]
    pub fn devices_of(&self, driver: &str) -> BTreeSet<Address> {
        self.addresses(&self.pci().join("drivers").join(driver)).unwrap_or_default()
    }

    /// Every device that a driver has, with the driver: a folder for each driver costs less than a
    /// link for each of many devices.
    fn drivers(&self) -> BTreeMap<Address, String> {
        let folders = self.names(&self.pci().join("drivers")).into_iter();
        let mut drivers = BTreeMap::new();
        for name in folders.filter_map(|folder| folder.into_string().ok()) {
            for address in self.devices_of(&name) {
                drivers.insert(address, name.clone());
            }
        }
        drivers
    }

    /// What the request needs to know of the machine. Devices that are named by their address
    /// are read alone; ids, paths and guards that do not hold need them all.
    ///
    /// # Errors
    /// When the PCI bus cannot be read; the error names the file.
    pub fn machine(&self, request: &Request) -> io::Result<Machine> {
        // Without this a sysfs that is not mounted looks like a machine without devices.
        files::reading("open", &self.pci());
        at(&self.pci(), fs::metadata(self.pci()))?;
        let mut devices = BTreeMap::new();
        let mut named = true;
        let mut read = BTreeSet::new();
        for item in &request.items {
            named &= self.read_named(item, &mut devices, &mut read);
        }
        let is_display = |device: &Device| device.class.is_display();
        // A graphics card may take the console with it, which other cards can take over.
        if named && !devices.values().any(is_display) {
            self.read_groups(&mut devices);
        } else {
            self.read_all(&mut devices)?;
        }
        let no_group = devices.values().any(|device| device.group.is_none());
        let mut drivers: Vec<String> = Vec::new();
        let wanted = Some(request.driver.as_deref().unwrap_or(VFIO_PCI));
        let wanted = wanted.filter(|driver| self.has_driver(driver));
        for driver in devices.values().filter_map(|d| d.driver.as_deref()).chain(wanted) {
            if !drivers.iter().any(|there| there == driver) {
                drivers.push(driver.to_owned());
            }
        }
        let interrupt_remapping = self.interrupt_remapping();
        let is_lacking = no_group || interrupt_remapping == Some(false);
        Ok(Machine {
            iommu: if no_group { self.iommu() } else { Iommu::Works },
            iommu_modules: Vec::new(),
            interrupt_remapping,
            remaps_by_firmware: interrupt_remapping == Some(false) && self.remaps_by_firmware(),
            platform: if is_lacking { self.platform() } else { Platform::default() },
            drivers,
            iommu_type1: self.is_there("sys/module/vfio_iommu_type1") || self.has_no_groups(),
            keyboards_elsewhere: 0,
            screen: if devices.values().any(is_display) { self.screen() } else { None },
            groups: groups_of(&devices),
            devices,
        })
    }

    /// Reads the devices of one item where it names them by address; false where it does not,
    /// or a guard does not hold and the message will have to say where that id is now.
    /// What has been asked for once, is not read again.
    fn read_named(
        &self,
        item: &Item,
        devices: &mut BTreeMap<Address, Device>,
        read: &mut BTreeSet<Address>,
    ) -> bool {
        let (Choice::Place(place) | Choice::Group(place)) = &item.choice else {
            return matches!(item.choice, Choice::Virtual { .. });
        };
        let [hop] = place.hops[..] else { return false };
        let first = Address {
            domain: place.domain,
            bus: place.bus,
            device: hop.device,
            function: hop.function.unwrap_or(0),
        };
        let last = hop.function.unwrap_or(7);
        let mut guarded = None;
        for function in first.function..=last {
            let address = Address { function, ..first };
            if read.insert(address)
                && let Some(device) = self.device(address)
            {
                devices.insert(address, device);
            }
            guarded = guarded.or(devices.get(&address).map(|device| device.id));
        }
        match (item.guard, guarded) {
            (Some(guard), Some(id)) => guard.matches(&id),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Adds the other members of the devices' groups. Source: `/sys/kernel/iommu_groups/N/devices/`.
    fn read_groups(&self, devices: &mut BTreeMap<Address, Device>) {
        let groups = self.root.join("sys/kernel/iommu_groups");
        for number in groups_of(devices).into_keys() {
            let mut add = |address| {
                if !devices.contains_key(&address)
                    && let Some(device) = self.device(address)
                {
                    devices.insert(address, device);
                }
            };
            // One that has come since then is no member here; that the group is not viable by it, the
            // kernel says all the same, and a look at each group would be a fifth of the run's own part.
            let mut is_known = false;
            for (address, device) in &self.known {
                if device.group == Some(number) {
                    is_known = true;
                    add(*address);
                }
            }
            if !is_known {
                let members = groups.join(number.to_string()).join("devices");
                self.addresses(&members).unwrap_or_default().into_iter().for_each(add);
            }
        }
    }

    /// Looks again where groups come with the first probe: what groups there are now, and what may
    /// still come into that of one of these devices.
    pub fn read_later_groups(&self, machine: &mut Machine, of: &[Address]) {
        let devices = &mut machine.devices;
        for device in devices.values_mut().filter(|device| device.group.is_none()) {
            device.group = self.group_in(&device.folder);
        }
        self.read_groups(devices);
        for address in self.addresses(&self.pci().join("devices")).unwrap_or_default() {
            if devices.contains_key(&address) {
                continue;
            }
            let Ok(folder) = self.folder(address) else { continue };
            let of = of.iter().filter_map(|of| Some((*of, &devices.get(of)?.folder)));
            if of.clone().any(|(of, near)| may_share_a_group((of, near), (address, &folder)))
                && let Some(device) = self.device(address)
            {
                devices.insert(address, device);
            }
        }
        machine.groups = groups_of(devices);
    }

    fn read_all(&self, devices: &mut BTreeMap<Address, Device>) -> io::Result<()> {
        let mut drivers = None;
        for address in self.addresses(&self.pci().join("devices"))? {
            if let Some(device) = self.known_device(address) {
                devices.insert(address, device);
                continue;
            }
            let drivers = drivers.get_or_insert_with(|| self.drivers());
            let read = |folder| self.device_in(folder, || drivers.get(&address).cloned());
            // The folders of one bus are side by side, which saves the link to each.
            let beside = devices.last_key_value().and_then(|(other, device)| {
                let (above, _) = device.folder.rsplit_once('/')?;
                let is_beside = (other.domain, other.bus) == (address.domain, address.bus);
                is_beside.then(|| [above, "/", address.digits().as_str()].concat())
            });
            let device = match beside.map(read) {
                Some(Err(Errno::ENOENT)) | None => self.folder(address).and_then(read),
                Some(device) => device,
            };
            devices.extend(present(address, device).map(|device| (address, device)));
        }
        Ok(())
    }

    /// One device; `None` where there is none, or it goes away while it is read.
    fn device(&self, address: Address) -> Option<Device> {
        if let Some(device) = self.known_device(address) {
            return Some(device);
        }
        let read = |folder: String| {
            let link = [&folder, "/driver"].concat();
            self.device_in(folder, || self.link_name(&link).ok().flatten())
        };
        present(address, self.folder(address).and_then(read))
    }

    /// One that `claim` has read. Whether it is still there is looked at before each write.
    fn known_device(&self, address: Address) -> Option<Device> {
        let device = self.known.get(&address)?.clone();
        let display = device.class.is_display().then(|| self.display(&device.folder));
        Some(Device { display, ..device })
    }

    /// The device in a folder ([`Device::folder`]).
    fn device_in(
        &self,
        folder: String,
        driver: impl FnOnce() -> Option<String>,
    ) -> Result<Device, Errno> {
        let mut buffer = [0; ATTRIBUTE];
        let modalias = self.attribute(&[&folder, "/modalias"].concat(), &mut buffer)?;
        let (id, class) = id_and_class(modalias);
        Ok(Device {
            id,
            class,
            display: class.is_display().then(|| self.display(&folder)),
            driver: driver(),
            group: self.group_in(&folder),
            folder,
            ..Device::default()
        })
    }

    /// [`Device::folder`]. In a copy of `/sys` the link may be a folder; one that leads elsewhere is
    /// none of the kernel's, and one that leads to a device of another name is no device.
    fn folder(&self, address: Address) -> Result<String, Errno> {
        let link = format!("bus/pci/devices/{address}");
        let (_, name) = link.split_at("bus/pci/devices".len());
        match self.link(&link) {
            Ok(target) if !target.ends_with(name) => Err(Errno::ENOENT),
            Ok(target) => match target.strip_prefix("../../../") {
                Some(folder) if folder.starts_with("devices/") && !folder.contains("..") => {
                    Ok(folder.to_owned())
                }
                _ => Ok(link),
            },
            Err(Errno::ENOENT) => Err(Errno::ENOENT),
            Err(_) => Ok(link),
        }
    }

    /// The names in a folder that are PCI addresses.
    fn addresses(&self, folder: &Path) -> io::Result<BTreeSet<Address>> {
        let mut addresses = BTreeSet::new();
        for entry in at(folder, self.entries(folder))? {
            let name = at(folder, entry)?.file_name();
            addresses.extend(name.to_str().and_then(Address::from_name));
        }
        Ok(addresses)
    }
}

/// The devices by the number of their IOMMU group.
fn groups_of(devices: &BTreeMap<Address, Device>) -> BTreeMap<u32, Vec<Address>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (address, device) in devices {
        if let Some(number) = device.group {
            groups.entry(number).or_default().push(*address);
        }
    }
    groups
}

/// Whether the kernel may give two devices one group, by where they are: functions of one slot, and all
/// that is below one slot of a root bus, unless the ports on the way keep it apart (ACS), which no
/// file tells. Folders as [`Device::folder`].
#[must_use]
pub fn may_share_a_group(one: (Address, &str), other: (Address, &str)) -> bool {
    let slot = |address: Address| (address.domain, address.bus, address.device);
    let top = |folder: &str| folder.split('/').find_map(|part| part.parse().ok());
    let tops = [one, other].map(|(address, folder)| slot(top(folder).unwrap_or(address)));
    one.0 != other.0 && tops[0] == tops[1]
}

/// A device that could be read; one that could not counts as absent.
fn present(address: Address, device: Result<Device, Errno>) -> Option<Device> {
    match device {
        Ok(device) => Some(device),
        Err(Errno::ENOENT | Errno::ENODEV) => None,
        Err(why) => {
            log::warn!("{address} cannot be read and counts as absent: {}", why.desc());
            None
        }
    }
}

/// From a PCI device's `modalias` (`modalias_show()` in `drivers/pci/pci-sysfs.c`):
/// `pci:v000010DEd00001C03sv00001462sd00003282bc03sc00i00`. What is missing or no number reads 0,
/// which no item asks for.
fn id_and_class(modalias: &str) -> (Id, Class) {
    let number = |from: usize, digits: usize| {
        let text = modalias.as_bytes().get(from..from + digits);
        text.and_then(pci::number).unwrap_or(0)
    };
    let half = |from| u16::try_from(number(from, 8)).unwrap_or(0);
    let id = Id { vendor: half(5), device: half(14), subvendor: half(24), subdevice: half(34) };
    (id, Class(number(44, 2) << 16 | number(48, 2) << 8 | number(51, 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modalias_gives_id_and_class() {
        for (text, id, class) in [
            (
                "pci:v000010DEd00001C03sv00001462sd00003282bc03sc00i00\n",
                "10de:1c03:1462:3282",
                0x03_0000,
            ),
            ("pci:v00001B36d0000000Dsv00000000sd00000000bc0Csc03i30", "1b36:000d", 0x0c_0330),
        ] {
            assert_eq!(id_and_class(text), (id.parse().unwrap(), Class(class)), "{text:?}");
        }
        let nothing = Id { vendor: 0, device: 0, subvendor: 0, subdevice: 0 };
        for text in ["", "pci:v", "pci:v-00010DEd-0001C03sv", "pci:vFFFFFFFFdFFFFFFFF", "üüüüüüüüü"]
        {
            assert_eq!(id_and_class(text), (nothing, Class(0)), "{text:?}");
        }
    }

    #[test]
    fn what_may_share_a_group_is_told_by_place() {
        let near = ("0000:01:00.0", "devices/pci0000:00/0000:00:01.0/0000:01:00.0");
        let root = ("0000:00:03.0", "devices/platform/4010000000.pcie/pci0000:00/0000:00:03.0");
        for (one, other, expected) in [
            (near, ("0000:01:00.1", "devices/pci0000:00/0000:00:01.0/0000:01:00.1"), true),
            (near, ("0000:02:00.0", "devices/pci0000:00/0000:00:01.1/0000:02:00.0"), true),
            (near, ("0000:02:00.0", "devices/pci0000:00/0000:00:02.0/0000:02:00.0"), false),
            (near, ("0000:00:01.0", "devices/pci0000:00/0000:00:01.0"), true),
            (near, near, false),
            (
                root,
                ("0000:00:03.1", "devices/platform/4010000000.pcie/pci0000:00/0000:00:03.1"),
                true,
            ),
            (
                root,
                ("0000:00:04.0", "devices/platform/4010000000.pcie/pci0000:00/0000:00:04.0"),
                false,
            ),
            (root, ("0001:00:03.1", "devices/pci0001:00/0001:00:03.1"), false),
            // In a copy of /sys that has no links.
            (root, ("0000:00:03.1", "bus/pci/devices/0000:00:03.1"), true),
        ] {
            let at = |(address, folder): (&str, &'static str)| (address.parse().unwrap(), folder);
            assert_eq!(may_share_a_group(at(one), at(other)), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_root_bus_below_a_device_is_that_devices() {
        for (folder, expected) in [
            ("devices/pci0000:00/0000:00:01.0/0000:01:00.0", None),
            ("devices/pci0000:00/0000:00:0e.0", None),
            ("devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", Some("0000:00:0e.0")),
            (
                "devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0",
                Some("0000:00:0e.0"),
            ),
            // Hyper-V's.
            ("devices/LNXSYSTM:00/VMBUS:00/47505500-0001/pci8a3f:00/8a3f:00:02.0", None),
            ("bus/pci/devices/0000:01:00.0", None),
            ("", None),
        ] {
            let expected = expected.map(|text: &str| text.parse().unwrap());
            let device = Device { folder: folder.to_owned(), ..Device::default() };
            assert_eq!(device.made_by(), expected, "{folder}");
        }
    }

    #[test]
    fn the_folder_above_is_the_bridge() {
        for (folder, expected) in [
            ("devices/pci0000:00/0000:00:01.0", None),
            ("devices/pci0000:00/0000:00:01.0/0000:01:00.0", Some("0000:00:01.0")),
            ("devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", None),
            ("bus/pci/devices/0000:01:00.0", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            let device = Device { folder: folder.to_owned(), ..Device::default() };
            assert_eq!(device.parent(), expected, "{folder}");
        }
    }
}
