//! Modules of the host's that the administrator does not want loaded.

use std::fs;
use std::os::unix::fs::symlink;

use vfio_early::modules::Modules;

use crate::fake::Fake;
use crate::list::hosts;
use crate::next_initrd::{indexes, module};

/// Whether libkmod finds it by its alias, and what comes of that.
fn is_blacklisted(fake: &Fake, name: &str) -> bool {
    let modules = Modules::open(fake.tree.root()).expect("libkmod opens it");
    let found = modules.for_alias(&format!("test:{name}"));
    let [module] = found.as_slice() else { panic!("{name}: {found:?}") };
    assert_eq!(module.name, name);
    module.is_blacklisted
}

fn with_modules(names: &[&str]) -> Fake {
    let fake = hosts::desktop();
    for name in names {
        module(&fake, name, &[]);
    }
    indexes(&fake, &[]);
    fake
}

#[test]
fn it_is_read_where_modprobe_reads_it() {
    let names = ["etc", "run", "local", "usr_lib", "lib", "backup", "hidden", "readme", "deeper"];
    let fake = with_modules(&names);
    for (file, blacklisted) in [
        ("etc/modprobe.d/a.conf", "etc"),
        ("run/modprobe.d/b.conf", "run"),
        ("usr/local/lib/modprobe.d/c.conf", "local"),
        ("usr/lib/modprobe.d/d.conf", "usr-lib"),
        ("lib/modprobe.d/e.conf", "lib"),
        ("etc/modprobe.d/f.conf.bak", "backup"),
        ("etc/modprobe.d/.g.conf", "hidden"),
        ("etc/modprobe.d/README", "readme"),
        ("etc/modprobe.d/h.conf/i.conf", "deeper"),
    ] {
        fake.tree.write(file, &format!("blacklist {blacklisted}\n"));
    }
    for name in names {
        let expected = ["etc", "run", "local", "usr_lib", "lib"].contains(&name);
        assert_eq!(is_blacklisted(&fake, name), expected, "{name}");
    }
}

#[test]
fn a_file_hides_those_of_its_name_in_the_folders_behind() {
    let fake = with_modules(&["i915", "nouveau", "radeon"]);
    fake.tree.write("usr/lib/modprobe.d/nvidia.conf", "blacklist nouveau\n");
    fake.tree.write("usr/lib/modprobe.d/amd.conf", "blacklist radeon\n");
    assert!(is_blacklisted(&fake, "nouveau") && is_blacklisted(&fake, "radeon"));
    fake.tree.write("etc/modprobe.d/nvidia.conf", "blacklist i915\n");
    symlink("/dev/null", fake.tree.root().join("etc/modprobe.d/amd.conf")).unwrap();
    let of_each = ["i915", "nouveau", "radeon"].map(|name| is_blacklisted(&fake, name));
    assert_eq!(of_each, [true, false, false]);
    fs::remove_dir_all(fake.tree.root().join("etc/modprobe.d")).unwrap();
    assert!(!is_blacklisted(&fake, "i915") && is_blacklisted(&fake, "nouveau"));
}

#[test]
fn it_is_read_on_the_command_line() {
    for (text, expected) in [
        ("quiet", false),
        ("modprobe.blacklist=nouveau", true),
        ("modprobe.blacklist=snd-hda-intel,nouveau", true),
        ("module_blacklist=nouveau quiet", true),
        ("rd.driver.blacklist=nouveau", true),
        ("blacklist=nouveau", true),
        ("modprobe.blacklist=nouveau2 nouveau.blacklist=nouveau", false),
    ] {
        let fake = with_modules(&["nouveau"]);
        fake.tree.write("proc/cmdline", text);
        assert_eq!(is_blacklisted(&fake, "nouveau"), expected, "{text:?}");
    }
}
