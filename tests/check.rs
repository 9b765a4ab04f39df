//! `vfio-early check` in words.

use vfio_early::cmdline;
use vfio_early::host::page::Look;

use crate::console::{VGA, two_displays};
use crate::fake::Fake;
use crate::list::hosts;
use crate::machine::desktop;

/// What is printed, by lines.
pub fn words(fake: &mut Fake, text: &str) -> Vec<String> {
    let sysfs = fake.sysfs();
    let check = vfio_early::check(cmdline::parse(text.as_bytes()), &sysfs, fake);
    let words = check.expect("the PCI bus can be read").words(Look::PLAIN);
    words.lines().map(str::to_owned).collect()
}

#[test]
fn the_fate_of_the_console_is_told() {
    for (items, expected) in [
        ("10de:1c03@01:00.*", Some("the console would be kept, on 0000:00:02.0")),
        (
            "01:00.*,00:02.0 vfio.console=release",
            Some("the console would end: 0000:00:02.0 takes it along"),
        ),
        // One of them stays, and the console with it.
        ("01:00.*,00:02.0", Some("the console would be kept, on 0000:00:02.0")),
        ("00:14.0", None),
    ] {
        let mut fake = hosts::desktop();
        let lines = words(&mut fake, &format!("vfio.devs={items}"));
        let console = lines.iter().find(|line| line.starts_with("the console"));
        assert_eq!(console.map(String::as_str), expected, "{items}: {lines:#?}");
    }
}

#[test]
fn each_outcome_has_its_words() {
    let mut fake = hosts::desktop();
    let lines = words(&mut fake, "vfio.devs=x,00:1e.0,00:17.0,00:01.0,00:14.0");
    for start in [
        "\"x\": is no item: not a PCI address; ",
        "0000:00:01.0 8086:1901: would be refused: class 060400 is a PCI bridge",
        "0000:00:14.0 8086:a36d: would be bound to vfio-pci, taken from xhci_hcd, group 3",
        "    warning: its IOMMU group 3 also has 0000:00:14.2 8086:a36f: ",
        "0000:00:17.0 8086:a352: would be refused: the host uses it: sda2 is mounted on /; the host runs from it",
        "00:1e.0: is absent: no such device; ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start:?}: {lines:#?}");
    }
    assert_eq!(words(&mut fake, "quiet"), ["nothing is asked for"]);
    assert_eq!(words(&mut fake, "vfio.off vfio.devs=00:14.0"), ["vfio.off: nothing is done"]);

    let mut fake = hosts::twins();
    let lines = words(&mut fake, "vfio.devs=10de:2204@02:00.0");
    assert_eq!(lines[0], "0000:02:00.0 10de:2204: is bound to vfio-pci already");
}

#[test]
fn what_will_keep_a_device_from_being_bound_is_foreseen() {
    let mut fake = desktop().boot();
    let lines = words(&mut fake, "vfio.devs=00:14.0 module_blacklist=vfio_pci");
    let start = "0000:00:14.0 8086:a12f: would fail: module_blacklist= has vfio_pci; ";
    assert!(lines[0].starts_with(start), "{lines:#?}");

    // The host's driver of the display that stays comes later.
    let mut fake = two_displays(VGA, VGA).left_out("nouveau").boot();
    let lines = words(&mut fake, "vfio.devs=00:02.0");
    let start = "0000:00:02.0 8086:5912: would be reserved: ";
    assert!(lines[0].starts_with(start), "{lines:#?}");
}
