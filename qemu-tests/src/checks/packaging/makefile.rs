//! `make install` and `make uninstall`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::files::{
    ALWAYS, DRACUT, File, GENERATOR, INITRAMFS_TOOLS, MKINITCPIO, UNITS, differences,
};
use crate::supplies::binary::workspace;
use crate::supplies::{libkmod, release, step};

/// `make` with those words, into that tree.
pub(super) fn make(words: &[&str], tree: &Path) -> Command {
    release::make(words, workspace(), tree)
}

fn everything() -> Vec<&'static [File]> {
    [&ALWAYS[..], &[INITRAMFS_TOOLS, DRACUT, MKINITCPIO]].concat()
}

pub(super) fn all() -> Result<Vec<String>> {
    let tree = tempfile::tempdir()?;
    // Of another program's files none may go.
    let foreign = tree.path().join("usr/lib/dracut/modules.d/99base/module-setup.sh");
    fs::create_dir_all(foreign.parent().context("a file lies in a folder")?)?;
    fs::write(&foreign, "")?;
    fs::set_permissions(&foreign, PermissionsExt::from_mode(0o644))?;
    let foreign: &[File] = &[("644", "usr/lib/dracut/modules.d/99base/module-setup.sh")];

    step::run(&mut make(&["install"], tree.path()))?;
    let mut complaints = differences(tree.path(), &[everything(), vec![foreign]].concat())?;
    // Again, over what is there.
    step::run(&mut make(&["install"], tree.path()))?;
    step::run(&mut make(&["uninstall"], tree.path()))?;
    complaints.extend(differences(tree.path(), &[foreign])?);
    let module = tree.path().join("usr/lib/dracut/modules.d/90vfio-early");
    complaints.extend(module.exists().then(|| "the module's folder is left".to_owned()));
    Ok(complaints)
}

pub(super) fn one_generator() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (words, expected) in [
        (&["install", "INITRD=initramfs-tools"][..], [&ALWAYS[..], &[INITRAMFS_TOOLS]].concat()),
        (&["install", "INITRD=dracut"], [&ALWAYS[..], &[DRACUT]].concat()),
        (&["install", "INITRD="], ALWAYS.to_vec()),
        (&["install-initramfs-tools"], vec![INITRAMFS_TOOLS]),
        (&["install-dracut"], vec![DRACUT, UNITS]),
        (&["install-mkinitcpio"], vec![MKINITCPIO, UNITS]),
        (&["install-systemd"], vec![UNITS]),
    ] {
        let tree = tempfile::tempdir()?;
        step::run(&mut make(words, tree.path()))?;
        let found = differences(tree.path(), &expected)?;
        complaints.extend(found.iter().map(|file| format!("make {}: {file}", words.join(" "))));
    }
    Ok(complaints)
}

pub(super) fn another_prefix() -> Result<Vec<String>> {
    let tree = tempfile::tempdir()?;
    step::run(&mut make(&["install", "PREFIX=/opt/it"], tree.path()))?;
    let text = |place: &str| {
        let file = tree.path().join(place);
        fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))
    };
    let mut complaints = Vec::new();
    let files = [UNITS, INITRAMFS_TOOLS, DRACUT, MKINITCPIO].concat();
    for (_, place) in files.into_iter().filter(|(mode, _)| *mode != "link") {
        if text(place)?.contains("/usr/bin/vfio-early") {
            complaints.push(format!("{place} names /usr/bin/vfio-early"));
        }
    }
    let unit = text("usr/lib/systemd/system/vfio-early.service")?;
    if !unit.contains("\nExecStart=/opt/it/bin/vfio-early bind\n") {
        complaints.push(format!("the unit does not run the program:\n{unit}"));
    }
    let link = fs::read_link(tree.path().join(GENERATOR))?;
    if link != Path::new("../../../../opt/it/bin/vfio-early") {
        complaints.push(format!("the generator is {}", link.display()));
    }
    if !tree.path().join("opt/it/bin/vfio-early").exists() {
        complaints.push("the program is not below the prefix".to_owned());
    }
    step::run(&mut make(&["uninstall", "PREFIX=/opt/it"], tree.path()))?;
    complaints.extend(differences(tree.path(), &[])?);
    Ok(complaints)
}

/// Other systems have no apt and no dpkg.
pub(super) fn given_libkmod() -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    for name in ["apt-get", "apt-cache", "dpkg", "dpkg-query"] {
        let file = folder.path().join(name);
        fs::write(&file, "#!/bin/sh\necho \"$0 was run\" >&2\nexit 1\n")?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    }
    let old = std::env::var("PATH").context("no PATH")?;
    let tree = tempfile::tempdir()?;
    let built = workspace().join("target/make/vfio-early");
    if built.exists() {
        fs::remove_file(&built)?;
    }
    let mut command = make(&["install"], tree.path());
    command.env("PATH", format!("{}:{old}", folder.path().display()));
    command.env(libkmod::VARIABLE, libkmod::set_up()?);
    step::run(&mut command)?;
    differences(tree.path(), &everything())
}
