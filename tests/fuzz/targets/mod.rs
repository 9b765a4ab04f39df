//! What is fuzzed: bytes to checks. Each check panics where something does not hold.
//!
//! The tests of this package run them over the corpus and over changed inputs; cargo-fuzz, with
//! `fuzz/target.rs`, over inputs that it finds by what they reach. It is a `mod.rs` because both
//! have it as a module, from different folders.

mod adversary;
mod cmdline;
mod items;
mod names;
mod report;
mod tree;

use serde::Serialize;
use vfio_early::escape;

/// Bytes to checks.
pub type Check = fn(&[u8]);

/// All of them; each has its corpus in `tests/fuzz/corpus`, in a folder of its name.
pub const TARGETS: [(&str, Check); 5] = [
    ("cmdline", cmdline::check),
    ("items", items::check),
    ("names", names::check),
    ("report", report::check),
    ("tree", tree::check),
];

/// Nothing in what is printed for a reader does anything to a terminal, or makes a line of its own.
fn assert_harmless(text: &str) {
    let bad = text.chars().find(|c| escape::is_hidden(*c) && *c != '\n');
    assert!(bad.is_none(), "{bad:?} in {text:?}");
}

/// It is JSON of the same content, harmless, and at most so long; the value.
fn assert_json(value: &impl Serialize, longest: usize) -> serde_json::Value {
    let text = escape::json(value).expect("it can be JSON");
    assert_harmless(&text);
    assert!(!text.contains('\n'), "{text:?}");
    assert!(text.len() <= longest, "{} bytes of JSON, over {longest}", text.len());
    let read = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(serde_json::to_value(value).expect("it can be JSON"), read);
    read
}

/// A folder in memory, where that is to be had.
fn folder() -> tempfile::TempDir {
    let mut name = tempfile::Builder::new();
    name.prefix("vfio-early-fuzz-");
    name.tempdir_in("/dev/shm").or_else(|_| name.tempdir()).expect("a temporary folder")
}
