//! The RPM.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::files::{ALWAYS, DRACUT, File, differences};
use super::makefile::make;
use crate::supplies::binary::workspace;
use crate::supplies::{libkmod, package, packages, release, step};

const SPEC: &str = "packaging/rpm/vfio-early.spec";
const EXCEPTIONS: &str = "packaging/rpm/vfio-early.rpmlintrc";

/// Debian's rpm adds the version to the names of these folders; others' do not.
const OF_A_PACKAGE: &[File] = &[
    ("644", concat!("usr/share/doc/vfio-early-", env!("CARGO_PKG_VERSION"), "/CHANGELOG.md")),
    ("644", concat!("usr/share/doc/vfio-early-", env!("CARGO_PKG_VERSION"), "/README.md")),
    (
        "644",
        concat!("usr/share/licenses/vfio-early-", env!("CARGO_PKG_VERSION"), "/LICENSE-APACHE"),
    ),
    ("644", concat!("usr/share/licenses/vfio-early-", env!("CARGO_PKG_VERSION"), "/LICENSE-MIT")),
];

/// From this tree, with the program that `make` has built: what is tested is the recipe, which also
/// has to build libkmod from kmod's archive.
pub(super) fn built() -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    step::run(&mut make(&["all"], folder.path()))?;
    // Of an earlier run.
    let own = workspace().join("target/libkmod");
    for left in [own.clone(), workspace().join(format!("target/kmod-{}", libkmod::VERSION))] {
        if left.exists() {
            fs::remove_dir_all(left)?;
        }
    }
    let package =
        &release::build_rpm(workspace(), None, &package::changelog_date()?, folder.path())?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    let unpack = "rpm2cpio \"$1\" | cpio --extract --make-directories --quiet";
    step::run(Command::new("sh").args(["-euc", unpack, "sh"]).arg(package).current_dir(&tree))?;
    let mut complaints = differences(&tree, &[&ALWAYS[..], &[DRACUT, OF_A_PACKAGE]].concat())?;
    // An upgrade that restarted the unit would take from the host what was given back to it.
    let scripts =
        step::run(Command::new("rpm").args(["-qp", "--scripts", "--triggers"]).arg(package))?;
    if !scripts.is_empty() {
        complaints.push(format!("it runs: {}", String::from_utf8_lossy(&scripts)));
    }
    if !own.join(libkmod::ARCHIVE).exists() {
        complaints.push("the recipe has built no libkmod.a".to_owned());
    }
    complaints.extend(installed(package)?);

    // Debian's has another compression for manual pages in its configuration than rpm.
    let configuration = folder.path().join("rpmlint.toml");
    fs::write(&configuration, "CompressExtension = \"gz\"\n")?;
    let lint = Command::new("rpmlint")
        .args(["--rpmlintrc", EXCEPTIONS, SPEC])
        .arg(package)
        .arg("--config")
        .arg(configuration)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .output()
        .context("cannot run rpmlint")?;
    let said = String::from_utf8_lossy(&lint.stdout);
    let exceptions = fs::read_to_string(workspace().join(EXCEPTIONS))?;
    let (told, excused) = lint_complaints(&said, &exceptions);
    complaints.extend(told);
    // Its count has to be that of the lines that were read.
    if !said.contains(&format!(" {excused} errors, 0 warnings")) {
        complaints.push(format!("{said}{}", String::from_utf8_lossy(&lint.stderr)));
    }
    Ok(complaints)
}

/// What is wrong with a root after rpm has installed that package there, and after it has removed it.
fn installed(package: &Path) -> Result<Vec<String>> {
    let root = tempfile::tempdir()?;
    let rpm = |words: &[&str]| -> Result<Vec<u8>> {
        let mut command = packages::root_command("rpm")?.context("only root can install")?;
        command.arg("--root").arg(root.path()).args(words);
        step::run(command.args(["--dbpath", "/var/rpm"]))
    };
    rpm(&["--initdb"])?;
    // Debian 12's says to use alien, and means the packages of the machine itself; 13's says nothing, and
    // does not know how it is told.
    let help = step::run(Command::new("rpm").arg("--help"))?;
    let forced = ["--force-debian"];
    let forced = &forced[..usize::from(String::from_utf8_lossy(&help).contains(forced[0]))];
    rpm(&[&["--install", "--nodeps"], forced, &[&package.to_string_lossy()]].concat())?;
    let ours =
        |complaints: Vec<String>| complaints.into_iter().filter(|line| !line.contains(" var/rpm/"));
    let expected = [&ALWAYS[..], &[DRACUT, OF_A_PACKAGE]].concat();
    let mut complaints: Vec<String> = ours(differences(root.path(), &expected)?).collect();
    // It says what differs.
    let said = String::from_utf8(rpm(&["--verify", "--nodeps", "vfio-early"])?)?;
    complaints.extend(said.lines().map(str::to_owned));
    rpm(&["--erase", "vfio-early"])?;
    complaints.extend(ours(differences(root.path(), &[])?));
    Ok(complaints)
}

/// The lines that are complaints, and how many are not: those about a filter that is for another version
/// of rpmlint, as its line in the exceptions says.
fn lint_complaints(said: &str, exceptions: &str) -> (Vec<String>, usize) {
    let is_excused = |line: &str| {
        let filter = line.split_once(": E: unused-rpmlintrc-filter \"");
        let filter = filter.and_then(|(_, rest)| rest.strip_suffix('"'));
        filter.is_some_and(|filter| exceptions.contains(&format!("addFilter(\"{filter}\") # 2.")))
    };
    let lines = said.lines().filter(|line| line.contains(": E: ") || line.contains(": W: "));
    let (excused, told): (Vec<&str>, Vec<&str>) = lines.partition(|line| is_excused(line));
    (told.into_iter().map(str::to_owned).collect(), excused.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_filter_for_another_version_may_be_unused() {
        let exceptions = "addFilter(\"a b\") # 2.4; it is so\naddFilter(\"c\")\n";
        let unused = |filter| format!("x.spec: E: unused-rpmlintrc-filter \"{filter}\"");
        for (line, told, excused) in [
            (unused("a b"), 0, 1),
            (unused("c"), 1, 0),
            (unused("d"), 1, 0),
            ("x.x86_64: W: no-documentation".to_owned(), 1, 0),
            ("checks: 27, packages: 2".to_owned(), 0, 0),
        ] {
            let found = lint_complaints(&line, exceptions);
            assert_eq!((found.0.len(), found.1), (told, excused), "{line}");
        }
    }
}
