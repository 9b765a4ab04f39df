//! What is told of a part of what was asked for: the last keyboards, half a card, one of twins.

use std::process::Command;

use super::{hosts, record};
use crate::fake::Fake;
use crate::outcome::{assert_says, outcomes, words};

const FIRST: &str = "0000:00:14.0";
const SECOND: &str = "0000:03:00.0";
const ONLY: &str =
    "the host's only keyboard hangs on it, also for a passphrase at boot: Cherry Keyboard";
const ONE_OF_TWO: &str = "a keyboard of the host hangs on it: Cherry Keyboard";

/// LUKS, and a second keyboard on the other controller.
fn two_keyboards() -> Fake {
    let fake = hosts::encrypted().running();
    fake.keyboard("00:1b.0/03:00.0", "usb3/3-1/3-1:1.0/input/input9", "Other Keyboard");
    fake
}

#[test]
fn the_last_keyboards_are_told_however_many_they_are() {
    let board = hosts::encrypted();
    let of_two = record(&two_keyboards());
    for (record, items, said, not_said) in [
        (of_two.clone(), "00:14.0", ONE_OF_TWO, "only keyboard"),
        (
            of_two.clone(),
            "00:14.0,03:00.0",
            "the host's keyboards hang on it and on 0000:03:00.0, and none is left to it, also for a \
             passphrase at boot: Cherry Keyboard",
            ONE_OF_TWO,
        ),
        // The other one stays, because it is another controller by now.
        (of_two.clone(), "00:14.0,ffff:ffff@03:00.0", ONE_OF_TWO, "none is left"),
        // It was on a card that has gone.
        (of_two.replace("00:1b.0/00.0", "00:1b.0/05.0"), "00:14.0", ONLY, ONE_OF_TWO),
        (of_two.replace("keyboard 1b21:2142@", "network 1b21:2142@"), "00:14.0", ONLY, ONE_OF_TWO),
    ] {
        let report = board.in_initrd(&record).bind(&format!("vfio.devs={items}"));
        assert!(outcomes(&report).contains(&format!("{FIRST} bound")), "{items}");
        let words = words(&report, FIRST);
        assert_says(&words, &[said]);
        assert!(!words.contains(not_said), "{items}: {words}");
    }
    let report = board.in_initrd(&of_two).bind("vfio.devs=00:14.0,03:00.0");
    assert_says(&words(&report, SECOND), &["hang on it and on 0000:00:14.0, and none is left"]);
}

/// The display stays, its audio has an item of its own: it goes, and that this is half a card is told.
#[test]
fn half_a_card_is_told() {
    let half = "0000:01:00.0, the display of its card, is listed, too, and stays with the host: the \
                card is torn apart";
    let board = hosts::apu();
    for (items, address, is_told) in [
        ("ffff:ffff@01:00.0,01:00.1,01:00.2", "0000:01:00.1", true),
        ("ffff:ffff@01:00.0,01:00.1,01:00.2", "0000:01:00.2", true),
        // Not of that card, though in its slot.
        ("ffff:ffff@30:00.0,30:00.3,30:00.1", "0000:30:00.3", false),
        ("ffff:ffff@30:00.0,30:00.3,30:00.1", "0000:30:00.1", true),
        ("ffff:ffff@30:00.0,01:00.1", "0000:01:00.1", false),
        ("01:00.0,01:00.1", "0000:01:00.1", false),
    ] {
        let report = board.in_initrd("").bind(&format!("vfio.devs={items}"));
        assert!(outcomes(&report).contains(&format!("{address} bound")), "{items}");
        let words = words(&report, address);
        assert_eq!(words.contains("the card is torn apart"), is_told, "{items}: {words}");
    }
    let report = hosts::single_gpu().in_initrd("").bind("vfio.devs=01:00.0,01:00.1");
    assert_says(&words(&report, "0000:01:00.1"), &[half]);
    let lines: Vec<_> = report.lines().into_iter().map(|(_, line)| line).collect();
    assert!(lines.iter().any(|line| line.contains(half)), "{lines:?}");
}

/// What is said once of an item is said of the first device that it takes.
#[test]
fn what_an_item_takes_is_told_also_where_its_first_device_stays() {
    let twins = "pci:1b36:0010 takes each storage controller of that id, and there are 2: 0000:01:00.0, \
                 0000:02:00.0; if one of them is meant, write 1b36:0010@ and its address";
    let board = hosts::twin_disks();
    let kept = record(&board.running());
    for (record, items, told) in [
        ("", "pci:1b36:0010", ["", "not"]),
        (kept.as_str(), "pci:1b36:0010", ["not", ""]),
        ("", "1b36:0010@01:00.0,pci:1b36:0010", ["not", ""]),
    ] {
        let report = board.in_initrd(record).bind(&format!("vfio.devs={items}"));
        for (address, told) in ["0000:01:00.0", "0000:02:00.0"].iter().zip(told) {
            let words = words(&report, address);
            assert_eq!(words.contains(twins), told.is_empty(), "{items} {address}: {words}");
        }
    }
    let board = hosts::b450();
    let report = board.in_initrd("disk 02:00.0\n").bind("vfio.devs=1022:43d5@02:00.*");
    assert!(outcomes(&report).contains(&"0000:02:00.1 bound".to_owned()), "{report:?}");
    assert_says(&words(&report, "0000:02:00.1"), &["with it 1022:43d5@02:00.* takes 0000:02:00.1"]);
}

/// Where the record cannot be read it keeps nothing, and that is said.
#[test]
fn a_record_that_cannot_be_read_is_told() {
    for (what, lay) in [
        ("Is a directory", (|fake, file| fake.tree.folder(file)) as fn(&Fake, &str)),
        ("Too many levels of symbolic links", |fake, file| fake.tree.link(file, "keep")),
    ] {
        for file in ["etc/vfio-early/keep", "run/vfio-early/keep"] {
            let fake = hosts::twin_disks().running();
            fake.tree.folder(file.trim_end_matches("/keep"));
            lay(&fake, file);
            let told = format!("vfio-early: /{file}, all of it: {what}");
            for command in [&["list", "02:00.0"][..], &["check", "1b36:0010@02:00.0"], &["keep"]] {
                let mut program = Command::new(env!("CARGO_BIN_EXE_vfio-early"));
                let program = program.arg("--root").arg(fake.tree.root()).args(command);
                let output = program.output().expect("it can be started");
                let said = String::from_utf8_lossy(&output.stderr);
                // The record of the boot is no part of the next one.
                let is_told = command != ["keep"] || file.starts_with("etc");
                assert_eq!(said.contains(&told), is_told, "{command:?}: {said}");
                assert!(!is_told || said.contains("; left out"), "{command:?}: {said}");
            }
        }
    }
}

#[test]
fn a_line_without_a_reason_is_told_by_its_item() {
    let board = hosts::twin_disks();
    let report = board.in_initrd("disk 00:1d.0/00.0\n").bind("vfio.devs=1b36:0010@02:00.0");
    let said = "by the record in its initrd: 00:1d.0/00.0;";
    assert_says(&words(&report, "0000:02:00.0"), &[said]);
}

/// Another user than root does not see what others have open.
#[test]
fn check_says_that_it_does_not_see_what_others_use() {
    let mut fake = hosts::twin_disks().running();
    for (is_hidden, lay) in [
        (false, (|_| ()) as fn(&Fake)),
        (false, |fake| fake.tree.folder("proc/1/fd")),
        // Who may do anything is not kept from a folder.
        (true, |fake| {
            std::fs::remove_dir(fake.tree.root().join("proc/1/fd")).expect("it is empty");
            fake.tree.write("proc/1/fd", "");
        }),
    ] {
        lay(&fake);
        let text = crate::check::words(&mut fake, "vfio.devs=1b36:0010@02:00.0").join(" ");
        let said = "what others use cannot be seen (/proc/1/fd: ";
        assert_eq!(text.contains(said) && text.contains("ask as root"), is_hidden, "{text}");
    }
}
