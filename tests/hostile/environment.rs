//! No variable of the environment changes what the program does: the kernel makes one of each
//! parameter that it does not know, for the first program of the initrd.

use std::path::Path;
use std::process::Command;

use super::text;
use crate::machine::desktop;
use crate::next_initrd::modules_of_desktop;

/// Without a program of another kind in front, which would obey them.
fn direct(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-early"));
    command.arg("--root").arg(root).args(arguments).env_remove("JOURNAL_STREAM");
    command
}

#[test]
fn variables_change_nothing() {
    let fake = crate::list::hosts::desktop();
    modules_of_desktop(&fake);
    let other = desktop().boot();
    let nowhere = other.tree.root().join("nowhere.so");
    let nowhere = nowhere.to_str().expect("a name");
    let mut found = Vec::new();
    for command in [
        &["check", "10de:1c03@01:00.*,x"][..],
        &["check", "10de:1c03@01:00.*,x", "--json"],
        &["--dry-run", "--cmdline", "vfio.devs=01:00.0"],
        &["list", "--json"],
        &["status"],
    ] {
        let plain = direct(fake.tree.root(), command).output().expect("it starts");
        let changed = direct(fake.tree.root(), command)
            .env("KMOD_LOG", "crit")
            .env("KMOD_DIRNAME", other.tree.root())
            .env("MODPROBE_OPTIONS", "--force --ignore-install -C /nowhere")
            .env("LD_LIBRARY_PATH", other.tree.root())
            .env("LD_AUDIT", nowhere)
            .env("LD_DEBUG", "all")
            .env("LD_BIND_NOW", "1")
            .env("GCONV_PATH", other.tree.root())
            .env("LOCPATH", other.tree.root())
            .env("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.rtld.nns=0")
            .env("MALLOC_TRACE", nowhere)
            .env("RUST_BACKTRACE", "full")
            .env("RUST_LOG", "trace")
            .env("RUST_MIN_STACK", "1")
            .env("COLUMNS", "18446744073709551616")
            .env("LINES", "-1")
            .env("TERM", "../../../dev/null")
            .env("HOME", other.tree.root())
            .env("TMPDIR", other.tree.root())
            .env("vfio.off", "1")
            .env("vfio.devs", "00:14.0")
            .output()
            .expect("it starts");
        assert_eq!(plain.status.code(), changed.status.code(), "{command:?}: {changed:?}");
        assert_eq!(text(&plain.stdout), text(&changed.stdout), "{command:?}");
        assert_eq!(text(&plain.stderr), text(&changed.stderr), "{command:?}");
        found.extend(plain.stdout);
    }
    // It came as far as to ask libkmod.
    assert!(text(&found).contains("i915, for the console"), "{}", text(&found));
    assert!(!other.tree.root().join("nowhere.so").exists());
}
