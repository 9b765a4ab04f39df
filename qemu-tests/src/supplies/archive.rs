//! One suite of the Debian archive, seen through an apt of our own.
//!
//! The machine's apt knows the mirror and how to reach it; its sources, lists and installed
//! packages are left alone. Whatever is downloaded, apt checks against the suite's signed index.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::supplies::arch::Arch;
use crate::supplies::step;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What to read of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Packages.
    Binary {
        /// For this processor.
        arch: Arch,
        /// Those of the suite's security archive too.
        security: bool,
    },
    /// Source packages.
    Source,
}

impl Kind {
    fn arch(self) -> Arch {
        match self {
            Self::Binary { arch, .. } => arch,
            Self::Source => Arch::default(),
        }
    }
}

/// A suite with its index, current as of [`Archive::open`].
#[derive(Debug)]
pub struct Archive {
    suite: &'static str,
    configuration: PathBuf,
}

/// One package as the index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The package's name.
    pub name: String,
    /// Debian's version of it.
    pub version: String,
    /// Bytes to download.
    pub size: u64,
    /// Names of the packages that it needs in exactly its own version: the other parts of the
    /// same build.
    pub parts: Vec<String>,
}

impl Archive {
    /// Fetches the suite's index. Everything that apt writes goes into `folder`.
    ///
    /// # Errors
    /// When the machine has no Debian mirror, or the mirror has no such suite.
    pub fn open(folder: &Path, suite: &'static str, kind: Kind) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: apt install debian-archive-keyring"
        );
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("archives/partial"))?;
        fs::write(folder.join("status"), "")?;
        let archive = Self { suite, configuration: folder.join("apt.conf") };
        fs::write(&archive.configuration, configuration(folder, kind.arch()))?;

        let mirrors = Mirrors::of_this_machine()?;
        let sources = folder.join("sources.list");
        fs::write(&sources, mirrors.sources(suite, kind))?;
        let update = || step::run_with_progress(&mut archive.apt("apt-get", &["update"]));
        if let Err(error) = update() {
            let Kind::Binary { arch, security: true } = kind else { return Err(error) };
            // After a suite's end its security archive may leave the mirror before the suite does.
            step::say(format_args!("{error:#}\n  trying {suite} without its security archive"));
            fs::write(&sources, mirrors.sources(suite, Kind::Binary { arch, security: false }))?;
            update()?;
        }
        Ok(archive)
    }

    /// The newest version of a package.
    ///
    /// # Errors
    /// When the suite has no such package.
    pub fn newest(&self, package: &str) -> Result<Entry> {
        let text = step::run(&mut self.apt("apt-cache", &["show", "--no-all-versions", package]))
            .with_context(|| format!("suite {} has no package {package}", self.suite))?;
        let text = String::from_utf8_lossy(&text);
        entry(&text).with_context(|| format!("suite {}, package {package}", self.suite))
    }

    /// A package with all parts of the same build, whatever packages they are split into.
    ///
    /// # Errors
    /// As [`Archive::newest`].
    pub fn newest_with_parts(&self, package: &str) -> Result<Vec<Entry>> {
        let mut found: Vec<Entry> = Vec::new();
        let mut names = vec![package.to_owned()];
        while let Some(name) = names.pop() {
            if found.iter().all(|known| known.name != name) {
                let entry = self.newest(&name)?;
                names.extend(entry.parts.iter().cloned());
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// Downloads packages into `folder`; returns the files, in the order of their names.
    ///
    /// # Errors
    /// When the mirror does not deliver them, or delivers something else than its index says.
    pub fn download(&self, packages: &[Entry], folder: &Path) -> Result<Vec<PathBuf>> {
        let mut command = self.apt("apt-get", &["download"]);
        command.args(packages.iter().map(|entry| format!("{}={}", entry.name, entry.version)));
        step::run_with_progress(command.current_dir(folder))?;
        files_ending_with(folder, ".deb")
    }

    /// Downloads the newest original source archives of a source package into `folder`.
    ///
    /// # Errors
    /// As [`Archive::download`].
    pub fn download_source(&self, package: &str, folder: &Path) -> Result<Vec<PathBuf>> {
        let words = ["source", "--download-only", "--tar-only", package];
        step::run_with_progress(self.apt("apt-get", &words).current_dir(folder))?;
        files_ending_with(folder, "")
    }

    fn apt(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        // Errors are matched and shown: one language.
        command.env("LC_ALL", "C.UTF-8").arg("-c").arg(&self.configuration).args(words);
        command
    }
}

/// The address of the Debian mirror that this machine uses.
///
/// # Errors
/// When its apt names none.
pub(crate) fn mirror() -> Result<String> {
    Mirrors::of_this_machine().map(|mirrors| mirrors.main)
}

/// Where this machine gets Debian from.
struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let targets = || -> Result<Vec<u8>> {
            step::run(Command::new("apt-get").args([
                "indextargets",
                "--format",
                "$(LABEL)|$(REPO_URI)",
                "Created-By: Packages",
                "Origin: Debian",
            ]))
        };
        let mut text = targets()?;
        if text.is_empty() {
            // apt tells only about indexes that it has fetched.
            crate::supplies::packages::update_index()?;
            text = targets()?;
        }
        Self::parse(&String::from_utf8_lossy(&text)).context(
            "this machine's apt has no Debian mirror (`apt-get indextargets` names none); \
             kernels come from there: add one to /etc/apt/sources.list.d",
        )
    }

    fn parse(targets: &str) -> Option<Self> {
        let first = |wanted: &str| {
            targets
                .lines()
                .filter_map(|line| line.split_once('|'))
                .find_map(|(label, uri)| (label == wanted).then(|| uri.to_owned()))
        };
        Some(Self { main: first("Debian")?, security: first("Debian-Security") })
    }

    /// A sources.list for one suite.
    fn sources(&self, suite: &str, kind: Kind) -> String {
        // An index that is out of date is as good: a suite that has ended is not signed anew, and a
        // mirror may show one day for ever. Nothing from it is installed on the machine.
        let options = format!("signed-by={KEYRING} check-valid-until=no lang=none");
        let arch = kind.arch().name();
        let binary = format!("deb [{options} arch={arch} target=Packages]");
        let main = match kind {
            Kind::Binary { .. } => format!("{binary} {} {suite} main\n", self.main),
            Kind::Source => {
                format!("deb-src [{options} target=Sources] {} {suite} main\n", self.main)
            }
        };
        match (kind, &self.security) {
            (Kind::Binary { security: true, .. }, Some(security)) => {
                format!("{main}{binary} {security} {suite}-security main\n")
            }
            _ => main,
        }
    }
}

/// Of the machine's own configuration only the way to the network stays: proxies and the like.
fn configuration(folder: &Path, arch: Arch) -> String {
    let (folder, arch) = (folder.display(), arch.name());
    format!(
        r#"Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "{folder}/lists";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
// The cache folder may be closed to apt's own user.
APT::Sandbox::User "root";
Acquire::Retries "3";
// Else a mirror that is out of reach is only a warning.
APT::Update::Error-Mode "any";
Acquire::Languages "none";
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

/// Reads one paragraph of a package index.
fn entry(paragraph: &str) -> Result<Entry> {
    let field = |name: &str| {
        paragraph
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": "))
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    let wanted = |name| field(name).with_context(|| format!("its index entry has no {name}"));
    let version = wanted("Version")?;
    let depends = field("Depends").unwrap_or_default();
    Ok(Entry {
        name: wanted("Package")?.to_owned(),
        version: version.to_owned(),
        size: wanted("Size")?.parse().context("its size in the index is no number")?,
        parts: depends
            .split(", ")
            .filter_map(|dependency| {
                dependency.strip_suffix(&format!(" (= {version})")).map(str::to_owned)
            })
            .collect(),
    })
}

fn files_ending_with(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for found in fs::read_dir(folder)? {
        let found = found?;
        if found.file_type()?.is_file() && found.file_name().to_string_lossy().ends_with(end) {
            files.push(found.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dependencies_of_the_same_build_are_parts() {
        let text = "Package: linux-image-7.2.13+deb14-amd64
Version: 7.2.13-1
Depends: dracut | initramfs-tools (>= 0.120+deb8u2), linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), \
linux-binary-7.2.13+deb14-amd64 (= 7.2.13-1), linux-base (>= 4.12~), other (= 7.2.13-10)
Description: Linux 7.2
 Size: of a description line
Size: 1892

Package: second
";
        let entry = entry(text).unwrap();
        assert_eq!(entry.name, "linux-image-7.2.13+deb14-amd64");
        assert_eq!((entry.version.as_str(), entry.size), ("7.2.13-1", 1892));
        assert_eq!(
            entry.parts,
            ["linux-base-7.2.13+deb14-amd64", "linux-binary-7.2.13+deb14-amd64"]
        );
    }

    #[test]
    fn an_index_entry_without_its_fields_is_an_error() {
        for text in ["", "Package: a\nVersion: 1\n", "Package: a\nVersion: 1\nSize: many\n"] {
            assert!(entry(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sources_name_the_machines_mirrors() {
        let targets = "Debian-Security|http://sec.example/debian-security/\n\
                       Debian|http://one.example/debian/\nDebian|http://two.example/debian/\n";
        let mirrors = Mirrors::parse(targets).unwrap();
        let kind = Kind::Binary { arch: Arch::Arm64, security: true };
        let text = mirrors.sources("bookworm", kind);
        assert!(text.lines().all(|line| line.contains(" arch=arm64 ")), "{text}");
        assert!(text.contains("] http://one.example/debian/ bookworm main\n"), "{text}");
        assert!(
            text.contains("] http://sec.example/debian-security/ bookworm-security main\n"),
            "{text}"
        );
        let text = mirrors.sources("trixie", Kind::Source);
        assert!(text.starts_with("deb-src [") && text.lines().count() == 1, "{text}");
        assert!(Mirrors::parse("Ubuntu|http://three.example/\n").is_none());
    }
}
