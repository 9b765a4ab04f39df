//! modprobe's configuration, which the crate over libkmod does not hand through.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Sysfs;

/// Where modprobe reads its configuration; a file hides those of its name in the folders behind
/// (`default_config_paths`, and `conf_files_insert_sorted()` in `libkmod-config.c`).
const FOLDERS: [&str; 5] = [
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
];

impl Sysfs {
    /// Shows each command, by its words, with the file that it is in, as its name below the root. Files are
    /// read by their names, whatever folder they are in.
    pub fn modprobe_commands(&self, show: &mut dyn FnMut(&Path, &[&str])) {
        let mut files = BTreeMap::new();
        for folder in FOLDERS.map(Path::new) {
            for name in self.names(folder) {
                let is_meant =
                    name.as_bytes().ends_with(b".conf") && !name.as_bytes().starts_with(b".");
                if is_meant {
                    files.entry(name).or_insert(folder);
                }
            }
        }
        for (name, folder) in files {
            let file = folder.join(name);
            let text = self.text(&file).unwrap_or_default();
            commands(&text, &mut |words| show(&file, words));
        }
    }
}

/// The commands of a file. A line that ends in a backslash goes on in the next one. Source:
/// `kmod_config_parse()` in `libkmod-config.c`.
fn commands(text: &str, show: &mut dyn FnMut(&[&str])) {
    let mut line = String::new();
    for part in text.lines() {
        line.push_str(part.trim_end_matches('\\'));
        if part.ends_with('\\') {
            continue;
        }
        let words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        show(&words.collect::<Vec<_>>());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_as_modprobe_reads_them() {
        for (text, expected) in [
            (
                "blacklist nouveau\nblacklist  b # c\n",
                &["blacklist nouveau", "blacklist b # c"][..],
            ),
            (" \tblacklist\ti915\t\nblacklist radeon", &["blacklist i915", "blacklist radeon"]),
            (
                "blacklist \\\n  nouveau\nblack\\\nlist amdgpu",
                &["blacklist nouveau", "blacklist amdgpu"],
            ),
            ("#\\\nblacklist c\n", &["#blacklist c"]),
        ] {
            let mut found = Vec::new();
            commands(text, &mut |words| found.push(words.join(" ")));
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
