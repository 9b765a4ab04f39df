//! The archive with an install script.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::files::{
    ALWAYS, DRACUT, File, GENERATOR, INITRAMFS_TOOLS, MKINITCPIO, UNITS, differences,
};
use super::makefile::make;
use crate::supplies::binary::{self, workspace};
use crate::supplies::{package, release, step};

pub(super) fn installed_and_removed() -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    // Has the texts that go into it.
    package::build()?;
    step::run(&mut make(&["all"], folder.path()))?;
    let binary = binary::build()?;
    let archive =
        release::build_tarball(workspace(), &binary, &package::changelog_date()?, folder.path())?;
    step::run(Command::new("tar").arg("-xf").arg(&archive).current_dir(folder.path()))?;
    let name = archive.file_name().context("a file has a name")?.to_string_lossy();
    let script = folder.path().join(name.trim_end_matches(".tar.gz")).join("install.sh");
    let run = |words: &[&str], tree: &Path| -> Result<Vec<u8>> {
        let destdir = tree.to_str().context("its name is text")?;
        step::run(Command::new("sh").arg(&script).args(["--destdir", destdir]).args(words))
    };
    let everything = [&ALWAYS[..], &[INITRAMFS_TOOLS, DRACUT, MKINITCPIO]].concat();
    let mut complaints = Vec::new();
    for (words, expected) in [
        (&[][..], everything),
        (&["--initrd", "dracut"], [&ALWAYS[..], &[DRACUT]].concat()),
        (
            &["--initrd", "initramfs-tools", "--initrd", "mkinitcpio"],
            [&ALWAYS[..], &[INITRAMFS_TOOLS, MKINITCPIO]].concat(),
        ),
        (&["--initrd", "none"], ALWAYS.to_vec()),
    ] {
        let tree = tempfile::tempdir()?;
        // Again, over what is there.
        for _ in 0..2 {
            run(words, tree.path())?;
            let found = differences(tree.path(), &expected)?;
            complaints.extend(found.iter().map(|file| format!("{}: {file}", words.join(" "))));
        }
        run(&["--uninstall"], tree.path())?;
        complaints.extend(differences(tree.path(), &[])?);
        let module = tree.path().join("usr/lib/dracut/modules.d/90vfio-early");
        complaints.extend(module.exists().then(|| "the module's folder is left".to_owned()));
    }
    complaints.extend(another_prefix(run)?);
    for wrong in [&["--initrd", "lilo"][..], &["--prefix", "opt"], &["--prefix"], &["--force"]] {
        let tree = tempfile::tempdir()?;
        complaints.extend(run(wrong, tree.path()).is_ok().then(|| format!("it took {wrong:?}")));
        complaints.extend(differences(tree.path(), &[])?);
    }
    Ok(complaints)
}

/// As `make` with `PREFIX=`.
fn another_prefix(run: impl Fn(&[&str], &Path) -> Result<Vec<u8>>) -> Result<Vec<String>> {
    let [here, there] = [tempfile::tempdir()?, tempfile::tempdir()?];
    run(&["--prefix", "/opt/it"], here.path())?;
    step::run(&mut make(&["install", "PREFIX=/opt/it"], there.path()))?;
    let mut complaints = Vec::new();
    let files: Vec<File> = [UNITS, INITRAMFS_TOOLS, DRACUT, MKINITCPIO].concat();
    let read = |tree: &Path, place: &str| -> Result<Vec<u8>> {
        let file = tree.join(place);
        if file.is_symlink() {
            return Ok(fs::read_link(&file)?.to_string_lossy().into_owned().into_bytes());
        }
        fs::read(&file).with_context(|| format!("no {}", file.display()))
    };
    for place in files.iter().map(|(_, place)| *place).chain(["opt/it/bin/vfio-early", GENERATOR]) {
        if read(here.path(), place)? != read(there.path(), place)? {
            complaints.push(format!("with another prefix {place} is not as make has it"));
        }
    }
    run(&["--prefix", "/opt/it", "--uninstall"], here.path())?;
    complaints.extend(differences(here.path(), &[])?);
    Ok(complaints)
}
