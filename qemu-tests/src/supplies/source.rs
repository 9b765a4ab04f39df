//! The source of a C library that no package has as the program needs it: fetched as Debian has it,
//! and built unpatched by a script in packaging/, which the recipes of other distributions use, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::supplies::archive::{Archive, Kind};
use crate::supplies::{digest, step};

/// The suite whose source packages are taken.
const SUITE: &str = "trixie";

/// A library's source.
#[derive(Debug)]
pub struct Source {
    /// The source package's name in Debian.
    pub package: &'static str,
    /// Its authors' own version. Debian's revision of it does not matter: its patches are not applied.
    pub version: &'static str,
    /// SHA-256 of the archive, on top of apt's check against the index.
    pub sha256: &'static str,
    /// Where this file tells what to do when the suite has another one.
    pub told_in: &'static str,
    /// Builds it: the text of a script that gets the source's folder and the one for what it makes.
    pub script: &'static str,
}

impl Source {
    /// Fetches the archive; it becomes `file`.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not the expected one.
    pub fn fetch(&self, file: &Path, work: &Path) -> Result<()> {
        step::say(format_args!("{} {}: fetching its source", self.package, self.version));
        let archive =
            Archive::open(&work.join(format!("apt-{}", self.package)), SUITE, Kind::Source)?;
        let download = work.join(format!("download-{}", self.package));
        fs::create_dir(&download)?;
        let files = archive.download_source(self.package, &download)?;
        let source = files
            .iter()
            .find(|file| file.to_string_lossy().contains(".orig.tar."))
            .filter(|file| !file.to_string_lossy().ends_with(".asc"))
            .with_context(|| format!("apt-get source left no .orig.tar among {files:?}"))?;
        self.check(source)?;
        fs::copy(source, file)?;
        Ok(())
    }

    /// Whether that archive is the expected one.
    ///
    /// # Errors
    /// When it is not, with what to do.
    pub fn check(&self, archive: &Path) -> Result<()> {
        let sum = digest::sha256(archive)?;
        ensure!(
            sum == self.sha256,
            "Debian {SUITE} has another {} than {}: {} has the SHA-256 {sum}; if its signed index \
             has it so, put the new version and sum into {}",
            self.package,
            self.version,
            archive.display(),
            self.told_in
        );
        Ok(())
    }

    /// Builds it, with those variables for the script. `work` is a folder for what is not kept.
    ///
    /// # Errors
    /// When it does not build.
    pub fn build(
        &self,
        archive: &Path,
        variables: &[(&str, &str)],
        work: &Path,
        folder: &Path,
    ) -> Result<()> {
        step::say(format_args!("{} {}: building it", self.package, self.version));
        let tree = work.join(self.package);
        fs::create_dir(&tree)?;
        let unpack = ["--strip-components=1", "-xf"];
        step::run(Command::new("tar").arg("-C").arg(&tree).args(unpack).arg(archive))?;
        let script: PathBuf = work.join(format!("static-{}", self.package));
        fs::write(&script, self.script)?;
        let mut build = Command::new("sh");
        build.args([&script, &tree]).arg(folder).env("LC_ALL", "C.UTF-8");
        build.env_remove("ZSTD").env_remove("HOST").envs(variables.iter().copied());
        step::run(&mut build).map(drop)
    }
}

/// A number that changes when any of the texts does.
#[must_use]
pub fn key(texts: &[&str]) -> u32 {
    // FNV-1a: the standard library's hashes may change with its version.
    texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_source_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kmod_35.orig.tar.xz");
        fs::write(&file, "another").unwrap();
        let source = Source {
            package: "kmod",
            version: "34.2",
            sha256: "01",
            told_in: "qemu-tests/src/supplies/libkmod.rs",
            script: "",
        };
        let error = source.check(&file).unwrap_err().to_string();
        assert!(error.contains("kmod_35") && error.contains("libkmod.rs"), "{error}");
        let sum = digest::sha256(&file).unwrap().leak();
        Source { sha256: sum, ..source }.check(&file).unwrap();
    }
}
