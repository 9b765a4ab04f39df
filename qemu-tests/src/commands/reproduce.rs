//! `cargo xtask reproduce`: two builds, in different places, that have to make the same bytes.

use anyhow::Result;

use crate::checks::supply::reproduce::compare;

/// Says the digests and what differs; whether nothing does.
///
/// # Errors
/// When one of the builds fails.
pub fn run() -> Result<bool> {
    let comparison = compare()?;
    for (what, digest) in &comparison.digests {
        println!("{digest}  {what}");
    }
    for complaint in &comparison.complaints {
        println!("{complaint}");
    }
    if comparison.complaints.is_empty() {
        println!("two builds in different places made the same bytes");
    }
    Ok(comparison.complaints.is_empty())
}
