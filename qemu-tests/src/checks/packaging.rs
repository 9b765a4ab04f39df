//! What `make install` and the packages put where, by the tools that make and check packages.

mod arch;
mod debian;
mod makefile;
mod rpm;
mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::commands::test::Outcome;
use crate::supplies::binary::workspace;
use crate::supplies::packages;

/// One check.
pub struct Check {
    /// A sentence behind `packaging: `.
    pub name: &'static str,
    check: fn() -> Result<Vec<String>>,
}

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        name: "packaging: make puts exactly these files, and takes them away",
        check: makefile::all,
    },
    Check {
        name: "packaging: make puts one generator's files alone",
        check: makefile::one_generator,
    },
    Check {
        name: "packaging: with another prefix the units and hooks name the program's place",
        check: makefile::another_prefix,
    },
    Check {
        name: "packaging: plain cargo builds with a given libkmod, and apt is not asked",
        check: makefile::given_libkmod,
    },
    Check { name: "packaging: the Debian package has exactly these files", check: debian::files },
    Check { name: "packaging: the Debian package's control files", check: debian::control },
    Check { name: "packaging: copyright names all that is linked in", check: debian::copyright },
    Check { name: "packaging: lintian", check: debian::lintian },
    Check { name: "packaging: the RPM by rpmbuild, and rpmlint", check: rpm::built },
    Check { name: "packaging: Arch's package by makepkg", check: arch::built },
    Check { name: "packaging: shellcheck", check: shell::scripts },
    Check { name: "packaging: one version everywhere", check: one_version },
];

impl Check {
    /// Runs it. What could not be run at all has failed.
    #[must_use]
    pub fn run(&self) -> Outcome {
        // All at once: each run of apt takes its time.
        let packages = [packages::PACKAGE, packages::PACKAGING].concat();
        let complaints = packages::ensure(&packages).and_then(|()| (self.check)());
        complaints.map(|complaints| Outcome::of(&complaints)).into()
    }
}

/// Permissions and place.
type File = (&'static str, &'static str);

const PROGRAM: &[File] = &[("755", "usr/bin/vfio-early")];
const MANUAL: &[File] = &[
    ("644", "usr/share/man/man5/vfio-early.report.5"),
    ("644", "usr/share/man/man7/vfio-early.cmdline.7"),
    ("644", "usr/share/man/man8/vfio-early.8"),
];
const COMPLETIONS: &[File] = &[
    ("644", "usr/share/bash-completion/completions/vfio-early"),
    ("644", "usr/share/fish/vendor_completions.d/vfio-early.fish"),
    ("644", "usr/share/zsh/site-functions/_vfio-early"),
];
const UNITS: &[File] = &[
    ("644", "usr/lib/systemd/system/vfio-early-finish.service"),
    ("644", "usr/lib/systemd/system/vfio-early-strict.service"),
    ("644", "usr/lib/systemd/system/vfio-early.service"),
];
/// Where no package manager enables units.
const ENABLED: &[File] =
    &[("link", "usr/lib/systemd/system/multi-user.target.wants/vfio-early-finish.service")];
/// What every installation has, whatever makes its initrd.
const ALWAYS: [&[File]; 4] = [PROGRAM, MANUAL, COMPLETIONS, UNITS];
const INITRAMFS_TOOLS: &[File] = &[
    ("755", "usr/share/initramfs-tools/hooks/vfio-early"),
    ("755", "usr/share/initramfs-tools/scripts/init-premount/00-vfio-early-strict"),
    ("755", "usr/share/initramfs-tools/scripts/init-top/00-vfio-early"),
];
const DRACUT: &[File] = &[
    ("755", "usr/lib/dracut/modules.d/90vfio-early/module-setup.sh"),
    ("755", "usr/lib/dracut/modules.d/90vfio-early/vfio-early-strict.sh"),
    ("755", "usr/lib/dracut/modules.d/90vfio-early/vfio-early.sh"),
];
const MKINITCPIO: &[File] =
    &[("644", "usr/lib/initcpio/hooks/vfio-early"), ("644", "usr/lib/initcpio/install/vfio-early")];

/// How the files below that folder differ from these.
///
/// # Errors
/// When the folder cannot be read.
fn differences(folder: &Path, expected: &[&[File]]) -> Result<Vec<String>> {
    let expected: BTreeSet<String> =
        expected.iter().copied().flatten().map(|(mode, place)| format!("{mode} {place}")).collect();
    let mut found = BTreeSet::new();
    list(folder, folder, &mut found)?;
    let lacks = expected.difference(&found).map(|file| format!("not there: {file}"));
    let more = found.difference(&expected).map(|file| format!("not expected: {file}"));
    Ok(lacks.chain(more).collect())
}

/// Permissions and place of each file below `folder`. Whether a manual page is compressed is the
/// packager's matter.
fn list(folder: &Path, root: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        let status = fs::symlink_metadata(&path)?;
        if status.is_dir() {
            list(&path, root, found)?;
            continue;
        }
        let mode = if status.is_symlink() {
            "link".to_owned()
        } else {
            format!("{:o}", status.permissions().mode() & 0o7777)
        };
        let place = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let place = match place.strip_suffix(".gz") {
            Some(page) if place.contains("/man/") => page.to_owned(),
            _ => place,
        };
        found.insert(format!("{mode} {place}"));
    }
    Ok(())
}

/// Each recipe says the version for itself.
fn one_version() -> Result<Vec<String>> {
    let version = env!("CARGO_PKG_VERSION");
    let mut complaints = Vec::new();
    for (file, line) in [
        ("packaging/debian/changelog", format!("vfio-early ({version}-1) ")),
        ("packaging/rpm/vfio-early.spec", format!("Version:        {version}\n")),
        (
            "packaging/rpm/vfio-early.spec",
            format!("%global kmod {}\n", crate::supplies::libkmod::VERSION),
        ),
        ("packaging/arch/PKGBUILD", format!("pkgver={version}\n")),
        ("packaging/arch/PKGBUILD", format!("_kmod={}\n", crate::supplies::libkmod::VERSION)),
    ] {
        let text = fs::read_to_string(workspace().join(file)).with_context(|| file.to_owned())?;
        if !text.contains(&line) {
            complaints.push(format!("{file} has no line {line:?}"));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_one_too_many_and_a_wrong_mode_are_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("usr/share/man/man8")).unwrap();
        for (name, mode) in
            [("usr/a", 0o644), ("usr/b", 0o600), ("usr/share/man/man8/p.8.gz", 0o644)]
        {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        let page = ("644", "usr/share/man/man8/p.8");
        let right = [page, ("644", "usr/a"), ("600", "usr/b")];
        assert!(differences(folder.path(), &[&right]).unwrap().is_empty());
        assert_eq!(
            differences(folder.path(), &[&[page, ("644", "usr/b"), ("644", "usr/c")]]).unwrap(),
            [
                "not there: 644 usr/b",
                "not there: 644 usr/c",
                "not expected: 600 usr/b",
                "not expected: 644 usr/a",
            ]
        );
    }
}
