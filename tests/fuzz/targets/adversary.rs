//! A kernel that answers as it likes, and changes devices behind our back.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use vfio_early::kernel::{Kernel, Write};
use vfio_early::modules::Needed;
use vfio_early::pci::Address;
use vfio_early::sysfs::HostModule;
use vfio_early::variant::Variants;

const ERRORS: [Errno; 8] = [
    Errno::EINVAL,
    Errno::ENODEV,
    Errno::EBUSY,
    Errno::EPERM,
    Errno::ENOENT,
    Errno::EROFS,
    Errno::ENOMEM,
    Errno::ETIMEDOUT,
];

/// More waits than that hear nothing.
const MOST_UEVENTS: u8 = 3;

/// Each answer is made of the next byte, over and over.
pub struct Adversary {
    root: PathBuf,
    bytes: Vec<u8>,
    at: usize,
    uevents: u8,
    aliases: String,
    /// All writes, and what was said of them.
    pub writes: Vec<(Write, Result<(), Errno>)>,
}

impl Adversary {
    pub fn new(root: &Path, bytes: &[u8], aliases: &str) -> Self {
        Adversary {
            root: root.to_owned(),
            bytes: bytes.to_owned(),
            at: 0,
            uevents: 0,
            aliases: aliases.to_owned(),
            writes: Vec::new(),
        }
    }

    fn next(&mut self) -> u8 {
        self.at += 1;
        let byte = self.bytes.get(self.at % self.bytes.len().max(1)).copied().unwrap_or(0);
        // The same bytes again are not the same answers again.
        byte.wrapping_add(u8::try_from(self.at / 7 % 256).unwrap_or(0))
    }

    /// What a write does to the device that it is about: what it should, nothing, or what another
    /// program does meanwhile.
    fn happen(&mut self, address: Address, name: &str) {
        let device = self.root.join("sys/bus/pci/devices").join(address.to_string());
        // The tree is any one: what is outside of it stays as it is.
        let Ok(folder) = fs::canonicalize(&device) else { return };
        if !folder.starts_with(fs::canonicalize(&self.root).expect("the root is there")) {
            return;
        }
        let driver = folder.join("driver");
        let rival = match self.next() % 8 {
            0..=3 => name,
            4 => "rival",
            5 => "vfio-pci",
            6 => "",
            _ => return,
        };
        // It may be no link, or not there.
        let _ = fs::remove_file(&driver);
        if !rival.is_empty() {
            let _ = symlink(Path::new("../../../bus/pci/drivers").join(rival), &driver);
        }
    }
}

/// The device that a write is about.
pub fn device_of(write: &Write) -> Option<Address> {
    let Write::Store { attribute, value } = write else { return None };
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    attribute.rsplit('/').find_map(|part| part.parse().ok())
}

impl Kernel for Adversary {
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>> {
        let mut results = Vec::new();
        for write in writes {
            let error = usize::from(self.next());
            let result =
                if error % 3 == 0 { Err(ERRORS[error / 3 % ERRORS.len()]) } else { Ok(()) };
            if let (Some(address), Write::Store { attribute, .. }) = (device_of(write), write)
                && !attribute.ends_with("driver_override")
            {
                self.happen(address, "vfio-pci");
            }
            self.writes.push((write.clone(), result));
            results.push(result);
        }
        results
    }

    fn modules_for(&mut self, module: &str) -> Option<Vec<Needed>> {
        let needed = |name: &str, needs: &[&str]| Needed {
            name: name.to_owned(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        };
        match self.next() % 4 {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![needed(module, &[])]),
            _ => Some(vec![needed("vfio", &[]), needed(module, &["vfio"])]),
        }
    }

    fn modules_for_alias(&mut self, _modalias: &str) -> Vec<HostModule> {
        let next = self.next();
        let module = |(place, name): (u8, &&str)| HostModule {
            name: (*name).to_owned(),
            is_blacklisted: next >> place & 1 == 1,
        };
        let count = usize::from(next % 3);
        (6..).zip(&["i915", "nouveau"][..count]).map(module).collect()
    }

    fn variants(&mut self) -> Variants {
        Variants::read(&self.aliases)
    }

    fn options_of(&mut self, _module: &str) -> String {
        let next = self.next();
        ["", "allow_unsafe_interrupts=1", "allow_unsafe_interrupts=\"x"][usize::from(next % 3)]
            .to_owned()
    }

    fn group_viable(&mut self, _group: u32) -> Option<bool> {
        [None, Some(false), Some(true)][usize::from(self.next() % 3)]
    }

    fn listen(&mut self) -> io::Result<()> {
        if self.next().is_multiple_of(4) { Err(Errno::EPROTONOSUPPORT.into()) } else { Ok(()) }
    }

    fn wait_for_uevent(&mut self, _at_most: Duration) -> bool {
        self.uevents += 1;
        self.uevents <= MOST_UEVENTS && self.next().is_multiple_of(2)
    }
}
