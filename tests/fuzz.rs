//! The fuzz targets on stable Rust: over the corpus, and over inputs made of it at random.

mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use targets::{Check, TARGETS};

/// With it each target gets as many changed inputs as take some twenty seconds of a core, and not
/// [`FEW`]. It is a number, so that a run on another machine has the same.
const MANY: &str = "VFIO_EARLY_FUZZ_MANY";
/// Enough to see that nothing is broken altogether.
const FEW: u64 = 100;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz");

fn check_of(name: &str) -> Check {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).1
}

/// Names and contents, in the order of the names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(FOLDER).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("each target has a corpus")
        .map(|file| file.expect("a file").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .map(|(name, path)| (name, fs::read(path).expect("a file")))
        .collect();
    files.sort();
    files
}

/// Keeps an input that fails, and says where.
fn run(name: &str, input_name: &str, input: &[u8]) {
    let check = check_of(name);
    if let Err(why) = panic::catch_unwind(AssertUnwindSafe(|| check(input))) {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{input_name}"));
        fs::write(&place, input).expect("the folder for tests' files is there");
        eprintln!(
            "the input is in {}: once it is in tests/fuzz/corpus/{name}, it is always tried",
            place.display()
        );
        panic::resume_unwind(why);
    }
}

/// Input number 0, 1, 2… of a target is the same in every run.
fn run_all(name: &str, many: u64) {
    let corpus = corpus(name);
    for (file, input) in &corpus {
        run(name, file, input);
    }
    let count = if env::var_os(MANY).is_some() { many } else { FEW };
    let seeds: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let words = mutate::words(&fs::read_to_string(format!("{FOLDER}/dictionary")).expect("words"));
    for number in 0..count {
        run(name, &format!("changed-{number}"), &mutate::input(number, &seeds, &words));
    }
    println!("fuzz {name}: {} inputs of the corpus, {count} made of them", seeds.len());
}

#[test]
fn any_command_line_is_read() {
    run_all("cmdline", 20_000);
}

#[test]
fn any_item_is_one_or_is_rejected() {
    run_all("items", 300_000);
}

#[test]
fn any_file_of_names_is_read() {
    run_all("names", 10_000);
}

#[test]
fn any_report_is_read() {
    run_all("report", 150_000);
}

#[test]
fn any_tree_is_planned_and_bound_by_any_kernel() {
    run_all("tree", 2_000);
}

/// The parts of a tree's text: the command line, and the files.
fn sections(text: &[u8]) -> Vec<&[u8]> {
    let is_start = |at: usize| text[at..].starts_with(b"== ") && (at == 0 || text[at - 1] == b'\n');
    let starts: Vec<_> = (1..text.len()).filter(|at| is_start(*at)).collect();
    let ends = starts.iter().copied().chain([text.len()]);
    [0].into_iter().chain(starts.clone()).zip(ends).map(|(start, end)| &text[start..end]).collect()
}

/// Every file that the corpus has of machines, once: missing, and in each of these forms.
#[test]
fn each_file_of_a_tree_may_be_missing_or_be_anything() {
    let mut tried = BTreeSet::new();
    for (file, input) in corpus("tree") {
        let parts = sections(&input);
        for index in 1..parts.len() {
            let heading = parts[index].split(|byte| *byte == b'\n').next().unwrap_or_default();
            let heading = String::from_utf8_lossy(heading).into_owned();
            let name = heading.split(" -> ").next().unwrap_or_default().trim_end_matches('/');
            if !tried.insert(name.to_owned()) {
                continue;
            }
            for (number, other) in [
                String::new(),
                format!("{name}\n"),
                format!("{name}\n-1 0x \u{1b}[2J \u{202e} 99999999999999999999\n\0\n"),
                format!("{name}\n{}\n", "f".repeat(5000)),
                format!("{name}/\n"),
                format!("{name} -> .\n"),
                format!("{name} -> ../../../../../../../../../etc\n"),
                format!("{name} -> {}\n", name.rsplit('/').next().unwrap_or_default()),
                format!("{name} -> 4294967296\n"),
                format!("{name} -> {}\n", "x/".repeat(300)),
            ]
            .into_iter()
            .enumerate()
            {
                let (before, after) = (parts[..index].concat(), parts[index + 1..].concat());
                let input = [before, other.into_bytes(), after].concat();
                run("tree", &format!("{file}-{index}-{number}"), &input);
            }
        }
    }
    assert!(tried.len() > 100, "{} files", tried.len());
}
