//! A Debian with the project's Debian package, whose own initramfs-tools makes the initrd.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::check::real_root::RECORD;
use crate::machine::distro::{File, Recipe, Suite};
use crate::supplies::kernels::Kernel;
use crate::supplies::package;

const MAKE_IMAGES: &str = include_str!("../../guest/initramfs-tools/make-images");

/// What observes in the initrd, below `usr/share/initramfs-tools`.
const HARNESS: &[(&str, &str)] = &[
    ("hooks/harness", include_str!("../../guest/initramfs-tools/hook")),
    ("scripts/init-top/00-harness", include_str!("../../guest/initramfs-tools/before")),
    ("scripts/init-top/01-harness", include_str!("../../guest/initramfs-tools/after")),
    ("scripts/local-top/harness", include_str!("../../guest/initramfs-tools/passphrase")),
    ("scripts/panic/harness", include_str!("../../guest/initramfs-tools/panic")),
];

/// For ext4, for an encrypted disk, for a keyboard that the kernel has no driver for built in, and for
/// a display of the machine that makes the initrd.
const MODULES: &[&str] = &[
    "crc32c_generic",
    "dm_crypt",
    "xts",
    "ecb",
    "algif_skcipher",
    "usbhid",
    "hid_generic",
    "cirrus",
];

/// An option that has to come through to its module.
const OPTIONS: &str = "options vfio_iommu_type1 allow_unsafe_interrupts=1\n";

/// Opens the encrypted disk.
pub(super) const PASSPHRASE: &str = "opensesame";

/// Ready to boot, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// Made by the trigger of the package.
    pub initrd: PathBuf,
    /// An ext4 file system; to be used as a snapshot only.
    pub root: PathBuf,
    /// The initrd for [`Image::encrypted`], in bookworm.
    pub initrd_encrypted: PathBuf,
    /// The same root file system in the volume `host/root` of LVM on an encrypted disk.
    pub encrypted: PathBuf,
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
    /// The order of the scripts in `init-top`.
    pub order: String,
}

/// Initrd and root file system of that Debian, for that kernel, with the package of this tree.
///
/// # Errors
/// Those of [`Recipe::set_up`], and when the package cannot be made.
pub(super) fn set_up(suite: Suite, kernel: &Kernel) -> Result<Image> {
    let package = package::build()?;
    let package =
        fs::read(&package).with_context(|| format!("cannot read {}", package.display()))?;
    let mut files = vec![
        File::text("etc/modprobe.d/harness.conf", OPTIONS),
        File::text("etc/vfio-early/keep", RECORD),
        File::program("vfio-early.deb", package),
    ];
    files.extend(HARNESS.iter().map(|(path, content)| {
        File::program(format!("usr/share/initramfs-tools/{path}"), *content)
    }));
    let is_encrypted = suite == Suite::Bookworm;
    let recipe = Recipe {
        name: "initramfs-tools",
        suite,
        kernel,
        modules: MODULES,
        files,
        script: MAKE_IMAGES,
        arguments: vec![if is_encrypted { PASSPHRASE } else { "" }.to_owned()],
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
        initrd: entry.join("initrd"),
        root: entry.join("root.ext4"),
        initrd_encrypted: entry.join("initrd-encrypted"),
        encrypted: entry.join("encrypted"),
        before: files("before")?,
        installed: files("installed")?,
        purged: files("purged")?,
    })
}
