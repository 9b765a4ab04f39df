//! The host keeps what it lives from: what its record has, what a boot does with it, and what is told
//! before.

mod advice;
mod by_network;
mod found;
pub mod hosts;
mod in_use;
mod keyboards;
mod told;

use std::process::Command;

use vfio_early::host::keep;

use crate::fake::Fake;
use crate::outcome::{assert_says, obstacles, outcomes, words};
use hosts::Board;

/// The record that an initrd made on this host gets.
pub fn record(fake: &Fake) -> String {
    let record = keep::record(&fake.sysfs(), true).expect("the PCI bus can be read");
    let lines = record.entries.iter().map(|entry| format!("{entry}\n"));
    keep::HEADING.to_owned() + &lines.collect::<String>()
}

fn lines(board: &Board) -> Vec<String> {
    let record = record(&board.running());
    record.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_record_has_the_disks_the_keyboards_and_the_network() {
    for (board, expected) in [
        (
            hosts::b450(),
            &[
                "disk 144d:a808@00:01.3/00.2/00.0/00.0  # nvme0n1p2 is mounted on /",
                "keyboard 1022:43d5@00:01.3/00.0  # Cherry Keyboard",
                "network 10ec:8168@00:01.3/00.2/01.0/00.0  # enp6s0 has an address",
            ][..],
        ),
        (
            hosts::apu(),
            &[
                "disk 144d:a80c@00:02.1/00.0  # nvme0n1p2 is mounted on /",
                "keyboard 1022:15b6@00:08.1/00.3  # Cherry Keyboard",
            ],
        ),
        (hosts::twin_disks(), &["disk 1b36:0010@00:1c.0/00.0  # nvme0n1p2 is mounted on /"]),
        (
            hosts::encrypted(),
            &[
                "disk 144d:a808@00:1d.0/00.0  # nvme0n1p3 is part of dm-0, and dm-0 is part of \
                 dm-1, and dm-1 is mounted on /",
                "keyboard 8086:a36d@00:14.0  # Cherry Keyboard",
            ],
        ),
        // A keyboard on a PS/2 port stays, whatever is given away.
        (
            hosts::single_gpu(),
            &[
                "disk 8086:a352@00:17.0  # sda2 is mounted on /",
                "disk 144d:a808@00:1d.0/00.0  # nvme0n1p1 is swap space",
            ],
        ),
    ] {
        assert_eq!(lines(&board), expected);
    }
}

/// Whatever lies between a disk and a file system: each controller below it is in the record.
#[test]
fn the_record_sees_through_volumes_mirrors_and_pools() {
    type Laid = fn(&Fake, &dyn Fn(&Fake, &str, &str), &dyn Fn(&Fake, &str, &str, &str));
    const FIRST: &str = "1b36:0010@00:1c.0/00.0";
    const SECOND: &str = "1b36:0010@00:1d.0/00.0";
    let both = |fake: &Fake, name: &str, number: &str| {
        fake.mapped("nvme0n1p2", name, number);
        fake.tree.folder(&format!("sys/class/block/nvme1n1p1/holders/{name}"));
    };
    let mounted = |fake: &Fake, number: &str, kind: &str, node: &str| {
        fake.mounts(&[&format!("22 1 {number} / / rw - {kind} {node} rw")]);
    };
    let cases: [(&str, Laid, &[&str]); 7] = [
        (
            "LVM on LUKS on a mirror (md)",
            |fake, both, mounted| {
                both(fake, "md0", "9:0");
                fake.mapped("md0", "dm-0", "253:0");
                fake.mapped("dm-0", "dm-1", "253:1");
                mounted(fake, "253:1", "ext4", "/dev/mapper/host-root");
            },
            &[FIRST, SECOND],
        ),
        (
            "a partition of a mirror, as by the firmware's RAID",
            |fake, both, mounted| {
                both(fake, "md126", "9:126");
                fake.tree.write("sys/class/block/md126/md126p2/partition", "2\n");
                fake.tree.write("sys/class/block/md126p2/dev", "259:9\n");
                mounted(fake, "259:9", "ext4", "/dev/md126p2");
            },
            &[FIRST, SECOND],
        ),
        (
            "one disk by two paths (multipath)",
            |fake, both, mounted| {
                both(fake, "dm-0", "253:0");
                mounted(fake, "253:0", "xfs", "/dev/mapper/mpatha");
            },
            &[FIRST, SECOND],
        ),
        (
            "btrfs on two disks, which names the other one",
            |fake, _, mounted| {
                for member in ["nvme0n1p2", "nvme1n1p1"] {
                    fake.tree.folder(&format!("sys/fs/btrfs/aa-bb/devices/{member}"));
                }
                mounted(fake, "0:31", "btrfs", "/dev/nvme1n1p1");
            },
            &[FIRST, SECOND],
        ),
        (
            "bcachefs, which names both",
            |fake, _, mounted| mounted(fake, "0:31", "bcachefs", "/dev/nvme0n1p2:/dev/nvme1n1p1"),
            &[FIRST, SECOND],
        ),
        (
            "swap space on a volume of the second",
            |fake, _, mounted| {
                mounted(fake, "259:2", "ext4", "/dev/nvme0n1p2");
                fake.mapped("nvme1n1p1", "dm-0", "253:0");
                fake.tree.write("proc/swaps", "Filename\n/dev/dm-0 partition 1 0 -2\n");
            },
            &[FIRST, SECOND],
        ),
        (
            "the second is open, and nothing is mounted from it",
            |fake, _, mounted| {
                mounted(fake, "259:2", "ext4", "/dev/nvme0n1p2");
                fake.mapped("nvme1n1p1", "dm-0", "253:0");
            },
            &[FIRST],
        ),
    ];
    for (what, lay, expected) in cases {
        let fake = hosts::twin_disks().running();
        lay(&fake, &both, &mounted);
        let record = record(&fake);
        let disks: Vec<&str> = record
            .lines()
            .filter_map(|line| line.strip_prefix("disk ")?.split_once("  # "))
            .map(|(item, _)| item)
            .collect();
        assert_eq!(disks, expected, "{what}");
    }
}

/// What an administrator wrote for a device that has gone, or has another id now, keeps nothing.
#[test]
fn an_entry_that_is_no_device_is_told() {
    let fake = hosts::b450().running();
    let record = "disk 144d:a808@00:01.3/00.2/00.0/00.0\ndisk 1b36:0010@03:00.0\nnetwork 1f:00.0\n";
    fake.tree.write("etc/vfio-early/keep", record);
    let (said, printed) = keep_by_program(&fake);
    assert_eq!(
        said,
        "vfio-early: /etc/vfio-early/keep: 1b36:0010@03:00.0 is no device here, and would keep \
         nothing\nvfio-early: /etc/vfio-early/keep: 1f:00.0 is no device here, and would keep \
         nothing\n"
    );
    assert!(printed.contains(record), "{printed}");
}

/// What `vfio-early keep` says, and what it prints.
fn keep_by_program(fake: &Fake) -> (String, String) {
    let mut keep = Command::new(env!("CARGO_BIN_EXE_vfio-early"));
    let output = keep.arg("--root").arg(fake.tree.root()).arg("keep").output();
    let output = output.expect("it can be started");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stderr), text(output.stdout))
}

/// What a disk cannot be told of may still be on one.
#[test]
fn a_record_without_a_disk_is_not_made_in_silence() {
    for (is_found, told) in [(true, ""), (false, "no disk that the host runs from was found")] {
        let fake = hosts::b450().running();
        if !is_found {
            fake.mounts(&["22 1 0:31 / / rw - overlay overlay rw"]);
        }
        let (said, _) = keep_by_program(&fake);
        assert!(said.contains(told), "{said}");
        assert_eq!(said.is_empty(), is_found, "{said}");
    }
}

#[test]
fn the_controller_of_a_root_disk_on_usb_is_a_disk_of_the_record() {
    let board = hosts::encrypted();
    let fake = board.running();
    let disk = "usb3/3-1/3-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
    fake.partition("00:1b.0/03:00.0", disk, "sdb2", "8:18");
    fake.mounts(&["22 1 8:18 / / rw - ext4 /dev/sdb2 rw"]);
    let record = record(&fake);
    let line = "disk 1b21:2142@00:1b.0/00.0  # sdb2 is mounted on /\n";
    assert!(record.contains(line) && record.matches("disk ").count() == 1, "{record}");
    let report = board.in_initrd(&record).bind("vfio.devs=1b21:2142@03:00.0");
    assert_eq!(outcomes(&report), ["0000:03:00.0 refused"]);
}

#[test]
fn a_disk_that_each_boot_asks_for_is_in_the_record() {
    for (fstab, is_there) in [
        ("/dev/nvme1n1p1 /srv ext4 defaults 0 2\n", true),
        ("/dev/nvme1n1p1 /srv ext4\n", true),
        ("# /dev/nvme1n1p1 /srv ext4 defaults 0 2\n", false),
        ("/dev/nvme1n1p1 /srv ext4 rw,nofail 0 2\n", false),
        ("/dev/nvme1n1p1 /srv ext4 noauto,rw 0 2\n", false),
        ("/dev/nvme1n1p1 /srv/more ext4 defaults 0 2\n", false),
        ("", false),
    ] {
        let fake = hosts::twin_disks().running();
        fake.tree.write("etc/fstab", fstab);
        fake.mounts(&[
            "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw",
            "23 22 259:4 / /srv rw - ext4 /dev/nvme1n1p1 rw",
        ]);
        let line = "disk 1b36:0010@00:1d.0/00.0  # nvme1n1p1 is mounted on /srv\n";
        assert_eq!(record(&fake).contains(line), is_there, "{fstab:?}");
    }
}

#[test]
fn what_the_administrator_wrote_is_in_the_record_too() {
    let fake = hosts::twin_disks().running();
    let lines = "disk pci:8086:0a54 # the archive\n\nnonsense\ndisk 1b36:0010@00:1c.0/00.0\n";
    fake.tree.write("etc/vfio-early/keep", lines);
    let record = keep::record(&fake.sysfs(), true).expect("the PCI bus can be read");
    let texts: Vec<_> = record.entries.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["disk pci:8086:0a54  # the archive", "disk 1b36:0010@00:1c.0/00.0"]);
    let told = "/etc/vfio-early/keep, line 3: \"nonsense\" is not as in: disk 144d:a808@00:1d.0/00.0; left out";
    assert_eq!(record.wrong, [told]);
    // In a chroot or a container, what is in use is another system's.
    let record = keep::record(&fake.sysfs(), false).expect("nothing else is read");
    assert_eq!(record.entries.len(), 2);
}

/// A disk that the host runs from, listed in whatever way, stays; with the parameter it goes.
#[test]
fn a_boot_leaves_the_disks_of_the_record_to_the_host() {
    let (b450, twins) = (hosts::b450(), hosts::twin_disks());
    let (encrypted, single) = (hosts::encrypted(), hosts::single_gpu());
    for (board, item, disk, said) in [
        (&b450, "03:00.0", "0000:03:00.0", "nvme0n1p2 is mounted on /"),
        (&b450, "144d:a808@00:01.3/00.2/00.0/00.0", "0000:03:00.0", "nvme0n1p2 is mounted on /"),
        (&b450, "group:07:00.0", "0000:03:00.0", "nvme0n1p2 is mounted on /"),
        (&twins, "pci:1b36:0010", "0000:01:00.0", "nvme0n1p2 is mounted on /"),
        (&twins, "01:00.*", "0000:01:00.0", "nvme0n1p2 is mounted on /"),
        (&encrypted, "02:00.0", "0000:02:00.0", "dm-1 is mounted on /"),
        (&single, "00:17.0", "0000:00:17.0", "sda2 is mounted on /"),
        (&single, "02:00.0", "0000:02:00.0", "nvme0n1p1 is swap space"),
    ] {
        let record = record(&board.running());
        let mut fake = board.in_initrd(&record);
        let before = fake.tree.everything();
        let report = fake.bind(&format!("vfio.devs={item}"));
        let refused = format!("{disk} refused");
        assert!(outcomes(&report).contains(&refused), "{item}: {:?}", outcomes(&report));
        assert_says(
            &words(&report, disk),
            &["the host lives from this disk", said, "vfio.host=release"],
        );
        assert_eq!(fake.driver_override(disk), None, "{item}");
        if report.devices.len() == 1 {
            assert_eq!(fake.tree.everything(), before, "{item}");
        }
        let report = board.in_initrd(&record).bind(&format!("vfio.host=release vfio.devs={item}"));
        let bound = format!("{disk} bound");
        assert!(outcomes(&report).contains(&bound), "{item}: {:?}", outcomes(&report));
        assert_says(&words(&report, disk), &["the host is without this disk then", said]);
        // Nothing else keeps it: without the record it would be gone.
        let report = board.in_initrd("").bind(&format!("vfio.devs={item}"));
        assert!(outcomes(&report).contains(&bound), "{item}: {:?}", outcomes(&report));
    }
}

#[test]
fn the_twin_of_a_disk_in_the_record_is_given_away() {
    let board = hosts::twin_disks();
    let record = record(&board.running());
    let report = board.in_initrd(&record).bind("vfio.devs=pci:1b36:0010");
    assert_eq!(outcomes(&report), ["0000:01:00.0 refused", "0000:02:00.0 bound"]);
}

/// A record of places and ids finds its disk when a card that was added has moved it.
#[test]
fn a_disk_that_has_moved_is_found_again() {
    let board = hosts::twin_disks();
    let record = record(&board.running());
    // Another bus number: the path is the same.
    let report =
        board.renumbered(&record, "0000:01:", "0000:05:").bind("vfio.devs=05:00.0,02:00.0");
    assert_eq!(outcomes(&report), ["0000:02:00.0 bound", "0000:05:00.0 refused"]);
    // Another slot: the id is, and which of the two it was nobody can tell any more.
    let mut fake = board.renumbered(&record, "0000:00:1c.0", "0000:00:1b.0");
    let report = fake.bind("vfio.devs=pci:1b36:0010");
    assert_eq!(outcomes(&report), ["0000:01:00.0 refused", "0000:02:00.0 refused"]);
    let said = "nvme0n1p2 is mounted on /; it may have moved from 00:1c.0/00.0";
    assert_says(&words(&report, "0000:01:00.0"), &[said]);
    // Another device is in its place.
    let other = record.replace("1b36:0010", "144d:a808");
    let report = board.in_initrd(&other).bind("vfio.devs=01:00.0");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound"]);
}

#[test]
fn a_record_of_any_form_of_item_keeps_its_disk() {
    let board = hosts::twin_disks();
    for (line, is_kept) in [
        ("disk 01:00.0", true),
        ("disk 0000:01:00.* # all of it", true),
        ("disk 00:1c.0/00.0", true),
        ("disk 00:1c.0/00.*", true),
        ("disk pci:1b36:0010", true),
        ("disk 1b36:0010:0:0@00:1c.0/00.0", true),
        ("disk 00:1d.0/00.0", false),
        ("disk 00:1c.0/00.0/00.0", false),
        ("disk 02:1c.0/00.0", false),
        ("disk pci:1b36:0011", false),
        ("keyboard 01:00.0", false),
        ("network 01:00.0", false),
        ("disk group:01:00.0", false),
        ("disk", false),
        ("disk 01:00.0 02:00.0", false),
        ("# disk 01:00.0", false),
        ("disks 01:00.0", false),
    ] {
        let report = board.in_initrd(&format!("{line}\n")).bind("vfio.devs=01:00.0");
        let expected = if is_kept { "refused" } else { "bound" };
        assert_eq!(outcomes(&report), [format!("0000:01:00.0 {expected}")], "{line:?}");
    }
}

#[test]
fn the_record_of_the_boot_counts_on_the_host_too() {
    let board = hosts::twin_disks();
    // /boot is not mounted any more.
    let fake = board.running();
    let line = "disk 1b36:0010@00:1d.0/00.0 # nvme1n1p1 is mounted on /boot\n";
    fake.tree.write("run/vfio-early/keep", line);
    let mut fake = fake;
    let report = fake.bind("vfio.devs=02:00.0");
    assert_eq!(outcomes(&report), ["0000:02:00.0 refused"]);
    assert_says(&words(&report, "0000:02:00.0"), &["/boot", "vfio.host=release"]);
    // What is mounted now is not taken, whatever is meant.
    let report = fake.bind("vfio.host=release vfio.devs=pci:1b36:0010");
    assert_eq!(outcomes(&report), ["0000:01:00.0 refused", "0000:02:00.0 bound"]);
    assert_says(&words(&report, "0000:01:00.0"), &["the host runs from it"]);
}

/// Advice that would cost the machine is not given, with the record or with a look at the host.
#[test]
fn nobody_is_told_to_list_what_the_host_lives_from() {
    let board = hosts::b450();
    let record = record(&board.running());
    for fake in [
        |board: &Board, record: &str| board.in_initrd(record),
        |board: &Board, _: &str| board.running(),
    ] {
        for item in ["10de:1c03@07:00.*", "group:07:00.0"] {
            let report = fake(&board, &record).bind(&format!("vfio.devs={item}"));
            let lines: Vec<_> = report.lines().into_iter().map(|(_, line)| line).collect();
            let said = lines.join("\n");
            assert_says(&said, &["this slot cannot be given away on this board"]);
            assert!(!said.contains("list it, too"), "{item}: {said}");
        }
        let report = fake(&board, &record).bind("vfio.devs=10de:1c03@07:00.*");
        let said = words(&report, "0000:07:00.0") + &obstacles(&report, "0000:07:00.0");
        assert_says(&said, &["0000:03:00.0 (nvme0n1p2 is mounted on /)"]);
        assert_says(&said, &["0000:06:00.0 (enp6s0 has an address)"]);
    }
    // What else is in a group may be given along.
    let said = words(&board.in_initrd("").bind("vfio.devs=07:00.*"), "0000:07:00.0");
    assert_says(&said, &["list it, too"]);
}

#[test]
fn a_neighbour_that_is_listed_and_refused_is_not_to_be_listed() {
    let board = hosts::single_gpu();
    let report = board.in_initrd("").bind("vfio.devs=01:00.1,ffff:ffff@01:00.0");
    let said = words(&report, "0000:01:00.1");
    assert_says(&said, &["0000:01:00.0 is listed, and stays with the host"]);
    assert!(!said.contains("list it, too"), "{said}");
}

#[test]
fn the_keyboard_and_the_network_are_given_away_with_a_warning() {
    let board = hosts::encrypted();
    let report = board.in_initrd(&record(&board.running())).bind("vfio.devs=00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    let only =
        "the host's only keyboard hangs on it, also for a passphrase at boot: Cherry Keyboard";
    assert_says(&words(&report, "0000:00:14.0"), &[only]);

    let board = hosts::b450();
    let report = board.in_initrd(&record(&board.running())).bind("vfio.devs=10ec:8168@06:00.0");
    assert_eq!(outcomes(&report), ["0000:06:00.0 bound"]);
    let said = "the host is without this network then: enp6s0 has an address";
    assert_says(&words(&report, "0000:06:00.0"), &[said]);

    // One of two is left.
    let board = hosts::encrypted();
    let fake = board.running();
    fake.keyboard("00:1b.0/03:00.0", "usb3/3-1/3-1:1.0/input/input9", "Other Keyboard");
    let report = board.in_initrd(&record(&fake)).bind("vfio.devs=00:14.0");
    let said = "a keyboard of the host hangs on it: Cherry Keyboard";
    assert_says(&words(&report, "0000:00:14.0"), &[said]);
}

#[test]
fn an_id_that_takes_several_disks_is_told_and_the_hint_asks_which_is_meant() {
    let board = hosts::twin_disks();
    let report = board.in_initrd("").bind("vfio.devs=pci:1b36:0010");
    let said = "pci:1b36:0010 takes each storage controller of that id, and there are 2: \
                0000:01:00.0, 0000:02:00.0; if one of them is meant, write 1b36:0010@ and its address";
    assert_says(&words(&report, "0000:01:00.0"), &[said]);
    assert_eq!(words(&report, "0000:02:00.0"), "");
    let report = board.in_initrd("").bind("vfio.devs=01:00.0");
    let said = "is 1b36:0010 the one that is meant? then write 1b36:0010@0000:01:00.0";
    assert_says(&words(&report, "0000:01:00.0"), &[said]);
}

/// Nothing of a group that no VM can have is taken: the keyboard and the network stay, too.
#[test]
fn a_group_that_is_asked_for_as_one_stays_whole() {
    let board = hosts::b450();
    let mut fake = board.in_initrd(&record(&board.running()));
    let before = fake.tree.everything();
    let report = fake.bind("vfio.devs=group:07:00.0");
    assert!(outcomes(&report).iter().all(|outcome| outcome.ends_with(" refused")), "{report:?}");
    assert_eq!(fake.tree.everything(), before);
    let said = "0000:03:00.0 of its IOMMU group stays with the host (nvme0n1p2 is mounted on /), so \
                that no VM can have the group: this slot cannot be given away on this board";
    assert_says(&words(&report, "0000:07:00.0"), &[said]);
    // What is listed by itself is taken all the same.
    let report = fake.bind("vfio.devs=10de:1c03@07:00.0,group:07:00.0");
    assert!(outcomes(&report).contains(&"0000:07:00.0 bound".to_owned()), "{report:?}");
}

/// The only display stays, and its audio with it: half a card is of no use to a VM.
#[test]
fn a_card_whose_display_stays_is_not_torn_apart() {
    let board = hosts::single_gpu();
    for (fake, why) in [
        (&mut board.running(), "no other display stays with the host"),
        (&mut board.in_initrd(""), "no other display stays with the host"),
    ] {
        let before = fake.tree.everything();
        let report = fake.bind("vfio.devs=1002:67df@01:00.*");
        assert_eq!(outcomes(&report), ["0000:01:00.0 refused", "0000:01:00.1 refused"]);
        assert_says(&words(&report, "0000:01:00.0"), &[why]);
        let said = "0000:01:00.0, the display of its card, stays with the host";
        assert_says(&words(&report, "0000:01:00.1"), &[said, "list 0000:01:00.1 by itself"]);
        assert_eq!(fake.tree.everything(), before);
    }
    // Each has been asked for by itself.
    let report = board.in_initrd("").bind("vfio.devs=01:00.0,01:00.1");
    assert_eq!(outcomes(&report), ["0000:01:00.0 refused", "0000:01:00.1 bound"]);
    let report = board.in_initrd("").bind("vfio.console=release vfio.devs=01:00.*");
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"]);
}

#[test]
fn a_slot_with_more_than_a_card_is_told() {
    let board = hosts::apu();
    let record = record(&board.running());
    let report = board.in_initrd(&record).bind("vfio.devs=1002:164e@30:00.*");
    let said = "with it 1002:164e@30:00.* takes 0000:30:00.2 1022:1649 (class 108000), 0000:30:00.3 \
                1022:15b6 (class 0c0330), 0000:30:00.4 1022:15b7 (class 0c0330), 0000:30:00.6 \
                1022:15e3 (class 040300): a slot is not always one card";
    assert_says(&words(&report, "0000:30:00.0"), &[said]);
    assert_says(&words(&report, "0000:30:00.3"), &["the host's only keyboard hangs on it"]);
    // A card with a USB-C plug.
    let report = board.in_initrd(&record).bind("vfio.devs=1002:744c@01:00.*");
    for function in 0..4 {
        assert_eq!(words(&report, &format!("0000:01:00.{function}")), "", "{function}");
    }
}
