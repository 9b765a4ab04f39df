//! What the host lives from is found through whatever it is mounted by, or it is told that it is not.

use super::{hosts, keep_by_program};
use crate::fake::Fake;
use crate::outcome::{assert_says, outcomes, words};

const FIRST: &str = "disk 1b36:0010@00:1c.0/00.0";
const SECOND: &str = "disk 1b36:0010@00:1d.0/00.0";
const ROOT: &str = "22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw";
const NOFAIL: &str = "/dev/nvme1n1p1 /srv ext4 nofail\n";

type Lay = fn(&Fake);
/// Items, and why.
type Found = &'static [(&'static str, &'static str)];

fn disks(record: &str) -> Vec<(&str, &str)> {
    let lines = record.lines().filter(|line| line.starts_with("disk "));
    lines.filter_map(|line| line.split_once("  # ")).collect()
}

/// A block device of no disk.
fn virtual_block(fake: &Fake, name: &str, number: &str) {
    let folder = format!("devices/virtual/block/{name}");
    fake.tree.write(&format!("sys/{folder}/dev"), &format!("{number}\n"));
    fake.tree.folder(&format!("sys/{folder}/holders"));
    fake.tree.link_up(&format!("class/block/{name}"), &folder);
    fake.tree.link_up(&format!("dev/block/{number}"), &folder);
}

fn btrfs(fake: &Fake, id: &str, disk: &str) {
    fake.tree.folder(&format!("sys/fs/btrfs/{id}/devices/{disk}"));
}

/// What it lives from is on the twin that `/` itself need not be on.
#[test]
#[allow(clippy::too_many_lines)] // a table
fn the_disk_below_is_found() {
    let cases: [(&str, Lay, Found); 16] = [
        (
            "a root that the kernel has mounted as /dev/root",
            |fake| fake.mounts(&["22 1 259:2 / / rw - ext4 /dev/root rw"]),
            &[(FIRST, "nvme0n1p2 is mounted on /")],
        ),
        (
            "btrfs as /dev/root, and another one",
            |fake| {
                btrfs(fake, "aaaa-1", "nvme0n1p2");
                btrfs(fake, "bbbb-2", "nvme1n1p1");
                fake.mounts(&[
                    "22 1 0:31 /@ / rw - btrfs /dev/root rw",
                    "23 22 0:32 / /srv rw - btrfs /dev/nvme1n1p1 rw",
                ]);
            },
            &[(FIRST, "nvme0n1p2 is mounted on /")],
        ),
        (
            "btrfs by its UUID, and another one",
            |fake| {
                btrfs(fake, "aaaa-1", "nvme0n1p2");
                btrfs(fake, "bbbb-2", "nvme1n1p1");
                fake.mounts(&[
                    "22 1 0:31 /@ / rw - btrfs /dev/disk/by-uuid/BBBB-2 rw",
                    "23 22 0:32 / /srv rw - btrfs /dev/disk/by-uuid/aaaa-1 rw",
                ]);
            },
            &[(SECOND, "nvme1n1p1 is mounted on /")],
        ),
        (
            "btrfs as /dev/root, where nothing tells which one it is",
            |fake| {
                btrfs(fake, "aaaa-1", "nvme0n1p2");
                btrfs(fake, "bbbb-2", "nvme1n1p1");
                fake.mounts(&["22 1 0:31 /@ / rw - btrfs /dev/root rw"]);
            },
            &[(FIRST, "nvme0n1p2 is mounted on /"), (SECOND, "nvme1n1p1 is mounted on /")],
        ),
        (
            "an overlay on what is mounted elsewhere",
            |fake| {
                fake.mounts(&[
                    "21 1 0:30 / / rw - overlay overlayroot rw,lowerdir=/media/root-ro,upperdir=/run/rw/up,workdir=/run/rw/work",
                    "22 21 259:2 / /media/root-ro ro - ext4 /dev/nvme0n1p2 ro",
                    "23 21 0:40 / /run rw - tmpfs tmpfs rw",
                ]);
            },
            &[(
                FIRST,
                "nvme0n1p2 is mounted on /media/root-ro, and the overlay on / is made of it",
            )],
        ),
        (
            "a squashfs in a file of a live system",
            |fake| {
                virtual_block(fake, "loop0", "7:0");
                let file = "sys/devices/virtual/block/loop0/loop/backing_file";
                fake.tree.write(file, "/run/live medium/live/root.squashfs\n");
                fake.mounts(&[
                    "21 1 7:0 / / ro - squashfs /dev/loop0 ro",
                    "22 21 259:4 / /run/live\\040medium ro - iso9660 /dev/nvme1n1p1 ro",
                ]);
            },
            &[(
                SECOND,
                "nvme1n1p1 is mounted on /run/live\\040medium, and /run/live medium/live/root.squashfs \
                 is loop0, and loop0 is mounted on /",
            )],
        ),
        (
            "LUKS in a file",
            |fake| {
                virtual_block(fake, "loop0", "7:0");
                fake.mapped("loop0", "dm-0", "253:0");
                let file = "sys/devices/virtual/block/loop0/loop/backing_file";
                fake.tree.write(file, "/srv/home.img\n");
                fake.tree.write("etc/fstab", &format!("{NOFAIL}/dev/mapper/home /var ext4\n"));
                fake.mounts(&[
                    ROOT,
                    "23 22 259:4 / /srv rw - ext4 /dev/nvme1n1p1 rw",
                    "24 22 253:0 / /var rw - ext4 /dev/mapper/home rw",
                ]);
            },
            &[
                (FIRST, "nvme0n1p2 is mounted on /"),
                (
                    SECOND,
                    "nvme1n1p1 is mounted on /srv, and /srv/home.img is loop0, and loop0 is part of \
                     dm-0, and dm-0 is mounted on /var",
                ),
            ],
        ),
        (
            "a swap file that fstab does not know",
            |fake| {
                fake.tree.write("etc/fstab", NOFAIL);
                fake.tree.write("proc/swaps", "Filename\n/srv/swap\\040file file 1 0 -2\n");
                fake.mounts(&[ROOT, "23 22 259:4 / /srv rw - ext4 /dev/nvme1n1p1 rw"]);
            },
            &[
                (FIRST, "nvme0n1p2 is mounted on /"),
                (SECOND, "nvme1n1p1 is mounted on /srv, and /srv/swap file is swap space"),
            ],
        ),
        (
            "a swap file on what is mounted below",
            |fake| {
                fake.tree.write("proc/swaps", "Filename\n/srv/more/swap file 1 0 -2\n");
                fake.mounts(&[
                    ROOT,
                    "23 22 259:4 / /srv rw - ext4 /dev/nvme1n1p1 rw",
                    "24 23 0:40 / /srv/more rw - tmpfs tmpfs rw",
                ]);
            },
            &[(FIRST, "nvme0n1p2 is mounted on /")],
        ),
        (
            "where the host resumes from, though it is no swap space now",
            |fake| fake.tree.write("sys/power/resume", "259:4\n"),
            &[
                (FIRST, "nvme0n1p2 is mounted on /"),
                (SECOND, "nvme1n1p1 is where the host resumes from (resume=)"),
            ],
        ),
        (
            "no resume",
            |fake| fake.tree.write("sys/power/resume", "0:0\n"),
            &[(FIRST, "nvme0n1p2 is mounted on /")],
        ),
        (
            "/home by a unit that is enabled",
            |fake| {
                fake.tree.write("etc/systemd/system/home-my\\x2ddata.mount", "[Mount]\n");
                fake.tree.folder("etc/systemd/system/local-fs.target.requires");
                fake.tree.link(
                    "etc/systemd/system/local-fs.target.requires/home-my\\x2ddata.mount",
                    "/etc/systemd/system/home-my\\x2ddata.mount",
                );
                fake.mounts(&[ROOT, "23 22 259:4 / /home/my-data rw - ext4 /dev/nvme1n1p1 rw"]);
            },
            &[
                (FIRST, "nvme0n1p2 is mounted on /"),
                (SECOND, "nvme1n1p1 is mounted on /home/my-data"),
            ],
        ),
        (
            "what fstab has with a slash at its end",
            |fake| {
                fake.tree.write("etc/fstab", "/dev/nvme1n1p1 /srv/a\\040b/ ext4 defaults 0 2\n");
                fake.mounts(&[ROOT, "23 22 259:4 / /srv/a\\040b rw - ext4 /dev/nvme1n1p1 rw"]);
            },
            &[
                (FIRST, "nvme0n1p2 is mounted on /"),
                (SECOND, "nvme1n1p1 is mounted on /srv/a\\040b"),
            ],
        ),
        (
            "a pool of ZFS on LUKS",
            |fake| {
                fake.mapped("nvme0n1p2", "dm-0", "253:0");
                fake.mapped("nvme1n1p1", "dm-1", "253:1");
                fake.mounts(&["22 1 0:31 / / rw - zfs rpool/ROOT/arch rw"]);
            },
            &[
                (
                    FIRST,
                    "nvme0n1p2 is part of dm-0, and a ZFS pool may have it: only root, on the \
                 host itself, can tell",
                ),
                (
                    SECOND,
                    "nvme1n1p1 is part of dm-1, and a ZFS pool may have it: only root, on the \
                 host itself, can tell",
                ),
            ],
        ),
        (
            "a disk of a pool of ZFS beside what a boot can do without",
            |fake| {
                let place = "00:1d.0/02:00.0";
                let folder = fake.below(place, "block", "nvme/nvme1/nvme1n1/nvme1n1p3");
                fake.tree.write(&format!("{folder}/dev"), "259:6\n");
                fake.mounts(&[
                    "22 1 0:31 / / rw - zfs rpool/ROOT/arch rw",
                    "23 22 259:4 / /mnt rw - ext4 /dev/nvme1n1p1 rw",
                ]);
            },
            &[
                (FIRST, "a ZFS pool may have it: only root, on the host itself, can tell"),
                (SECOND, "a ZFS pool may have it: only root, on the host itself, can tell"),
            ],
        ),
        (
            "/home by a unit that nobody asks for",
            |fake| {
                fake.tree.write("etc/systemd/system/home.mount", "[Mount]\n");
                fake.mounts(&[ROOT, "23 22 259:4 / /home rw - ext4 /dev/nvme1n1p1 rw"]);
            },
            &[(FIRST, "nvme0n1p2 is mounted on /")],
        ),
    ];
    for (what, lay, expected) in cases {
        let board = hosts::twin_disks();
        let fake = board.running();
        lay(&fake);
        let (said, record) = keep_by_program(&fake);
        assert_eq!(disks(&record), expected, "{what}");
        assert_eq!(said, "", "{what}");
        // And so it is at boot.
        let report = board.in_initrd(&record).bind("vfio.devs=01:00.0,02:00.0");
        for (address, line) in [("0000:01:00.0", FIRST), ("0000:02:00.0", SECOND)] {
            let is_kept = expected.iter().any(|(item, _)| *item == line);
            let outcome = if is_kept { "refused" } else { "bound" };
            assert!(
                outcomes(&report).contains(&format!("{address} {outcome}")),
                "{what}: {address}"
            );
        }
    }
}

/// Each is told when the record is made, and by `check` before a disk or a USB controller is given away.
#[test]
fn what_cannot_be_told_is_told() {
    let cases: [(&str, Lay, &str); 6] = [
        (
            "an overlay on what is not mounted here any more",
            |fake| fake.mounts(&["21 1 0:30 / / rw - overlay none rw,lowerdir=/low,upperdir=/up"]),
            "/ (overlay of none)",
        ),
        (
            "a volume of ZFS, or of the network",
            |fake| {
                virtual_block(fake, "zd0", "230:0");
                fake.mounts(&[ROOT, "23 22 230:0 / /var rw - ext4 /dev/zd0 rw"]);
            },
            "/var (ext4 of /dev/zd0)",
        ),
        (
            "a file system of a VM's host",
            |fake| fake.mounts(&["21 1 0:30 / / rw - virtiofs root rw"]),
            "/ (virtiofs of root)",
        ),
        (
            "a file that is not on what is mounted",
            |fake| {
                virtual_block(fake, "loop0", "7:0");
                fake.tree.write("sys/devices/virtual/block/loop0/loop/backing_file", "/host/a\n");
                fake.mounts(&["21 1 7:0 / / rw - ext4 /dev/loop0 rw"]);
            },
            "/ (ext4 of /dev/loop0)",
        ),
        (
            "swap space on a volume of ZFS",
            |fake| {
                virtual_block(fake, "zd0", "230:0");
                fake.tree.write("proc/swaps", "Filename\n/dev/zd0 partition 1 0 -2\n");
            },
            "swap space (/dev/zd0)",
        ),
        (
            "a resume that the kernel has not found",
            |fake| fake.tree.write("proc/cmdline", "quiet resume=UUID=1-2\n"),
            "what resume= names on the kernel command line",
        ),
    ];
    for (what, lay, named) in cases {
        let mut fake = hosts::twin_disks().running();
        lay(&fake);
        // The next boot needs a record all the same.
        fake.tree.write("etc/vfio-early/keep", "disk 01:00.0\n");
        let (said, _) = keep_by_program(&fake);
        let told = "no disk could be told for ";
        assert!(said.contains(told) && said.contains(named), "{what}: {said}");
        let text = crate::check::words(&mut fake, "vfio.devs=1b36:0010@02:00.0").join(" ");
        assert!(text.contains(told) && text.contains(named), "{what}: {text}");
    }
    // All of it is known, or in memory.
    let mut fake = hosts::twin_disks().running();
    fake.tree.write("proc/cmdline", "resume=UUID=1-2 noresume\n");
    fake.tree.write("proc/swaps", "Filename\n/dev/zram0 partition 1 0 100\n");
    fake.mounts(&[
        "21 1 0:30 / / rw - tmpfs none rw",
        "22 21 259:2 / /nix rw - ext4 /dev/nvme0n1p2 rw",
        "23 21 0:50 / /boot rw - autofs systemd-1 rw",
        "24 21 0:51 / /usr rw - nfs4 server:/usr rw",
    ]);
    let text = crate::check::words(&mut fake, "vfio.devs=1b36:0010@02:00.0").join(" ");
    assert!(!text.contains("could be told"), "{text}");
    // So is what the kernel itself has, though fstab asks for it.
    let (mut fstab, mut mounts) = (String::new(), vec![ROOT.to_owned()]);
    for kind in ["proc", "hugetlbfs", "efivarfs", "debugfs", "bpf", "ceph", "fuse.sshfs"] {
        fstab.extend(["none /a/", kind, " ", kind, " defaults 0 0\n"]);
        mounts.push(format!("23 22 0:50 / /a/{kind} rw - {kind} none rw"));
    }
    fake.tree.write("etc/fstab", &fstab);
    fake.mounts(&mounts.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(keep_by_program(&fake).0, "");
}

/// A disk behind VMD goes with that alone, and with the root on one of them not even so.
#[test]
fn nobody_is_told_to_give_the_vmd_away_that_the_root_is_behind() {
    let whole = "cannot be given away as a whole, since the host lives from what is behind it \
                 (nvme0n1p2 is mounted on /)";
    let instead = "or list that instead, with all that is behind it";
    for (mounts, said, not_said) in
        [(None, whole, instead), (Some("22 1 0:30 / / rw - tmpfs none rw"), instead, whole)]
    {
        let mut fake = crate::list::hosts::laptop();
        if let Some(mounts) = mounts {
            fake.mounts(&[mounts]);
        }
        let report = fake.bind("vfio.devs=10000:e1:00.0");
        let words = words(&report, "10000:e1:00.0");
        assert_says(
            &words,
            &["is behind 0000:00:0e.0 (VMD)", "turn VMD off in the firmware", said],
        );
        assert!(!words.contains(not_said), "{words}");
    }
}
