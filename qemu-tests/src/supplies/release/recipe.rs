//! Arch's recipe with the source beside it, as `makepkg --source` makes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::parts::{VERSION, archive};
use crate::supplies::digest;

/// Stands in the recipe for the checksum of an archive that contains the recipe.
const UNKNOWN: &str = "sha256sums=(SKIP\n";

/// Packs it into the folder `to`.
///
/// # Errors
/// When the recipe has a checksum for the source already.
pub(super) fn pack(workspace: &Path, source: &Path, date: &str, to: &Path) -> Result<PathBuf> {
    let work = tempfile::tempdir()?;
    let folder = work.path().join("vfio-early");
    fs::create_dir(&folder)?;
    let recipes = workspace.join("packaging/arch");
    let text = fs::read_to_string(recipes.join("PKGBUILD")).context("no PKGBUILD")?;
    fs::write(folder.join("PKGBUILD"), with_sum(&text, &digest::sha256(source)?)?)?;
    fs::copy(recipes.join("vfio-early.install"), folder.join("vfio-early.install"))?;
    fs::copy(source, folder.join(format!("vfio-early-{VERSION}.tar.gz")))?;
    let place = to.join(format!("vfio-early-{VERSION}-1.src.tar.gz"));
    archive(&folder, date, &place)?;
    Ok(place)
}

fn with_sum(recipe: &str, sum: &str) -> Result<String> {
    ensure!(recipe.contains(UNKNOWN), "PKGBUILD has no line {UNKNOWN:?}");
    // That of this source alone is not known to the recipe in it.
    let text = recipe.replace(UNKNOWN, &format!("sha256sums=({sum}\n"));
    Ok(text.replace("# The sum of the first is known to who made it: updpkgsums.\n", ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supplies::binary::workspace;

    #[test]
    fn the_recipe_of_a_release_has_all_checksums() {
        let recipe = fs::read_to_string(workspace().join("packaging/arch/PKGBUILD")).unwrap();
        let text = with_sum(&recipe, &"ab".repeat(32)).unwrap();
        assert!(text.contains(&format!("sha256sums=({}\n", "ab".repeat(32))), "{text}");
        assert!(!text.contains("SKIP") && !text.contains("updpkgsums"), "{text}");
        with_sum(&text, "").unwrap_err();
    }
}
