//! Names from `pci.ids`, whatever is in it.

use super::{hosts, json, list};
use crate::fake::Fake;

const FILE: &str = "usr/share/misc/pci.ids";

fn write(fake: &Fake, path: &str, content: &[u8]) {
    let path = fake.tree.root().join(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Names of class, vendor and device of the graphics card.
fn names(fake: &Fake) -> [Option<String>; 3] {
    let list = json(fake, &["01:00.0"]);
    let mut devices = list["devices"].as_array().expect("an array").iter();
    let card = devices.find(|device| device["chosen"] == true).expect("a card");
    ["class_name", "vendor_name", "device_name"].map(|key| card[key].as_str().map(str::to_owned))
}

#[test]
fn a_broken_file_names_what_it_can() {
    let fake = hosts::desktop();
    let long = format!("10de  {}\n\t1c03  Card\n", "N".repeat(100_000));
    for (content, expected) in [
        (&b""[..], [None, None, None]),
        (
            b"\n\t\n\t\t\n#\nC\nC \nC 0\n10de\n10de NVIDIA\n10dg  NVIDIA\n\xff\xfe\n",
            [None, None, None],
        ),
        (b"10de  NVIDIA", [None, Some("NVIDIA"), None]),
        (b"10de  NVIDIA\r\n\t1c03  Card\r\n", [None, Some("NVIDIA"), Some("Card")]),
        (b"\t1c03  of nobody\n10de  N\n", [None, Some("N"), None]),
        // What is below an unreadable line is nobody's.
        (b"8086  Intel\n10d\n\t1c03  Card\n", [None, None, None]),
        (b"10de  N\n10d\n\t1c03  Card\n", [None, Some("N"), None]),
        (
            b"10de  N\n\t1c0\n\t\t1c03 0000  a subsystem\n\t1c03  Card\n",
            [None, Some("N"), Some("Card")],
        ),
        (b"10de  N\xe9w\n", [None, Some("N\u{fffd}w"), None]),
        (b"C 03  Display controller\n", [Some("Display controller"), None, None]),
        (b"C 03  Display\n\t00  VGA\n\t\t00  x\n10de  N\n", [Some("VGA"), Some("N"), None]),
        (b"+0de  N\n 10de  N\n", [None, None, None]),
        (long.as_bytes(), [None, None, None]),
    ] {
        write(&fake, FILE, content);
        let expected = expected.map(|name| name.map(str::to_owned));
        assert_eq!(names(&fake), expected, "{:?}", String::from_utf8_lossy(content));
        assert_eq!(list(&fake, &[], &[]).0, Some(0));
    }
}

#[test]
fn no_name_reaches_the_terminal_raw() {
    let fake = hosts::desktop();
    write(&fake, FILE, b"10de  \x1b[2J\x07\xc2\x9bN\n");
    let (_, stdout, _) = list(&fake, &["01:00.0"], &[("LC_ALL", "C.UTF-8")]);
    assert!(stdout.contains("\\u{1b}[2J\\u{7}\\u{9b}N"), "{stdout}");
    assert!(!stdout.chars().any(|c| c.is_control() && c != '\n'), "{stdout:?}");
}

#[test]
fn the_file_is_found_where_distributions_have_it() {
    for path in ["usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids", "usr/share/pci.ids"] {
        let fake = hosts::desktop();
        std::fs::remove_file(fake.tree.root().join(FILE)).unwrap();
        write(&fake, path, b"10de  Here\n");
        assert_eq!(names(&fake)[1].as_deref(), Some("Here"), "{path}");
    }
    // NixOS: lspci is a link into a package, whose file lies beside it.
    let fake = hosts::desktop();
    std::fs::remove_file(fake.tree.root().join(FILE)).unwrap();
    write(&fake, "nix/store/x-pciutils/share/pci.ids", b"10de  Here\n");
    write(&fake, "nix/store/x-pciutils/bin/lspci", b"");
    fake.tree.folder("run/current-system/sw/bin");
    let target = "../../../../nix/store/x-pciutils/bin/lspci";
    fake.tree.link("run/current-system/sw/bin/lspci", target);
    assert_eq!(names(&fake)[1].as_deref(), Some("Here"));
}
