//! `cargo xtask reproduce`: two builds, in different places, that have to make the same bytes.

use anyhow::Result;

use crate::checks::supply::reproduce::{Comparison, compare};
use crate::supplies::arch::Arch;
use crate::supplies::cross::Target;

/// Says the digests and what differs; whether nothing does.
///
/// # Errors
/// When one of the builds fails.
pub fn run() -> Result<bool> {
    let files = tempfile::tempdir()?;
    let comparison = compare(None, &[Target::of(Arch::of_this_machine())], files.path())?;
    Ok(tell(&comparison))
}

/// Says it; whether nothing differs.
pub(super) fn tell(comparison: &Comparison) -> bool {
    for (what, digest) in &comparison.digests {
        println!("{digest}  {what}");
    }
    for complaint in &comparison.complaints {
        println!("{complaint}");
    }
    if comparison.complaints.is_empty() {
        println!("two builds in different places made the same bytes");
    }
    comparison.complaints.is_empty()
}
