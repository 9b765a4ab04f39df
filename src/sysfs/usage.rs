//! What the host uses a device for: it is not taken from under a mounted disk.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::Sysfs;
use super::files::reading;
use super::mounts::{Btrfs, Mount, containing, folders, mount, swaps};
use crate::pci::Address;
use crate::syscall;

/// What the host uses a device for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In words: `sda2 is mounted on /`.
    pub words: String,
    /// What would have to end.
    pub by: User,
}

/// Who uses a device, by what it takes to end that; of several the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// The host itself, which runs from this disk.
    Host,
    /// A file system that each boot asks for, or swap space.
    Boot,
    /// A file system, swap space, or a device that is made of this disk.
    Storage,
    /// A network link.
    Network,
    /// The device's own virtual functions.
    VirtualFunctions,
    /// Processes that draw or compute.
    Screen,
    /// A stream of sound.
    Sound,
    /// Who types.
    Keyboard,
}

impl User {
    /// Whether the host could not do without the device at the next boot either. A graphics card or a
    /// sound card that a process has open now is another's then, and the process comes after it.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        !matches!(self, User::VirtualFunctions | User::Screen | User::Sound)
    }
}

/// What disks can be in use for, read once for all that are below a device.
struct Uses<'m> {
    mounts: &'m [Mount<'m>],
    swaps: Vec<(String, bool)>,
    systems: Vec<Btrfs>,
    made: Vec<Made<'m>>,
    resume: Option<String>,
}

/// What is made of a file or a folder of a mounted file system.
struct Made<'m> {
    of: &'m Mount<'m>,
    /// What it is.
    words: String,
    /// What it is in use for; of a loop device that is still to be found out.
    is: Result<User, OsString>,
}

/// No host has more of these: an overlay has at most 500 layers (`OVL_MAX_STACK`).
const MOST_MADE: usize = 1024;

impl Sysfs {
    /// What uses the device; `None` where nothing known does. That the host runs from it comes before
    /// all else. What is mounted is read last, since a process that mounts a disk closes its file.
    #[must_use]
    pub fn usage(&self, address: Address) -> Option<Usage> {
        let now = self.use_now(address);
        let links = self.links_usage(address);
        self.virtual_functions(address).or_else(|| self.disks_usage(address)).or(links).or(now)
    }

    /// Whether the root is still that of the kernel's own rootfs, or nothing is known to be mounted.
    #[must_use]
    pub fn is_initrd(&self) -> bool {
        let mountinfo = self.proc("self/mountinfo");
        !mountinfo.lines().map(mount).any(|mount| mount.point == "/" && mount.kind != "rootfs")
    }

    /// What uses the disks below the device.
    #[must_use]
    pub fn disks_usage(&self, address: Address) -> Option<Usage> {
        let disks = self.below("block", &address.to_string());
        if disks.is_empty() {
            return None;
        }
        let mountinfo = self.proc("self/mountinfo");
        let mounts = self.mounts(&mountinfo);
        let uses = self.uses(&mounts);
        self.least_of(&disks, &uses, &mut Vec::new())
    }

    /// What uses the network links below the device. Where the host runs from what comes by the network,
    /// it is not asked by which of them: in doubt by each.
    #[must_use]
    pub fn links_usage(&self, address: Address) -> Option<Usage> {
        let links = self.below("net", &address.to_string());
        let words = links.iter().find_map(|link| self.net_usage(link))?;
        Some(match self.by_network().first() {
            Some(mount) => Usage {
                words: format!("{words}, and by the network comes {mount}"),
                by: User::Host,
            },
            None => Usage { words, by: User::Network },
        })
    }

    /// vfio-pci takes no device whose virtual functions are on (`vfio_pci_core_register_device()`),
    /// and they would go with it. Source: `sriov_numvfs`.
    fn virtual_functions(&self, address: Address) -> Option<Usage> {
        let path = self.device_folder(address).join("sriov_numvfs");
        let count = self.text(path).ok()?;
        let count = Some(count.trim()).filter(|count| *count != "0")?;
        let words =
            format!("{count} virtual functions (SR-IOV) are on; 0 in its sriov_numvfs stops them");
        Some(Usage { words, by: User::VirtualFunctions })
    }

    /// The names in `/sys/class/CLASS` of what lies below a PCI device.
    pub(super) fn below(&self, class: &str, address: &str) -> Vec<OsString> {
        let folder = self.root.join("sys/class").join(class);
        let is_below = |name: &OsString| {
            let path = target(&folder.join(name));
            has_part(&path, address) || self.is_path_to(&path, address)
        };
        self.names(&folder).into_iter().filter(is_below).collect()
    }

    /// An `NVMe` disk with several paths is no controller's: its subsystem, which is a virtual
    /// device, links to the controllers. It is so with one controller, too, where that says that
    /// there could be others.
    pub(super) fn is_path_to(&self, disk: &Path, address: &str) -> bool {
        const FOLDER: &str = "/nvme-subsystem/";
        let path = disk.to_string_lossy();
        let Some((above, below)) = path.split_once(FOLDER) else { return false };
        let name = below.split('/').next().unwrap_or_default();
        let folder = self.root.join("sys/class/block").join([above, FOLDER, name].concat());
        self.names(&folder).into_iter().any(|link| has_part(&target(&folder.join(link)), address))
    }

    pub(super) fn proc(&self, file: &str) -> String {
        self.text(Path::new("proc").join(file)).unwrap_or_default()
    }

    /// Sources: `/proc/self/mountinfo`, `/proc/swaps`, `/sys/fs/btrfs`, `/sys/power/resume`,
    /// `loop/backing_file`.
    fn uses<'m>(&self, mounts: &'m [Mount<'m>]) -> Uses<'m> {
        let swaps = swaps(&self.proc("swaps"));
        let mut made = Vec::new();
        let mut add = |path: &str, words: String, is| {
            if made.len() < MOST_MADE
                && let Some(of) = containing(mounts, path)
            {
                made.push(Made { of, words, is });
            }
        };
        for overlay in mounts.iter().filter(|mount| mount.by < User::Storage) {
            for path in folders(overlay) {
                let words = format!("the overlay on {} is made of it", overlay.point);
                add(&path, words, Ok(overlay.by));
            }
        }
        for (path, _) in swaps.iter().filter(|(_, is_file)| *is_file) {
            add(path, format!("{path} is swap space"), Ok(User::Boot));
        }
        for disk in self.names(&self.root().join("sys/class/block")) {
            if let Some(path) = self.backing_file(&disk) {
                add(&path, format!("{path} is {}", disk.display()), Err(disk));
            }
        }
        let (systems, resume) = (self.btrfs_systems(mounts), self.resume_from());
        Uses { mounts, swaps, systems, made, resume }
    }

    /// Source, besides those of [`Sysfs::uses`]: `holders/` (device-mapper, md). What was `seen` before is
    /// not asked again: in another tree such links may go round.
    fn disk_usage(&self, disk: &OsStr, uses: &Uses<'_>, seen: &mut Vec<OsString>) -> Option<Usage> {
        let folder = self.root.join("sys/class/block").join(disk);
        let name = disk.to_string_lossy().into_owned();
        if seen.iter().any(|there| there == disk) {
            return None;
        }
        seen.push(disk.to_owned());
        let mut least = None;
        for holder in self.names(&folder.join("holders")) {
            let part = format!("{name} is part of {}", holder.display());
            let above = self.virtual_usage(&holder, uses, seen);
            take_less(&mut least, Some(on_top(part, User::Storage, above)));
        }
        if least.is_some() {
            return least;
        }
        let number = self.text(folder.join("dev")).unwrap_or_default();
        let number = number.trim();
        let system = uses.systems.iter().find(|system| system.disks.iter().any(|it| it == disk));
        let nodes = self.nodes(disk);
        let is_mount = |mount: &&Mount<'_>| {
            // bcachefs names all of its disks.
            !number.is_empty() && mount.number == number
                || mount.source.split(':').any(|source| nodes.iter().any(|node| node == source))
                || system.is_some_and(|system| system.is_mounted_as(mount, &uses.systems))
        };
        for mount in uses.mounts.iter().filter(is_mount) {
            take_less(&mut least, Some(self.mount_usage(&name, mount, uses, seen)));
        }
        if least.is_some() {
            return least;
        }
        let (words, by) = if system.is_some() {
            (format!("{name} is part of a btrfs"), User::Storage)
        } else if uses.swaps.iter().any(|(path, _)| nodes.contains(path)) {
            (format!("{name} is swap space"), User::Boot)
        } else if uses.resume.as_deref() == Some(number) {
            (format!("{name} is where the host resumes from (resume=)"), User::Boot)
        } else if self.partitions(&folder).is_empty() {
            return self.claim(disk, uses.mounts);
        } else {
            return None;
        };
        Some(Usage { words, by })
    }

    /// What a mount of the disk of that name is to the host, and what is made of files in it.
    fn mount_usage(
        &self,
        name: &str,
        mount: &Mount<'_>,
        uses: &Uses<'_>,
        seen: &mut Vec<OsString>,
    ) -> Usage {
        let mut least = None;
        let is_on_it = |made: &&Made<'_>| mount.by > User::Host && std::ptr::eq(made.of, mount);
        for made in uses.made.iter().filter(is_on_it) {
            let usage = match &made.is {
                Ok(by) => Some(Usage { words: made.words.clone(), by: *by }),
                Err(disk) => self
                    .virtual_usage(disk, uses, seen)
                    .map(|above| on_top(made.words.clone(), User::Storage, Some(above))),
            };
            take_less(&mut least, usage);
        }
        let words = format!("{name} is mounted on {}", mount.point);
        on_top(words, mount.by, least.filter(|above| above.by < mount.by))
    }

    /// Of a loop device.
    pub(super) fn backing_file(&self, disk: &OsStr) -> Option<String> {
        let name = disk.to_str().filter(|name| name.starts_with("loop"))?;
        let path = self.text(format!("sys/class/block/{name}/loop/backing_file")).ok()?;
        Some(path.trim_end_matches('\n').to_owned())
    }

    /// What uses a block device that is no disk, or its partitions, as md's have.
    fn virtual_usage(
        &self,
        block: &OsStr,
        uses: &Uses<'_>,
        seen: &mut Vec<OsString>,
    ) -> Option<Usage> {
        let mut blocks = self.partitions(&self.root.join("sys/class/block").join(block));
        blocks.push(block.to_owned());
        self.least_of(&blocks, uses, seen)
    }

    fn least_of(
        &self,
        disks: &[OsString],
        uses: &Uses<'_>,
        seen: &mut Vec<OsString>,
    ) -> Option<Usage> {
        let mut least = None;
        for disk in disks {
            take_less(&mut least, self.disk_usage(disk, uses, seen));
        }
        least
    }

    fn partitions(&self, folder: &Path) -> Vec<OsString> {
        let mut names = self.names(folder);
        names.retain(|name| self.is_there(folder.join(name).join("partition")));
        names
    }

    /// The number of the partition that a resume is from, as in `259:1`. Source: `/sys/power/resume`.
    pub(super) fn resume_from(&self) -> Option<String> {
        let number = self.text("sys/power/resume").ok()?.trim().to_owned();
        (!number.is_empty() && number != "0:0").then_some(number)
    }

    /// The mounted btrfs. Source: `/sys/fs/btrfs`.
    pub(super) fn btrfs_systems(&self, mounts: &[Mount<'_>]) -> Vec<Btrfs> {
        let folder = self.root.join("sys/fs/btrfs");
        let mut systems = Vec::new();
        for name in self.names(&folder) {
            let disks = self.names(&folder.join(&name).join("devices"));
            let nodes = disks.iter().flat_map(|disk| self.nodes(disk)).collect();
            if !disks.is_empty() {
                let id = name.to_string_lossy().into_owned();
                let mut system = Btrfs { id, disks, nodes, has_name: false };
                let mut mounts = mounts.iter().filter(|mount| mount.kind == "btrfs");
                system.has_name = mounts.any(|mount| system.is_named(mount.source));
                systems.push(system);
            }
        }
        systems
    }

    /// The paths by which the disk is mounted.
    pub(super) fn nodes(&self, disk: &OsStr) -> Vec<String> {
        let mut nodes = vec![node(disk)];
        let mapped = self.root.join("sys/class/block").join(disk).join("dm/name");
        if let Ok(name) = self.text(mapped) {
            nodes.push(format!("/dev/mapper/{}", name.trim()));
        }
        nodes
    }

    /// A ZFS pool is no holder, nor is what has its log or its cache on another disk (XFS, bcache), and
    /// their mounts do not name the disk; a mount of another namespace is not seen here. All of them keep
    /// anybody else from claiming the disk, which root can try. In doubt each boot asks for it.
    fn claim(&self, disk: &OsStr, mounts: &[Mount<'_>]) -> Option<Usage> {
        let is_here = self.root == Path::new("/");
        let claimed = if is_here { syscall::claim(&node(disk)) } else { Err(Errno::EACCES) };
        let pools = mounts.iter().filter(|mount| mount.kind == "zfs");
        let pools = pools.map(|mount| mount.by).min();
        let (words, by) = match (claimed, pools) {
            (Err(Errno::EBUSY), _) => (
                "a pool has it, or it is mounted where that is not seen from here, or is the log or \
                 the cache of another disk",
                pools.unwrap_or(User::Boot).min(User::Boot),
            ),
            (Err(Errno::EACCES), Some(by)) => {
                ("a ZFS pool may have it: only root, on the host itself, can tell", by)
            }
            _ => return None,
        };
        Some(Usage { words: words.to_owned(), by })
    }

    /// Sources: the links `master` (bridge, bond) and `upper_…` (VLAN, macvlan), `/proc/net/route`,
    /// `/proc/net/if_inet6`.
    fn net_usage(&self, link: &OsStr) -> Option<String> {
        let folder = self.root.join("sys/class/net").join(link);
        let link = &*link.to_string_lossy();
        if let Ok(Some(master)) = super::link_name(&folder.join("master")) {
            return Some(format!("{link} is part of {master}"));
        }
        for name in self.names(&folder) {
            if let Some(upper) = name.to_string_lossy().strip_prefix("upper_") {
                return Some(format!("{upper} goes over {link}"));
            }
        }
        let routes = self.proc("net/route");
        let addresses = self.proc("net/if_inet6");
        let has_address = routes.lines().any(|line| line.split_whitespace().next() == Some(link))
            || addresses.lines().any(|line| line.split_whitespace().last() == Some(link));
        has_address.then(|| format!("{link} has an address"))
    }
}

/// Where a link leads; nowhere where it is none.
pub(super) fn target(link: &Path) -> PathBuf {
    reading("link", link);
    fs::read_link(link).unwrap_or_default()
}

fn has_part(path: &Path, wanted: &str) -> bool {
    path.iter().any(|part| part == wanted)
}

/// Where devtmpfs has the disk: `!` stands for `/` in sysfs.
fn node(disk: &OsStr) -> String {
    format!("/dev/{}", disk.to_string_lossy().replace('!', "/"))
}

/// Of several uses the first of those counts that the host needs most.
fn take_less(least: &mut Option<Usage>, usage: Option<Usage>) {
    if let Some(usage) = usage
        && least.as_ref().is_none_or(|it| usage.by < it.by)
    {
        *least = Some(usage);
    }
}

/// With what is on top of it, and is what counts then.
fn on_top(words: String, by: User, above: Option<Usage>) -> Usage {
    match above {
        Some(above) => Usage { words: format!("{words}, and {}", above.words), by: above.by },
        None => Usage { words, by },
    }
}
