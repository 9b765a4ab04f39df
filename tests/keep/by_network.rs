//! A root that comes by the network is lost with the card that it comes by.

use super::{hosts, record};
use crate::fake::Fake;
use crate::outcome::outcomes;

const SESSION: &str = "devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sda";
const CARD: &str = "10ec:8168@00:01.3/00.2/01.0/00.0";

type Lay = fn(&Fake);

fn block(fake: &Fake, name: &str, number: &str, folder: &str) {
    fake.tree.write(&format!("sys/{folder}/dev"), &format!("{number}\n"));
    fake.tree.folder(&format!("sys/{folder}/holders"));
    fake.tree.link_up(&format!("class/block/{name}"), folder);
    fake.tree.link_up(&format!("dev/block/{number}"), folder);
}

/// Where the root comes by the network, so it does by the card.
#[test]
fn the_card_that_the_root_comes_by_is_a_disk_of_the_record() {
    let cases: [(&str, Lay, Option<&str>); 6] = [
        (
            "NFS",
            |fake| fake.mounts(&["22 1 0:31 / / rw - nfs4 10.0.0.1:/root rw"]),
            Some("/ (nfs4 of 10.0.0.1:/root)"),
        ),
        (
            "an overlay on it",
            |fake| {
                fake.mounts(&[
                    "22 1 0:31 / / rw - overlay none rw,lowerdir=/ro,upperdir=/rw/up",
                    "23 22 0:32 / /ro ro - nfs 10.0.0.1:/root ro",
                    "24 22 0:33 / /rw rw - tmpfs tmpfs rw",
                ]);
            },
            Some("/ (overlay of none)"),
        ),
        (
            "LUKS on iSCSI",
            |fake| {
                block(fake, "sda", "8:0", SESSION);
                fake.mapped("sda", "dm-0", "253:0");
                fake.mounts(&["22 1 253:0 / / rw - ext4 /dev/mapper/root rw"]);
            },
            Some("/ (ext4 of /dev/mapper/root)"),
        ),
        (
            "NVMe over TCP, with several paths",
            |fake| {
                let subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0";
                block(fake, "nvme1n1", "259:9", &format!("{subsystem}/nvme1n1"));
                fake.tree.link(&format!("sys/{subsystem}/nvme1"), "../../nvme-fabrics/ctl/nvme1");
                fake.mounts(&["22 1 259:9 / / rw - ext4 /dev/nvme1n1 rw"]);
            },
            Some("/ (ext4 of /dev/nvme1n1)"),
        ),
        (
            "iSCSI that the card does by itself",
            |fake| {
                let card = "devices/pci0000:00/0000:00:1f.0";
                let session = SESSION.replace("devices/platform", card);
                block(fake, "sda", "8:0", &session);
                fake.mounts(&["22 1 8:0 / / rw - ext4 /dev/sda rw"]);
            },
            None,
        ),
        (
            "NFS that the root is not on",
            |fake| {
                fake.tree.write("etc/fstab", "10.0.0.1:/home /home nfs defaults 0 0\n");
                fake.mounts(&[
                    "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw",
                    "23 22 0:32 / /home rw - nfs 10.0.0.1:/home rw",
                ]);
            },
            None,
        ),
    ];
    for (what, lay, named) in cases {
        let board = hosts::b450();
        let mut fake = board.running();
        lay(&fake);
        let record = record(&fake);
        let line = match named {
            Some(mount) => {
                format!("disk {CARD}  # enp6s0 has an address, and by the network comes {mount}\n")
            }
            None => format!("network {CARD}  # enp6s0 has an address\n"),
        };
        assert!(record.contains(&line), "{what}: {record}");
        assert_eq!(record.matches(CARD).count(), 1, "{what}: {record}");
        let report = board.in_initrd(&record).bind("vfio.devs=10ec:8168@06:00.0");
        let expected = if named.is_some() { "refused" } else { "bound" };
        assert_eq!(outcomes(&report), [format!("0000:06:00.0 {expected}")], "{what}");
        // Who takes that link down has no root any more.
        let text = crate::check::words(&mut fake, "vfio.devs=10ec:8168@06:00.0").join(" ");
        assert_eq!(text.contains("take the link down first"), named.is_none(), "{what}: {text}");
    }
}
