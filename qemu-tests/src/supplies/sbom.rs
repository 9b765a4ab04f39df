//! A list of all that is linked into the program, for programs: `CycloneDX`, as JSON.
//!
//! cargo-cyclonedx lists the crates; the C libraries and Rust's own, which cargo does not know, are
//! added here. What it lists besides and is not linked (macros, which run in the compiler) gets the
//! scope that the format has for it. The program itself holds nothing of this: it travels in every
//! initrd.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::supplies::cargo_tool::Tool;
use crate::supplies::source::Source;
use crate::supplies::{binary, digest, libkmod, musl, step};

/// Lists crates.
const CARGO_CYCLONEDX: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9" };

/// The version of the format.
pub(crate) const FORMAT: &str = "1.5";

const RELEASED: &str = "as its authors released it";

/// A C library that is linked in.
#[derive(Debug)]
pub(crate) struct Library {
    /// Its name.
    pub name: &'static str,
    /// Its authors' own version.
    pub version: String,
    /// Of the archive that it was built from, or, where it came built, of itself.
    sha256: String,
    /// As SPDX has it.
    licence: &'static str,
    /// Where it comes from, as a package URL.
    url: String,
    /// Whose version it is.
    pub whose: &'static str,
}

/// One of this machine's own, of which the compiler finds the archive by its file's name.
fn installed(name: &'static str, file: &str, licence: &'static str) -> Result<Library> {
    let said = step::run(Command::new("gcc").arg(format!("-print-file-name={file}")))?;
    let path = PathBuf::from(String::from_utf8(said)?.trim_end());
    let path = fs::canonicalize(&path).with_context(|| format!("gcc finds no {file}"))?;
    let said = step::run(Command::new("dpkg-query").arg("--search").arg(&path))?;
    let said = String::from_utf8(said)?;
    let package = said.split(':').next().unwrap_or_default();
    let format = "--showformat=${Version}";
    let version = step::run(Command::new("dpkg-query").args(["--show", format, package]))?;
    let version = String::from_utf8(version)?;
    let url = format!("pkg:deb/debian/{package}@{}", version.replace('+', "%2B"));
    let sha256 = digest::sha256(&path)?;
    Ok(Library { name, version, sha256, licence, url, whose: "as Debian has it" })
}

/// Without musl.
fn of_this_machine() -> Result<[Library; 3]> {
    Ok([
        installed("glibc", "libc.a", "LGPL-2.1-or-later")?,
        installed("libgcc", "libgcc_eh.a", "GPL-3.0-or-later WITH GCC-exception-3.1")?,
        // Public domain until 5.4: no SPDX licence.
        installed("liblzma", "liblzma.a", "LicenseRef-public-domain OR 0BSD")?,
    ])
}

/// All of those that a program for that target is linked with.
///
/// # Errors
/// When it cannot be told where one of them comes from.
pub(crate) fn libraries(target: &str) -> Result<Vec<Library>> {
    let source = |name, source: Source, licence| Library {
        name,
        version: source.version.to_owned(),
        sha256: source.sha256.to_owned(),
        licence,
        url: format!("pkg:generic/{}@{}", source.package, source.version),
        whose: RELEASED,
    };
    let libkmod = source("libkmod", libkmod::SOURCE, "LGPL-2.1-or-later");
    if !target.ends_with("-musl") || target == musl::target() && musl::missing().is_some() {
        return Ok([libkmod].into_iter().chain(of_this_machine()?).collect());
    }
    let (file, version) = musl::musl(target)?;
    let url = format!("pkg:generic/musl@{version}");
    let sha256 = digest::sha256(&file)?;
    Ok(vec![
        libkmod,
        source("liblzma", musl::XZ, "0BSD"),
        Library { name: "musl", version, sha256, licence: "MIT", url, whose: RELEASED },
    ])
}

/// Writes the list for a target into `file`, as of `date` (seconds since 1970): the same input makes the
/// same bytes.
///
/// # Errors
/// When the tool cannot be had, or a library's origin cannot be told.
pub(crate) fn write(file: &Path, date: &str, target: &str) -> Result<()> {
    let mut list = crates(date)?;
    let linked = linked_crates()?;
    complete(&mut list, &linked, components(target)?)?;
    let text = serde_json::to_string_pretty(&list)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// What cargo-cyclonedx says.
fn crates(date: &str) -> Result<Value> {
    let tool = CARGO_CYCLONEDX.set_up()?;
    // It writes beside each Cargo.toml.
    let folder = tempfile::tempdir()?;
    binary::copy_workspace(folder.path())?;
    step::run(
        Command::new(tool)
            .args(["cyclonedx", "--format=json", "--spec-version", FORMAT, "--no-build-deps"])
            .args(["--describe=binaries", "--quiet"])
            .env("SOURCE_DATE_EPOCH", date)
            .current_dir(folder.path()),
    )?;
    let file = folder.path().join("vfio-early_bin.cdx.json");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cargo-cyclonedx has not written {}", file.display()))?;
    let here = format!("path+file://{}", folder.path().display());
    Ok(serde_json::from_str(&text.replace(&here, "path+file://"))?)
}

/// The C libraries and Rust's own.
fn components(target: &str) -> Result<Vec<Value>> {
    let component = |library: Library| {
        json!({
            "type": "library",
            "bom-ref": library.name,
            "name": library.name,
            "version": library.version,
            "scope": "required",
            "hashes": [{"alg": "SHA-256", "content": library.sha256}],
            "licenses": [{"expression": library.licence}],
            "purl": library.url,
        })
    };
    let mut components: Vec<_> = libraries(target)?.into_iter().map(component).collect();
    let said = step::run(Command::new("rustc").arg("--version"))?;
    let said = String::from_utf8(said)?;
    let version = said.split_whitespace().nth(1).context("rustc says no version")?;
    components.push(json!({
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": version,
        "scope": "required",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": format!("pkg:generic/rust-std@{version}"),
    }));
    Ok(components)
}

/// Adds the libraries, and tells what is linked from what is not. `linked` has lines like
/// `kmod v0.5.0`.
fn complete(list: &mut Value, linked: &[String], libraries: Vec<Value>) -> Result<()> {
    let program = &mut list["metadata"]["component"];
    let fields = program.as_object_mut().context("the list says not of what it is")?;
    // It is in no registry: another program may come to have its name there.
    fields.remove("purl");
    let program = fields["bom-ref"].clone();
    let components = list["components"].as_array_mut().context("the list has no components")?;
    for component in &mut *components {
        let text = |field: &str| component[field].as_str().unwrap_or_default();
        let line = format!("{} v{}", text("name"), text("version"));
        if !linked.contains(&line) {
            component["scope"] = json!("excluded");
        }
    }
    let names: Vec<Value> = libraries.iter().map(|library| library["bom-ref"].clone()).collect();
    components.extend(libraries);
    let dependencies = list["dependencies"].as_array_mut().context("it has no dependencies")?;
    let own = dependencies.iter_mut().find(|entry| entry["ref"] == program);
    let own = own.and_then(|entry| entry["dependsOn"].as_array_mut());
    own.context("the program depends on nothing")?.extend(names.iter().cloned());
    for (who, others) in
        [("libkmod", &["musl", "glibc", "liblzma"][..]), ("rust-std", &["musl", "glibc", "libgcc"])]
    {
        let others: Vec<_> = others.iter().filter(|other| names.contains(&json!(other))).collect();
        dependencies.push(json!({"ref": who, "dependsOn": others}));
    }
    Ok(())
}

/// The crates that are linked into the program, each as name and version; itself excluded.
///
/// # Errors
/// When cargo cannot tell.
pub(crate) fn linked_crates() -> Result<Vec<String>> {
    let words = ["tree", "--package=vfio-early", "--edges=normal,no-proc-macro"];
    let tree = step::run(binary::cargo(&words)?.args(["--prefix=none", "--format={p}"]))?;
    let mut names: Vec<String> = String::from_utf8(tree)?
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .filter(|name| !name.starts_with("vfio-early "))
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// What such a list and what is linked have not in common, one sentence each.
pub(crate) fn complaints(list: &Value, linked: &[String]) -> Vec<String> {
    let components = list["components"].as_array().into_iter().flatten();
    let listed: BTreeSet<String> = components
        .filter(|component| component["scope"] == "required")
        .map(|component| {
            let text = |field: &str| component[field].as_str().unwrap_or_default();
            let is_crate = text("purl").starts_with("pkg:cargo/");
            let v = if is_crate { "v" } else { "" };
            format!("{} {v}{}", text("name"), text("version"))
        })
        .collect();
    let linked: BTreeSet<String> = linked.iter().cloned().collect();
    let lacks = linked.difference(&listed).map(|name| format!("it does not name {name}"));
    let extra = listed.difference(&linked).map(|name| format!("{name} is not linked in"));
    lacks.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Value {
        json!({
            "metadata": {"component": {"bom-ref": "own", "purl": "pkg:cargo/own@1"}},
            "components": [
                {"name": "a", "version": "1.0.0", "scope": "required", "purl": "pkg:cargo/a@1"},
                {"name": "m", "version": "2.0.0", "scope": "required", "purl": "pkg:cargo/m@2"},
            ],
            "dependencies": [{"ref": "own", "dependsOn": ["a"]}],
        })
    }

    #[test]
    fn what_is_not_linked_is_of_another_scope() {
        let mut list = list();
        let linked = ["a v1.0.0".to_owned()];
        let c = json!({"bom-ref": "c", "name": "c", "version": "3", "scope": "required"});
        complete(&mut list, &linked, vec![c]).unwrap();
        assert_eq!(list["components"][1]["scope"], "excluded");
        assert_eq!(list["dependencies"][0]["dependsOn"], json!(["a", "c"]));
        assert!(list["metadata"]["component"].get("purl").is_none());
        let with_c = [linked[0].clone(), "c 3".to_owned()];
        assert_eq!(complaints(&list, &with_c), Vec::<String>::new());
        assert_eq!(complaints(&list, &linked), ["c 3 is not linked in"]);
        assert_eq!(
            complaints(&list, &["a v1.0.1".to_owned()]),
            ["it does not name a v1.0.1", "a v1.0.0 is not linked in", "c 3 is not linked in"]
        );
        complete(&mut json!({}), &linked, Vec::new()).unwrap_err();
    }
}
