//! What looks like ours on a command line and is not, and a hundred real ones in which nothing does.

use vfio_early::cmdline;
use vfio_early::host::paste;

const COMMAND_LINES: &str = include_str!("strays/command-lines");

#[test]
fn a_hundred_real_command_lines_are_not_warned_of() {
    let lines = COMMAND_LINES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        count += 1;
        let request = cmdline::parse(line.as_bytes());
        assert_eq!(request.warnings, [""; 0], "{line}");
        assert!(!request.asks_for_devices(), "{line}");
        let pasted = paste::read(line);
        assert_eq!(pasted, (line.to_owned(), ""), "{line}");
        // Nor does one that asks for a device.
        let text = format!("vfio.devs=01:00.0 {line}");
        let request = cmdline::parse(text.as_bytes());
        assert_eq!((request.warnings.len(), request.items.len()), (0, 1), "{line}");
    }
    assert!(count >= 100, "{count} are no hundred");
}

fn warnings(text: &str) -> Vec<String> {
    cmdline::parse(text.as_bytes()).warnings
}

#[test]
fn a_word_that_reads_as_an_item_gets_a_warning_with_the_right_form() {
    for (text, words, form) in [
        ("vfio.devs=00:03.0, 00:04.0", "00:04.0", "vfio.devs=00:03.0,00:04.0"),
        ("vfio.devs=00:03.0 ,00:04.0", "00:04.0", "vfio.devs=00:03.0,00:04.0"),
        ("vfio.devs= 00:03.0 quiet", "00:03.0", "vfio.devs=00:03.0"),
        ("vfio.devs =00:03.0", "00:03.0", "vfio.devs=00:03.0"),
        ("quiet 0000:00:03.0 rw", "0000:00:03.0", "vfio.devs=0000:00:03.0"),
        ("vfio.devs=a:b.c 01:00.*", "01:00.*", "vfio.devs=01:00.*"),
        ("quiet 00:01.0/00.0", "00:01.0/00.0", "vfio.devs=00:01.0/00.0"),
        ("quiet pci:10de:1c03", "pci:10de:1c03", "vfio.devs=pci:10de:1c03"),
        ("quiet group:01:00.0", "group:01:00.0", "vfio.devs=group:01:00.0"),
        ("quiet 10de:1c03@01:00.0", "10de:1c03@01:00.0", "vfio.devs=10de:1c03@01:00.0"),
        ("vfio-pci.ids=10de:1c03, 10de:10f1", "10de:10f1", "vfio.devs=pci:10de:10f1"),
        ("vfio.devs=00:03.0, 8086:10d3", "8086:10d3", "vfio.devs=00:03.0,pci:8086:10d3"),
        ("vfio.devs='01:00.0 02:00.0'", "02:00.0", "vfio.devs=02:00.0"),
        (
            r#"vfio.devs=01:00.0 "02:00.0 03:00.0""#,
            "02:00.0 03:00.0",
            "vfio.devs=01:00.0,02:00.0,03:00.0",
        ),
        (
            "vfio.devs=01:00.0, 02:00.0, 03:00.0",
            "02:00.0,03:00.0",
            "vfio.devs=01:00.0,02:00.0,03:00.0",
        ),
    ] {
        let warnings = warnings(text);
        let warning = warnings.last().map(String::as_str).unwrap_or_default();
        let expected = format!(
            "outside vfio.devs= and not read: {words}; a list without quotes has no blanks, as \
             in {form}"
        );
        assert_eq!(warning, expected, "{text}");
        // Who follows it is not warned again.
        let request = cmdline::parse(form.as_bytes());
        assert_eq!((request.warnings.len(), request.rejected.len()), (0, 0), "{form}");
    }
    // What is meant for an item and is none, right behind a list.
    for (text, words, form) in [
        ("vfio.devs=00:03.0, 00:04", "00:04", "00:03.0,00:04"),
        ("vfio.devs=00:03.0 00.04.0 quiet", "00.04.0", "00:03.0,00.04.0"),
        ("vfio.devs=00:03.0, 00:04.0, 00:05", "00:04.0,00:05", "00:03.0,00:04.0,00:05"),
        ("vfio.devs=00:03.0, pci:10de", "pci:10de", "00:03.0,pci:10de"),
    ] {
        let expected = format!(
            "outside vfio.devs= and not read: {words}; a list without quotes has no blanks, as \
             in vfio.devs={form}"
        );
        assert_eq!(warnings(text), [expected], "{text}");
    }
    for text in ["vfio.devs=00:03.0, quiet", "vfio.devs=00:03.0 3", "vfio.devs=00:03.0 x 00:04"] {
        assert_eq!(warnings(text), [""; 0], "{text}");
    }
    let text = (0..16).fold(String::new(), |text, bus| text + &format!(" {bus:02x}:00.0"));
    assert_eq!(warnings(&text).len(), 1);
    assert!(warnings(&text)[0].contains(",0e:00.0,... (127 bytes); "), "{:?}", warnings(&text));
}

#[test]
fn a_parameter_one_slip_away_from_ours_is_named() {
    for (text, name, key) in [
        ("vfio_devs=01:00.0", "vfio_devs", "devs"),
        ("vfio-devs=01:00.0", "vfio-devs", "devs"),
        ("vfiodevs=01:00.0", "vfiodevs", "devs"),
        ("vifo.devs=01:00.0", "vifo.devs", "devs"),
        ("vfip.devs=01:00.0", "vfip.devs", "devs"),
        ("vifo.dves=01:00.0", "vifo.dves", "devs"),
        ("vifo.srtict", "vifo.srtict", "strict"),
        ("vfio.pci=01:00.0", "vfio.pci", "devs"),
        ("vfio.id=10de:1c03", "vfio.id", "devs"),
        ("vfio.ids=10de:1c03", "vfio.ids", "devs"),
        ("vfio.of", "vfio.of", "off"),
        ("Vfio.Devs=01:00.0", "Vfio.Devs", "devs"),
        ("vfio-early.devs=01:00.0", "vfio-early.devs", "devs"),
        ("vfio_early.devs=01:00.0", "vfio_early.devs", "devs"),
        ("vfio-pci.devs=01:00.0", "vfio-pci.devs", "devs"),
        ("vfio-pci.dev=01:00.0", "vfio-pci.dev", "devs"),
        ("vfio:devs=01:00.0", "vfio:devs", "devs"),
        ("rd.vfio.devs=01:00.0", "rd.vfio.devs", "devs"),
        ("'vfio.devs=01:00.0'", "'vfio.devs", "devs"),
        (r#"\"vfio.devs=01:00.0\""#, r#"\"vfio.devs"#, "devs"),
        ("devs=01:00.0", "devs", "devs"),
        ("vfio=01:00.0,02:00.0", "vfio", "devs"),
        ("vfio.STRICT", "vfio.STRICT", "strict"),
        ("vfio_strict", "vfio_strict", "strict"),
        ("vfio-pci.strict", "vfio-pci.strict", "strict"),
        ("vfio_off=1", "vfio_off", "off"),
        ("vfio-early.console=release", "vfio-early.console", "console"),
        ("vfio_wait=10", "vfio_wait", "wait"),
    ] {
        let expected = format!("{name} is unknown; is vfio.{key} meant?");
        assert_eq!(warnings(text), [expected], "{text}");
    }
}

#[test]
fn a_list_within_another_parameter_is_told() {
    for (text, name) in [
        (r#"root="UUID=1 rw vfio.devs=01:00.0""#, "root"),
        ("--append=vfio.devs=01:00.0", "--append"),
        (r#""root=UUID=1 rw vfio.devs=""01:00.0 02:00.0""""#, "root"),
        ("GRUB_CMDLINE_LINUX=vfio.devs=01:00.0", "GRUB_CMDLINE_LINUX"),
    ] {
        let expected = format!("vfio.devs= is inside of {name}= and not read: a quote too many?");
        assert_eq!(warnings(text), [expected], "{text}");
    }
}

/// A quote that is not closed has all the rest of the line in it, also what was typed at its end.
#[test]
fn a_parameter_within_another_one_is_told() {
    for (text, ours, name) in [
        (r#"acpi_osi="!Windows 2012 quiet vfio.off"#, "vfio.off", "acpi_osi"),
        (r#"x="y vfio.strict=1 z""#, "vfio.strict", "x"),
        (r#""root=UUID=1 rw vfio.console=release""#, "vfio.console", "root"),
    ] {
        let expected = format!("{ours} is inside of {name}= and not read: a quote too many?");
        assert_eq!(warnings(text), [expected], "{text}");
    }
    let missing = "vfio.devs= has other parameters in it: is its closing quote missing?";
    assert_eq!(warnings(r#"vfio.devs="00:03.0 quiet vfio.off"#), [missing]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    for text in [
        "vfio-pci.ids=10de:1c03,10de:10f1 vfio_pci.disable_vga=1 vfio-pci.disable_idle_d3",
        "vfio_pci.nointxmask=1 vfio_pci.enable_sriov=1 vfio_pci.disable_denylist=1",
        "vfio_iommu_type1.allow_unsafe_interrupts=1 vfio_iommu_type1.dma_entry_limit=65535",
        "vfio.enable_unsafe_noiommu_mode=1 kvm.ignore_msrs=1 debug strict devs off wait=1",
        "xen-pciback.hide=(0000:01:00.0)(0000:01:00.1) rd.qubes.hide_pci=01:00.0,01:00.1",
        "pci=resource_alignment=20@0000:01:00.0 pci=disable_acs_redir=pci:8086:1234",
        "vfio.devs=01:00.0 -- 02:00.0 vfio_devs=1",
        "usbcore.quirks=0781:5580:bk,1234:abcd:k ip=10.0.0.2::10.0.0.1:255.255.255.0::eth0:off",
        r#"x=vfio.off y="vfio.off z" dyndbg="file vfio.offset.c +p; module vfio.c" s="a vfio.offset""#,
        "root=/dev/mapper/a-b 12:34:56 a:b foo:bar 1:2 fe80::1 0:0:0:0 console=ttyS0,115200n8",
    ] {
        assert_eq!(warnings(text), [""; 0], "{text}");
    }
}
