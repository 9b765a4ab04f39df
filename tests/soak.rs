//! The cases of `cargo xtask soak` over the fake kernel.

use std::env;
use std::ops::Range;

use qemu_tests::checks::soak;
use qemu_tests::machine::observed::BEFORE;
use qemu_tests::scenario::answers;
use qemu_tests::supplies::kernels;

use crate::machine::Line;
use crate::table::observe;

/// Those of the boots that each run of the checks has among them.
const SEEDS: Range<u64> = 1..121;

/// Which, and the kernel where one is asked for.
fn asked() -> (Range<u64>, Option<String>) {
    let Ok(asked) = env::var(soak::VARIABLE) else { return (SEEDS, None) };
    let [first, count, kernel] = asked.split(':').collect::<Vec<_>>()[..] else {
        panic!("{}: {asked}", soak::VARIABLE)
    };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let kernel = (!kernel.is_empty()).then(|| kernel.to_owned());
    (number(first)..number(first) + number(count), kernel)
}

#[test]
fn every_case_of_the_soak_ends_as_it_was_put_together() {
    for seed in soak::USUAL {
        assert!(SEEDS.contains(&seed), "{seed} needs an answer");
    }
    let mut complaints = Vec::new();
    let (seeds, kernel) = asked();
    for seed in seeds {
        let case = soak::case(seed, kernel.as_deref());
        let seen = observe(&case.scenario, Line::of(kernels::line_of(case.kernel)));
        let mut found = case.scenario.topology_complaints(&seen.moments[BEFORE]);
        found.extend(case.scenario.complaints(&seen));
        complaints.extend(found.into_iter().map(|text| format!("seed {seed}: {text}")));
        answers::keep(&case.scenario, &seen).expect("the answer can be kept");
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
