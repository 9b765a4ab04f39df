//! One fuzz target: that of the program's name. The checks are those of the tests.
#![no_main]

#[path = "../tests/fuzz/targets/mod.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let target = targets::TARGETS.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME"));
    let (_, check) = target.expect("tests/fuzz/targets has a target of that name");
    check(input);
});
