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
    ] {
        let (status, stdout, stderr) = format(&fake, name, &[]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{name}");
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
fn a_long_domain_is_right_in_every_format() {
    let fake = hosts::laptop();
    for (name, text, warning) in [
        ("libvirt", "<address domain='0x10000' bus='0xe1' slot='0x00' function='0x0'/>", true),
        ("qemu", "-device vfio-pci,sysfsdev=/sys/bus/pci/devices/10000:e1:00.0\n", false),
        ("nix", "\"15b7:5006@10000:e0:06.0/00.0\"", false),
        ("kubevirt", "\"15B7:5006\"", false),
    ] {
        let (status, stdout, stderr) = format(&fake, name, &["10000:e1:00.0"]);
        assert_eq!(status, Some(0), "{name}: {stderr}");
        assert!(stdout.contains(text), "{name}: {stdout}");
        assert_eq!(stderr.contains("long domain"), warning, "{name}: {stderr}");
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
    assert_eq!((stdout.lines().count(), stderr.as_str()), (4, ""));

    let (status, stdout, stderr) = format(&fake, "libvirt", &["00:01.0", "02:00.0"]);
    assert_eq!((status, stdout.matches("<hostdev").count()), (Some(1), 1));
    assert!(stderr.contains("left out: 0000:00:01.0 is a bridge"), "{stderr}");

    let (_, _, stderr) = format(&hosts::without_iommu(), "qemu", &["00:14.0"]);
    assert!(stderr.contains("0000:00:14.0 has no IOMMU group"), "{stderr}");
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
