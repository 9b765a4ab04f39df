//! Kernel modules through libkmod.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kmod::{Context, Module};
use nix::errno::Errno;

use crate::cmdline;

/// Where NixOS has the modules of the running system; its initrd and all others have them in
/// `/lib/modules`, where libkmod looks by itself.
const NIXOS: &str = "/run/booted-system/kernel-modules/lib/modules";

/// The modules of the running kernel.
#[derive(Debug)]
pub struct Modules(Context);

impl Modules {
    /// Reads modprobe.d and opens the module indexes; `None` (and a line in the log) where
    /// libkmod cannot.
    #[must_use]
    pub fn open() -> Option<Self> {
        let release = nix::sys::utsname::uname().ok()?.release().to_owned();
        let nixos = Path::new(NIXOS).join(&release);
        let context = if !Path::new("/lib/modules").join(&release).exists() && nixos.exists() {
            Context::new_with_dirname(&nixos)
        } else {
            Context::new()
        };
        context.inspect_err(|why| log::error!("libkmod: {why}")).ok().map(Modules)
    }

    fn lookup(&self, name: &str) -> Option<Module> {
        self.0.module_new_from_lookup(name).ok()?.next()
    }

    /// The module and all that it needs, dependencies first, without what is built in; `None`
    /// where there is no such module.
    #[must_use]
    pub fn with_dependencies(&self, name: &str) -> Option<Vec<String>> {
        let module = self.lookup(name)?;
        let mut modules: Vec<_> = module.dependencies().collect();
        modules.push(module);
        // What is built in has no file, and what is loaded has a folder.
        modules.retain(|module| module.path().is_some() && !is_loaded(module));
        Some(modules.iter().map(|module| module.name().to_string_lossy().into_owned()).collect())
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
            Err(_) => Err(Errno::EINVAL),
        }
    }
}

/// The kernel would check and unpack the module before it says that it is there.
fn is_loaded(module: &Module) -> bool {
    Path::new("/sys/module").join(module.name()).exists()
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
