//! The systemd initrd that the module is evaluated to, booted with Debian's systemd and kernel.

use std::path::Path;

use anyhow::{Context, Result};

use super::image;
use crate::check::real_root::{
    self, DISK, NETWORK, Seen, USB, Wrong, bound, in_the_real_root, one_bound_one_absent,
    without_udev,
};
use crate::supplies::kernels::Kernel;

const FINISH: &str = "vfio-early-finish.service";

/// One boot: its configuration's name in `nixos.nix`, and what comes out.
struct Case {
    request: &'static str,
    check: fn(&Seen, &mut Wrong),
}

const CASES: [Case; 3] = [
    Case { request: "bound", check: all_bound },
    Case { request: "absent", check: red_and_going_on },
    Case { request: "strict", check: stopped },
];

/// Boots it with each of the configurations.
///
/// # Errors
/// When it cannot be made.
pub(super) fn problems(nixpkgs: &Path, kernel: &Kernel, program: &Path) -> Result<Vec<String>> {
    let image = image::set_up(nixpkgs, kernel, program)?;
    let mut problems = Vec::new();
    for Case { request, check } in CASES {
        let parameters = &image.parameters[request];
        let parameters = parameters.as_str().with_context(|| format!("no {request}"))?;
        let machine = real_root::machine(kernel, &image.initrd, &image.root, [])
            // For systemd all behind the apostrophe is one word, so what it has to read stands in front.
            .cmdline("root=fstab x=it's")
            .cmdline(parameters)
            .cmdline("init=/usr/lib/systemd/systemd");
        let booted = real_root::boot(machine, |seen, wrong| {
            without_udev(seen, wrong);
            check(seen, wrong);
        });
        problems.extend(booted.err().map(|error| format!("{request}: {error}")));
    }
    Ok(problems)
}

fn all_bound(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &[]);
    wrong.unless(seen.state(FINISH) == "active", format!("{FINISH} is {}", seen.state(FINISH)));
}

fn red_and_going_on(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    one_bound_one_absent(seen, wrong);
    wrong.unless(seen.state(FINISH) == "failed", format!("{FINISH} is {}", seen.state(FINISH)));
}

fn stopped(seen: &Seen, wrong: &mut Wrong) {
    let is_root = |line: &str| line.starts_with("/dev/vda / ");
    wrong.unless(!seen.mounts.lines().any(is_root), "the boot went on into the real root");
    let emergency = seen.state("emergency.target");
    wrong.unless(emergency == "active", format!("emergency.target is {emergency}"));
}
