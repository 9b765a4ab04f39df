//! What others give to vfio-pci, told by `bind`, `check`, `status` and `list`.

use std::process::Command;

use vfio_early::cmdline;
use vfio_early::host::status;
use vfio_early::report_file::{self, NAME};

use crate::fake::Fake;
use crate::list::{at_80, hosts};
use crate::machine::{Function, Machine};

const ASKED: &str = "vfio.devs=8086:10d3@00:03.0";

/// Of which a vfio driver has the first two before the program starts.
fn given_by_another() -> Fake {
    let network = |slot, id| Function::new(&format!("0000:00:{slot}.0"), id, 0x02_0000);
    let machine = Machine::new([
        network("03", "8086:10d3").built_in("vfio-pci"),
        network("04", "8086:10d3").built_in("vfio-pci"),
        network("05", "8086:1539").built_in("igb"),
    ]);
    let fake = machine.boot();
    hosts::dress(&fake);
    fake
}

/// What is said of the machine as a whole, by `check` before and by `bind`, and by `status` after it.
fn said(fake: &mut Fake, text: &str) -> [Vec<String>; 3] {
    fake.tree.write("proc/cmdline", &format!("{text}\n"));
    let sysfs = fake.sysfs();
    let check = vfio_early::check(cmdline::parse(text.as_bytes()), &sysfs, fake);
    let check = check.expect("the PCI bus can be read").report;
    let report = fake.bind(text);
    let folder = fake.tree.root().join("run/vfio-early");
    fake.tree.folder("run");
    report_file::save(&report, &folder).expect("it can be written");
    let status = status::status(&folder.join(NAME), &sysfs).expect("it can be read");
    assert_eq!(status.exit_status, report.exit_status);
    [check.warnings, report.warnings, status.warnings]
}

const REMOVE: &str = "remove it, which takes every device of an id";

#[test]
fn ids_name_where_they_stand_and_each_device_that_they_take() {
    const SECOND: &str = "gives away what vfio.devs= does not ask for: 0000:00:04.0 8086:10d3";
    for (file, parameters, place, remedy) in [
        (
            "",
            " vfio-pci.ids=8086:10d3,8086:1539",
            "vfio_pci.ids= on the kernel command line",
            ", or list",
        ),
        (
            "",
            " pci-stub.ids=8086:1539,8086:10d3",
            "pci_stub.ids= on the kernel command line",
            ", or list",
        ),
        (
            "etc/modprobe.d/vfio.conf",
            "",
            "ids= of vfio-pci in /etc/modprobe.d/vfio.conf",
            ", and make the initrd anew, or list",
        ),
        (
            "usr/lib/modprobe.d/a.conf",
            "",
            "ids= of vfio-pci in /usr/lib/modprobe.d/a.conf",
            ", and make the initrd anew, or list",
        ),
    ] {
        let mut fake = given_by_another();
        if !file.is_empty() {
            let text = "softdep drm pre: vfio-pci\noptions vfio-pci disable_vga=1 ids=8086:10d3,8086:1539\n";
            fake.tree.write(file, text);
        }
        let [foreseen, found, later] = said(&mut fake, &format!("{ASKED}{parameters}"));
        let expected = format!("{place} {SECOND}; {REMOVE}{remedy} the device");
        assert_eq!(found, [expected.as_str()], "{file}{parameters}");
        assert_eq!(later, found, "{file}{parameters}");
        // The third is still the host's, and will not be.
        let expected = expected.replace("; remove", ", 0000:00:05.0 8086:1539; remove");
        assert_eq!(foreseen, [expected], "{file}{parameters}");
    }
}

#[test]
fn what_a_vfio_driver_has_for_no_reason_that_can_be_seen_is_named_too() {
    let mut fake = given_by_another();
    let [foreseen, found, later] = said(&mut fake, ASKED);
    let expected = "a new_id gives away what vfio.devs= does not ask for: 0000:00:04.0 8086:10d3; find \
                    who wrote its id there, or loads the driver with ids=, or list the device";
    assert_eq!(found, [expected]);
    assert_eq!((foreseen, later), (found.clone(), found));

    // As driverctl and libvirt do; an override counts for more than an id.
    fake.tree.write("etc/modprobe.d/vfio.conf", "options vfio_pci ids=8086:10d3,8086:1539\n");
    fake.tree.write("sys/bus/pci/devices/0000:00:04.0/driver_override", "vfio-pci\n");
    fake.tree.write("sys/bus/pci/devices/0000:00:05.0/driver_override", "igb\n");
    let [foreseen, found, later] = said(&mut fake, ASKED);
    let expected = "a driver_override gives away what vfio.devs= does not ask for: 0000:00:04.0 \
                    8086:10d3; find who wrote it (driverctl, libvirt, a script), or list the device";
    assert_eq!(found, [expected]);
    assert_eq!((foreseen, later), (found.clone(), found));
}

#[test]
fn what_is_asked_for_is_nobodys_surprise() {
    for text in [
        "vfio.devs=00:03.0,00:04.0,00:05.0 vfio-pci.ids=8086:10d3,8086:1539",
        "vfio.devs=00:03.0,00:04.0 vfio-pci.ids=10de:1c03 pci-stub.ids=",
        "vfio.devs=00:03.*,00:04.0 vfio_pci.disable_vga=1",
    ] {
        let mut fake = given_by_another();
        fake.tree.write("etc/modprobe.d/a.conf", "#options vfio-pci ids=8086:10d3\nvfio-pci\n");
        fake.tree.write("etc/modprobe.d/b.con", "options vfio-pci ids=8086:10d3\n");
        assert_eq!(said(&mut fake, text), [[""; 0]; 3], "{text}");
    }
    // What this boot asks for may be missing in what is asked of the next.
    let mut fake = given_by_another();
    fake.tree.write("proc/cmdline", "vfio.devs=00:03.0,00:04.0\n");
    let sysfs = fake.sysfs();
    let check = vfio_early::check(cmdline::parse(ASKED.as_bytes()), &sysfs, &mut fake);
    assert_eq!(check.expect("it can be read").report.warnings, [""; 0]);
}

/// As the kernel reads them, and by a command in the place of modprobe's own way.
#[test]
fn options_have_quotes_and_a_command_may_have_options() {
    for line in [
        "options vfio-pci disable_vga=1 ids=\"8086:10d3, 8086:1539\"",
        "options vfio_pci \"ids=8086:1539, 8086:10d3\"",
        "install vfio-pci /sbin/modprobe -i vfio-pci ids=8086:10d3,8086:1539",
        "install igb /sbin/modprobe vfio_pci ids=8086:10d3,8086:1539; /sbin/modprobe -i igb",
    ] {
        let mut fake = given_by_another();
        fake.tree.write("etc/modprobe.d/a.conf", &format!("{line}\n"));
        let [foreseen, ..] = said(&mut fake, ASKED);
        let expected = format!(
            "ids= of vfio-pci in /etc/modprobe.d/a.conf gives away what vfio.devs= does not ask for: \
             0000:00:04.0 8086:10d3, 0000:00:05.0 8086:1539; {REMOVE}, and make the initrd anew, or \
             list the device"
        );
        assert_eq!(foreseen, [expected], "{line}");
    }
    for line in ["install vfio-pci /bin/true", "install igb /sbin/modprobe igb ids=8086:10d3"] {
        let mut fake = given_by_another();
        fake.tree.write("etc/modprobe.d/a.conf", &format!("{line}\n"));
        let [foreseen, ..] = said(&mut fake, ASKED);
        assert!(foreseen[0].starts_with("a new_id gives"), "{line}: {foreseen:?}");
    }
}

/// Of one driver's options the last counts, by the names of the files, whatever folder they are in.
#[test]
fn the_last_file_by_its_name_counts() {
    for (other, last) in [("etc", "usr/lib"), ("usr/lib", "etc")] {
        let mut fake = given_by_another();
        let line = "options vfio-pci ids=8086:10d3\n";
        fake.tree.write(&format!("{other}/modprobe.d/a.conf"), "options vfio-pci ids=10de:1c03\n");
        fake.tree.write(&format!("{last}/modprobe.d/b.conf"), line);
        let [foreseen, ..] = said(&mut fake, ASKED);
        let place = format!("ids= of vfio-pci in /{last}/modprobe.d/b.conf gives away");
        assert!(foreseen[0].starts_with(&place), "{foreseen:?}");
    }
}

#[test]
fn an_id_with_a_class_takes_no_device_of_another() {
    for (class, who) in [("020000:ffff00", "vfio_pci.ids= on"), ("030000:ff0000", "a new_id")] {
        let text = format!("{ASKED} vfio-pci.ids=8086:10d3:ffffffff:ffffffff:{class}");
        let [foreseen, ..] = said(&mut given_by_another(), &text);
        assert!(foreseen[0].starts_with(who), "{class}: {foreseen:?}");
    }
}

/// As the finish unit does, and an administrator by hand.
#[test]
fn what_the_boot_asked_for_is_no_news_to_a_run_for_another_device() {
    let mut fake = given_by_another();
    let text = "vfio.devs=8086:10d3@00:03.0,00:04.0,00:05.0";
    fake.tree.write("proc/cmdline", &format!("{text}\n"));
    assert_eq!(fake.bind("vfio.devs=00:05.0").warnings, [""; 0]);
    fake.tree.write("proc/cmdline", "vfio.devs=10de:1c03@00:03.0,00:04.0\n");
    let warnings = fake.bind("vfio.devs=00:05.0").warnings;
    assert!(warnings[0].contains("ask for: 0000:00:03.0 8086:10d3; "), "{warnings:?}");
}

#[test]
fn a_refused_device_that_ids_gave_away_is_not_asked_for() {
    let mut fake = given_by_another();
    let [_, found, later] =
        said(&mut fake, "vfio.devs=00:03.0,10de:1c03@00:04.0 vfio-pci.ids=8086:10d3");
    assert!(found[0].contains("ask for: 0000:00:04.0 8086:10d3; "), "{found:?}");
    assert_eq!(found, later);
}

#[test]
fn of_many_only_some_are_named() {
    let functions = (0..12).map(|slot| {
        Function::new(&format!("0000:00:{slot:02x}.0"), "8086:10d3", 0x02_0000).built_in("vfio-pci")
    });
    let mut fake = Machine::new(functions).boot();
    let report = fake.bind("vfio.devs=00:00.0 vfio-pci.ids=8086:10d3");
    assert_eq!(report.warnings.len(), 1);
    let expected = "0000:00:08.0 8086:10d3 and 3 more; remove";
    assert!(report.warnings[0].contains(expected), "{:?}", report.warnings);
}

#[test]
fn list_shows_it_and_hands_only_out_what_is_asked_for() {
    let fake = given_by_another();
    let handed = |arguments: &[&str]| {
        let (status, stdout, stderr) = at_80(&fake, &[&["--format", "qemu"], arguments].concat());
        assert_eq!(status, Some(0), "{stderr}");
        (stdout, stderr)
    };
    let line = |slot: &str| format!("-device vfio-pci,host=0000:00:{slot}.0\n");
    // Where the command line asks for nothing, the devices were given in another way.
    fake.tree.write("proc/cmdline", "quiet\n");
    assert_eq!(handed(&[]), (line("03") + &line("04"), String::new()));
    let (_, tree, _) = at_80(&fake, &[]);
    assert!(!tree.contains("does not ask for it"), "{tree}");

    for text in [ASKED, "vfio.devs=00:03.0,10de:1c03@00:04.0"] {
        fake.tree.write("proc/cmdline", &format!("{text}\n"));
        let (stdout, stderr) = handed(&[]);
        assert_eq!(stdout, line("03"), "{text}");
        let expected = "0000:00:04.0 8086:10d3 is on a vfio driver, but vfio.devs= does not ask for it: \
                        name it if it is meant\n";
        assert!(stderr.ends_with(expected), "{stderr}");
        let (_, tree, _) = at_80(&fake, &[]);
        let told = "driver vfio-pci; vfio.devs= does not ask for it; ";
        assert_eq!(tree.matches(told).count(), 1, "{tree}");
    }
    assert_eq!(handed(&["00:04.0"]).0, line("04"));
}

#[test]
fn status_prints_it_and_its_exit_status_stays() {
    let mut fake = given_by_another();
    said(&mut fake, &format!("{ASKED} vfio-pci.ids=8086:10d3"));
    let root = fake.tree.root();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-early"));
        let output = command.arg("--root").arg(root).args(arguments).output();
        let output = output.expect("the program starts");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let lines = run(&["status"]);
    let last = lines.lines().last().unwrap_or_default();
    assert!(last.starts_with("warning: vfio_pci.ids= on the kernel command line "), "{lines}");
    let json = run(&["status", "--json"]);
    assert!(json.contains(r#""warnings":["vfio_pci.ids= on"#), "{json}");
}
