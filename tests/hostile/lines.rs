//! Nothing that comes from outside makes a line of its own, or does anything to a terminal.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use super::{assert_harmless, program, run, text};
use crate::machine::desktop;

/// Clears the screen in three ways, turns the writing, ends lines in five, and forges one.
const EVIL: &str =
    "\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\n<0>forged: bound\r\u{2028}\u{85}\u{7}vfio-early:";

const COMMANDS: [&[&str]; 3] = [&["--dry-run"], &["check"], &["check", "--json"]];

#[test]
fn no_parameter_forges_a_line() {
    for parameter in ["devs", "console", "wait", "driver", "strict", "off", "nothing", EVIL] {
        let line = format!("vfio.devs=00:14.0,\"x{EVIL}\" \"vfio.{parameter}={EVIL}\"");
        let fake = desktop().command_line(&line.replace('\n', "\u{b}")).boot();
        for command in COMMANDS {
            let output = run(fake.tree.root(), command);
            assert_harmless(&output);
            assert!(!output.stdout.is_empty() || parameter == "off", "{parameter:?} {command:?}");
            if command.contains(&"--json") {
                serde_json::from_slice::<Value>(&output.stdout).expect("the report is JSON");
            }
        }
    }
}

#[test]
fn where_a_long_line_is_cut_nothing_can_pass_for_a_line() {
    // With every length, so that some cut is right before the word.
    for length in 0..120 {
        let item = "x".repeat(length) + &"0000:00:14.0_8086:a12f:_bound_".repeat(80);
        let fake = desktop().command_line(&format!("vfio.devs={item} vfio.{item}=1")).boot();
        let output = run(fake.tree.root(), &["--dry-run"]);
        for line in text(&output.stderr).lines() {
            assert!(!line.starts_with("vfio-early: 0000:"), "{line}");
            assert!(line.len() < 900, "{line}");
        }
    }
}

#[test]
fn a_driver_and_a_mount_point_forge_no_line() {
    let mut fake = desktop().command_line("vfio.devs=00:14.0,02:00.0").boot();
    fake.load("nvme");
    let disk = "devices/pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0/nvme0n1";
    fake.tree.write(&format!("sys/{disk}/dev"), "259:0\n");
    fake.tree.folder(&format!("sys/{disk}/holders/{EVIL}"));
    fake.tree.link_up("class/block/nvme0n1", disk);
    fake.tree.link("sys/bus/pci/devices/0000:00:14.0/driver", &format!("../../{EVIL}"));
    for command in COMMANDS.into_iter().chain([&["list"][..], &["list", "--json"]]) {
        let output = run(fake.tree.root(), command);
        assert_harmless(&output);
        let shown = text(&output.stdout);
        assert!(shown.contains("forged"), "it is not hidden, but shown: {command:?} {shown}");
    }
}

#[test]
fn a_record_a_keyboard_and_a_process_forge_no_line() {
    let mut fake = desktop().command_line("vfio.devs=00:14.0,02:00.0,01:00.0").boot();
    for driver in ["nvme", "nouveau", "xhci_hcd"] {
        fake.load(driver);
    }
    let evil = EVIL.replace('\n', "");
    fake.tree.write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    let line = format!("disk 02:00.0 # {evil}\nnetwork {evil}\n{evil} 02:00.0\n");
    fake.tree.write("etc/vfio-early/keep", &line);
    fake.tree.write("run/vfio-early/keep", &line);
    fake.keyboard("00:14.0", "usb1/input/input3", EVIL);
    fake.below("00:01.0/01:00.0", "drm", "drm/card0");
    fake.tree.write("proc/812/comm", EVIL);
    fake.tree.folder("proc/812/fd");
    fake.tree.link("proc/812/fd/3", "/dev/dri/card0");
    for command in COMMANDS.into_iter().chain([&["list"][..], &["list", "--json"], &["keep"]]) {
        let output = run(fake.tree.root(), command);
        assert_harmless(&output);
        let shown = text(&output.stdout);
        assert!(shown.contains("forged"), "it is not hidden, but shown: {command:?} {shown}");
    }
    for format in ["libvirt", "qemu", "nix", "kubevirt"] {
        assert_harmless(&run(fake.tree.root(), &["list", "--format", format, "usb", "gpu"]));
    }
}

#[test]
fn a_report_forges_no_line_of_status() {
    let fake = desktop().command_line("vfio.devs=00:14.0").boot();
    let device = json!({"item": EVIL, "address": EVIL, "id": EVIL, "outcome": EVIL,
        "driver": EVIL, "reason": EVIL, "remedy": EVIL});
    let nameless = json!({"item": EVIL, "outcome": "bound", "driver": EVIL});
    let report = json!({"version": 1, "devices": [device, nameless],
        "request": {"rejected": [{"text": EVIL, "reason": EVIL}]}});
    let other = json!({"version": [EVIL]});
    for report in [report, other] {
        fake.tree.write("run/vfio-early/report.json", &report.to_string());
        for command in [&["status"][..], &["status", "--json"]] {
            let output = run(fake.tree.root(), command);
            assert_harmless(&output);
            assert!(text(&output.stdout).lines().count() <= 3, "{output:?}");
        }
    }
}

#[test]
fn where_nobody_listens_the_program_ends_as_it_should() {
    let fake = desktop().command_line("vfio.devs=x").boot();
    for (arguments, status) in [(&["--no-such-argument"][..], 2), (&["--dry-run"], 1)] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
        let also = full.try_clone().expect("a second one");
        let mut command = program(fake.tree.root(), arguments);
        let found = command.stdout(full).stderr(also).status().expect("it starts");
        assert_eq!((found.code(), found.signal()), (Some(status), None), "{arguments:?}");
    }
}

#[test]
fn arguments_are_escaped_too() {
    let fake = desktop().boot();
    for argument in [format!("--{EVIL}"), EVIL.to_owned(), format!("--format={EVIL}")] {
        for command in ["list", "check"] {
            assert_harmless(&run(fake.tree.root(), &[command, "x", &argument]));
        }
    }
}
