//! Two builds, in different places, that have to make the same bytes.
//!
//! The second one has another folder, target folder, cargo folder, libkmod, language and time zone,
//! and begins later. The toolchain and the C library are the same: those belong to the input.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::binary::workspace;
use crate::supplies::cross::{self, Target};
use crate::supplies::{binary, cache, digest, libkmod, musl, release, step};

/// What came of two builds.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// SHA-256 of the binaries of the first build, of their C libraries, and of each file of a release.
    pub digests: Vec<(String, String)>,
    /// What differs, and which folder of this machine is named in the binary.
    pub complaints: Vec<String>,
}

/// The usual builds for these targets, of which this machine's own is the last, and others, of that commit;
/// the files of a release that the first make come into the folder `to`.
///
/// # Errors
/// When one of the builds fails.
pub(crate) fn compare(commit: Option<&str>, targets: &[Target], to: &Path) -> Result<Comparison> {
    let first: Vec<PathBuf> =
        targets.iter().map(|target| cross::build_of(*target, commit)).collect::<Result<_>>()?;
    let source = release::source()?;
    let files = {
        let _lock = cache::lock("package")?;
        release::pack(workspace(), &first, &source, to)?
    };

    let place = tempfile::Builder::new().prefix("again-").tempdir_in(cache::folder()?)?;
    let folder = |name: &str| -> Result<_> {
        let folder = place.path().join(name);
        fs::create_dir(&folder)?;
        Ok(folder)
    };
    let (tree, home) = (folder("tree")?, folder("home")?);
    binary::copy_workspace(&tree)?;
    copy_sources(Path::new(&binary::cargo_home()?), &home)?;
    let home = home.to_str().context("the cache's name is no text")?;
    let mut second = Vec::new();
    let mut pairs = Vec::new();
    for (target, first) in targets.iter().zip(&first) {
        let (c, work) = (folder(&format!("c-{target}"))?, folder(&format!("work-{target}"))?);
        cross::build_libraries_again(*target, &work, &c)?;
        step::say(format_args!("{target}: building once more, in another place"));
        let program = binary::compile(
            cross::with(&mut binary::cargo(&binary::BUILD)?, *target, &c)
                .args(binary::remap_of(home))
                .current_dir(&tree)
                .env("CARGO_HOME", home)
                .env("CARGO_TARGET_DIR", place.path().join("made"))
                .env_remove(binary::COMMIT)
                .envs(commit.map(|commit| (binary::COMMIT, commit)))
                .env("LC_ALL", "C")
                .env("TZ", "Pacific/Kiritimati"),
        )?;
        let libraries = cross::libraries(*target)?;
        pairs.push((format!("vfio-early, {target}"), first.clone(), program.clone()));
        let [one, other] = [binary::initrds(first), binary::initrds(&program)];
        pairs.push((format!("vfio-early-initrd, {target}"), one, other));
        for name in [libkmod::ARCHIVE, musl::LIBLZMA] {
            pairs.push((format!("{name}, {target}"), libraries.join(name), c.join(name)));
        }
        second.push(program);
    }
    let second_files = release::pack(&tree, &second, &source, &folder("files")?)?;

    let mut complaints = Vec::new();
    let names = |files: &[PathBuf]| -> Vec<String> {
        let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into();
        files.iter().map(name).collect()
    };
    if names(&files) != names(&second_files) {
        complaints.push(format!("two builds made {files:?} and {second_files:?}"));
    }
    for ((name, one), other) in names(&files).into_iter().zip(files).zip(second_files) {
        pairs.push((name, one, other));
    }
    let mut digests = Vec::new();
    for (what, one, other) in pairs {
        let digest = digest::sha256(&one)?;
        if digest != digest::sha256(&other)? {
            complaints.push(difference(&what, &one, &other)?);
        }
        digests.push((what, digest));
    }
    let mut folders = vec![binary::cargo_home()?];
    folders.extend([workspace(), &cache::folder()?].map(|folder| folder.display().to_string()));
    for program in &first {
        complaints.extend(named(&fs::read(program)?, &folders));
    }
    Ok(Comparison { digests, complaints })
}

/// What cargo has fetched, but not unpacked: that it has to do again, in its other folder.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to.join("registry"))?;
    for name in ["config.toml", "registry/index", "registry/cache"] {
        let (from, to) = (from.join(name), to.join(name));
        if from.exists() {
            step::run(Command::new("cp").args(["--archive", "--reflink=auto"]).args([from, to]))?;
        }
    }
    Ok(())
}

/// Where two files differ first; the second one is kept.
fn difference(what: &str, one: &Path, other: &Path) -> Result<String> {
    let kept = workspace().join("target/reproduce");
    fs::create_dir_all(&kept)?;
    let kept = kept.join(other.file_name().context("a file has a name")?);
    fs::copy(other, &kept)?;
    let (first, second) = (fs::read(one)?, fs::read(other)?);
    let equal = first.iter().zip(&second).take_while(|(first, second)| first == second).count();
    Ok(format!(
        "{what} differs from byte {equal} on ({} and {} bytes): compare {} with {}",
        first.len(),
        second.len(),
        one.display(),
        kept.display()
    ))
}

/// Those of the folders whose names are in the bytes.
fn named(bytes: &[u8], folders: &[String]) -> Vec<String> {
    folders
        .iter()
        .filter(|folder| bytes.windows(folder.len()).any(|window| window == folder.as_bytes()))
        .map(|folder| format!("the binary names {folder}, a folder of the machine that built it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_machine_in_the_binary_is_told() {
        let folders = ["/home/one/.cargo".to_owned(), "/elsewhere".to_owned()];
        let complaints = named(b"\0src/lib.rs\0/home/one/.cargo/registry/src/kmod.rs", &folders);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("names /home/one/.cargo,"), "{complaints:?}");
    }
}
