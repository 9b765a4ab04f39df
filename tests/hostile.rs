//! Input that is meant to do harm, or that nobody thought of.

mod amounts;
mod environment;
mod lines;
mod modules_folder;
mod reports;
mod trees;

use std::ffi::OsStr;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Command, Output};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The program over another tree, to which it never writes; what hangs is killed.
fn program(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60", env!("CARGO_BIN_EXE_vfio-early"), "--root"]);
    command.arg(root).args(arguments).env_remove("JOURNAL_STREAM");
    command
}

/// Exit statuses of a run that came to its end by itself.
const ENDED: [Option<i32>; 4] = [Some(0), Some(1), Some(2), Some(3)];

fn run(root: &Path, arguments: &[&str]) -> Output {
    let output = program(root, arguments).output().expect("timeout, of coreutils, starts");
    assert!(ENDED.contains(&output.status.code()), "{arguments:?}: {output:?}");
    output
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("all output is UTF-8")
}

/// Nothing that a terminal obeys, and no line of the log that is not ours.
fn assert_harmless(output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = text(bytes);
        let bad = |c: char| vfio_early::escape::is_hidden(c) && c != '\n';
        assert!(!text.contains(bad), "{text:?}");
    }
    for line in text(&output.stderr).lines() {
        assert!(line.starts_with("vfio-early: "), "{line:?}");
    }
}

/// The test with the values that the seeds 0, 1, 2… give; a failure names its seed.
fn for_seeds<S: Strategy>(seeds: u64, strategy: &S, test: impl Fn(S::Value)) {
    for seed in 0..seeds {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let value = strategy.new_tree(&mut runner).expect("the strategy rejects nothing").current();
        if let Err(why) = panic::catch_unwind(AssertUnwindSafe(|| test(value))) {
            eprintln!("the seed was {seed}");
            panic::resume_unwind(why);
        }
    }
}

fn path(name: &OsStr) -> &str {
    name.to_str().expect("a temporary folder's name is text")
}
