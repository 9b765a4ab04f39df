//! What `make install` and the packages put where, by the tools that make and check packages.

mod arch;
mod debian;
mod files;
mod makefile;
mod rpm;
mod shell;
mod tarball;

use std::fs;

use anyhow::{Context, Result};

use crate::check::{Check, Outcome};
use crate::supplies::arch::Arch;
use crate::supplies::binary::workspace;
use crate::supplies::{cross, musl, packages};

/// Name and check.
type Named = (&'static str, fn() -> Result<Vec<String>>);

/// It is that of the program with musl.
const COPYRIGHT: &str = "packaging: copyright names all that is linked in";

/// It needs a cross compiler and a standard library of Rust's.
const FOR_ARM: &str = "packaging: the Debian package for Arm has exactly these files";

const CHECKS: &[Named] = &[
    ("packaging: make puts exactly these files, and takes them away", makefile::all),
    ("packaging: make puts one generator's files alone", makefile::one_generator),
    (
        "packaging: with another prefix the units and hooks name the program's place",
        makefile::another_prefix,
    ),
    (
        "packaging: plain cargo builds with a given libkmod, and apt is not asked",
        makefile::given_libkmod,
    ),
    ("packaging: the Debian package has exactly these files", debian::files),
    (FOR_ARM, debian::for_arm),
    ("packaging: the Debian package's control files", debian::control),
    (COPYRIGHT, debian::copyright),
    ("packaging: lintian", debian::lintian),
    ("packaging: the RPM by rpmbuild, and rpmlint", rpm::built),
    ("packaging: Arch's package by makepkg", arch::built),
    (
        "packaging: the archive's script puts what make does, and takes it away",
        tarball::installed_and_removed,
    ),
    ("packaging: shellcheck", shell::scripts),
    ("packaging: one version everywhere", one_version),
];

/// All of them.
pub(crate) fn checks() -> Vec<Check> {
    let check = |(name, check): &Named| {
        let (name, check) = (*name, *check);
        let run = move || -> Result<Outcome> {
            let missing = match name {
                COPYRIGHT => musl::missing(),
                FOR_ARM => cross::missing(Arch::Arm64),
                _ => None,
            };
            if let Some(why) = missing {
                return Ok(Outcome::NotRun(why.to_owned()));
            }
            // All at once: each run of apt takes its time.
            packages::ensure(&[packages::PACKAGE, packages::PACKAGING].concat())?;
            Ok(Outcome::of(&check()?))
        };
        Check { name: name.to_owned(), kernel: None, run: Box::new(move |_| run().into()) }
    };
    CHECKS.iter().map(check).collect()
}

/// Each recipe says the version for itself.
fn one_version() -> Result<Vec<String>> {
    let version = env!("CARGO_PKG_VERSION");
    let mut complaints = Vec::new();
    for (file, line) in [
        ("packaging/debian/changelog", format!("vfio-early ({version}-1) ")),
        ("packaging/rpm/vfio-early.spec", format!("Version:        {version}\n")),
        (
            "packaging/rpm/vfio-early.spec",
            format!("%global kmod {}\n", crate::supplies::libkmod::VERSION),
        ),
        ("packaging/arch/PKGBUILD", format!("pkgver={version}\n")),
        ("packaging/arch/PKGBUILD", format!("_kmod={}\n", crate::supplies::libkmod::VERSION)),
        // What a user types who has a release.
        ("README.md", format!("./vfio-early_{version}-1_amd64.deb")),
        ("README.md", format!("./vfio-early-{version}-1.x86_64.rpm")),
        ("README.md", format!("vfio-early-{version}-1.src.tar.gz")),
        ("README.md", format!("vfio-early-{version}-x86_64.tar.gz")),
        ("docs/debian.md", format!("sudo apt install ./vfio-early_{version}-1_amd64.deb")),
        ("docs/dracut.md", format!("sudo dnf install ./vfio-early-{version}-1.x86_64.rpm")),
        ("docs/mkinitcpio.md", format!("vfio-early-{version}-1.src.tar.gz")),
    ] {
        let text = fs::read_to_string(workspace().join(file)).with_context(|| file.to_owned())?;
        if !text.contains(&line) {
            complaints.push(format!("{file} has no {line:?}"));
        }
    }
    Ok(complaints)
}
