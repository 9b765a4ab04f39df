//! Very long lists: what is done for them grows with them and no faster.

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_early::cmdline;
use vfio_early::escape;

use super::for_seeds;
use crate::machine::{Function, Machine, desktop};

const ITEMS: usize = 100_000;
/// Of each form, without optimisation.
const OF_EACH_FORM: usize = 5_000;

/// How often this thread has called `read(2)` and the like.
fn reads() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").expect("the kernel counts them");
    let line = text.lines().find_map(|line| line.strip_prefix("syscr: ")).expect("syscr");
    line.parse().expect("a number")
}

/// Room for the items and what is said of each.
fn bound(item: &str) -> usize {
    OF_EACH_FORM * (4 * item.len() + 1024)
}

#[test]
fn items_of_every_form_take_room_and_reads_in_proportion() {
    let functions = (0..=0xff).map(|bus| {
        Function::new(&format!("0000:{bus:02x}:03.0"), "8086:10d3", 0x02_0000).group(bus)
    });
    let mut fake = Machine::new(functions).boot();
    for item in [
        "x",
        "05:00.0",
        "03:03.0",
        "03:03.*",
        "../..",
        "8086:0@03:03.0",
        "8086:0@05:00.0",
        "10de:0@03:03.0",
        "pci:8086:10d3",
        "pci:10de:10d3",
        "group:03:03.0",
        "vfs:03:03.0=4",
        "03:03.0/00.0",
        "00:01.0/00.0/00.0/00.0",
    ] {
        let text = "vfio.devs=".to_owned() + &[item].repeat(OF_EACH_FORM).join(",");
        let request = cmdline::parse(text.as_bytes());
        assert_eq!(request.items.len() + request.rejected.len(), OF_EACH_FORM, "{item}");
        let sysfs = fake.sysfs();
        let before = reads();
        let check = vfio_early::check(request, &sysfs, &mut fake).expect("the bus can be read");
        let count = reads() - before;
        assert!(count < 3_000, "{item}: {count} reads");
        assert!(check.report.devices.len() <= OF_EACH_FORM.max(256), "{item}");
        let json = escape::json(&check.report).expect("JSON");
        assert!(json.len() < bound(item), "{item}: {} bytes", json.len());
        let lines = check.report.lines();
        assert!(lines.len() < 1024, "{item}: {} lines", lines.len());
        let last = &lines.last().expect("a sum").1;
        assert!(last.contains("bound"), "{last}");
    }
}

#[test]
fn a_hundred_thousand_items_are_counted_where_they_are_not_told_one_by_one() {
    let text: Vec<_> = (0..ITEMS).map(|n| format!("{n:x}:00:1f.7,z{n}")).collect();
    let text = text.join(",");
    let mut fake = desktop().boot();
    let report = fake.bind(&format!("vfio.devs=00:14.0,{text}"));
    assert_eq!(report.devices.len(), ITEMS + 1);
    let lines: Vec<_> = report.lines().into_iter().map(|(_, line)| line).collect();
    let more = ITEMS - 256;
    for what in ["absent", "malformed"] {
        let told = format!("{more} more items are {what}; the report has them all");
        assert!(lines.contains(&told), "{told:?} is not in {} lines", lines.len());
    }
    assert_eq!(fake.driver("0000:00:14.0").as_deref(), Some("vfio-pci"));
    assert!(lines.len() < 600, "{}", lines.len());
}

#[test]
fn an_id_that_is_everywhere_is_not_listed_everywhere() {
    let functions = (0..=0xff).map(|bus| {
        Function::new(&format!("0000:{bus:02x}:03.0"), "8086:10d3", 0x02_0000).group(bus)
    });
    let mut fake = Machine::new(functions).boot();
    let report = fake.bind("vfio.devs=8086:0@ff:1f.7");
    let remedy = report.devices[0].remedy.as_deref().expect("it is absent");
    assert!(remedy.contains("0000:07:03.0 and 248 other places"), "{remedy}");
}

#[test]
fn an_absurdly_long_item_is_kept_whole_and_told_in_short() {
    let length = 1 << 16;
    for item in [
        "x".repeat(length),
        "f".repeat(length),
        ":".repeat(length),
        format!("{}:00.0", "1".repeat(length)),
        format!("00:{}.0", "1".repeat(length)),
        format!("00:01.{}", "1".repeat(length)),
        format!("{}@00:14.0", "1".repeat(length)),
        format!("pci:{}:1", "1".repeat(length)),
        format!("group:{}", "\u{1b}".repeat(length)),
        format!("00:1c.0{}", "/00.0".repeat(length / 5)),
    ] {
        let mut fake = desktop().boot();
        let report = fake.bind(&format!("vfio.devs={item},00:14.0 vfio.{item} vfio.driver={item}"));
        let whole = report.request.rejected.iter().any(|it| it.text == item)
            || report.request.items.iter().any(|it| it.text == item);
        assert!(whole, "{}", escape::short(&item));
        for (_, line) in report.lines() {
            assert!(line.len() < 2048, "{} bytes: {}", line.len(), escape::short(&line));
        }
        assert_eq!(fake.driver("0000:00:14.0").as_deref(), Some("vfio-pci"));
    }
}

#[test]
fn many_wrong_parameters_are_counted() {
    let text: Vec<_> = (0..ITEMS).map(|n| format!("vfio.x{n} vfio.wait=x")).collect();
    let text = text.join(" ");
    let request = cmdline::parse(text.as_bytes());
    let last = request.warnings.last().expect("warnings");
    assert_eq!(
        (request.warnings.len(), last.as_str()),
        (65, "199936 more vfio. parameters are wrong")
    );
}

#[test]
fn random_long_lists_end_in_as_many_outcomes() {
    let words = prop::sample::select(vec![
        "../..",
        "/",
        "..",
        "\0",
        "\u{1b}[2J",
        "\u{7f}",
        "00:14.0",
        "01:00.*",
        "group:01:00.0",
        "10de:0@00:14.0",
        "pci:8086:0",
        "00:1c.0/00.0",
        "00:1c.0/../00.0",
        "%s%n",
        "$(x)",
        "`x`",
        "\\",
        "'",
        "\u{202e}",
        "ffffffff:ff:1f.7",
        "é",
        "",
    ]);
    for_seeds(12, &vec(words, 0..2000), |words| {
        let mut fake = desktop().boot();
        let count = words.iter().filter(|word| !word.is_empty()).count();
        let text = format!("vfio.devs={}", words.join(","));
        let report = fake.bind(&text);
        assert_eq!(report.request.items.len() + report.request.rejected.len(), count);
        let json = escape::json(&report).expect("JSON");
        assert!(!json.contains(escape::is_hidden));
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    });
}

/// A host of many containers: each has an overlay of many layers and folders of one disk, mounted again.
#[test]
fn what_is_mounted_is_read_once_however_much_it_is() {
    let fake = crate::keep::hosts::twin_disks().running();
    fake.tree.write("etc/fstab", "/dev/nvme0n1p2 / ext4\n");
    let mut counts = Vec::new();
    for containers in [1, 300] {
        let mut lines = vec!["22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw".to_owned()];
        lines.push("23 22 259:4 / /srv rw - ext4 /dev/nvme1n1p1 rw".to_owned());
        for n in 0..containers {
            let layers: Vec<_> = (0..20).map(|layer| format!("/srv/layers/{n}-{layer}")).collect();
            let layers = layers.join(":");
            lines.push(format!("24 22 0:99 / /run/{n} rw - overlay overlay rw,lowerdir={layers}"));
            lines.push(format!("25 22 259:4 /{n} /pods/{n} rw - ext4 /dev/nvme1n1p1 rw"));
        }
        fake.mounts(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let sysfs = fake.sysfs();
        let before = reads();
        let record = vfio_early::host::keep::record(&sysfs, true).expect("the bus can be read");
        counts.push(reads() - before);
        assert_eq!(record.entries.len(), 1, "{:?}", record.entries);
        assert!(vfio_early::host::keep::untold(&sysfs).is_none());
    }
    // The table itself is longer.
    assert!(counts[1] < counts[0] + 100, "{counts:?}");
}
