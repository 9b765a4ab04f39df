//! What counts as a keyboard, and that a line to paste leaves the host one.

use super::hosts;
use crate::fake::Fake;
use crate::list::{listed, tree_of};
use vfio_early::host::list::formats::{FORMATS, Format, hand_off};

fn names(fake: &Fake) -> Vec<String> {
    fake.sysfs().keyboards().into_iter().map(|keyboard| keyboard.name).collect()
}

/// A mouse with many buttons is no keyboard, where there is one; nor is what software makes.
#[test]
fn what_nobody_can_type_on_is_no_keyboard() {
    let fake = hosts::encrypted().running();
    let mouse = "usb3/3-1/3-1:1.1/input/input8";
    fake.keyboard("00:1b.0/03:00.0", mouse, "Gaming Mouse Keyboard");
    fake.tree.write("sys/class/input/input8/capabilities/led", "0\n");
    let folder = "devices/virtual/input/input9";
    fake.tree.write(&format!("sys/{folder}/name"), "keyd virtual keyboard\n");
    fake.tree.link_up("class/input/input9", folder);
    let keys = "ffffffffffffffff fffffffffffffffe\n";
    fake.tree.write(&format!("sys/{folder}/capabilities/key"), keys);
    fake.tree.write(&format!("sys/{folder}/capabilities/led"), "7\n");
    assert_eq!(names(&fake), ["Cherry Keyboard"]);
    // Where none has lights, one that has the keys will do.
    for input in ["input3", "input8"] {
        fake.tree.write(&format!("sys/class/input/{input}/capabilities/led"), "0\n");
    }
    assert_eq!(names(&fake), ["Cherry Keyboard", "Gaming Mouse Keyboard"]);
}

const TOKEN: &str = "usb3/3-1/3-1:1.0/0003:1050:0407.0002/input/input9";
const USB_DEVICE: &str = "sys/bus/pci/devices/0000:03:00.0/usb3/3-1";

/// What types like one, and has its lights: on the other controller than the keyboard.
fn with_another(name: &str, lay: fn(&Fake)) -> Fake {
    let fake = hosts::encrypted().running();
    fake.keyboard("00:1b.0/03:00.0", TOKEN, name);
    fake.tree.write(&format!("{USB_DEVICE}/3-1:1.0/bInterfaceClass"), "03\n");
    fake.tree.write(&format!("{USB_DEVICE}/3-1:1.1/bInterfaceClass"), "03\n");
    lay(&fake);
    fake
}

/// By the kernel's own facts: neither a name nor whether it is a HID boot device tells (a receiver's
/// keyboards are none).
#[test]
fn what_types_is_a_keyboard_unless_something_tells_that_it_is_not() {
    type Lay = fn(&Fake);
    let cases: [(&str, Lay, bool); 8] = [
        ("a keyboard with media keys", |_| {}, true),
        (
            "one of a receiver, which is no boot device",
            |fake| fake.tree.write(&format!("{USB_DEVICE}/3-1:1.0/bInterfaceProtocol"), "00\n"),
            true,
        ),
        (
            "a smart card that types",
            |fake| fake.tree.write(&format!("{USB_DEVICE}/3-1:1.2/bInterfaceClass"), "0b\n"),
            false,
        ),
        ("a FIDO token that types", |fake| hid(fake, b"\x06\xd0\xf1\x09\x01"), false),
        ("another HID device", |fake| hid(fake, b"\x05\x01\x09\x02"), true),
        ("one that has nothing to say", |fake| hid(fake, b""), true),
        ("one by Bluetooth", |fake| bus(fake, "0005\n"), false),
        ("one by USB", |fake| bus(fake, "0003\n"), true),
    ];
    for (what, lay, counts) in cases {
        let fake = with_another("Other", lay);
        let expected: &[&str] =
            if counts { &["Cherry Keyboard", "Other"] } else { &["Cherry Keyboard"] };
        assert_eq!(names(&fake), expected, "{what}");
        // Without it the host would have none, or one that need not be.
        let pasted = tree_of(&fake, &["00:14.0"]);
        let is_pasted = pasted.contains("To paste: vfio.devs=8086:a36d@00:14.0");
        assert_eq!(is_pasted, counts, "{what}: {pasted}");
        // Where nothing else is there it may be the keyboard.
        fake.tree.write("sys/class/input/input3/capabilities/key", "0\n");
        assert_eq!(names(&fake), ["Other"], "{what}");
        let pasted = tree_of(&fake, &["03:00.0"]);
        assert!(pasted.contains("the host would have no keyboard left"), "{what}: {pasted}");
    }
}

/// A program (`BlueZ`) feeds it, so that it hangs on nothing; its radio does.
#[test]
fn a_keyboard_that_bluez_feeds_hangs_on_the_radio() {
    let fed = "devices/virtual/misc/uhid/0005:046D:B342.0004/input/input9";
    for (bustype, radio, item) in [
        ("0005\n", Some("00:1b.0/03:00.0"), Some("1b21:2142@00:1b.0/00.0")),
        ("0005\n", Some("00:14.0"), Some("8086:a36d@00:14.0")),
        // By UART.
        ("0005\n", None, None),
        // What a program makes of nothing.
        ("0003\n", Some("00:14.0"), None),
    ] {
        let fake = hosts::encrypted().running();
        fake.tree.write(&format!("sys/{fed}/name"), "MX Keys\n");
        fake.tree.link_up("class/input/input9", fed);
        let keys = "ffffffffffffffff fffffffffffffffe\n";
        fake.tree.write(&format!("sys/{fed}/capabilities/key"), keys);
        fake.tree.write(&format!("sys/{fed}/id/bustype"), bustype);
        if let Some(place) = radio {
            fake.below(place, "bluetooth", "usb1/1-9/1-9:1.0/bluetooth/hci0");
        }
        // Another one is better.
        assert_eq!(names(&fake), ["Cherry Keyboard"]);
        fake.tree.write("sys/class/input/input3/capabilities/key", "0\n");
        let record = super::record(&fake);
        let line = record.lines().find_map(|line| line.strip_prefix("keyboard "));
        assert_eq!(line, item.map(|item| format!("{item}  # MX Keys")).as_deref(), "{radio:?}");
    }
}

fn hid(fake: &Fake, descriptor: &[u8]) {
    let folder = format!("{USB_DEVICE}/3-1:1.1/0003:1050:0407.0003");
    fake.tree.folder(&folder);
    let path = fake.tree.root().join(folder).join("report_descriptor");
    std::fs::write(path, descriptor).expect("it can be written");
}

fn bus(fake: &Fake, number: &str) {
    fake.tree.write("sys/class/input/input9/id/bustype", number);
}

/// A keyboard without lights is as good as one with, where a token is all there is besides.
#[test]
fn a_token_does_not_hide_a_keyboard_without_lights() {
    let fake = with_another("YubiKey", |fake| hid(fake, b"\x06\xd0\xf1"));
    fake.tree.write("sys/class/input/input3/capabilities/led", "0\n");
    assert_eq!(names(&fake), ["Cherry Keyboard", "YubiKey"]);
    assert!(tree_of(&fake, &["usb"]).contains("Nothing to paste: the host would have no keyboard"));
}

/// Of two keyboards on two controllers none is in a line that would take both, in whatever format.
#[test]
fn two_keyboards_on_two_controllers_are_not_both_handed_over() {
    let fake = with_another("Other", |_| {});
    let pasted = tree_of(&fake, &["usb"]);
    assert!(pasted.contains("Nothing to paste: the host would have no keyboard left"), "{pasted}");
    for (name, format) in FORMATS {
        let list = listed(&fake, &["usb"]);
        let handed = hand_off(&list, format, false);
        assert_eq!(handed.text, "", "{name}");
        assert_eq!(handed.left_out.len(), 2, "{name}: {:?}", handed.left_out);
    }
}

/// What the administrator wrote counts for `list`, as it does for `check` and `bind`.
#[test]
fn list_knows_what_the_administrator_wrote() {
    for (line, filter, said) in [
        ("disk 1b36:0010@00:1d.0/00.0 # the archive", "02:00.0", "by its record: the archive"),
        ("network 1b36:0010@00:1d.0/00.0 # odd", "02:00.0", "by its record: odd"),
    ] {
        let fake = hosts::twin_disks().running();
        assert!(tree_of(&fake, &[filter]).contains("To paste: vfio.devs="), "{line}");
        fake.tree.write("etc/vfio-early/keep", &format!("{line}\n"));
        let text = tree_of(&fake, &[filter]);
        assert!(text.contains("Nothing to paste: the host uses 02:00.0"), "{text}");
        assert!(text.contains(said), "{text}");
        let list = listed(&fake, &[filter]);
        let handed = hand_off(&list, Format::Nix, false);
        assert!(handed.left_out[0].contains(said), "{:?}", handed.left_out);
        assert_eq!(list.record[0].to_string(), line.replace(" # ", "  # "));
    }
    // A keyboard that the kernel shows as none.
    let fake = hosts::encrypted().running();
    assert!(tree_of(&fake, &["03:00.0"]).contains("To paste: vfio.devs="));
    fake.tree.write("sys/class/input/input3/capabilities/key", "0\n");
    fake.tree.write("etc/vfio-early/keep", "keyboard 1b21:2142@00:1b.0/00.0 # of the rack\n");
    assert!(tree_of(&fake, &["03:00.0"]).contains("the host would have no keyboard left"));
}

/// The only display is refused at boot, so that it is in no line to paste, and neither is the rest of its
/// card.
#[test]
fn the_only_display_is_not_in_a_line_to_paste() {
    let fake = hosts::single_gpu().running();
    let said = "Nothing to paste: the host would have no display left, and a boot refuses its only one; \
                if that is meant, list the items above with vfio.console=release";
    for filter in ["gpu", "01:00.0", "01:00.*"] {
        assert!(tree_of(&fake, &[filter]).contains(said), "{filter}");
    }
    let fake = hosts::apu().running();
    assert!(tree_of(&fake, &["01:00.*"]).contains("To paste: vfio.devs=1002:744c@00:01.1/00.0"));
}
