//! Real boot loaders: the medium that a machine starts from, with a command line as people write it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::supplies::{boot_loaders, step};

/// What starts the kernel. What is written for it comes after the harness's own parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loader {
    /// GRUB of this machine, with the configuration that its `grub-mkconfig` makes; lines of
    /// `/etc/default/grub`.
    Grub(&'static str),
    /// Debian 13's systemd-boot; the end of the line `options` of an entry.
    SystemdBoot(&'static str),
    /// Debian 13's rEFInd; the end of the options in `refind_linux.conf`.
    Refind(&'static str),
    /// A unified kernel image of Debian 13's ukify; the end of the file for `--cmdline=@FILE`.
    Uki(&'static str),
    /// The same, with that as an add-on, which has a command line alone.
    UkiWithAddOn(&'static str),
}

/// What is started.
pub(super) struct Started<'s> {
    pub kernel: &'s Path,
    pub initrd: &'s Path,
    /// The harness's own parameters.
    pub own: &'s str,
}

/// When a medium was made, which is its name for GRUB: `grub-probe --target=fs_uuid`, and as xorriso
/// takes it.
const UUID: [&str; 2] = ["2026-01-01-00-00-00-00", "2026010100000000"];

/// What grub-probe says of a host whose `/boot` is on that medium: the tests' own is on none.
const PROBE: &str = "#!/bin/sh\ncase \"$*\" in\n*target=device*) echo /dev/sr0 ;;\n\
                     *target=fs_uuid*) echo @UUID@ ;;\n*target=fs*) echo iso9660 ;;\nesac\n";

impl Loader {
    /// Makes the medium in that folder.
    ///
    /// # Errors
    /// When a loader or its tools cannot be had, or they fail.
    pub(super) fn medium(&self, started: &Started<'_>, folder: &Path) -> Result<PathBuf> {
        let folder = folder.join("medium");
        fs::create_dir(&folder)?;
        match self {
            Self::Grub(lines) => grub(started, lines, &folder),
            Self::SystemdBoot(text) => systemd_boot(started, text, &folder),
            Self::Refind(text) => refind(started, text, &folder),
            Self::Uki(text) => uki(started, &format!("{} {text}\n", started.own), None, &folder),
            Self::UkiWithAddOn(text) => uki(started, started.own, Some(text), &folder),
        }
    }
}

fn grub(started: &Started<'_>, lines: &str, folder: &Path) -> Result<PathBuf> {
    boot_loaders::ensure_grub()?;
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("boot/grub"))?;
    fs::create_dir_all(folder.join("etc/default"))?;
    fs::create_dir_all(folder.join("etc/grub.d"))?;
    fs::copy(started.kernel, tree.join("boot/vmlinuz-1"))?;
    fs::copy(started.initrd, tree.join("boot/initrd.img-1"))?;
    let default = format!(
        "GRUB_TIMEOUT=0\nGRUB_TERMINAL=console\nGRUB_GFXPAYLOAD_LINUX=text\n\
         GRUB_DISABLE_SUBMENU=y\nGRUB_CMDLINE_LINUX=\"{}\"\n{lines}\n",
        started.own
    );
    fs::write(folder.join("etc/default/grub"), default)?;

    let program = |name: &str, text: String| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let probe = program("grub-probe", PROBE.replace("@UUID@", UUID[0]))?;
    let relative = program("grub-mkrelpath", "#!/bin/sh\necho /boot\n".to_owned())?;
    // GRUB's own scripts, which are told of other folders and of that host alone.
    let of_grub = |path: &str, from: &str, to: &str| -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        ensure!(text.contains(from), "{path} has no {from}: GRUB has changed");
        Ok(text.replace(from, to))
    };
    let boot = format!("{}/boot/", tree.display());
    let linux = of_grub("/etc/grub.d/10_linux", "/boot/", &boot)?;
    program("etc/grub.d/10_linux", linux)?;
    program("etc/grub.d/00_header", fs::read_to_string("/etc/grub.d/00_header")?)?;
    let etc = format!("sysconfdir=\"{}/etc\"", folder.display());
    let script = of_grub("/usr/sbin/grub-mkconfig", "sysconfdir=\"/etc\"", &etc)?;
    let own_probe = format!("grub_probe=\"{}\"", probe.display());
    let script = script.replace("grub_probe=\"${sbindir}/grub-probe\"", &own_probe);
    let script = program("grub-mkconfig", script)?;
    let mut make = Command::new(script);
    // It wants to be root, who alone can read a host's disks.
    make.env("EUID", "0");
    make.env("grub_probe", &probe).env("grub_mkrelpath", relative).env("LC_ALL", "C.UTF-8");
    step::run(make.arg("-o").arg(tree.join("boot/grub/grub.cfg")))?;

    let medium = folder.join("grub.iso");
    let mut make = Command::new("grub-mkrescue");
    make.arg("-o").arg(&medium).arg(&tree).args(["--", "-volume_date", "uuid", UUID[1]]);
    step::run(&mut make)?;
    Ok(medium)
}

fn systemd_boot(started: &Started<'_>, text: &str, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("EFI/BOOT"))?;
    fs::create_dir_all(tree.join("loader/entries"))?;
    let loader = boot_loaders::of_systemd()?.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi");
    fs::copy(loader, tree.join("EFI/BOOT/BOOTX64.EFI"))?;
    fs::copy(started.kernel, tree.join("vmlinuz"))?;
    fs::copy(started.initrd, tree.join("initrd"))?;
    fs::write(tree.join("loader/loader.conf"), "timeout 0\ndefault test\n")?;
    let entry =
        format!("title test\nlinux /vmlinuz\ninitrd /initrd\noptions {} {text}\n", started.own);
    fs::write(tree.join("loader/entries/test.conf"), entry)?;
    system_partition(&tree, folder)
}

fn refind(started: &Started<'_>, text: &str, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("EFI/BOOT"))?;
    let loader = boot_loaders::refind()?.join("usr/share/refind/refind/refind_x64.efi");
    fs::copy(loader, tree.join("EFI/BOOT/BOOTX64.EFI"))?;
    fs::copy(started.kernel, tree.join("vmlinuz-1"))?;
    fs::copy(started.initrd, tree.join("initrd.img-1"))?;
    fs::write(tree.join("EFI/BOOT/refind.conf"), "timeout -1\ntextonly\nscanfor internal\n")?;
    let entry = format!("\"test\" \"{} {text}\"\n", started.own);
    fs::write(tree.join("refind_linux.conf"), entry)?;
    system_partition(&tree, folder)
}

fn uki(
    started: &Started<'_>,
    command_line: &str,
    add_on: Option<&str>,
    folder: &Path,
) -> Result<PathBuf> {
    let systemd = boot_loaders::of_systemd()?;
    let stubs = systemd.join("usr/lib/systemd/boot/efi");
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("EFI/BOOT/BOOTX64.EFI.extra.d"))?;
    let build = |stub: &str, text: &str, output: &str, more: &[(&str, &Path)]| -> Result<()> {
        let file = folder.join("cmdline");
        fs::write(&file, text)?;
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        // Debian's own, which has Debian's modules.
        let mut ukify = Command::new("/usr/bin/python3");
        ukify.arg(systemd.join("usr/lib/systemd/ukify")).arg("build");
        ukify.arg(format!("--cmdline=@{}", file.display()));
        ukify.args(more.iter().map(|(name, path)| option(name, path)));
        ukify.arg(option("stub", &stubs.join(stub))).arg(option("output", &tree.join(output)));
        step::run(&mut ukify).map(drop)
    };
    let of_image = [("linux", started.kernel), ("initrd", started.initrd)];
    build("linuxx64.efi.stub", command_line, "EFI/BOOT/BOOTX64.EFI", &of_image)?;
    if let Some(text) = add_on {
        let output = "EFI/BOOT/BOOTX64.EFI.extra.d/vfio.addon.efi";
        build("addonx64.efi.stub", text, output, &[])?;
    }
    system_partition(&tree, folder)
}

/// An EFI system partition without a table of partitions around it.
fn system_partition(tree: &Path, folder: &Path) -> Result<PathBuf> {
    let medium = folder.join("esp");
    // In KiB; 64 MiB hold a kernel twice, and an initrd.
    let size = "131072";
    step::run(Command::new("/sbin/mkfs.vfat").args(["-F", "32", "-C"]).arg(&medium).arg(size))?;
    let mut copy = Command::new("mcopy");
    copy.arg("-s").arg("-i").arg(&medium);
    for entry in fs::read_dir(tree)? {
        copy.arg(entry?.path());
    }
    step::run(copy.arg("::/"))?;
    Ok(medium)
}
