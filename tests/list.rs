//! `vfio-early list` as a person sees it, on hosts of every kind.
//!
//! What is expected lies in `tests/list/snapshots`; `VFIO_EARLY_RENEW=1 cargo test` writes it anew.

mod formats;
pub mod hosts;
mod names;

use std::fs;
use std::path::Path;
use std::process::Command;

use vfio_early::host::list::{self, tree};
use vfio_early::host::page::Look;

use crate::fake::Fake;
use crate::next_initrd;

/// Exit status, standard output and standard error of the program on that host, with these
/// variables alone in its environment.
fn list(
    fake: &Fake,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-early"))
        .arg("--root")
        .arg(fake.tree.root())
        .arg("list")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What these filters choose.
pub fn listed(fake: &Fake, filters: &[&str]) -> list::List {
    let filters: Vec<_> = filters.iter().map(|text| text.parse().expect("a filter")).collect();
    list::list(&fake.sysfs(), &filters).expect("the PCI bus can be read")
}

/// The same as a person reads it, with the line to paste.
pub fn tree_of(fake: &Fake, filters: &[&str]) -> String {
    tree::tree(&listed(fake, filters), Look::PLAIN, true)
}

/// Holds a text against the file of that name, or renews the file.
fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/list/snapshots").join(name);
    if std::env::var_os("VFIO_EARLY_RENEW").is_some() {
        fs::write(&path, text).expect("the snapshot can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (number, (line, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, expected, "line {} of {name}", number + 1);
    }
    assert_eq!(text, expected, "{name}; VFIO_EARLY_RENEW=1 takes what comes out for expected");
}

const UTF8: (&str, &str) = ("LC_ALL", "C.UTF-8");

#[test]
fn hosts_look_as_they_did() {
    for (name, fake) in [
        ("desktop", hosts::desktop()),
        ("twins", hosts::twins()),
        ("laptop", hosts::laptop()),
        ("amd", hosts::amd()),
        ("server", hosts::server()),
        ("without-iommu", hosts::without_iommu()),
    ] {
        for columns in ["80", "120"] {
            let (status, stdout, stderr) = list(&fake, &[], &[UTF8, ("COLUMNS", columns)]);
            assert_eq!((status, stderr.as_str()), (Some(0), ""), "{name}");
            assert_snapshot(&format!("{name}-{columns}.txt"), &stdout);
        }
    }
}

/// With COLUMNS, the same on every machine.
pub fn at_80(fake: &Fake, arguments: &[&str]) -> (Option<i32>, String, String) {
    list(fake, arguments, &[UTF8, ("COLUMNS", "80")])
}

/// `list` on a terminal of that many columns, with these variables more.
fn on_terminal(fake: &Fake, columns: usize, variables: &[(&str, &str)]) -> String {
    words_on_terminal(fake, "list", columns, variables)
}

/// As [`on_terminal`], with any words, as a shell reads them.
fn words_on_terminal(
    fake: &Fake,
    words: &str,
    columns: usize,
    variables: &[(&str, &str)],
) -> String {
    let root = fake.tree.root().to_str().expect("a name");
    let program = env!("CARGO_BIN_EXE_vfio-early");
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("stty cols {columns} && {program} --root {root} {words}"))
        .arg("/dev/null")
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .envs([UTF8, ("TERM", "xterm")])
        .envs(variables.iter().copied())
        .output()
        .expect("script, of Debian's package bsdutils, runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").replace("\r\n", "\n")
}

/// Without what starts and ends colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').expect("a colour ends").1);
    }
    plain
}

#[test]
fn a_terminal_has_colours_and_its_own_width() {
    let fake = hosts::desktop();
    let coloured = on_terminal(&fake, 80, &[]);
    assert_snapshot("desktop-80-coloured.txt", &coloured);
    let (_, expected, _) = at_80(&fake, &[]);
    assert_eq!(plain(&coloured), expected);
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        assert_eq!(on_terminal(&fake, 80, &[variable]), expected, "{variable:?}");
    }
    // An empty one is none (no-color.org).
    assert_eq!(on_terminal(&fake, 80, &[("NO_COLOR", "")]), coloured);
    let (_, wide, _) = list(&fake, &[], &[UTF8, ("COLUMNS", "120")]);
    assert_eq!(plain(&on_terminal(&fake, 120, &[])), wide);
    assert_eq!(plain(&on_terminal(&fake, 80, &[("COLUMNS", "120")])), wide);
}

/// The pictures in the README are made of these.
#[test]
fn the_readme_shows_what_is_printed() {
    let fake = hosts::desktop();
    next_initrd::modules_of_desktop(&fake);
    for (name, words) in [
        ("readme-list.txt", "list gpu"),
        ("readme-check.txt", "check 10de:1c03@00:01.0/00.0,144d:a808@00:1d.0/00.0,00:17.0"),
    ] {
        // The prompt; check has the exit status of bind, which is not 0 here.
        let shown = format!("$ vfio-early {words}\n");
        let printed = words_on_terminal(&fake, &format!("{words}; true"), 84, &[]);
        assert_snapshot(name, &(shown + &printed));
    }
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for fake in [hosts::desktop(), hosts::amd(), hosts::laptop(), hosts::server()] {
        for columns in [60, 80, 100] {
            let (_, stdout, _) = list(&fake, &[], &[UTF8, ("COLUMNS", &columns.to_string())]);
            for line in stdout.lines() {
                assert!(line.chars().count() <= columns, "{columns} columns: {line:?}");
            }
        }
    }
}

#[test]
fn where_nobody_reads_lines_have_no_end_and_no_colour() {
    let fake = hosts::desktop();
    let (_, stdout, _) = list(&fake, &["01:00.0"], &[("TERM", "xterm")]);
    let name = "`- 01:00.1 10de:10f1 Audio device: NVIDIA Corporation GP106 High Definition Audio \
                Controller";
    assert!(stdout.lines().any(|line| line == name), "{stdout}");
    assert!(stdout.is_ascii() && !stdout.contains('\x1b'), "{stdout}");
}

#[test]
fn a_filter_shows_the_groups_of_what_it_fits_and_the_line_to_paste() {
    let fake = hosts::desktop();
    for (filters, shown, pasted) in [
        (
            &["01:00.0"][..],
            &["00:01.0", "01:00.0", "01:00.1"][..],
            Some("10de:1c03@00:01.0/00.0,10de:10f1@00:01.0/00.1"),
        ),
        (
            &["10de:1c03"],
            &["00:01.0", "01:00.0", "01:00.1"],
            Some("10de:1c03@00:01.0/00.0,10de:10f1@00:01.0/00.1"),
        ),
        (
            &["01:00.*"],
            &["00:01.0", "01:00.0", "01:00.1"],
            Some("10de:1c03@00:01.0/00.0,10de:10f1@00:01.0/00.1"),
        ),
        (&["usb"], &["00:14.0", "00:14.2"], Some("8086:a36d@00:14.0,8086:a36f@00:14.2")),
        (&["144d:a808@00:1d.0/00.0"], &["02:00.0"], Some("144d:a808@00:1d.0/00.0")),
        (
            &["02:00.0", "00:02.0"],
            &["00:02.0", "02:00.0"],
            Some("8086:3e92@00:02.0,144d:a808@00:1d.0/00.0"),
        ),
        // The host uses them, or what is in their groups.
        (&["net"], &["00:1f.0", "00:1f.3", "00:1f.4", "00:1f.5", "00:1f.6"], None),
        (&["00:1f.3"], &["00:1f.0", "00:1f.3", "00:1f.4", "00:1f.5", "00:1f.6"], None),
        (&["storage"], &["00:17.0", "02:00.0"], None),
    ] {
        let (status, stdout, stderr) = list(&fake, filters, &[]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{filters:?}");
        let members =
            stdout.lines().filter_map(|line| line.strip_prefix("|- ").or(line.strip_prefix("`- ")));
        let addresses: Vec<_> =
            members.map(|line| line.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(addresses, shown, "{filters:?}");
        let last = stdout.lines().last().unwrap_or_default();
        match pasted {
            Some(items) => assert_eq!(last, format!("To paste: vfio.devs={items}"), "{filters:?}"),
            None => {
                assert!(
                    last.starts_with("Nothing to paste: the host uses "),
                    "{filters:?}: {last}"
                );
            }
        }
    }
}

#[test]
fn a_bridge_that_has_a_driver_goes_with_its_group() {
    let fake = hosts::desktop();
    let last = |filters: &[&str]| {
        let (_, stdout, _) = list(&fake, filters, &[]);
        stdout.lines().last().unwrap_or_default().to_owned()
    };
    fake.tree.write("proc/net/route", "");
    let others = "8086:a348@00:1f.3,8086:a323@00:1f.4,8086:a324@00:1f.5,8086:15bc@00:1f.6";
    assert_eq!(last(&["00:1f.3"]), format!("To paste: vfio.devs={others}"));
    fake.tree.folder("sys/bus/pci/drivers/lpc_ich");
    let device = "../../../../devices/pci0000:00/0000:00:1f.0";
    fake.tree.link("sys/bus/pci/drivers/lpc_ich/0000:00:1f.0", device);
    assert_eq!(last(&["00:1f.3"]), format!("To paste: vfio.devs=8086:a305@00:1f.0,{others}"));
}

#[test]
fn no_virtual_function_is_to_be_pasted() {
    let (server, twins) = (hosts::server(), hosts::twins());
    twins.tree.link("sys/bus/pci/devices/0000:02:00.1/physfn", "../0000:02:00.0");
    let nothing = "Nothing to paste: virtual functions are not there yet in the initrd";
    let card = "10de:2204@00:01.3/00.0";
    for (fake, filters, last) in [
        (&server, &["3b:02.5"][..], nothing.to_owned()),
        (&server, &["8086:154c"], nothing.to_owned()),
        (
            &server,
            &["net"],
            "Nothing to paste: the host uses 3b:00.0: 64 virtual functions (SR-IOV) are on; 0 in \
             its sriov_numvfs stops them"
                .to_owned(),
        ),
        // What shares the group of one is not wanted for it.
        (&twins, &["02:00.1"], nothing.to_owned()),
        (
            &twins,
            &["02:00.0"],
            format!(
                "To paste, without virtual functions (not there yet in the initrd): vfio.devs={card}"
            ),
        ),
        (
            &twins,
            &["gpu", "02:00.1"],
            format!(
                "To paste, without the boot display 01:00.0 and virtual functions (not there yet \
                 in the initrd): vfio.devs={card}"
            ),
        ),
    ] {
        let (status, stdout, stderr) = list(fake, filters, &[]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{filters:?}");
        assert_eq!(stdout.lines().last(), Some(last.as_str()), "{filters:?}");
        assert_eq!(stdout.matches("o paste").count(), 1, "{filters:?}: {stdout}");
    }
    // A virtual display is none that would be left to the host.
    let display = "sys/bus/pci/devices/0000:01:00.0";
    twins.tree.link(&format!("{display}/physfn"), "../0000:02:00.0");
    twins.tree.write(&format!("{display}/boot_vga"), "0\n");
    twins.tree.write("sys/bus/pci/devices/0000:02:00.0/boot_vga", "1\n");
    let (_, stdout, _) = list(&twins, &["gpu"], &[]);
    let last = stdout.lines().last().unwrap_or_default();
    let told = "Nothing to paste: the host would have no display left, and a boot refuses its only \
                one; if that is meant, list the items above with vfio.console=release";
    assert_eq!(last, told);
}

#[test]
fn what_can_be_pasted_chooses_just_that_device() {
    for fake in [hosts::desktop(), hosts::twins(), hosts::laptop(), hosts::amd(), hosts::server()] {
        for device in json(&fake, &[])["devices"].as_array().expect("an array") {
            let Some(item) = device["item"].as_str() else { continue };
            let address = device["address"].as_str().expect("an address");
            let request = vfio_early::cmdline::parse(format!("vfio.devs={item}").as_bytes());
            let machine = fake.sysfs().machine(&request).expect("the PCI bus can be read");
            let found = vfio_early::plan::requested(&request, &machine);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, [address], "{item}");
            let (guard, place) = item.split_once('@').expect("a guard");
            assert_eq!(device["id"], guard, "{item}");
            let is_behind_bridge = fake
                .sysfs()
                .machine(&request)
                .is_ok_and(|machine| machine.devices[&address.parse().unwrap()].parent().is_some());
            assert_eq!(place.contains('/'), is_behind_bridge, "{item}");
        }
    }
}

#[test]
fn a_path_that_two_devices_share_is_no_item() {
    // A virtual function on the next bus has the same place below the bridge as its card.
    let fake = hosts::server_with_two_buses();
    let items: Vec<_> = json(&fake, &["net"])["devices"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|device| device["item"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(items, ["8086:1572@3b:00.0", "8086:154c@3c:00.0"]);
}

fn json(fake: &Fake, arguments: &[&str]) -> serde_json::Value {
    let (status, stdout, stderr) = list(fake, &[arguments, &["--json"]].concat(), &[]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&stdout).expect("JSON")
}

#[test]
fn json_tells_all_that_the_tree_tells() {
    let list = json(&hosts::desktop(), &["01:00.0", "00:14.0"]);
    assert_eq!((&list["version"], &list["iommu"]), (&1.into(), &"works".into()));
    let device = |address: &str| {
        let mut devices = list["devices"].as_array().expect("an array").iter();
        devices.find(|device| device["address"] == address).expect(address).clone()
    };
    let card = serde_json::json!({
        "address": "0000:01:00.0", "id": "10de:1c03", "subsystem": null, "class": "030000",
        "class_name": "VGA compatible controller", "vendor_name": "NVIDIA Corporation",
        "device_name": "GP106 [GeForce GTX 1060 6GB]", "driver": "nouveau", "group": 1,
        "chosen": true, "asked": false, "boot_display": false, "framebuffer": "fb0", "in_use": null, "inputs": [],
        "keyboard": false,
        "reset_methods": [], "resets_with": ["0000:01:00.1"], "physical_function": null,
        "made_by": null, "availability": "shared", "shared_with": ["0000:01:00.1"],
        "item": "10de:1c03@00:01.0/00.0",
    });
    assert_eq!(device("0000:01:00.0"), card);
    assert_eq!(device("0000:01:00.1")["chosen"], false);
    let bridge = device("0000:00:01.0");
    assert_eq!(
        (&bridge["availability"], &bridge["item"]),
        (&"bridge".into(), &None::<&str>.into())
    );
    // It is not asked.
    assert_eq!(bridge["reset_methods"], serde_json::Value::Null);
    let usb = device("0000:00:14.0");
    assert_eq!(usb["inputs"], serde_json::json!(["Cherry Keyboard", "Logitech USB Receiver"]));
    assert_eq!(usb["reset_methods"], serde_json::json!(["pm", "bus"]));

    let list = json(&hosts::without_iommu(), &[]);
    assert_eq!(list["iommu"], "intel-off");
    let devices = list["devices"].as_array().expect("an array");
    assert!(devices.iter().all(|device| device["group"].is_null()), "{list}");
    assert_eq!(devices[1]["availability"], "no-group");
    // Linux before 5.15 does not tell the methods.
    assert_eq!(devices[2]["reset_methods"], serde_json::Value::Null);
    let list = json(&hosts::server(), &["3b:02.5"]);
    assert_eq!(list["devices"][0]["physical_function"], "0000:3b:00.0");
    let list = json(&hosts::laptop(), &["10000:e1:00.0"]);
    let devices = list["devices"].as_array().expect("an array");
    let disk = devices.iter().find(|device| device["chosen"] == true).expect("the disk");
    assert_eq!((&disk["made_by"], &disk["item"]), (&"0000:00:0e.0".into(), &None::<&str>.into()));
}

#[test]
fn what_fits_nothing_is_said_and_what_is_no_filter_is_a_wrong_argument() {
    let fake = hosts::desktop();
    for arguments in [
        &["05:00.0"][..],
        &["1234:5678"],
        // The guard does not hold.
        &["10de:1c04@01:00.0"],
        &["05:00.0", "--json"],
        &["05:00.0", "--format", "nix"],
    ] {
        let (status, _, stderr) = list(&fake, arguments, &[]);
        assert_eq!(
            (status, stderr.as_str()),
            (Some(1), "vfio-early: no device here fits\n"),
            "{arguments:?}"
        );
    }
    for (arguments, text) in [
        (&["gpus"][..], "\"gpus\" is no filter"),
        (&["01:00"], "01:00"),
        (
            &["--format", "xen"],
            "\"xen\" is none of libvirt, qemu, nix, kubevirt, proxmox, incus, cloud-hypervisor, crosvm",
        ),
        (&["--format"], "--format"),
        (&["--json", "--format", "nix"], "--json"),
        (&["--dry-run"], "--dry-run"),
    ] {
        let (status, stdout, stderr) = list(&fake, arguments, &[]);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains(text) && stderr.contains("--help"), "{stderr}");
    }
}

#[test]
fn a_tree_without_a_pci_bus_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-early"))
        .arg("--root")
        .arg(root.path())
        .arg("list")
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("sys/bus/pci"), "{stderr}");
}

#[test]
fn nothing_is_written() {
    let fake = hosts::laptop();
    let before = fake.tree.everything();
    at_80(&fake, &[]);
    at_80(&fake, &["--json"]);
    assert_eq!(fake.tree.everything(), before);
}

/// Reading it waits for the device's lock, which a driver that hangs in an unbind keeps for ever.
#[test]
fn the_override_of_no_device_is_read() {
    let fake = hosts::laptop();
    for address in ["0000:00:02.0", "10000:e1:00.0"] {
        let path = fake.tree.root().join(format!("sys/bus/pci/devices/{address}/driver_override"));
        fs::remove_file(&path).unwrap();
        // Opening this for reading would wait for a writer.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    }
    assert_eq!(at_80(&fake, &[]).0, Some(0));
}
