//! The man pages and the completions tell all that the program has, and nothing that it has not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use vfio_early::cmdline;
use vfio_early::host::list::filter::KINDS;
use vfio_early::host::list::formats::FORMATS;

use crate::list::hosts;
use crate::machine::desktop;
use crate::verify;

type Words = BTreeSet<String>;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn page(name: &str) -> String {
    fs::read_to_string(docs().join("man").join(format!("{name}.scd"))).expect(name)
}

/// Each file of completions, by its name.
fn completions() -> Vec<(String, String)> {
    let entries = fs::read_dir(docs().join("completions")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let file =
        |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).expect("text"));
    let files: Vec<_> = paths.map(file).collect();
    assert_eq!(files.len(), 3, "bash, zsh, fish");
    files
}

/// The lines of a page from that heading to the next.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = page.lines().skip_while(|line| *line != heading).skip(1).peekable();
    assert!(lines.peek().is_some(), "{heading:?} is no heading");
    lines.take_while(|line| !line.starts_with('#')).collect()
}

/// The bold words of the headings of a section's definitions.
fn defined(page: &str, heading: &str) -> Words {
    let mut words = Words::new();
    for line in section(page, heading) {
        if line.starts_with('*') {
            words.extend(line.split('*').skip(1).step_by(2).map(str::to_owned));
        }
    }
    words
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-early")).arg("--help").output();
    String::from_utf8(output.expect("the program starts").stdout).expect("text")
}

fn is_part_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// Words that begin with two dashes.
fn flags(text: &str) -> Words {
    let words = text.split(|c| !is_part_of_word(c));
    words.filter(|word| word.len() > 2 && word.starts_with("--")).map(str::to_owned).collect()
}

/// The first words of the help's lines for commands, of which two can be on one line.
fn commands() -> Words {
    let help = help();
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    let words = lines.filter(|line| line.starts_with(char::is_alphabetic)).flat_map(|line| {
        let (words, _) = line.split_once("  ").expect("words and what they are");
        words.split(", ").map(str::to_owned)
    });
    words.collect()
}

fn words(texts: &[&str]) -> Words {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn every_command_and_option_has_a_page_and_a_completion() {
    let page = page("vfio-early.8");
    let all =
        ["bind", "check", "claim", "finish", "keep", "list", "release", "status", "verify", "wait"];
    assert_eq!(commands(), words(&all));
    assert_eq!(defined(&page, "# COMMANDS"), commands());
    let in_help = flags(&help());
    let in_page = defined(&page, "# OPTIONS").into_iter().filter(|word| word.starts_with("--"));
    assert_eq!(in_page.collect::<Words>(), in_help);
    for (name, text) in completions() {
        // fish writes them without dashes.
        let text = text.replace(" -l ", " --");
        let known: Words = flags(&text).intersection(&in_help).cloned().collect();
        assert_eq!(known, in_help, "{name}");
        for command in commands() {
            assert!(text.contains(&command), "{command} is not in {name}");
        }
    }
}

#[test]
fn every_format_and_kind_of_device_has_a_page_and_a_completion() {
    let formats: Words = FORMATS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let kinds: Words = KINDS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let page = page("vfio-early.8");
    let nested =
        section(&page, "# OPTIONS").into_iter().filter_map(|line| line.strip_prefix("\t*"));
    let nested = nested.filter_map(|line| line.strip_suffix('*')).map(str::to_owned);
    assert_eq!(nested.collect::<Words>(), formats);
    let first = section(&page, "# FILTERS")[1];
    assert_eq!(first.split('*').skip(1).step_by(2).map(str::to_owned).collect::<Words>(), kinds);
    for word in formats.union(&kinds) {
        assert!(help().contains(word), "{word} is not in --help");
        for (name, text) in completions() {
            let has = text.split(|c| !is_part_of_word(c)).any(|other| other == word);
            assert!(has, "{word} is not in {name}");
        }
    }
}

#[test]
fn every_parameter_has_a_page() {
    let page = page("vfio-early.cmdline.7");
    let ours: Words = cmdline::KEYS.iter().map(|key| format!("vfio.{key}")).collect();
    let bare = |word: String| word.trim_end_matches('=').to_owned();
    assert_eq!(defined(&page, "# PARAMETERS").into_iter().map(bare).collect::<Words>(), ours);
    let synopsis = section(&page, "# SYNOPSIS").join("\n");
    for word in ours {
        assert!(synopsis.contains(&word), "{word} is not in the synopsis");
    }
}

fn keys(value: &Value) -> Words {
    value.as_object().expect("an object").keys().cloned().collect()
}

fn json(root: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-early"))
        .arg("--root")
        .arg(root)
        .args(arguments)
        .arg("--json")
        .output()
        .expect("the program starts");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn every_field_of_the_json_has_a_page_and_every_one_there_is() {
    let page = page("vfio-early.report.5");
    let mut fake = desktop().command_line("vfio.devs=00:14.0,x").boot();
    let root = fake.tree.root().to_owned();
    let report = json(&root, &["check"]);
    let saved = fake.bind("vfio.devs=00:14.0,x");
    fake.tree.folder("run");
    vfio_early::report_file::save(&saved, &root.join("run/vfio-early")).expect("it can be written");
    let written = fs::read(root.join("run/vfio-early/report.json")).expect("a report");
    let written: Value = serde_json::from_slice(&written).expect("JSON");
    let status = json(&root, &["status"]);
    let verified = serde_json::to_value(verify::example(&fake)).expect("JSON");
    let desktop = hosts::desktop();
    let list = json(desktop.tree.root(), &["list"]);
    for (object, heading) in [
        (&written, "# REPORT"),
        (&report, "# REPORT"),
        (&report["request"], "## request"),
        (&report["devices"][0], "## devices"),
        (&report["groups"][0], "## groups"),
        (&list, "# LIST"),
        (&list["devices"][0], "## devices of the list"),
        (&status, "# STATUS"),
        (&status["devices"][0], "## devices of the status"),
        (&verified, "# VERIFY"),
        (&verified["devices"][0], "## devices of verify"),
    ] {
        assert_eq!(defined(&page, heading), keys(object), "{heading}");
    }
    for (object, heading) in [
        (&report["request"]["rejected"][0], "## request"),
        (&report["groups"][0]["members"][0], "## groups"),
        (&verified["devices"][0]["steps"][0], "## devices of verify"),
    ] {
        let text = section(&page, heading).join("\n");
        for key in keys(object) {
            assert!(text.contains(&format!("*{key}*")), "{key} is not in {heading}");
        }
    }
}

/// What scdoc always writes and mandoc takes for needless.
const OF_SCDOC: &str = "skipping paragraph macro: PP";

#[test]
fn the_pages_are_without_warnings() {
    let pages = fs::read_dir(docs().join("man")).expect("a folder");
    let pages: Vec<_> = pages.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(pages.len(), 3, "{pages:?}");
    let folder = tempfile::tempdir().unwrap();
    for source in pages {
        let page = folder.path().join(source.file_stem().expect("a name"));
        let status = Command::new("scdoc")
            .stdin(fs::File::open(&source).unwrap())
            .stdout(fs::File::create(&page).unwrap())
            .status()
            .expect("scdoc, which cargo xtask setup installs, runs");
        assert!(status.success(), "{}", source.display());
        let output = Command::new("mandoc")
            .args(["-Tlint", "-Wwarning"])
            .arg(&page)
            .stdin(Stdio::null())
            .output()
            .expect("mandoc, which cargo xtask setup installs, runs");
        let text = String::from_utf8_lossy(&output.stdout);
        // Were it silent for another reason, that would not be there.
        assert!(text.contains(OF_SCDOC), "mandoc looked at nothing: {output:?}");
        let warnings: Vec<_> = text.lines().filter(|line| !line.contains(OF_SCDOC)).collect();
        assert!(warnings.is_empty(), "{warnings:#?}");
    }
}
