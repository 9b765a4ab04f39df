//! What is checked: a file or folder for each subject.
//!
//! Uses [`scenario`], [`mod@check`](crate::check), [`machine`](crate::machine) and
//! [`supplies`](crate::supplies). No check knows which command runs it: each subject has a line in one of
//! the two lists below, by which [`commands`](crate::commands) find its checks.

pub(crate) mod bench;
mod boot_loaders;
pub(crate) mod cargo;
pub(crate) mod debian;
mod dracut;
mod faults;
mod flavours;
mod host;
mod iommus;
mod keep;
pub(crate) mod left_out;
mod newcomer;
pub(crate) mod nix;
mod packaging;
mod races;
pub mod rules;
pub(crate) mod screens;
pub mod soak;
pub(crate) mod supply;
mod systemd;

use crate::check::{Boot, Check};
use crate::scenario;

/// Checks that boot a virtual machine, in the order in which they are begun.
const BOOTS: &[fn() -> Vec<Boot>] = &[
    // What is made once for many takes minutes.
    systemd::listings,
    dracut::listings,
    debian::listings,
    scenario::run::usual,
    rules::ask::boots,
    screens::boots,
    host::boots,
    faults::boots,
    flavours::boots,
    iommus::boots,
    keep::boots,
    boot_loaders::boots,
    races::boots,
    soak::boots,
    bench::guard::boots,
    // What waits for it.
    systemd::boots,
    dracut::boots,
    debian::boots,
];

/// Checks that boot none, or one on the way; [`cargo`] has those that come before all others.
const OTHERS: &[fn() -> Vec<Check>] =
    &[nix::checks, packaging::checks, supply::checks, newcomer::checks];

pub(crate) fn boots() -> Vec<Boot> {
    BOOTS.iter().flat_map(|of_subject| of_subject()).collect()
}

pub(crate) fn others() -> Vec<Check> {
    OTHERS.iter().flat_map(|of_subject| of_subject()).collect()
}
