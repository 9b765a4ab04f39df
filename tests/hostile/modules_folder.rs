//! A folder of modules whose index leads in circles and elsewhere, and a release that does.

use std::collections::BTreeMap;
use std::fs;

use vfio_early::kernel::{Kernel, Live};
use vfio_early::modules::index::below;
use vfio_early::modules::{Modules, Whereabouts};

use super::{assert_harmless, run, text};
use crate::fake::Fake;
use crate::machine::desktop;

/// An index as depmod writes it (`libkmod-index.c`), of keys and one value each: a node is a
/// prefix, the nodes by the next byte, and the value; its flags are in its offset.
fn index(entries: &BTreeMap<&str, &str>) -> Vec<u8> {
    let mut file = [0xb007_f457_u32, 0x0002_0001, 0].map(u32::to_be_bytes).concat();
    let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_bytes(), *value)).collect();
    let root = node(&mut file, &entries);
    file[8..12].copy_from_slice(&root.to_be_bytes());
    file
}

fn node(file: &mut Vec<u8>, entries: &[(&[u8], &str)]) -> u32 {
    let mut children = [0; 128];
    for (byte, child) in children.iter_mut().enumerate() {
        let of_byte = |key: &[u8]| key.first().is_some_and(|first| usize::from(*first) == byte);
        let below = entries.iter().filter(|(key, _)| of_byte(key));
        let below: Vec<_> = below.map(|(key, value)| (&key[1..], *value)).collect();
        if !below.is_empty() {
            *child = node(file, &below);
        }
    }
    let mut offset = u32::try_from(file.len()).unwrap();
    if children.iter().any(|child| *child != 0) {
        offset |= 0x2000_0000;
        file.extend([0, 127]);
        file.extend(children.map(u32::to_be_bytes).concat());
    }
    if let Some((_, value)) = entries.iter().find(|(key, _)| key.is_empty()) {
        offset |= 0x4000_0000;
        file.extend([1_u32, 0].map(u32::to_be_bytes).concat());
        file.extend([value.as_bytes(), b"\0"].concat());
    }
    offset
}

fn with_index(entries: &[(&str, &str)]) -> Fake {
    let fake = desktop().boot();
    let release = fake.tree.read("proc/sys/kernel/osrelease");
    let folder = format!("lib/modules/{}", release.trim());
    fake.tree.folder(&folder);
    let file = fake.tree.root().join(&folder).join("modules.dep.bin");
    fs::write(file, index(&entries.iter().copied().collect())).unwrap();
    // libkmod leaves out what is not there.
    for name in ["vfio-pci", "vfio", "vfio_iommu_type1"] {
        fake.tree.write(&format!("{folder}/kernel/{name}.ko"), "");
    }
    fake
}

#[test]
fn modules_that_need_each_other_or_themselves_have_an_end() {
    let fake = with_index(&[
        ("vfio_pci", "kernel/vfio-pci.ko: kernel/vfio.ko kernel/vfio-pci.ko"),
        ("vfio", "kernel/vfio.ko: kernel/vfio-pci.ko kernel/vfio.ko"),
        ("vfio_iommu_type1", "kernel/vfio_iommu_type1.ko: kernel/vfio_iommu_type1.ko"),
    ]);
    let modules = Modules::open(fake.tree.root()).expect("libkmod opens it");
    let Whereabouts::Module(needed) = modules.find("vfio-pci") else { panic!("it is in a file") };
    assert!(needed.contains(&"vfio".to_owned()) && needed.len() <= 2, "{needed:?}");
    let mut kernel = Live::new(fake.tree.root());
    assert!(kernel.modules_for("vfio_pci").expect("it is there").len() <= 3);
    let output = run(fake.tree.root(), &["check", "00:14.0"]);
    assert_harmless(&output);
    assert!(text(&output.stdout).contains("vfio-pci: a module, with vfio"), "{output:?}");
}

#[test]
fn a_path_that_leaves_the_folder_is_named_and_not_opened() {
    let fake = with_index(&[
        ("vfio_pci", "../../../../../../s3cret/vfio-pci.ko: /s3cret/vfio.ko kernel/\u{1b}[2J.ko"),
        ("vfio_iommu_type1", "/dev/zero:"),
    ]);
    for command in [&["check", "00:14.0"][..], &["--dry-run", "--cmdline", "vfio.devs=00:14.0"]] {
        let output = run(fake.tree.root(), command);
        // What libkmod itself says of such an index, it says to standard error.
        assert!(!text(&output.stdout).contains("s3cret"), "{output:?}");
        assert!(!text(&output.stdout).contains('\u{1b}'), "{output:?}");
    }
}

#[test]
fn a_release_that_is_a_path_has_no_modules() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("modules.dep.bin");
    let entries = [("vfio_pci", "kernel/vfio-pci.ko:"), ("s3cret", "kernel/s3cret.ko:")];
    fs::write(file, index(&entries.into_iter().collect())).unwrap();
    let up = "../".repeat(40) + elsewhere.path().to_str().unwrap();
    for release in [elsewhere.path().to_str().unwrap(), &up, "..", ".", "", "a/b", "a\0b", "\u{1b}"]
    {
        let fake = with_index(&[]);
        fake.tree.write("proc/sys/kernel/osrelease", release);
        let modules = Modules::open(fake.tree.root());
        let found = modules.is_some_and(|it| it.find("s3cret") != Whereabouts::Absent);
        assert!(!found, "{release:?}");
        assert_harmless(&run(fake.tree.root(), &["check", "00:14.0"]));
    }
}

/// Aliases are patterns; one with many wildcards must not take for ever.
#[test]
fn an_alias_of_many_wildcards_is_read_at_once() {
    let fake = with_index(&[]);
    let release = fake.tree.read("proc/sys/kernel/osrelease");
    let stars = "*0".repeat(60);
    let slow = format!("vfio_pci:v{stars}x");
    let aliases = BTreeMap::from([(slow.as_str(), "evil"), ("vfio_pci:*", "../../evil")]);
    let file = fake.tree.root().join(format!("lib/modules/{}/modules.alias.bin", release.trim()));
    fs::write(&file, index(&aliases)).unwrap();
    // Both are seen, and neither is taken: one does not fit, and the other is no name.
    assert_eq!(below(&fs::File::open(file).unwrap(), "vfio_pci:").len(), 2);
    let output = run(fake.tree.root(), &["--dry-run", "--cmdline", "vfio.devs=00:14.0"]);
    assert!(text(&output.stdout).contains("load vfio-pci"), "{output:?}");
    assert!(!text(&output.stdout).contains("evil"), "{output:?}");
}
