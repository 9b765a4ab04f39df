//! The archive that the kernel unpacks.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{self, ModeFileType};

/// A newc archive, which is what the kernel unpacks.
pub(super) struct Archive {
    file: BufWriter<File>,
    inode: u32,
}

impl Archive {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), inode: 0 })
    }

    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for an initrd"))?;
        let entry = newc::Builder::new(name).ino(self.inode).mode(mode).set_mode_file_type(kind);
        let mut writer = entry.write(&mut self.file, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    pub(super) fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o755, ModeFileType::Directory, &[])
    }

    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        // The kernel makes no folders on its own.
        let above: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
        for folder in above.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
            self.folder(&folder.to_string_lossy())?;
        }
        self.entry(name, mode, ModeFileType::Regular, content)
    }

    pub(super) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, 0o777, ModeFileType::Symlink, target.as_bytes())
    }

    pub(super) fn tree(&mut self, source: &Path, name: &str) -> Result<()> {
        self.folder(name)?;
        let mut entries = fs::read_dir(source)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let below = format!("{name}/{}", entry.file_name().to_string_lossy());
            let meta = entry.metadata()?;
            if meta.is_dir() {
                self.tree(&entry.path(), &below)?;
            } else if meta.is_symlink() {
                let target = fs::read_link(entry.path())?;
                self.entry(&below, 0o777, ModeFileType::Symlink, target.as_os_str().as_bytes())?;
            } else {
                let mode = meta.permissions().mode() & 0o777;
                self.entry(&below, mode, ModeFileType::Regular, &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        let mut file = newc::trailer(self.file)?;
        file.flush()?;
        Ok(())
    }
}
