//! What the host uses is not taken from under it.

use crate::fake::Fake;
use crate::machine::desktop;
use crate::outcome::{assert_says, outcomes, words};

const DISK: &str = "0000:02:00.0";
const CARD: &str = "0000:00:19.0";

/// A host that runs: a disk with a partition, a network link.
fn running_host() -> Fake {
    let mut fake = desktop().boot();
    fake.load("nvme");
    fake.load("e1000e");
    let disk = format!("devices/pci0000:00/0000:00:1c.0/{DISK}/nvme/nvme0/nvme0n1");
    for (name, folder, number) in
        [("nvme0n1", disk.clone(), "259:0"), ("nvme0n1p1", format!("{disk}/nvme0n1p1"), "259:1")]
    {
        fake.tree.write(&format!("sys/{folder}/dev"), &format!("{number}\n"));
        fake.tree.folder(&format!("sys/{folder}/holders"));
        fake.tree.link_up(&format!("class/block/{name}"), &folder);
    }
    let link = format!("devices/pci0000:00/{CARD}/net/eno1");
    fake.tree.folder(&format!("sys/{link}"));
    fake.tree.link_up("class/net/eno1", &link);
    fake.tree.write("proc/self/mountinfo", "1 1 0:2 / / rw - rootfs rootfs rw\n");
    fake.tree.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
    fake.tree.write("proc/net/route", "Iface\tDestination\tGateway\n");
    fake.tree.write("proc/net/if_inet6", "");
    fake
}

const BOTH: &str = "vfio.devs=144d:a808@02:00.0,8086:15b8@00:19.0";

#[test]
fn what_is_not_in_use_is_taken() {
    let report = running_host().bind(BOTH);
    assert_eq!(outcomes(&report), ["0000:00:19.0 bound", "0000:02:00.0 bound"]);
}

#[test]
fn a_disk_in_use_is_refused_with_what_uses_it() {
    let holders = "sys/class/block/nvme0n1p1/holders/dm-0/x";
    let (host, storage) = ("take it off the list", "let no boot ask for it again");
    for (file, text, said) in [
        (
            "proc/self/mountinfo",
            "22 1 259:1 / /home rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n",
            &["nvme0n1p1", "/home", storage][..],
        ),
        (
            "proc/self/mountinfo",
            "22 1 0:31 /@ / rw shared:1 master:2 - btrfs /dev/nvme0n1 rw\n",
            &["nvme0n1", "mounted on /;", host],
        ),
        (
            "proc/swaps",
            "Filename\n/dev/nvme0n1p1 partition 1 0 -2\n",
            &["nvme0n1p1", "swap", storage],
        ),
        (holders, "", &["nvme0n1p1 is part of dm-0;", storage]),
    ] {
        let mut fake = running_host();
        fake.tree.write(file, text);
        let before = fake.tree.everything();
        let report = fake.bind("vfio.devs=144d:a808@02:00.0");
        assert_eq!(outcomes(&report), ["0000:02:00.0 refused"], "{text:?}");
        assert_says(&words(&report, DISK), said);
        assert_eq!(fake.tree.everything(), before, "{text:?}");
        let report = fake.bind(BOTH);
        assert_eq!(outcomes(&report), ["0000:00:19.0 bound", "0000:02:00.0 refused"], "{text:?}");
    }
}

#[test]
fn a_disk_that_the_host_runs_from_is_to_be_taken_off_the_list() {
    let partition = "22 1 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw\n";
    let beside = "23 1 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n";
    // LVM on LUKS.
    let volume = "24 1 253:1 / / rw - ext4 /dev/mapper/host-root rw\n";
    for (mounts, said) in [
        (format!("{beside}{partition}"), "nvme0n1p1 is mounted on /boot/efi;"),
        (
            volume.to_owned(),
            "nvme0n1p1 is part of dm-0, and dm-0 is part of dm-1, and dm-1 is mounted",
        ),
    ] {
        let mut fake = running_host();
        for (name, number, holder) in [("dm-0", "253:0", "dm-1"), ("dm-1", "253:1", "")] {
            virtual_disk(&fake, name, number, holder);
        }
        if mounts == volume {
            fake.tree.folder("sys/class/block/nvme0n1p1/holders/dm-0");
        }
        fake.tree.write("proc/self/mountinfo", &mounts);
        let report = fake.bind("vfio.devs=144d:a808@02:00.0");
        assert_eq!(outcomes(&report), ["0000:02:00.0 refused"], "{mounts:?}");
        assert_says(&words(&report, DISK), &[said, "take it off the list"]);
    }
}

/// A block device of no driver's, held by another one, or by none.
fn virtual_disk(fake: &Fake, name: &str, number: &str, holder: &str) {
    let folder = format!("devices/virtual/block/{name}");
    fake.tree.write(&format!("sys/{folder}/dev"), &format!("{number}\n"));
    fake.tree.folder(&format!("sys/{folder}/holders/{holder}"));
    fake.tree.link_up(&format!("class/block/{name}"), &folder);
}

#[test]
fn an_nvme_disk_that_says_it_could_have_several_paths_is_its_controllers() {
    for (number, said) in [("259:3", "nvme1n1 is mounted on /"), ("259:4", "nvme1n1p2 is mounted")]
    {
        let fake = running_host();
        let subsystem = "devices/virtual/nvme-subsystem/nvme-subsys1";
        let controller = format!("devices/pci0000:00/0000:00:1c.0/{DISK}/nvme/nvme1");
        fake.tree.folder(&format!("sys/{controller}"));
        let folder = format!("{subsystem}/nvme1n1");
        for (name, folder, number) in [
            ("nvme1n1", folder.clone(), "259:3"),
            ("nvme1n1p2", format!("{folder}/nvme1n1p2"), "259:4"),
        ] {
            fake.tree.write(&format!("sys/{folder}/dev"), &format!("{number}\n"));
            fake.tree.link_up(&format!("class/block/{name}"), &folder);
        }
        fake.tree.link_up(&format!("{subsystem}/nvme1"), &controller);
        let mount = format!("22 1 {number} / / rw - ext4 /dev/root rw\n");
        fake.tree.write("proc/self/mountinfo", &mount);
        refused(fake, &[said, "take it off the list"]);
    }
}

/// The disk is refused, in these words.
fn refused(mut fake: Fake, said: &[&str]) {
    let report = fake.bind("vfio.devs=144d:a808@02:00.0");
    assert_eq!(outcomes(&report), ["0000:02:00.0 refused"], "{said:?}");
    assert_says(&words(&report, DISK), said);
}

#[test]
fn each_disk_of_a_btrfs_is_in_use() {
    let host = "take it off the list";
    // mountinfo names one of them.
    let fake = running_host();
    for disk in ["sda", "nvme0n1p1"] {
        fake.tree.folder(&format!("sys/fs/btrfs/01234567-89ab/devices/{disk}"));
    }
    fake.tree.folder("sys/fs/btrfs/features");
    fake.tree.write("proc/self/mountinfo", "22 1 0:31 /@ / rw - btrfs /dev/sda rw\n");
    refused(fake, &["nvme0n1p1 is mounted on /;", host]);

    // It is mounted in another namespace.
    let fake = running_host();
    fake.tree.folder("sys/fs/btrfs/01234567-89ab/devices/nvme0n1");
    refused(fake, &["nvme0n1 is part of a btrfs"]);

    // In LUKS; and the same with another file system of several disks, on another host.
    for (source, fs) in
        [("/dev/mapper/luks-0", "btrfs"), ("/dev/sda:/dev/mapper/luks-0", "bcachefs")]
    {
        let fake = running_host();
        virtual_disk(&fake, "dm-0", "253:0", "");
        fake.tree.write("sys/devices/virtual/block/dm-0/dm/name", "luks-0\n");
        fake.tree.folder("sys/class/block/nvme0n1p1/holders/dm-0");
        let mount = format!("22 1 0:31 / / rw - {fs} {source} rw\n");
        fake.tree.write("proc/self/mountinfo", &mount);
        refused(fake, &["nvme0n1p1 is part of dm-0, and dm-0 is mounted on /;", host]);
    }
}

#[test]
fn in_another_tree_nobody_can_tell_which_disks_a_zfs_pool_has() {
    for (point, remedy) in [("/", "take it off the list"), ("/tank", "stop that first")] {
        let fake = running_host();
        let mount = format!("22 1 0:31 / {point} rw shared:1 - zfs tank/data rw,xattr\n");
        fake.tree.write("proc/self/mountinfo", &mount);
        refused(
            fake,
            &["a ZFS pool may have it: only root, on the host itself, can tell;", remedy],
        );
    }
}

#[test]
fn disks_that_hold_one_another_are_asked_once() {
    let mut fake = running_host();
    virtual_disk(&fake, "dm-0", "253:0", "dm-1");
    virtual_disk(&fake, "dm-1", "253:1", "dm-0");
    fake.tree.folder("sys/class/block/nvme0n1p1/holders/dm-0");
    let report = fake.bind("vfio.devs=144d:a808@02:00.0");
    let said = "nvme0n1p1 is part of dm-0, and dm-0 is part of dm-1, and dm-1 is part of dm-0;";
    assert_says(&words(&report, DISK), &[said]);
}

#[test]
fn a_network_card_with_an_address_is_refused() {
    let six = "fe800000000000000000000000000001 02 40 20 80     eno1\n";
    for (file, text) in [
        ("proc/net/route", "Iface\tDestination\neno1\t0000A8C0\t00000000\n"),
        ("proc/net/if_inet6", six),
    ] {
        let mut fake = running_host();
        fake.tree.write(file, text);
        let report = fake.bind(BOTH);
        assert_eq!(outcomes(&report), ["0000:00:19.0 refused", "0000:02:00.0 bound"], "{text:?}");
        assert_says(&words(&report, CARD), &["eno1", "address", "take the link down"]);
    }
    let mut fake = running_host();
    fake.tree.folder("sys/class/net/br0");
    let master = format!("devices/pci0000:00/{CARD}/net/eno1/master");
    fake.tree.link_up(&master, "class/net/br0");
    let report = fake.bind(BOTH);
    assert_eq!(outcomes(&report), ["0000:00:19.0 refused", "0000:02:00.0 bound"]);
    assert_says(&words(&report, CARD), &["eno1", "br0"]);
    // The address is that of a VLAN.
    let mut fake = running_host();
    fake.tree.folder("sys/class/net/eno1.10");
    let upper = format!("devices/pci0000:00/{CARD}/net/eno1/upper_eno1.10");
    fake.tree.link_up(&upper, "class/net/eno1.10");
    let report = fake.bind(BOTH);
    assert_eq!(outcomes(&report), ["0000:00:19.0 refused", "0000:02:00.0 bound"]);
    assert_says(&words(&report, CARD), &["eno1.10 goes over eno1", "take the link down"]);
}

#[test]
fn names_that_only_begin_alike_are_others() {
    let mut fake = running_host();
    fake.tree.write(
        "proc/self/mountinfo",
        "22 1 259:11 / /srv rw - ext4 /dev/nvme0n1p11 rw\n23 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    fake.tree.write("proc/swaps", "Filename\n/dev/nvme0n1p12 partition 1 0 -2\n");
    fake.tree.write("proc/net/route", "Iface\tDestination\neno11\t0000A8C0\t00000000\n");
    let report = fake.bind(BOTH);
    assert_eq!(outcomes(&report), ["0000:00:19.0 bound", "0000:02:00.0 bound"]);
}
