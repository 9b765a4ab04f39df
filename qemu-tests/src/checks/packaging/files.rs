//! The files of an installation, and how a folder differs from them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Permissions and place.
pub(super) type File = (&'static str, &'static str);

pub(super) const PROGRAM: &[File] =
    &[("755", "usr/bin/vfio-early"), ("755", "usr/lib/vfio-early/vfio-early-initrd")];
pub(super) const MANUAL: &[File] = &[
    ("644", "usr/share/man/man5/vfio-early.report.5"),
    ("644", "usr/share/man/man7/vfio-early.cmdline.7"),
    ("644", "usr/share/man/man8/vfio-early.8"),
];
pub(super) const COMPLETIONS: &[File] = &[
    ("644", "usr/share/bash-completion/completions/vfio-early"),
    ("644", "usr/share/fish/vendor_completions.d/vfio-early.fish"),
    ("644", "usr/share/zsh/site-functions/_vfio-early"),
];
pub(super) const UNITS: &[File] = &[
    ("644", "usr/lib/systemd/system/vfio-early-finish.service"),
    ("644", "usr/lib/systemd/system/vfio-early-claim.service"),
    ("644", "usr/lib/systemd/system/vfio-early-strict.service"),
    ("644", "usr/lib/systemd/system/vfio-early.service"),
    ("link", GENERATOR),
];
/// By this name systemd asks the program which of the units to start.
pub(super) const GENERATOR: &str = "usr/lib/systemd/system-generators/vfio-early-generator";
/// What every installation has, whatever makes its initrd.
pub(super) const ALWAYS: [&[File]; 4] = [PROGRAM, MANUAL, COMPLETIONS, UNITS];
pub(super) const INITRAMFS_TOOLS: &[File] = &[
    ("755", "usr/share/initramfs-tools/hooks/vfio-early"),
    ("755", "usr/share/initramfs-tools/scripts/init-premount/00-vfio-early-wait"),
    ("755", "usr/share/initramfs-tools/scripts/init-top/00-vfio-early"),
];
pub(super) const DRACUT: &[File] = &[
    ("755", "usr/lib/dracut/modules.d/90vfio-early/module-setup.sh"),
    ("755", "usr/lib/dracut/modules.d/90vfio-early/vfio-early-wait.sh"),
    ("755", "usr/lib/dracut/modules.d/90vfio-early/vfio-early.sh"),
];
pub(super) const MKINITCPIO: &[File] =
    &[("644", "usr/lib/initcpio/hooks/vfio-early"), ("644", "usr/lib/initcpio/install/vfio-early")];

/// How the files below that folder differ from these.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn differences(folder: &Path, expected: &[&[File]]) -> Result<Vec<String>> {
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
