//! What the fake kernel claims of Linux, rule by rule.
//!
//! A rule is data: a sentence, and a few steps in a small common vocabulary ([`Op`](rule::Op)), each of which
//! has an answer. Real kernels are asked in a guest ([`ask`]); their answers are kept in
//! `docs/kernel-rules.json` ([`record`]), of which `docs/kernel-rules.md` is the readable form. The
//! fake kernel is asked the same in `tests/rules.rs`, and answers as the record has it, or a step
//! says why not (`.but(…)`).
//!
//! `cargo xtask rules --write` asks anew and keeps the answers; `cargo xtask test` asks anew and
//! complains of any that is not as it was kept.

pub mod ask;
mod binding;
mod devices;
mod groups;
mod hangs;
pub mod machines;
mod modules;
mod overrides;
pub(crate) mod page;
pub mod record;
pub mod rule;
mod screens;

use self::rule::Rule;

/// Rules about one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// A heading.
    pub name: &'static str,
    /// In the order in which they are asked.
    pub rules: Vec<Rule>,
}

/// All of them.
#[must_use]
pub fn chapters() -> Vec<Chapter> {
    let chapter = |name, rules| Chapter { name, rules };
    vec![
        chapter("Devices", devices::rules()),
        chapter("driver_override", overrides::rules()),
        chapter("Binding and unbinding", binding::rules()),
        chapter("Modules", modules::rules()),
        chapter("Groups", groups::rules()),
        chapter("What hangs", hangs::rules()),
        chapter("Screens", screens::rules()),
    ]
}

/// As [`chapters`], without the headings.
#[must_use]
pub fn all() -> Vec<Rule> {
    chapters().into_iter().flat_map(|chapter| chapter.rules).collect()
}

/// Claims of the fake kernel that no rule asks for, and why.
pub const NOT_ASKED: &[(&str, &str)] = &[
    (
        "what a `Fault` makes go wrong: a write that fails, a probe that is refused, a module that \
         is broken, no netlink, framebuffers that come late or never, a device that goes away",
        "they are premises of a test and no claims; what follows from a hang and from a device that \
         goes away is asked here, and the rest is made to happen in `qemu-tests/src/checks/faults.rs`",
    ),
    (
        "which driver takes a device whose id it does not have, but whose override names it",
        "that it is tried is asked here with pci-stub and vfio-pci; the fake's drivers of the host \
         succeed with any device, and a real one may not",
    ),
    (
        "why a device of its own refuses vfio-pci (virtual functions that are on, a denylist, no \
         cache coherency)",
        "the errno is a premise of a test; that `bind` tells it, or on 5.10 does not, is asked here \
         with a device that is in no group, and with bridges",
    ),
    (
        "the function that an IOMMU of AMD is",
        "the kernel gives it to no driver, where the fake's vfio-pci refuses it for want of a group; \
         the binary refuses it before any driver is asked",
    ),
    (
        "releases and versions of kernels",
        "the fake has those that were measured once; how Debian and others write them is tabled in \
         `src/console.rs`",
    ),
    (
        "memory regions in `resource`, but for the shadowed ROM; and `/proc/iomem`, but for the \
         firmware's framebuffer",
        "nothing else of them is read; whether memory can be mapped is tried in \
         `qemu-tests/src/checks/screens.rs`",
    ),
    (
        "a default VGA device that is not the one whose memory the firmware's framebuffer is in",
        "the firmware here makes no such machine; the rule is tabled in `src/console.rs`",
    ),
    (
        "the modules for an alias, variants of vfio-pci, modules that are blacklisted or built in",
        "libkmod answers that and no kernel; `tests/naming.rs`, `tests/variants.rs` and scenarios on \
         real initrds have it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_a_step() {
        let mut names: Vec<_> = all().iter().map(|rule| rule.name).collect();
        assert!(all().iter().all(|rule| !rule.steps.is_empty()));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
