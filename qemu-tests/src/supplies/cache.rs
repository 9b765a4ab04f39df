//! The folder where everything lives that is fetched or built once: kernels, libkmod.
//!
//! An entry is a folder. It is made under another name and renamed when it is whole, so that an
//! interrupted set-up leaves nothing that looks finished; and under a lock, so that two processes
//! that want the same entry make it once.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::supplies::step;

/// `$VFIO_EARLY_CACHE`, else `$XDG_CACHE_HOME/vfio-early`, else `~/.cache/vfio-early`.
///
/// # Errors
/// When none of the three variables is set, or the folder's absolute path cannot be told.
pub fn folder() -> Result<PathBuf> {
    let folder = folder_from(|name| std::env::var_os(name).map(PathBuf::from))?;
    // Commands run in other folders must find it as well.
    std::path::absolute(&folder).with_context(|| format!("{}", folder.display()))
}

fn folder_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.as_os_str().is_empty());
    set("VFIO_EARLY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("vfio-early")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/vfio-early")))
        .context("there is no place for the cache: set VFIO_EARLY_CACHE or HOME")
}

/// For the name of an entry that is made of this: another one for something else.
pub(crate) fn key(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The entry at `name`, such as `kernels/6.1`, made by `make` when `is_whole` does not accept
/// what is there. `make` gets an empty folder, which becomes the entry when `make` succeeds.
///
/// # Errors
/// Those of `make`, and those of the file system.
pub fn entry(
    name: &str,
    is_whole: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    entry_in(&folder()?, name, is_whole, make)
}

fn entry_in(
    cache: &Path,
    name: &str,
    is_whole: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let place = cache.join(name);
    if is_whole(&place) {
        return Ok(place);
    }
    let _lock = lock_in(cache, name)?;
    // Another process may have made it while this one waited.
    if is_whole(&place) {
        return Ok(place);
    }
    let (Some(parent), Some(last)) = (place.parent(), place.file_name().and_then(OsStr::to_str))
    else {
        unreachable!("an entry's name is a relative path")
    };
    let prefix = format!(".{last}.new-");
    let new = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?;
    make(new.path())?;
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    fs::rename(new.path(), &place).with_context(|| format!("cannot make {}", place.display()))?;
    // Only now: a program that outlived its killed set-up may have been writing there until then.
    remove_leftovers(parent, &prefix)?;
    Ok(place)
}

/// Waits until no other process holds the lock of that name, and holds it until dropped.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock(name: &str) -> Result<File> {
    lock_in(&folder()?, name)
}

fn lock_in(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(format!("{name}.lock"));
    let parent = path.parent().unwrap_or(cache);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            step::say(format_args!("waiting for another process that sets up {name}"));
        }
        Err(TryLockError::Error(_)) => {} // lock() says it again, with the reason
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes what interrupted set-ups have left. Only under the entry's lock.
fn remove_leftovers(parent: &Path, prefix: &str) -> Result<()> {
    for found in fs::read_dir(parent)? {
        let found = found?;
        if found.file_name().to_string_lossy().starts_with(prefix) {
            let path = found.path();
            // They cost room, and nothing else.
            if let Err(error) = fs::remove_dir_all(&path) {
                step::say(format_args!("cannot remove {}: {error}", path.display()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::bail;

    use super::*;

    fn whole(entry: &Path) -> bool {
        entry.join("whole").exists()
    }

    fn write_whole(new: &Path) -> Result<()> {
        Ok(fs::write(new.join("whole"), "")?)
    }

    #[test]
    fn the_folder_follows_the_variables_in_order() {
        for (variables, expected) in [
            (&[("VFIO_EARLY_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")][..], "/a"),
            (&[("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], "/b/vfio-early"),
            (&[("VFIO_EARLY_CACHE", ""), ("HOME", "/c")], "/c/.cache/vfio-early"),
        ] {
            let set = |name: &str| {
                variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into())
            };
            assert_eq!(folder_from(set).unwrap(), Path::new(expected), "{variables:?}");
        }
        folder_from(|_| None).unwrap_err();
    }

    #[test]
    fn an_entry_is_made_once() {
        let cache = tempfile::tempdir().unwrap();
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    entry_in(cache.path(), "kernels/6.1", whole, |new| {
                        made.fetch_add(1, Ordering::Relaxed);
                        write_whole(new)
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_set_up_that_failed_or_was_killed_is_redone() {
        let cache = tempfile::tempdir().unwrap();
        entry_in(cache.path(), "a", whole, |_| bail!("no network")).unwrap_err();
        assert!(!cache.path().join("a").exists());

        // What a killed process leaves, and an entry of an older layout.
        fs::create_dir_all(cache.path().join(".a.new-123/half")).unwrap();
        fs::create_dir_all(cache.path().join("a/old")).unwrap();
        let entry = entry_in(cache.path(), "a", whole, write_whole).unwrap();
        assert!(whole(&entry) && !entry.join("old").exists());
        assert!(!cache.path().join(".a.new-123").exists());
    }
}
