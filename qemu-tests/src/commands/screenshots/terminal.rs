//! Pictures of a terminal: what the tests hold the program's output against, as SVG.

use std::fs;
use std::path::{Path, PathBuf};

use anstyle_svg::{Term, WIN10_CONSOLE};
use anyhow::{Context, Result};

use crate::supplies::binary;

/// A file of `tests/list/snapshots`, and the picture of it in `docs`.
const PICTURES: [(&str, &str); 2] =
    [("readme-list.txt", "list.svg"), ("readme-check.txt", "check.svg")];

/// Draws all of them into that folder; their paths.
///
/// # Errors
/// When a snapshot cannot be read or a picture cannot be written.
pub fn draw(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (snapshot, picture) in PICTURES {
        let path = folder.join(picture);
        fs::write(&path, svg(snapshot)?).with_context(|| format!("cannot write {picture}"))?;
        paths.push(path);
    }
    Ok(paths)
}

fn svg(snapshot: &str) -> Result<String> {
    let path = binary::workspace().join("tests/list/snapshots").join(snapshot);
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    Ok(Term::new().palette(WIN10_CONSOLE).render_svg(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_show_what_the_program_prints() {
        for (snapshot, picture) in PICTURES {
            let drawn = fs::read_to_string(binary::workspace().join("docs").join(picture));
            let same = drawn.unwrap_or_default() == svg(snapshot).unwrap();
            assert!(same, "docs/{picture} is old: cargo xtask screenshots --terminal draws it");
        }
    }
}
