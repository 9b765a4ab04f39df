//! The Debian package.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::files::{
    COMPLETIONS, DRACUT, File, INITRAMFS_TOOLS, MANUAL, PROGRAM, UNITS, differences,
};
use crate::supplies::arch::Arch;
use crate::supplies::binary::{self, workspace};
use crate::supplies::cross::{self, Target};
use crate::supplies::{musl, package, sbom, step};

const OVERRIDES: &str = "packaging/debian/lintian-overrides";

const OF_A_PACKAGE: &[File] = &[
    ("644", "usr/share/doc/vfio-early/README.md"),
    ("644", "usr/share/doc/vfio-early/built-using"),
    ("644", "usr/share/doc/vfio-early/changelog.Debian.gz"),
    ("644", "usr/share/doc/vfio-early/changelog.gz"),
    ("644", "usr/share/doc/vfio-early/copyright"),
    ("644", "usr/share/doc/vfio-early/vfio-early.cdx.json"),
    ("644", "usr/share/lintian/overrides/vfio-early"),
];

pub(super) fn files() -> Result<Vec<String>> {
    has_exactly_these(&package::build()?, &binary::build()?)
}

/// That which a release has for Arm, whatever the machine that makes it.
pub(super) fn for_arm() -> Result<Vec<String>> {
    let target = Target::of(Arch::Arm64);
    let package = package::build_for(target)?;
    let mut complaints = has_exactly_these(&package, &cross::build(target)?)?;
    let said =
        step::run(Command::new("dpkg-deb").args(["--field"]).arg(&package).arg("Architecture"))?;
    if said != b"arm64\n" {
        complaints.push(format!("it is for {}", String::from_utf8_lossy(&said)));
    }
    Ok(complaints)
}

fn has_exactly_these(package: &Path, program: &Path) -> Result<Vec<String>> {
    let tree = tempfile::tempdir()?;
    step::run(Command::new("dpkg-deb").arg("--extract").args([package, tree.path()]))?;
    // zsh looks elsewhere in Debian.
    let completions: Vec<File> = COMPLETIONS
        .iter()
        .map(|(mode, place)| match *place {
            "usr/share/zsh/site-functions/_vfio-early" => {
                (*mode, "usr/share/zsh/vendor-completions/_vfio-early")
            }
            place => (*mode, place),
        })
        .collect();
    let expected = [PROGRAM, MANUAL, &completions, UNITS, INITRAMFS_TOOLS, DRACUT, OF_A_PACKAGE];
    let mut complaints = differences(tree.path(), &expected)?;
    if fs::read(tree.path().join("usr/bin/vfio-early"))? != fs::read(program)? {
        complaints.push("the program in it is not the binary that the tests run".to_owned());
    }
    Ok(complaints)
}

pub(super) fn control() -> Result<Vec<String>> {
    let package = package::build()?;
    let tree = tempfile::tempdir()?;
    step::run(Command::new("dpkg-deb").arg("--control").args([&package, tree.path()]))?;
    let mut complaints = Vec::new();
    for (name, expected) in [
        ("triggers", "\nactivate-noawait update-initramfs\n"),
        ("control", "\nRecommends: initramfs-tools | dracut | linux-initramfs-tool\n"),
    ] {
        let file = tree.path().join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("it has no {name}"))?;
        if !text.contains(expected) {
            complaints.push(format!("{name} has no {expected:?}:\n{text}"));
        }
    }
    // To start a unit would bind devices at once, and the generator needs nobody to enable one.
    for name in ["preinst", "postinst", "prerm", "postrm"] {
        if let Ok(text) = fs::read_to_string(tree.path().join(name)) {
            complaints.push(format!("there is a {name}:\n{text}"));
        }
    }
    Ok(complaints)
}

pub(super) fn copyright() -> Result<Vec<String>> {
    let file = workspace().join("packaging/debian/copyright");
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    let named: Vec<&str> = text.split_whitespace().collect();
    let mut linked: Vec<String> = sbom::linked_crates()?
        .iter()
        .filter_map(|line| Some(format!("crates/{}/*", line.split_once(' ')?.0)))
        .collect();
    linked.extend(
        sbom::libraries(musl::target())?.iter().map(|library| format!("c/{}/*", library.name)),
    );
    linked.push("crates/std/*".to_owned());
    let lacks = linked.iter().filter(|name| !named.contains(&name.as_str()));
    let mut complaints: Vec<String> =
        lacks.map(|name| format!("it does not name {name}")).collect();
    let extra = named.iter().filter(|name| {
        let is_part = name.starts_with("crates/") || name.starts_with("c/");
        is_part && name.ends_with("/*") && !linked.iter().any(|l| l == *name)
    });
    complaints.extend(extra.map(|name| format!("{name} is not linked in")));
    Ok(complaints)
}

/// Errors and warnings, and exceptions that excuse nothing any more.
pub(super) fn lintian() -> Result<Vec<String>> {
    let package = package::build()?;
    let output = Command::new("lintian")
        .args(["--allow-root", "--show-overrides", "--tag-display-limit=0"])
        .arg(&package)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("cannot run lintian")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut complaints: Vec<String> = said
        .lines()
        .filter(|line| !line.starts_with("O: ") && !line.starts_with("N:"))
        .map(str::to_owned)
        .collect();
    // 2 is that of a package with errors, excused ones included.
    if !matches!(output.status.code(), Some(0 | 2)) {
        complaints.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let overrides = fs::read_to_string(workspace().join(OVERRIDES))?;
    for line in overrides.lines().filter(|line| !line.starts_with('#')) {
        if !said.contains(&format!("O: {line}\n")) {
            complaints.push(format!("{OVERRIDES} excuses what lintian does not say: {line}"));
        }
    }
    Ok(complaints)
}
