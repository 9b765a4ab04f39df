//! What `list` offers to paste and `check` foretells does not cost the host what it lives from.

use vfio_early::host::list::formats::{self, Format, hand_off};

use super::hosts;
use crate::fake::Fake;
use crate::list::{listed, tree_of};

/// The last line, the one to paste.
fn pasted(fake: &Fake, filter: &str) -> String {
    tree_of(fake, &[filter]).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn the_only_keyboard_is_not_in_a_line_to_paste() {
    let fake = hosts::encrypted().running();
    let without = "To paste, without the only keyboard, on 00:14.0: \
                   vfio.devs=1b21:2142@00:1b.0/00.0";
    assert_eq!(pasted(&fake, "usb"), without);
    assert_eq!(
        pasted(&fake, "00:14.0"),
        "Nothing to paste: the host would have no keyboard left; if that is meant, the item is above"
    );
    assert_eq!(pasted(&fake, "03:00.0"), "To paste: vfio.devs=1b21:2142@00:1b.0/00.0");
    // Of two keyboards one may go, but not both.
    fake.keyboard("00:1b.0/03:00.0", "usb3/3-1/3-1:1.0/input/input9", "Other Keyboard");
    assert_eq!(pasted(&fake, "00:14.0"), "To paste: vfio.devs=8086:a36d@00:14.0");
    assert!(pasted(&fake, "usb").starts_with("Nothing to paste: the host would have no keyboard"));
    // A PS/2 port has one.
    fake.old_keyboard();
    let both = "To paste: vfio.devs=8086:a36d@00:14.0,1b21:2142@00:1b.0/00.0";
    assert_eq!(pasted(&fake, "usb"), both);
}

#[test]
fn the_only_keyboard_is_handed_over_in_no_format() {
    let fake = hosts::encrypted().running();
    for (name, format) in formats::FORMATS {
        let handed = hand_off(&listed(&fake, &["usb"]), format, false);
        let devices = handed.text.split("keep = [").next().unwrap_or_default();
        assert!(!devices.contains("00:14.0"), "{name}: {devices}");
        assert!(handed.text.contains("03:00.0") || format != Format::Qemu, "{}", handed.text);
        let why = "0000:00:14.0: the host would have no keyboard left (Cherry Keyboard)";
        assert!(handed.left_out[0].starts_with(why), "{name}: {:?}", handed.left_out);
    }
}

#[test]
fn a_slot_that_shares_its_group_with_the_root_disk_is_nothing_to_paste() {
    let fake = hosts::b450().running();
    let said = pasted(&fake, "07:00.0");
    let why = "Nothing to paste: the host uses 02:00.0";
    let disk = "Nothing to paste: the host uses 03:00.0: nvme0n1p2 is mounted on /; that is in the \
                same IOMMU group, so that this slot cannot be given away on this board";
    assert!(said == disk || said.starts_with(why), "{said}");
}

/// The initrd is made elsewhere: the record is written down.
#[test]
fn nix_gets_the_record_with_the_devices() {
    let fake = hosts::encrypted().running();
    let input = "sys/class/input/input3/name";
    fake.tree.write(input, "The \"best\" ${keyboard}\\\n");
    let handed = hand_off(&listed(&fake, &["usb"]), Format::Nix, false);
    let expected = r#"boot.initrd.vfio-early.devices = [
  "1b21:2142@00:1b.0/00.0"
];
boot.initrd.vfio-early.keep = [
  "disk 144d:a808@00:1d.0/00.0  # nvme0n1p3 is part of dm-0, and dm-0 is part of dm-1, and dm-1 is mounted on /"
  "keyboard 8086:a36d@00:14.0  # The \"best\" \${keyboard}\\"
];
"#;
    assert_eq!(handed.text, expected);
}

/// What `check` prints, in one line.
fn checked(fake: &mut Fake, items: &str) -> String {
    crate::check::words(fake, &format!("vfio.devs={items}")).join(" ")
}

fn assert_in(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn check_tells_what_only_the_record_will_keep() {
    let board = hosts::twin_disks();
    let record = super::record(&board.running());
    for (of_boot, told) in [
        (None, Some("which that of this boot is not known to have: make the initrd anew")),
        (
            Some("disk 1b36:0010@00:1d.0/00.0\n"),
            Some("which that of this boot does not have it in"),
        ),
        (Some(record.as_str()), None),
    ] {
        let mut fake = board.running();
        if let Some(text) = of_boot {
            fake.tree.write("run/vfio-early/keep", text);
        }
        let text = checked(&mut fake, "1b36:0010@00:1c.0/00.0");
        let now = "would be refused: the host uses it: nvme0n1p2 is mounted on /";
        assert_in(&text, &[now]);
        let is_told = text.contains("at the next boot only the record in its initrd keeps it");
        assert_eq!(is_told, told.is_some(), "{text}");
        assert_in(&text, told.as_slice());
    }
    // What is meant is meant at the next boot, too.
    let text = checked(&mut board.running(), "01:00.0 vfio.host=release");
    assert_in(&text, &["would be refused", "at the next boot it would be taken"]);
}

/// The host does not run from the disk any more, and the initrd of this boot says that it does: booted
/// again, it refuses it.
#[test]
fn check_foretells_by_both_records_where_they_differ() {
    let stale = "disk 1b36:0010@00:1d.0/00.0  # nvme1n1p1 is mounted on /srv\n";
    let board = hosts::twin_disks();
    let mut fake = board.running();
    fake.tree.write("run/vfio-early/keep", stale);
    let text = checked(&mut fake, "1b36:0010@00:1d.0/00.0");
    let then = "at the next boot it would be refused by the initrd of this boot: the host lives from \
                this disk, by the record in its initrd: nvme1n1p1 is mounted on /srv; one that is made \
                now would take it";
    assert_in(&text, &["would be refused: the host lives from this disk", then]);
    // That is what it does.
    let report = board.in_initrd(stale).bind("vfio.devs=1b36:0010@00:1d.0/00.0");
    assert_eq!(crate::outcome::outcomes(&report), ["0000:02:00.0 refused"]);
    let anew = super::record(&fake);
    let report = board.in_initrd(&anew).bind("vfio.devs=1b36:0010@00:1d.0/00.0");
    assert_eq!(crate::outcome::outcomes(&report), ["0000:02:00.0 bound"]);
    // Who has made it anew is not told to do it again.
    let mut fake = board.running();
    fake.tree.write("run/vfio-early/keep", stale);
    let text = checked(&mut fake, "1b36:0010@00:1c.0/00.0");
    assert_in(&text, &["make the initrd anew, unless that was done since, or it would be taken"]);
}

#[test]
fn check_tells_what_nothing_will_keep() {
    let fake = &mut hosts::twin_disks().running();
    fake.mounts(&[
        "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw",
        "23 22 259:4 / /srv rw - ext4 /dev/nvme1n1p1 rw",
    ]);
    let text = checked(fake, "1b36:0010@00:1d.0/00.0");
    let then = "at the next boot it would be taken: in an initrd nothing uses it yet";
    assert_in(&text, &["would be refused: the host uses it: nvme1n1p1 is mounted on /srv", then]);

    let fake = &mut hosts::encrypted().running();
    let text = checked(fake, "8086:a36d@00:14.0");
    let keyboard = "the host's only keyboard hangs on it, also for a passphrase at boot";
    assert_in(&text, &["would be refused: the host uses it: the keyboard", then, keyboard]);

    let fake = &mut hosts::b450().running();
    let text = checked(fake, "10ec:8168@06:00.0");
    assert_in(&text, &["enp6s0 has an address; take", then, "the host is without this network"]);
}

#[test]
fn check_contradicts_itself_nowhere() {
    for items in ["group:07:00.0", "10de:1c03@07:00.*"] {
        let text = checked(&mut hosts::b450().running(), items);
        assert!(!text.contains("list it, too"), "{items}: {text}");
        assert_in(&text, &["this slot cannot be given away on this board"]);
    }
    // Nothing differs, and nothing is told.
    let text = checked(&mut hosts::apu().running(), "1002:744c@01:00.*");
    assert!(!text.contains("at the next boot"), "{text}");
    // In an initrd nobody knows of a later one.
    let board = hosts::twin_disks();
    let text = checked(&mut board.in_initrd(&super::record(&board.running())), "01:00.0");
    assert_in(&text, &["would be refused: the host lives from this disk"]);
    assert!(!text.contains("at the next boot"), "{text}");
}
