//! `list --format`: devices for those who start VMs.

use std::fs;
use std::process::Command;

use super::{hosts, list};

fn format(fake: &crate::fake::Fake, name: &str, filters: &[&str]) -> (Option<i32>, String, String) {
    list(fake, &[&["--format", name], filters].concat(), &[])
}

const BOUND: [&str; 2] = ["10de:2204@00:01.3/00.0", "10de:1aef@00:01.3/00.1"];

#[test]
fn what_a_vfio_driver_has_is_handed_over_unasked() {
    let fake = hosts::twins();
    let nix =
        format!("boot.initrd.vfio-early.devices = [\n  \"{}\"\n  \"{}\"\n];\n", BOUND[0], BOUND[1]);
    for (name, expected) in [
        (
            "libvirt",
            "<hostdev mode='subsystem' type='pci' managed='no'>\n  <source>\n    \
             <address domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>\n  </source>\n\
             </hostdev>\n\
             <hostdev mode='subsystem' type='pci' managed='no'>\n  <source>\n    \
             <address domain='0x0000' bus='0x02' slot='0x00' function='0x1'/>\n  </source>\n\
             </hostdev>\n",
        ),
        ("qemu", "-device vfio-pci,host=0000:02:00.0\n-device vfio-pci,host=0000:02:00.1\n"),
        ("nix", &nix),
        (
            "kubevirt",
            "permittedHostDevices:\n  pciHostDevices:\n    \
             - pciVendorSelector: \"10DE:2204\"\n      resourceName: \"vfio-early/10de-2204\"\n      \
             externalResourceProvider: false\n    \
             - pciVendorSelector: \"10DE:1AEF\"\n      resourceName: \"vfio-early/10de-1aef\"\n      \
             externalResourceProvider: false\n",
        ),
        ("proxmox", "qm set VMID -hostpci0 0000:02:00.0\nqm set VMID -hostpci1 0000:02:00.1\n"),
        (
            "incus",
            "incus config device add INSTANCE pci-0000-02-00-0 pci address=0000:02:00.0\n\
             incus config device add INSTANCE pci-0000-02-00-1 pci address=0000:02:00.1\n",
        ),
        (
            "cloud-hypervisor",
            "--device path=/sys/bus/pci/devices/0000:02:00.0\n\
             --device path=/sys/bus/pci/devices/0000:02:00.1\n",
        ),
        (
            "crosvm",
            "--vfio /sys/bus/pci/devices/0000:02:00.0\n--vfio /sys/bus/pci/devices/0000:02:00.1\n",
        ),
    ] {
        let (status, stdout, stderr) = format(&fake, name, &[]);
        // Its twin is not given.
        let said = if name == "kubevirt" { 2 } else { 0 };
        assert_eq!((status, stderr.lines().count()), (Some(0), said), "{name}: {stderr}");
        assert_eq!(stdout, expected, "{name}");
    }
    let (status, stdout, stderr) = format(&hosts::desktop(), "qemu", &[]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("no device is on a vfio driver"), "{stderr}");
}

#[test]
fn one_id_is_permitted_once() {
    let (_, stdout, _) = format(&hosts::twins(), "kubevirt", &["gpu"]);
    assert_eq!(stdout.matches("pciVendorSelector").count(), 1, "{stdout}");
}

#[test]
fn what_kubevirt_cannot_tell_apart_is_said() {
    let (_, _, stderr) = format(&hosts::twins(), "kubevirt", &["02:00.0"]);
    let all = "10de:2204 is the id of 0000:01:00.0, 0000:02:00.0: a VM gets any of them";
    assert!(stderr.contains(all), "{stderr}");
    assert_eq!(stderr.matches("is the id of").count(), 1, "{stderr}");
    // Two functions of one id in one group are one device to it.
    let (_, _, stderr) = format(&hosts::disks(), "kubevirt", &["41:00.0"]);
    let all = "144d:a80a is the id of 0000:41:00.0, 0000:41:00.1, 0000:42:00.0: a VM gets any";
    assert!(stderr.contains(all), "{stderr}");
    let one = "0000:41:00.0, 0000:41:00.1 have one id and one IOMMU group (2): they are one device";
    assert!(stderr.contains(one), "{stderr}");
    // Not all of a hundred are named.
    let (_, _, stderr) = format(&hosts::server(), "kubevirt", &["3b:02.5"]);
    assert!(stderr.contains("0000:3b:02.7 and 120 more: a VM gets any"), "{stderr}");
    assert!(!stderr.contains("one IOMMU group"), "{stderr}");
    let (_, _, stderr) = format(&hosts::desktop(), "kubevirt", &["01:00.0"]);
    assert!(!stderr.contains("is the id of"), "{stderr}");
}

#[test]
fn a_vm_of_proxmox_has_room_for_sixteen() {
    let (status, stdout, stderr) = format(&hosts::server(), "proxmox", &["net"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert_eq!(stdout.lines().count(), 16, "{stdout}");
    assert!(stdout.lines().last().is_some_and(|line| line.contains("-hostpci15 ")), "{stdout}");
    assert!(stderr.contains("a VM of Proxmox VE has at most 16 devices"), "{stderr}");
}

#[test]
fn what_is_behind_a_vmd_is_handed_to_nobody() {
    let fake = hosts::laptop();
    for (name, _) in vfio_early::host::list::formats::FORMATS {
        let (status, stdout, stderr) = format(&fake, name, &["10000:e1:00.0"]);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{name}: {stderr}");
        let why = "left out: 10000:e1:00.0 is behind 0000:00:0e.0: no VM can have it without that";
        assert!(stderr.contains(why), "{name}: {stderr}");
    }
}

#[test]
fn what_will_be_a_problem_is_said() {
    let fake = hosts::desktop();
    let (status, stdout, stderr) = format(&fake, "qemu", &["01:00.0"]);
    assert_eq!((status, stdout.as_str()), (Some(0), "-device vfio-pci,host=0000:01:00.0\n"));
    for text in [
        "0000:01:00.0 is on nouveau: bind it before a VM starts",
        "0000:01:00.0 shares its IOMMU group with 01:00.1",
        "group:01:00.0 chooses all of it",
    ] {
        assert!(stderr.contains(text), "{text:?} is not in\n{stderr}");
    }
    // For the next boot it does not matter who has it now.
    let (_, stdout, stderr) = format(&fake, "nix", &["group:01:00.0"]);
    assert_eq!((devices_of(&stdout).len(), stderr.as_str()), (2, ""));

    let (status, stdout, stderr) = format(&fake, "libvirt", &["00:01.0", "02:00.0"]);
    assert_eq!((status, stdout.matches("<hostdev").count()), (Some(1), 1));
    assert!(stderr.contains("left out: 0000:00:01.0 is a bridge"), "{stderr}");

    let (_, _, stderr) = format(&hosts::without_iommu(), "qemu", &["00:14.0"]);
    assert!(stderr.contains("0000:00:14.0 has no IOMMU group"), "{stderr}");
}

/// What the option `devices` gets, and not `keep`.
fn devices_of(text: &str) -> Vec<&str> {
    let devices = text.split("];\n").next().filter(|text| text.contains(".devices = ["));
    devices.unwrap_or_default().split('"').skip(1).step_by(2).collect()
}

const CHIPSET: [&str; 3] = ["8086:a348@00:1f.3", "8086:a323@00:1f.4", "8086:a324@00:1f.5"];

#[test]
fn nix_gets_nothing_that_the_host_uses_or_that_is_not_there_yet() {
    const DISK: &str = "left out: 0000:00:17.0: the host uses it: sda2 is mounted on /; if it is \
                        meant, vfio-early list has the item";
    const NETWORK: &str = "left out: 0000:00:1f.6: the host uses it: eno1 has an address";
    const VIRTUAL: &str = "left out: 0000:3b:02.5, a virtual function of 3b:00.0, is not there yet \
                           in the initrd";
    const CARD: &str = "left out: 0000:3b:00.0: the host uses it: 64 virtual functions (SR-IOV)";
    let (desktop, server) = (hosts::desktop(), hosts::server());
    for (fake, filters, items, said) in [
        (&desktop, &["00:17.0"][..], &[][..], &[DISK][..]),
        (&desktop, &["storage"], &["144d:a808@00:1d.0/00.0"], &[DISK]),
        (&desktop, &["net", "storage"], &["144d:a808@00:1d.0/00.0"], &[DISK, NETWORK]),
        // The bridge was not meant. Those of its group that are written are of no use without it.
        (
            &desktop,
            &["group:00:1f.3"],
            &CHIPSET,
            &[NETWORK, "0000:00:1f.3 shares its IOMMU group with 00:1f.6: no host driver may have"],
        ),
        (&server, &["3b:02.5"], &[], &[VIRTUAL]),
        (&server, &["3b:00.0", "3b:02.5"], &[], &[CARD, VIRTUAL]),
    ] {
        let (status, stdout, stderr) = format(fake, "nix", filters);
        assert_eq!(status, Some(1), "{filters:?}: {stderr}");
        assert_eq!(devices_of(&stdout), items, "{filters:?}");
        for text in said {
            assert!(stderr.contains(text), "{filters:?}: {text:?} is not in\n{stderr}");
        }
        assert_eq!(
            stderr.matches("left out: ").count(),
            said.iter().filter(|text| text.starts_with("left out: ")).count(),
            "{filters:?}: {stderr}"
        );
        assert!(!stderr.contains("chooses all of it"), "{filters:?}: {stderr}");
        // What takes a device from its driver by itself gets as little of the host's.
        for (name, line) in [("proxmox", "qm set "), ("incus", "incus ")] {
            let (_, stdout, stderr) = format(fake, name, filters);
            assert!(!stdout.contains("0000:00:17.0") && !stdout.contains("00:1f.6"), "{stdout}");
            assert!(stdout.lines().all(|it| it.starts_with(line)), "{stdout}");
            for text in said.iter().filter(|text| text.contains("the host uses it")) {
                assert!(stderr.contains(text), "{name} {filters:?}: {text:?} is not in\n{stderr}");
            }
        }
        // The others are for this boot, in which the host has to let go of it first.
        let (_, stdout, stderr) = format(fake, "qemu", filters);
        assert!(stdout.lines().count() > items.len(), "{filters:?}: {stdout}");
        assert!(!stderr.contains("the host uses it"), "{filters:?}: {stderr}");
        assert!(stderr.contains("bind it before a VM starts"), "{filters:?}: {stderr}");
    }
}

#[test]
fn a_bridge_is_left_out_with_a_word_only_where_it_was_meant() {
    let fake = hosts::desktop();
    let (_, stdout, stderr) = format(&fake, "qemu", &["group:00:1f.3"]);
    assert!(stdout.contains("0000:00:1f.3") && !stdout.contains("0000:00:1f.0"), "{stdout}");
    assert!(!stderr.contains("bridge"), "{stderr}");
    let (status, stdout, stderr) = format(&fake, "qemu", &["00:1f.0"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("0000:00:1f.0 is a bridge, which no VM can have"), "{stderr}");
}

#[test]
fn nix_gets_the_boot_display_with_a_warning() {
    const WARNING: &str = "is the boot display: vfio-early check tells whether the host keeps its \
                           console without it; see vfio.console in vfio-early.cmdline(7)";
    let (desktop, twins) = (hosts::desktop(), hosts::twins());
    for (fake, name, filter, warned) in [
        (&desktop, "nix", "00:02.0", Some("0000:00:02.0")),
        (&desktop, "nix", "gpu", Some("0000:00:02.0")),
        (&desktop, "nix", "group:01:00.0", None),
        (&desktop, "qemu", "00:02.0", None),
        (&twins, "nix", "group:01:00.0", Some("0000:01:00.0")),
        (&twins, "nix", "group:02:00.0", None),
    ] {
        let (status, _, stderr) = format(fake, name, &[filter]);
        assert_eq!(status, Some(0), "{name} {filter}: {stderr}");
        let found: Vec<_> = stderr.lines().filter(|line| line.contains(WARNING)).collect();
        let expected: Vec<_> =
            warned.iter().map(|address| format!("vfio-early: {address} {WARNING}")).collect();
        assert_eq!(found, expected, "{name} {filter}: {stderr}");
    }
    // It was given away at the boot, with whatever console there is since.
    twins.tree.write("sys/bus/pci/devices/0000:02:00.0/boot_vga", "1\n");
    let (status, _, stderr) = format(&twins, "nix", &[]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
}

#[test]
fn libvirt_accepts_the_elements_in_a_domain() {
    let folder = tempfile::tempdir().unwrap();
    for (fake, filters) in [(hosts::twins(), &[][..]), (hosts::laptop(), &["storage", "usb"])] {
        let (_, elements, _) = format(&fake, "libvirt", filters);
        assert!(elements.matches("<hostdev").count() >= 2, "{elements}");
        let domain = |elements: &str| {
            format!(
                "<domain type='kvm'>\n<name>vm</name>\n<memory unit='GiB'>8</memory>\n\
                 <os><type arch='x86_64' machine='q35'>hvm</type></os>\n<devices>\n{elements}\
                 </devices>\n</domain>\n"
            )
        };
        // One that the schema refuses shows that it is held against the schema.
        let wrong = elements.replace("slot='0x0", "slot='0xf");
        for (elements, is_valid) in [(&elements, true), (&wrong, false)] {
            let file = folder.path().join("domain.xml");
            fs::write(&file, domain(elements)).unwrap();
            let output = Command::new("virt-xml-validate").arg(&file).arg("domain").output();
            let output = output.expect("virt-xml-validate, which cargo xtask setup installs, runs");
            assert_eq!(output.status.success(), is_valid, "{elements}\n{output:?}");
        }
    }
}
