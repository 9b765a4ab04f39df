//! How a file is opened and read: without waiting, not without end, and not outside the root.

use std::ffi::OsString;
use std::fs::{self, File, ReadDir};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::Sysfs;

/// More than any file has that this reads.
pub const LONGEST: u64 = 64 << 20;

/// How often a path is followed again that the kernel could not be sure of, as `openat2(2)` asks for.
const TRIES: u16 = 10_000;

/// Tells of a read that is about to be done. `tests/model` lets others act right before it; a release
/// has no such level (`release_max_level_debug` in Cargo.toml).
pub(super) fn reading(how: &str, path: &Path) {
    log::trace!("{how} {}", path.display());
}

impl Sysfs {
    /// Opens what is below the root. In another tree than that of the running kernel, which can come
    /// from anywhere, links lead to no place outside (`openat2(2)`, Linux 5.6).
    pub(super) fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        // A FIFO in a copied tree would have the first reader wait for a writer. With O_PATH nothing
        // is read, and openat2() takes no such flags.
        let flags = flags
            | if flags.contains(OFlag::O_PATH) {
                OFlag::O_CLOEXEC
            } else {
                OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC
            };
        let path = self.root.join(path);
        reading("open", &path);
        let Some(root) = &self.confined else {
            return Ok(open(&path, flags, Mode::empty())?);
        };
        let path = path.strip_prefix(&self.root).map_err(|_| Errno::EXDEV)?;
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let mut tries = 0..TRIES;
        loop {
            match openat2(root, path, OpenHow::new().flags(flags).resolve(resolve)) {
                // Something was renamed or mounted, anywhere, while a link with `..` was followed.
                Err(Errno::EAGAIN) if tries.next().is_some() => {}
                opened => return Ok(opened?),
            }
        }
    }

    /// A file, to be read in parts.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        Ok(self.open(path.as_ref(), OFlag::O_RDONLY)?.into())
    }

    /// What a file has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bytes(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(path)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// As [`Sysfs::bytes`], as text. Names in it, as of mount points and network links, need not be
    /// UTF-8, and what else is there has to be read all the same.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|no_text| String::from_utf8_lossy(no_text.as_bytes()).into_owned()))
    }

    /// What is in a folder. Only the names are of use: the paths of entries can be others.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self, folder: impl AsRef<Path>) -> io::Result<ReadDir> {
        let folder = folder.as_ref();
        if self.confined.is_none() {
            return fs::read_dir(self.root.join(folder));
        }
        let folder = self.open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))
    }

    /// The names of what is in a folder; none where it cannot be read.
    #[must_use]
    pub fn names(&self, folder: &Path) -> Vec<OsString> {
        let mut names = Vec::new();
        if let Ok(entries) = self.entries(folder) {
            for entry in entries.map_while(Result::ok) {
                names.push(entry.file_name());
            }
        }
        names
    }

    /// Whether it is there, links followed.
    #[must_use]
    pub fn is_there(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        match self.confined {
            None => self.root.join(path).exists(),
            Some(_) => self.open(path, OFlag::O_PATH).is_ok(),
        }
    }
}
