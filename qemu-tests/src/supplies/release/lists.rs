//! Beside each file of a release a list of all that is in it: that of the program, and the file on top.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::supplies::digest;

/// Writes `FILE.cdx.json` beside each of the files, from the list `program`; returns them.
///
/// # Errors
/// When the list is none.
pub(super) fn write(program: &Path, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let text = fs::read(program).with_context(|| format!("no {}", program.display()))?;
    let list: Value = serde_json::from_slice(&text)?;
    let mut lists = Vec::new();
    for file in files {
        let name = file.file_name().context("a file has a name")?.to_string_lossy();
        let list = of_file(list.clone(), &name, &digest::sha256(file)?)?;
        let place = file.with_file_name(format!("{name}.cdx.json"));
        fs::write(&place, serde_json::to_string_pretty(&list)? + "\n")
            .with_context(|| format!("cannot write {}", place.display()))?;
        lists.push(place);
    }
    Ok(lists)
}

/// The list with that file as what it is about; the program is a component of it.
fn of_file(mut list: Value, name: &str, sha256: &str) -> Result<Value> {
    let program = list["metadata"]["component"].take();
    let reference = program["bom-ref"].clone();
    list["metadata"]["component"] = json!({
        "type": "file",
        "bom-ref": name,
        "name": name,
        "version": program["version"].clone(),
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    });
    list["components"].as_array_mut().context("the list has no components")?.insert(0, program);
    let dependencies = list["dependencies"].as_array_mut();
    dependencies
        .context("the list has no dependencies")?
        .push(json!({"ref": name, "dependsOn": [reference]}));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_on_top_and_the_program_in_it() {
        let list = json!({
            "metadata": {"component": {"bom-ref": "own", "name": "vfio-early", "version": "1"}},
            "components": [{"bom-ref": "a", "name": "a"}],
            "dependencies": [{"ref": "own", "dependsOn": ["a"]}],
        });
        let list = of_file(list, "x.deb", "00").unwrap();
        assert_eq!(list["metadata"]["component"]["name"], "x.deb");
        assert_eq!(list["components"][0]["name"], "vfio-early");
        assert_eq!(list["dependencies"][1], json!({"ref": "x.deb", "dependsOn": ["own"]}));
        of_file(json!({}), "x", "").unwrap_err();
    }
}
