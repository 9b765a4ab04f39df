//! The Debian package: `cargo xtask package`.
//!
//! What is in it is told in `Cargo.toml`, in `[package.metadata.deb]`; its program is the binary
//! that the tests run, not a second build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::supplies::binary::workspace;
use crate::supplies::cargo_tool::Tool;
use crate::supplies::cross::{self, Target};
use crate::supplies::{binary, cache, packages, sbom, step};

/// Makes the package.
pub const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };

/// The file that tells the versions of what is linked into the program.
pub(crate) const BUILT_USING: &str = "target/package/built-using";

/// The file that tells the same, and more, to programs: see [`sbom`].
pub(crate) const SBOM: &str = "target/package/vfio-early.cdx.json";

/// Makes the package; its path. Once in this process.
///
/// # Errors
/// When the program does not build, or cargo-deb cannot be had or fails.
///
/// # Panics
/// When another thread panicked in it.
pub fn build() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().expect("nothing in it panics");
    if let Some(package) = &*built {
        return Ok(package.clone());
    }
    let binary = binary::build()?;
    let package = {
        let _lock = cache::lock("package")?;
        pack(workspace(), &binary)?
    };
    *built = Some(package.clone());
    Ok(package)
}

/// Makes the one for that target, which is one with musl; its path.
///
/// # Errors
/// As [`build`].
pub fn build_for(target: Target) -> Result<PathBuf> {
    let binary = cross::build(target)?;
    let _lock = cache::lock("package")?;
    pack(workspace(), &binary)
}

/// Packs that binary, with all else from that copy of the workspace; the package's path.
///
/// # Errors
/// As [`build`].
pub(crate) fn pack(workspace: &Path, binary: &Path) -> Result<PathBuf> {
    packages::ensure(packages::PACKAGE)?;
    let cargo_deb = CARGO_DEB.set_up()?;
    let (target, triple) = target(binary)?;
    let name = triple.to_str().context("a target's name is a text")?;
    write_built_using(workspace, name)?;
    sbom::write(&workspace.join(SBOM), &changelog_date()?, name)?;
    let made = ["man", "target/make/vfio-early-generator"];
    step::run(Command::new("make").args(made).current_dir(workspace))?;
    let folder = workspace.join("target/package");
    let new = tempfile::Builder::new().prefix("new-").tempdir_in(&folder)?;
    let said = step::run(
        Command::new(cargo_deb)
            .args(["deb", "--no-build", "--no-strip", "--locked", "--quiet", "--output"])
            .args([new.path(), Path::new("--target"), triple])
            .env("CARGO_TARGET_DIR", target)
            .env("SOURCE_DATE_EPOCH", changelog_date()?)
            .current_dir(workspace),
    )?;
    let made = PathBuf::from(String::from_utf8(said)?.trim_end());
    let package = folder.join(made.file_name().context("cargo-deb names no package")?);
    fs::rename(&made, &package).with_context(|| format!("cannot make {}", package.display()))?;
    Ok(package)
}

/// Cargo's target folder, and the target that it built for: the folder in it that has the folder
/// of the profile.
///
/// # Errors
/// When the binary lies in no such folder.
pub(crate) fn target(binary: &Path) -> Result<(&Path, &Path)> {
    let folder = binary.parent().and_then(Path::parent);
    folder
        .and_then(|folder| Some((folder.parent()?, Path::new(folder.file_name()?))))
        .with_context(|| format!("{} is of no target", binary.display()))
}

/// The date of the newest entry in the package's changelog, in seconds since 1970: the age of all
/// files in the package, so that the same input makes the same package.
///
/// # Errors
/// When the changelog cannot be read.
pub(crate) fn changelog_date() -> Result<String> {
    let date = step::run(
        Command::new("dpkg-parsechangelog")
            .args(["--file", "packaging/debian/changelog", "--show-field", "Timestamp"])
            .current_dir(workspace()),
    )?;
    Ok(String::from_utf8(date)?.trim_end().to_owned())
}

/// The versions of what is linked into the program: policy asks for them where a licence wants the
/// source kept, and cargo-deb knows no field Built-Using.
fn write_built_using(workspace: &Path, target: &str) -> Result<()> {
    let mut text = String::new();
    for library in sbom::libraries(target)? {
        text.extend([library.name, " (= ", &library.version, "), ", library.whose, "\n"]);
    }
    text.extend(sbom::linked_crates()?.iter().map(|name| format!("crate {name}\n")));
    let file = workspace.join(BUILT_USING);
    fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_in_the_path_of_what_cargo_built() {
        let path = Path::new("/t/target/x86_64-unknown-linux-gnu/release/vfio-early");
        let expected = (Path::new("/t/target"), Path::new("x86_64-unknown-linux-gnu"));
        assert_eq!(target(path).unwrap(), expected);
        target(Path::new("vfio-early")).unwrap_err();
    }
}
