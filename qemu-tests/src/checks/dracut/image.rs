//! The units, or a hook, in a Debian whose own dracut makes the initrd.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::check::real_root::RECORD;
use crate::machine::distro::{Debian, File, Recipe, Suite};
use crate::supplies::binary;
use crate::supplies::kernels::Kernel;

const MAKE_IMAGES: &str = include_str!("../../guest/dracut/make-images");

/// What observes in the initrd: path, content.
pub(crate) const HARNESS: &[(&str, &str)] = &[
    (
        "usr/lib/dracut/modules.d/91harness/module-setup.sh",
        include_str!("../../guest/dracut/module-setup.sh"),
    ),
    ("usr/lib/dracut/modules.d/91harness/before.sh", include_str!("../../guest/dracut/before.sh")),
    (
        "usr/lib/dracut/modules.d/91harness/claimed.sh",
        include_str!("../../guest/dracut/claimed.sh"),
    ),
    ("usr/lib/dracut/modules.d/91harness/after.sh", include_str!("../../guest/dracut/after.sh")),
    (
        "usr/lib/dracut/modules.d/91harness/emergency.sh",
        include_str!("../../guest/dracut/emergency.sh"),
    ),
    (
        "usr/lib/systemd/system/vfio-early-claim.service.d/harness.conf",
        include_str!("../../guest/systemd/claim.conf"),
    ),
    (
        "usr/lib/systemd/system/vfio-early.service.d/harness.conf",
        include_str!("../../guest/systemd/bind.conf"),
    ),
    ("usr/lib/harness/user", include_str!("../../guest/systemd/user")),
    (
        "usr/lib/systemd/system/harness-emergency.service",
        include_str!("../../guest/systemd/harness-emergency.service"),
    ),
];

/// Whether systemd is in the initrd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Init {
    /// It is the first process there.
    Systemd,
    /// A shell script of dracut's is.
    Shell,
}

/// A unit of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Unit {
    /// Such as `vfio-early.service`.
    pub name: String,
    /// The file's text.
    pub text: String,
}

impl Unit {
    /// The program that it runs, as an absolute path.
    fn program(&self) -> Option<&str> {
        let line = self.text.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
        line.trim_start_matches('-').split_whitespace().next()
    }
}

/// The units in `folder`, by name.
///
/// # Errors
/// When there are none, or one cannot be read.
pub(crate) fn units(folder: &Path) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for found in fs::read_dir(folder).with_context(|| format!("no units: {}", folder.display()))? {
        let path = found?.path();
        if path.extension() == Some(OsStr::new("service")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            units.push(Unit { name, text });
        }
    }
    units.sort_by(|one, other| one.name.cmp(&other.name));
    anyhow::ensure!(!units.is_empty(), "no units: {} has none", folder.display());
    Ok(units)
}

/// Ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Made by dracut.
    pub initrd: PathBuf,
    /// An ext4 file system; to be used as a snapshot only.
    pub root: PathBuf,
    /// What `systemd-analyze verify` says of the units.
    pub verified: String,
    /// What it says of a unit whose ordering is a cycle.
    pub verified_cycle: String,
    /// Paths of the files in the initrd, one a line, and of those in one that dracut makes for the
    /// machine that it runs on (`--hostonly`).
    pub files: [String; 2],
}

/// Initrd and root file system for that kernel with that program and those units, out of the Debian
/// of that kernel.
///
/// # Errors
/// Those of [`Recipe::set_up`].
pub(crate) fn set_up(kernel: &Kernel, program: &Path, units: &[Unit], init: Init) -> Result<Image> {
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    let omit = if init == Init::Systemd { "" } else { "systemd" };
    let recipe = Recipe {
        name: if init == Init::Systemd { "systemd" } else { "dracut" },
        debian: Debian::Small(if kernel.line == "6.12" { Suite::Trixie } else { Suite::Bookworm }),
        kernel,
        files: files(program, units)?,
        script: MAKE_IMAGES,
        arguments: vec![names.join(" "), omit.to_owned()],
    };
    let entry = recipe.set_up()?;
    let text = |name| {
        let path = entry.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Image {
        verified: text("verify.txt")?,
        verified_cycle: text("verify-cycle.txt")?,
        files: [text("initrd.files")?, text("hostonly.files")?],
        initrd: entry.join("initrd"),
        root: entry.join("root.ext4"),
    })
}

/// Our dracut module.
fn module() -> Result<Vec<File>> {
    let folder = binary::workspace().join("initrd/dracut/90vfio-early");
    let read = || {
        fs::read_dir(&folder)?
            .map(|found| {
                let path = found?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let place = format!("usr/lib/dracut/modules.d/90vfio-early/{name}");
                Ok(File::program(place, fs::read(&path)?))
            })
            .collect::<io::Result<Vec<File>>>()
    };
    let mut files = read().with_context(|| format!("cannot read {}", folder.display()))?;
    files.sort();
    Ok(files)
}

/// systemd's link to the program, of the real root; dracut's module makes that of the initrd.
const GENERATOR: &str = "usr/lib/systemd/system-generators/vfio-early-generator";

/// The program where the units look for it, the units, the dracut modules, the harness.
fn files(program: &Path, units: &[Unit]) -> Result<Vec<File>> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut files: Vec<File> =
        HARNESS.iter().map(|(path, content)| File::text(*path, *content)).collect();
    files.extend(module()?);
    files.push(File::text("etc/vfio-early/keep", RECORD));
    files.push(File::Link { path: GENERATOR.to_owned(), target: "/usr/bin/vfio-early".to_owned() });
    let mut places = BTreeSet::new();
    for unit in units {
        files.push(File::text(format!("usr/lib/systemd/system/{}", unit.name), &*unit.text));
        let place = unit.program().with_context(|| format!("{} runs nothing", unit.name))?;
        places.insert(place);
    }
    let usual = "/usr/bin/vfio-early";
    if let Some(place) = places.first()
        && !places.contains(usual)
    {
        files.push(File::Link { path: usual.to_owned(), target: (*place).to_owned() });
    }
    files.extend(places.into_iter().map(|place| File::program(place, bytes.clone())));
    let initrds = binary::initrds(program);
    let bytes = fs::read(&initrds).with_context(|| format!("cannot read {}", initrds.display()))?;
    files.push(File::program("usr/lib/vfio-early/vfio-early-initrd", bytes));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_unit_is_where_its_first_line_says() {
        for (text, expected) in [
            ("[Service]\nExecStart=/usr/bin/vfio-early bind\n", Some("/usr/bin/vfio-early")),
            ("ExecStart=-/nix/store/a/bin/vfio-early bind", Some("/nix/store/a/bin/vfio-early")),
            ("[Service]\n", None),
        ] {
            let unit = Unit { name: String::new(), text: text.to_owned() };
            assert_eq!(unit.program(), expected, "{text}");
        }
    }

    #[test]
    fn units_of_this_tree_are_found_and_name_their_program() {
        let units = units(&binary::workspace().join("initrd/systemd")).unwrap();
        assert!(units.iter().any(|unit| unit.name == "vfio-early.service"), "{units:?}");
        assert!(units.iter().all(|unit| unit.program() == Some("/usr/bin/vfio-early")));
    }
}
