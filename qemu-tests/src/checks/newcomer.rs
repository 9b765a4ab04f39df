//! The two commands of the README in a Debian made for it, which has what the README names and nothing else.
//!
//! All is fetched and built there once more, by the project's own set-up.

use std::fs;

use anyhow::{Context, Result};

use crate::check::{Check, Outcome};
use crate::machine::distro::{Suite, as_root};
use crate::supplies::binary::workspace;
use crate::supplies::{archive, cache, packages, step};

const TRY: &str = include_str!("../guest/newcomer/try");

/// What a newcomer types.
const COMMANDS: [(&str, &str); 2] = [
    // Of the tests what depends on the system that it runs on: its tools, its C library, and roots that are
    // made in a chroot.
    (
        "the demo, and a part of the tests",
        "cargo xtask demo && \
         cargo xtask test completions 'packaging:' 'supply: the program' '6.1 a guard that matches' \
         '6.12 Debian 13: initramfs-tools: devices are bound'",
    ),
    ("the demo, and all tests", "cargo xtask demo && cargo xtask test"),
];

const SUITES: [(&str, Suite); 2] = [("Debian 12", Suite::Bookworm), ("Debian 13", Suite::Trixie)];

/// Each command on each release.
pub(crate) fn checks() -> Vec<Check> {
    let check = |(system, suite): (&str, Suite), (what, command): (&str, &'static str)| Check {
        name: format!("newcomer: {system}: {what}"),
        kernel: None,
        run: Box::new(move |_| Outcome::from(run(suite, command).map(|()| Outcome::Passed))),
    };
    let on = |system| COMMANDS.map(|command| check(system, command));
    SUITES.into_iter().flat_map(on).collect()
}

fn run(suite: Suite, command: &str) -> Result<()> {
    packages::ensure(packages::DISTRO)?;
    let readme = fs::read_to_string(workspace().join("README.md")).context("no README.md")?;
    let packages = named(&readme).context("the README does not say what is needed")?.join(" ");
    let rust = step::run(std::process::Command::new("rustc").args(["--print", "sysroot"]))?;
    let rust = String::from_utf8_lossy(&rust).trim_end().to_owned();
    let place = tempfile::Builder::new().prefix("newcomer-").tempdir_in(cache::folder()?)?;
    let tried = step::run(
        as_root(TRY, place.path())?
            .args([suite.name(), &archive::mirror()?])
            .arg(workspace())
            .args([&rust, &packages, command]),
    );
    let said = fs::read_to_string(place.path().join("log")).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    let last = |count: usize| lines[lines.len().saturating_sub(count)..].join("\n");
    tried.map(drop).with_context(|| format!("it ended so:\n{}", last(60)))?;
    println!("{}", last(12));
    Ok(())
}

/// The packages that the README names: those after "Rust" in its sentence about what is needed.
fn named(readme: &str) -> Option<Vec<&str>> {
    let (_, rest) = readme.split_once(" with Rust and the packages ")?;
    let (sentence, _) = rest.split_once(", nothing")?;
    Some(sentence.split('`').skip(1).step_by(2).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_what_cargo_needs_before_anything_can_say_so() {
        let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
        // Without recommended packages gcc comes without a C library to link with, and git without the
        // certificates that cargo wants to see, too.
        let packages = ["gcc", "libc6-dev", "git", "ca-certificates"];
        assert_eq!(named(&readme).unwrap(), packages);
        assert_eq!(named("On Debian 12 with Rust, gcc and git, nothing else;"), None);
    }
}
