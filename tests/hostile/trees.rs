//! Copies of `/sys` and `/proc` from strangers, and what users can put into the real ones.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::collection::vec;
use proptest::prelude::*;
use vfio_early::cmdline;
use vfio_early::host::list::{self, formats, tree};
use vfio_early::host::page::Look;

use super::{assert_harmless, for_seeds, run, text};
use crate::fake::Fake;
use crate::machine::desktop;

const ITEMS: &str = "00:14.0,01:00.*,group:02:00.0,8086:15b8@00:19.0,pci:10de:0,00:1c.0/00.0";
/// Every command that reads a tree.
const COMMANDS: [&[&str]; 7] = [
    &["check", ITEMS],
    &["check", ITEMS, "--json"],
    &["--dry-run", "--cmdline", "vfio.devs=00:14.0,pci:8086:0"],
    &["list"],
    &["list", "--json"],
    &["status"],
    &["keep"],
];

/// A host with something of all that is read.
fn host() -> Fake {
    let fake = crate::list::hosts::desktop();
    let files = [
        "proc/self/mountinfo",
        "proc/swaps",
        "proc/net/route",
        "proc/net/if_inet6",
        "proc/iomem",
        "proc/interrupts",
        "run/vfio-early/report.json",
        "usr/share/misc/pci.ids",
        "sys/class/vtconsole/vtcon0/name",
        "sys/class/vtconsole/vtcon0/bind",
        "sys/class/input/input0/name",
        "sys/class/input/input0/capabilities/key",
        "etc/fstab",
        "etc/systemd/system/local-fs.target.wants/home.mount",
        "sys/power/resume",
        "sys/devices/virtual/block/loop0/loop/backing_file",
        "sys/class/input/input0/id/bustype",
        "etc/vfio-early/keep",
        "run/vfio-early/keep",
        "proc/812/comm",
        "proc/asound/card0/pcm0p/sub0/status",
        "proc/driver/nvidia/gpus/0000:01:00.0/information",
        "sys/bus/pci/devices/0000:00:02.0/reset_method",
        "sys/bus/pci/devices/0000:00:02.0/sriov_numvfs",
    ];
    for file in files {
        fake.tree.write(file, "1\n");
    }
    fake.tree.folder("proc/812/fd");
    fake.tree.link("proc/812/fd/3", "/dev/dri/card0");
    fake.below("00:01.0/01:00.0", "drm", "drm/card0");
    fake.below("00:1f.3", "sound", "sound/card0/pcmC0D0p");
    fake
}

/// In what is printed.
fn is_harmful(c: char) -> bool {
    vfio_early::escape::is_hidden(c) && c != '\n'
}

/// The files and the links of the tree.
fn places(fake: &Fake) -> Vec<PathBuf> {
    let everything = fake.tree.everything().into_iter();
    everything.map(|(name, _)| fake.tree.root().join(name)).collect()
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
}

#[test]
fn fifos_folders_loops_and_huge_files_stop_nothing() {
    let spoil: [fn(&Path); 6] = [
        |path| mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| symlink(path, path).unwrap(),
        |path| symlink("/dev/zero", path).unwrap(),
        |path| fs::write(path, vec![b'\xff'; 200_000]).unwrap(),
        |_| (),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let fake = host();
        for path in places(&fake).into_iter().filter(|path| !is_link(path)) {
            fs::remove_file(&path).unwrap();
            spoil(&path);
        }
        for command in COMMANDS {
            let output = run(fake.tree.root(), command);
            assert_harmless(&output);
            assert!(output.stderr.len() < 1 << 20, "{number} {command:?}");
        }
    }
}

#[test]
fn links_lead_to_nothing_outside_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    let words = "pci:v0000DEADd0000BEEFsv00000000sd00000000bc02sc00i00 s3cret vfio.devs=s3cret\n";
    fs::write(&secret, words).unwrap();
    for absolute in [true, false] {
        let fake = host();
        let up = "../".repeat(40) + secret.to_str().unwrap();
        let target = if absolute { secret.clone() } else { PathBuf::from(up) };
        for path in places(&fake).into_iter().filter(|path| !is_link(path)) {
            fs::remove_file(&path).unwrap();
            symlink(&target, &path).unwrap();
        }
        for command in COMMANDS.into_iter().chain([&["check"][..], &["--dry-run"]]) {
            let output = run(fake.tree.root(), command);
            for text in [text(&output.stdout), text(&output.stderr)] {
                assert!(!text.contains("s3cret") && !text.contains("dead:beef"), "{text}");
            }
        }
    }
}

/// The kernel cannot be sure of a link with `..` while anything is renamed anywhere, and says so (`EAGAIN`).
#[test]
fn links_are_followed_while_others_rename_files() {
    let fake = desktop().boot();
    fake.tree.write("proc/there", "text");
    fake.tree.link("sys/class/there", "../../proc/there");
    let folder = tempfile::tempdir().expect("a folder");
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    fs::write(&one, "").expect("it can be written");
    let is_over = AtomicBool::new(false);
    let found = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                fs::rename(&one, &other).and_then(|()| fs::rename(&other, &one)).expect("renamed");
            }
        });
        let sysfs = fake.sysfs();
        let found = (0..20_000).filter(|_| sysfs.text("sys/class/there").is_ok()).count();
        is_over.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(found, 20_000);
}

#[test]
fn devices_in_a_circle_have_an_item_all_the_same() {
    let fake = desktop().boot();
    let (one, other) = ("0000:05:00.0", "0000:06:00.0");
    for (device, above) in [(one, format!("{one}/{other}")), (other, format!("{other}/{one}"))] {
        let folder = format!("devices/{above}/{device}");
        let modalias = "pci:v00008086d000010D3sv00000000sd00000000bc02sc00i00\n";
        fake.tree.write(&format!("sys/{folder}/modalias"), modalias);
        fake.tree.link(&format!("sys/bus/pci/devices/{device}"), &format!("../../../{folder}"));
    }
    let list = list::list(&fake.sysfs(), &[]).expect("the bus can be read");
    let entry = list.devices.iter().find(|entry| entry.address.to_string() == one);
    assert_eq!(entry.expect("it is there").item.as_deref(), Some("8086:10d3@05:00.0"));
}

#[test]
fn a_device_whose_id_cannot_be_read_has_an_item_all_the_same() {
    let fake = desktop().boot();
    fake.tree.write("sys/bus/pci/devices/0000:01:00.0/modalias", "");
    let list = list::list(&fake.sysfs(), &[]).expect("the bus can be read");
    let entry = list.devices.iter().find(|entry| entry.address.to_string() == "0000:01:00.0");
    let item = entry.expect("it is there").item.as_deref().expect("it is no bridge");
    assert_eq!(item, "00:01.0/00.0");
    let request = cmdline::parse(format!("vfio.devs={item}").as_bytes());
    assert!(request.rejected.is_empty(), "{:?}", request.rejected);
}

#[test]
fn a_driver_that_is_no_name_is_none() {
    for target in ["..", ".", "/", "../../..", "a/.."] {
        let fake = desktop().boot();
        fake.tree.link("sys/bus/pci/devices/0000:00:14.0/driver", target);
        let address = "0000:00:14.0".parse().unwrap();
        assert_eq!(fake.sysfs().driver(address).expect("a link"), None, "{target}");
    }
}

/// A user can mount at a place whose name is no text, and that must not hide the disks.
#[test]
fn a_mount_point_that_is_no_text_hides_no_other() {
    let mut fake = desktop().boot();
    fake.load("nvme");
    fake.load("e1000e");
    let disk = "devices/pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0/nvme0n1";
    fake.tree.write(&format!("sys/{disk}/dev"), "259:0\n");
    fake.tree.link_up("class/block/nvme0n1", disk);
    fake.tree.folder("proc/self");
    let root = fake.tree.root().to_owned();
    let lines =
        b"22 1 0:50 / /media/\xff\xfe rw - fuse x rw\n23 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n";
    fs::write(root.join("proc/self/mountinfo"), lines).unwrap();
    // Nor is a network link with such a name nobody's.
    let link = OsStr::from_bytes(b"\xffeth");
    let folder = root.join("sys/devices/pci0000:00/0000:00:19.0/net").join(link);
    fs::create_dir_all(&folder).unwrap();
    fake.tree.folder("sys/class/net");
    let target = Path::new("../../devices/pci0000:00/0000:00:19.0/net").join(link);
    symlink(target, root.join("sys/class/net").join(link)).unwrap();
    fake.tree.folder("proc/net");
    fs::write(root.join("proc/net/route"), b"Iface\tDestination\n\xffeth\t00000000\n").unwrap();

    let report = fake.bind("vfio.devs=144d:a808@02:00.0,8086:15b8@00:19.0");
    for (device, why) in report.devices.iter().zip(["has an address", "is mounted on /"]) {
        let reason = device.reason.as_deref().unwrap_or("it was taken");
        assert!(reason.contains(why), "{}: {reason}", device.item);
    }
    assert!(fake.take_lines().iter().all(|line| !line.contains("driver_override")));
}

/// What can become of a file or a link.
#[derive(Clone, Debug)]
enum Spoiled {
    Bytes(Vec<u8>),
    Missing,
    Folder,
    Link(&'static str),
}

fn spoiled() -> impl Strategy<Value = Spoiled> {
    let links = vec![
        "..",
        ".",
        "/",
        "",
        "x",
        "../../../devices",
        "../../../../../../../../../..",
        "../../../devices/pci0000:00/0000:00:14.0",
        "../../drivers/vfio-pci",
        "4294967296",
        "7",
    ];
    let words = vec!["-1\n", "0x", "99999999999999999999\n", "pci:v", "1 1 1\n", "IR-\n", "\0\n"];
    prop_oneof![
        2 => vec(any::<u8>(), 0..200).prop_map(Spoiled::Bytes),
        2 => prop::sample::select(words).prop_map(|text| Spoiled::Bytes(text.into())),
        2 => Just(Spoiled::Missing),
        1 => Just(Spoiled::Folder),
        3 => prop::sample::select(links).prop_map(Spoiled::Link),
    ]
}

#[test]
fn random_trees_are_read_without_harm() {
    let strategy = vec((any::<prop::sample::Index>(), spoiled()), 1..60);
    for_seeds(20, &strategy, |spoils| {
        let mut fake = host();
        let places = places(&fake);
        for (index, spoiled) in spoils {
            let path = index.get(&places);
            if fs::remove_file(path).is_err() {
                continue;
            }
            match spoiled {
                Spoiled::Bytes(bytes) => fs::write(path, bytes).unwrap(),
                Spoiled::Missing => (),
                Spoiled::Folder => fs::create_dir(path).unwrap(),
                // An empty target is none.
                Spoiled::Link(target) => drop(symlink(target, path)),
            }
        }
        let sysfs = fake.sysfs();
        let request = cmdline::parse(format!("vfio.devs={ITEMS}").as_bytes());
        if let Ok(check) = vfio_early::check(request, &sysfs, &mut fake) {
            assert!(!check.words(Look::PLAIN).contains(is_harmful));
            assert!(!check.report.lines().is_empty());
        }
        if let Ok(list) = list::list(&sysfs, &[]) {
            assert!(!tree::tree(&list, Look::PLAIN, true).contains(is_harmful));
            for (_, format) in formats::FORMATS {
                let handed = formats::hand_off(&list, format, false);
                assert!(!handed.text.contains(is_harmful), "{}", handed.text);
            }
        }
    });
}

#[test]
fn random_names_of_devices_are_read_without_harm() {
    let line = prop_oneof![
        vec(any::<u8>(), 0..60),
        "[\t]{0,3}(C |S )?[0-9a-f+]{0,5} {0,3}.{0,20}".prop_map(String::into_bytes),
        "[\t]{0,2}(8086|10de|1c03|a12f|03|00)  .{0,2000}".prop_map(String::into_bytes),
    ];
    let fake = desktop().boot();
    for_seeds(100, &vec(line, 0..60), |lines| {
        fake.tree.folder("usr/share/misc");
        let text = lines.join(&b'\n');
        fs::write(fake.tree.root().join("usr/share/misc/pci.ids"), text).unwrap();
        let list = list::list(&fake.sysfs(), &[]).expect("the bus can be read");
        let tree = tree::tree(&list, Look::PLAIN, true);
        assert!(!tree.contains(is_harmful), "{tree:?}");
    });
}
