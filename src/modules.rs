//! Kernel modules through libkmod.

pub mod index;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kmod::{Context, Module};
use nix::errno::Errno;

use crate::cmdline;
use crate::escape;
use crate::sysfs::{HostModule, Sysfs};
use crate::variant::{self, Variants};

/// Where NixOS has the modules of the running system; its initrd and all others have them in
/// `/lib/modules`, where libkmod looks by itself.
const NIXOS: &str = "run/booted-system/kernel-modules/lib/modules";

/// `__NEW_UTS_LEN` in `include/uapi/linux/utsname.h`.
const LONGEST_RELEASE: usize = 64;

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    context: Context,
    root: PathBuf,
}

/// A module that is to be inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its name.
    pub name: String,
    /// The modules that have to be there before it, whether they are or not.
    pub needs: Vec<String>,
}

/// Where a kernel has a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Nowhere.
    Absent,
    /// In the kernel itself.
    BuiltIn,
    /// In a file, with the modules that it needs.
    Module(Vec<String>),
}

impl Modules {
    /// Reads modprobe.d and opens the module indexes of the kernel that `root` is of; `None` (and
    /// a line in the log) where libkmod cannot.
    #[must_use]
    pub fn open(root: &Path) -> Option<Self> {
        let release = Sysfs::new(root).kernel_release()?;
        let is_name = Path::new(&release).file_name() == Some(OsStr::new(&release));
        if !is_name || release.len() > LONGEST_RELEASE || !release.is_ascii() {
            let release = escape::short(&release);
            log::error!("{release:?} is no kernel's release: its modules are not looked for");
            return None;
        }
        let folders = ["lib/modules", NIXOS].map(|folder| root.join(folder).join(&release));
        let folder = folders.iter().find(|folder| folder.exists()).unwrap_or(&folders[0]);
        let context = Context::new_with_dirname(folder);
        let context = context.inspect_err(|why| log::error!("libkmod: {why}")).ok()?;
        Some(Modules { context, root: root.to_owned() })
    }

    fn lookup(&self, name: &str) -> Option<Module> {
        self.context.module_new_from_lookup(name).ok()?.next()
    }

    /// As [`crate::kernel::Kernel::modules_for`].
    #[must_use]
    pub fn with_dependencies(&self, name: &str) -> Option<Vec<Needed>> {
        let module = self.lookup(name)?;
        let mut modules: Vec<_> = module.dependencies().collect();
        modules.push(module);
        // What is built in has no file, and what is loaded has a folder.
        modules.retain(|module| module.path().is_some() && !self.is_loaded(module));
        let name = |module: &Module| module.name().to_string_lossy().into_owned();
        let needed = |module: &Module| Needed {
            name: name(module),
            needs: module.dependencies().map(|module| name(&module)).collect(),
        };
        Some(modules.iter().map(needed).collect())
    }

    /// The kernel would check and unpack the module before it says that it is there.
    fn is_loaded(&self, module: &Module) -> bool {
        self.root.join("sys/module").join(module.name()).exists()
    }

    /// Where the module is, whether it is loaded or not.
    #[must_use]
    pub fn find(&self, name: &str) -> Whereabouts {
        let Some(module) = self.lookup(name) else { return Whereabouts::Absent };
        if module.path().is_none() {
            return Whereabouts::BuiltIn;
        }
        let needed = module.dependencies();
        let needed = needed.map(|module| module.name().to_string_lossy().into_owned());
        Whereabouts::Module(needed.collect())
    }

    /// As [`crate::kernel::Kernel::modules_for_alias`].
    #[must_use]
    pub fn for_alias(&self, modalias: &str) -> Vec<HostModule> {
        let Ok(modules) = self.context.module_new_from_lookup(modalias) else { return Vec::new() };
        // libkmod returns a module once for each of its aliases that fits.
        let mut names: Vec<String> = Vec::new();
        for module in modules {
            let name = module.name().to_string_lossy().into_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let blacklist = self.blacklist();
        let host_module =
            |name: String| HostModule { is_blacklisted: blacklist.contains(&name), name };
        names.into_iter().map(host_module).collect()
    }

    /// Names of modules that must not be loaded for an alias: [`blacklisted`] ones, and those of
    /// `modprobe.blacklist=`, `module_blacklist=`, dracut's `rd.driver.blacklist=` and
    /// initramfs-tools' `blacklist=` on the command line, which these two put into modprobe.d only
    /// later. The crate over libkmod does not hand libkmod's own list through.
    fn blacklist(&self) -> Vec<String> {
        let sysfs = Sysfs::new(&self.root);
        let mut names = Vec::new();
        sysfs.modprobe_commands(&mut |_, words| names.extend(blacklisted(words)));
        let text = sysfs.cmdline().unwrap_or_default();
        for (name, value) in cmdline::parameters(&text) {
            let is_blacklist = matches!(
                name,
                b"modprobe.blacklist" | b"module_blacklist" | b"rd.driver.blacklist" | b"blacklist"
            );
            if let Some(list) = value.filter(|_| is_blacklist) {
                let list = String::from_utf8_lossy(list).replace('-', "_");
                names.extend(list.split(',').map(str::to_owned));
            }
        }
        names
    }

    /// The variants of vfio-pci. Source: the index of `modules.alias`.
    #[must_use]
    pub fn variants(&self) -> Variants {
        let path = Path::new(&self.context.dirname()).join("modules.alias.bin");
        let file = Sysfs::new(&self.root).file(path);
        let aliases = file.map(|file| index::below(&file, variant::PREFIX)).unwrap_or_default();
        Variants::of(aliases)
    }

    /// As [`crate::kernel::Kernel::options_of`].
    #[must_use]
    pub fn options_of(&self, name: &str) -> String {
        let options = self.lookup(name).and_then(|module| Some(module.options()?.to_owned()));
        options.map(|options| options.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Inserts one module with its options from modprobe.d and the command line.
    ///
    /// # Errors
    /// The errno of `finit_module`; `ENOENT` also where there is no such module.
    pub fn insert(&self, name: &str) -> Result<(), Errno> {
        let module = self.lookup(name).ok_or(Errno::ENOENT)?;
        let options = module.options().map(|options| own_options(name, options.as_bytes()));
        // Not from the last call that failed: libkmod does not always set it.
        Errno::clear();
        match module.insert_module(0, &[options.as_deref().unwrap_or_default()]) {
            Ok(()) | Err(kmod::Error::InsertModule(kmod::Errno(libc::EEXIST))) => Ok(()),
            Err(kmod::Error::InsertModule(kmod::Errno(number))) => Err(Errno::from_raw(number)),
            // No call failed: libkmod did not come to ask the kernel, which is how it answers for a
            // file that it does not unpack (`kmod_file_load_contents()`).
            Err(kmod::Error::InsertModuleUnknown) => Err(Errno::ENOSYS),
            Err(_) => Err(Errno::EINVAL),
        }
    }
}

/// The module that a command of modprobe.d blacklists, or has a command for (`install nouveau
/// /bin/false`), which modprobe and udev run instead of loading it.
fn blacklisted(words: &[&str]) -> Option<String> {
    match words {
        ["blacklist", name, ..] | ["install", name, _, ..] => Some(name.replace('-', "_")),
        _ => None,
    }
}

/// The module's options less our own parameters, which libkmod takes for parameters of the
/// module `vfio`.
fn own_options(module: &str, options: &[u8]) -> String {
    let mut kept = String::new();
    for (name, value) in cmdline::parameters(options) {
        if module == "vfio" && cmdline::is_ours(name) {
            continue;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(&String::from_utf8_lossy(name));
        if let Some(value) = value {
            let value = String::from_utf8_lossy(value);
            let quote = if value.contains(char::is_whitespace) { "\"" } else { "" };
            kept.extend(["=", quote, &value, quote]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blacklisted_is_as_modprobe_reads_it() {
        for (command, expected) in [
            ("blacklist nouveau", Some("nouveau")),
            ("blacklist snd-hda-intel # sound", Some("snd_hda_intel")),
            ("# blacklist a", None),
            ("#blacklist b", None),
            ("install nouveau /bin/false", Some("nouveau")),
            ("install i915", None),
            ("install_x y z", None),
            ("remove a b", None),
            ("blacklist", None),
            ("options blacklist e", None),
            ("", None),
        ] {
            let words: Vec<_> = command.split_whitespace().collect();
            assert_eq!(blacklisted(&words).as_deref(), expected, "{command:?}");
        }
    }

    #[test]
    fn our_parameters_are_no_options_of_vfio() {
        for (module, options, expected) in [
            ("vfio", "", ""),
            ("vfio", "devs=01:00.0,02:00.0", ""),
            ("vfio", "devs=01:00.0 off strict=1 wait=3 console=keep driver=x debug", ""),
            ("vfio", "devs=1 enable_unsafe_noiommu_mode=1", "enable_unsafe_noiommu_mode=1"),
            ("vfio", "devs=\"01:00.0 02:00.0\" dyndbg=\"file a.c +p\"", "dyndbg=\"file a.c +p\""),
            ("vfio_pci", "ids=10de:1c03 disable_vga=1", "ids=10de:1c03 disable_vga=1"),
            ("vfio_pci", "debug off", "debug off"),
        ] {
            let kept = own_options(module, options.as_bytes());
            assert_eq!(kept, expected, "{module}: {options:?}");
        }
    }
}
