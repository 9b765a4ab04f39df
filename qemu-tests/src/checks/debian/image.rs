//! The package in a fresh Debian, whose own generator makes the initrd.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::system::{Generator, System};
use crate::check::real_root::RECORD;
use crate::checks::dracut::image::HARNESS as DRACUT;
use crate::machine::distro::{File, Recipe};
use crate::supplies::kernels::Kernel;
use crate::supplies::package;

const MAKE_IMAGES: &str = include_str!("../../guest/debian/make-images");

/// What observes in the initrd, in each generator's folder.
const INITRAMFS_TOOLS: &[(&str, &str)] = &[
    ("hooks/harness", include_str!("../../guest/initramfs-tools/hook")),
    ("scripts/init-top/00-harness", include_str!("../../guest/initramfs-tools/before")),
    ("scripts/init-top/01-harness", include_str!("../../guest/initramfs-tools/claimed")),
    ("scripts/init-premount/01-harness", include_str!("../../guest/initramfs-tools/after")),
    ("scripts/local-top/harness", include_str!("../../guest/initramfs-tools/passphrase")),
    ("scripts/panic/harness", include_str!("../../guest/initramfs-tools/panic")),
];

/// What observes, and the drivers of the machine that boots: by its settings the dracut of Debian sid
/// takes in what the machine needs that makes the initrd, and that is another one here.
const DRACUT_CONFIGURATION: &str = "add_dracutmodules+=\" harness \"\n\
                                    add_drivers+=\" virtio_blk virtio_pci ext4 \"\n";

/// An option that has to come through to its module.
const OPTIONS: &str = "options vfio_iommu_type1 allow_unsafe_interrupts=1\n";

/// Where the root file system is, for the kernel's command line.
pub(super) const ROOT: &str = "root=/dev/vda rootfstype=ext4 rw";

/// `AppArmor` compiles its profiles at the first boot: in an emulated machine that is half of the boot.
pub(super) const PROFILES: &str = "apparmor=0";

/// Opens the encrypted disk.
pub(super) const PASSPHRASE: &str = "opensesame";

/// Ready to boot, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// That of its kernel package.
    pub kernel: Kernel,
    /// Made by the trigger of the package.
    pub initrd: PathBuf,
    /// An ext4 file system; to be used as a snapshot only.
    pub root: PathBuf,
    /// The initrd for [`Image::encrypted`], where the system has one.
    pub initrd_encrypted: PathBuf,
    /// The same root file system in the volume `host/root` of LVM on an encrypted disk.
    pub encrypted: PathBuf,
    /// A unified kernel image with that initrd, where the system boots one.
    pub unified: Option<PathBuf>,
    /// What there was before the package, with it, and after it was purged.
    pub before: Files,
    /// As `before`.
    pub installed: Files,
    /// As `before`.
    pub purged: Files,
}

/// Lines about files: their type, permissions, owner and link; their checksum.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Of the root.
    pub root: String,
    /// Of its initrd.
    pub initrd: String,
    /// The order of the scripts in `init-top`; empty where the generator has none.
    pub order: String,
}

/// Initrd and root file system of that system, with the package of this tree.
///
/// # Errors
/// Those of [`Recipe::set_up`], and when the package cannot be made.
pub(super) fn set_up(system: &System, kernel: &Kernel) -> Result<Image> {
    let package = package::build()?;
    let package =
        fs::read(&package).with_context(|| format!("cannot read {}", package.display()))?;
    let mut files = vec![
        File::text("etc/modprobe.d/harness.conf", OPTIONS),
        File::text("etc/vfio-early/keep", RECORD),
        File::program("vfio-early.deb", package),
    ];
    let generator = match system.generator {
        Generator::InitramfsTools => {
            files.extend(INITRAMFS_TOOLS.iter().map(|(path, content)| {
                File::program(format!("usr/share/initramfs-tools/{path}"), *content)
            }));
            "initramfs-tools"
        }
        Generator::Dracut => {
            files.extend(DRACUT.iter().map(|(path, content)| File::text(*path, *content)));
            files.push(File::text("etc/dracut.conf.d/harness.conf", DRACUT_CONFIGURATION));
            "dracut"
        }
    };
    if let Some(command_line) = system.unified {
        files.push(File::text("etc/kernel/install.conf", "layout=uki\nBOOT_ROOT=/boot/efi\n"));
        files.push(File::text("etc/kernel/cmdline", format!("{ROOT} {command_line}\n")));
    }
    let passphrase = if system.is_encrypted() { PASSPHRASE } else { "" };
    let recipe = Recipe {
        // Of the whole ones few are kept, and those of the small Debians must not count for them.
        name: match (system.unified, system.generator) {
            (Some(_), _) => "fresh-unified",
            (None, Generator::InitramfsTools) => "fresh-initramfs-tools",
            (None, Generator::Dracut) => "fresh-dracut",
        },
        debian: system.debian,
        kernel,
        files,
        script: MAKE_IMAGES,
        arguments: [generator, passphrase].map(str::to_owned).to_vec(),
    };
    let entry = recipe.set_up()?;
    let files = |name: &str| -> Result<Files> {
        let text = |kind: &str| {
            let path = entry.join(format!("{name}.{kind}"));
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Files { root: text("root")?, initrd: text("initrd")?, order: text("order")? })
    };
    Ok(Image {
        kernel: recipe.own_kernel(&entry)?,
        initrd: entry.join("initrd"),
        root: entry.join("root.ext4"),
        initrd_encrypted: entry.join("initrd-encrypted"),
        encrypted: entry.join("encrypted"),
        unified: system.unified.map(|_| entry.join("unified")),
        before: files("before")?,
        installed: files("installed")?,
        purged: files("purged")?,
    })
}
