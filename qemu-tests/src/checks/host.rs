//! The commands for the running host, held against the tools that people use there: lspci, a shell
//! loop over the IOMMU groups, QEMU, libvirt's schema, Nix, YAML.
//!
//! The guest gets a real userland without a download: the `/usr` of the machine that runs the tests,
//! which has QEMU anyway, comes over 9p, read-only (`guest/host/userland`).

mod acpi;
mod agreement;
mod functions;
mod hand_off;
mod lspci;
mod swap;
mod userland;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::check::trial::{self, Check, Trial};
use crate::check::{Boot, Outcome};
use crate::machine::topology::{Device, Iommu, SUBSYSTEM};
use crate::machine::vm::Vm;
use crate::supplies::packages;

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    let with_packages = |boot: Boot| {
        let check = boot.check;
        let with_packages =
            move |kernel: &_, program: &_, answers: &_| match packages::ensure(packages::HOST) {
                Ok(()) => check(kernel, program, answers),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
        Boot { name: format!("host: {}", boot.name), check: Box::new(with_packages), ..boot }
    };
    let all = [all(), agreement::all(), functions::all(), swap::all()].concat();
    trial::boots(&all).into_iter().map(with_packages).collect()
}

fn all() -> Vec<Trial> {
    vec![
        Trial::new(
            "bound devices are listed, handed to a QEMU in the guest, and missed when lost",
            &["6.1"],
            given_away,
            given_away_expected,
        ),
        Trial::new(
            "a machine with an AMD IOMMU is listed as lspci and the shell see it",
            &["6.12"],
            many_functions,
            many_functions_expected,
        ),
    ]
}

/// A line of shell, by a name for what it prints.
type Steps = &'static [(&'static str, &'static str)];

fn steps(machine: Vm, steps: Steps) -> Vm {
    let machine = userland::with(machine)
        .file("/harness/groups", include_str!("../guest/host/groups"))
        .file("/harness/nested", include_str!("../guest/host/nested"));
    steps.iter().fold(machine, |machine, (_, line)| machine.shell(line))
}

/// What was printed under that name.
fn said(check: &Check<'_>, steps: Steps, name: &str) -> String {
    let position = steps.iter().position(|(other, _)| *other == name).expect("it is in the table");
    check.shell(position + 1)
}

/// What the result holds; an error is a complaint.
fn tell<T>(check: &mut Check<'_>, result: Result<T>) -> Option<T> {
    result.map_err(|error| check.complain(format!("{error:#}"))).ok()
}

/// `list` says the same as lspci and the shell; the list.
fn agrees(check: &mut Check<'_>, steps: Steps) -> Value {
    let userland = said(check, steps, "userland");
    check.is(userland.ends_with("ready\n"), format!("there is no userland: {userland}"));
    let text = |name| said(check, steps, name);
    let (lspci, groups, list) = (text("lspci"), text("groups"), text("list"));
    let compared = || -> Result<(Vec<String>, Value)> {
        let list: Value = serde_json::from_str(&list).with_context(|| format!("list: {list}"))?;
        let devices = list["devices"].as_array().context("list has no devices")?;
        let mut found = lspci::differences(devices, &lspci::read(&lspci)?);
        found.extend(lspci::group_differences(devices, &lspci::read_groups(&groups)?));
        Ok((found, list))
    };
    let Some((found, list)) = tell(check, compared()) else { return Value::Null };
    for difference in found {
        check.complain(difference);
    }
    list
}

fn device<'l>(list: &'l Value, address: &str) -> &'l Value {
    let mut devices = list["devices"].as_array().into_iter().flatten();
    devices.find(|device| device["address"] == address).unwrap_or(&Value::Null)
}

/// Twins below one port, two functions in a slot, and what the host has already.
fn many_functions(machine: Vm) -> Vm {
    let port = |name: &str, place: &str| Device::new("pcie-root-port", place).named(name);
    let machine = machine
        .iommu(Iommu::Amd)
        .with(port("twins", "02.0"))
        .with(port("twin", "02.1"))
        .with(Device::new("e1000e", "00.0").below("twins"))
        .with(Device::new("edu", "00.0").below("twin"))
        .with(Device::new("edu", "00.1").below("twin"))
        .device("edu", "06.0")
        .device("nvme", "06.1")
        .device("secondary-vga", "07.0")
        .device("pci-serial", "08.0")
        .cmdline("quiet")
        .load(["e1000e", "nvme", "ahci", "i2c_i801", "bochs"]);
    steps(machine, MANY_FUNCTIONS)
}

const MANY_FUNCTIONS: Steps = &[
    ("userland", "sh /harness/userland 2>&1"),
    ("lspci", "chroot /debian lspci -nnk -D"),
    ("groups", "chroot /debian bash /groups"),
    ("list", "chroot /debian /vfio-early list --json"),
];

fn many_functions_expected(check: &mut Check<'_>) {
    let list = agrees(check, MANY_FUNCTIONS);
    let shared = &device(&list, "0000:02:00.0")["shared_with"];
    check.is(*shared == json!(["0000:02:00.1"]), format!("02:00.0 is shared with {shared}"));
}

/// What is given away; the first of it has a driver of the host's.
const ITEMS: &str = "vfio.devs=8086:10d3@00:05.0,00:06.0,01:00.*";
const GIVEN: [&str; 4] = ["0000:00:05.0", "0000:00:06.0", "0000:01:00.0", "0000:01:00.1"];

/// Two functions in one group below a port, two cards in one group behind a bridge, a disk
/// controller with virtual functions, and what is alone.
fn given_away(machine: Vm) -> Vm {
    let port = |name: &str, place: &str| Device::new("pcie-root-port", place).named(name);
    let machine = machine
        .arguments(SUBSYSTEM)
        .with(port("first", "02.0"))
        .with(Device::new("qemu-xhci", "00.0").below("first"))
        .with(Device::new("ich9-intel-hda", "00.1").below("first"))
        .with(Device::new("pcie-pci-bridge", "03.0").named("bridge"))
        .with(Device::new("e1000", "01.0").below("bridge"))
        .with(Device::new("e1000", "02.0").below("bridge"))
        .with(port("second", "04.0"))
        .with(Device::new("nvme", "00.0").below("second").virtual_functions())
        .device("e1000e", "05.0")
        .device("edu", "06.0")
        .device("qemu-xhci", "07.0")
        .device("pci-serial", "08.0")
        .cmdline(ITEMS)
        .run(["bind"])
        .load(["e1000e", "e1000", "nvme", "xhci_pci", "snd_hda_intel"]);
    steps(machine, GIVEN_AWAY)
}

const GIVEN_AWAY: Steps = &[
    (
        "virtual functions",
        "cd /sys/bus/pci/devices/0000:03:00.0 && echo 0 >sriov_drivers_autoprobe && \
         echo 2 >sriov_numvfs && cat sriov_numvfs",
    ),
    ("userland", "sh /harness/userland 2>&1"),
    ("lspci", "chroot /debian lspci -nnk -D"),
    ("groups", "chroot /debian bash /groups"),
    ("list", "chroot /debian /vfio-early list --json"),
    ("libvirt", "chroot /debian /vfio-early list --format libvirt"),
    ("nix", "chroot /debian /vfio-early list --format nix"),
    // What it says beside that is no YAML.
    ("kubevirt", "chroot /debian /vfio-early list --format kubevirt 2>/dev/null"),
    ("start", "chroot /debian bash /nested start 2>&1"),
    ("status with a VM", "chroot /debian /vfio-early status; echo $?"),
    ("files", "chroot /debian bash /nested files"),
    ("ask", "chroot /debian bash /nested ask"),
    ("stop", "chroot /debian bash /nested stop 2>&1"),
    (
        "taken away",
        "cd /sys/bus/pci && echo 0000:00:05.0 >drivers/vfio-pci/unbind && \
         echo e1000e >devices/0000:00:05.0/driver_override && \
         echo 0000:00:05.0 >drivers/e1000e/bind && echo done",
    ),
    ("status without one", "chroot /debian /vfio-early status; echo $?"),
    ("as JSON", "chroot /debian /vfio-early status --json; echo $?"),
    ("taken back", "chroot /debian /vfio-early bind 2>&1; echo $?"),
    ("status again", "chroot /debian /vfio-early status; echo $?"),
];

fn given_away_expected(check: &mut Check<'_>) {
    let text = |check: &Check<'_>, name| said(check, GIVEN_AWAY, name);
    let list = agrees(check, GIVEN_AWAY);
    for (address, field, expected) in [
        ("0000:01:00.1", "shared_with", json!(["0000:01:00.0"])),
        ("0000:02:02.0", "shared_with", json!(["0000:02:01.0"])),
        ("0000:03:00.2", "physical_function", json!("0000:03:00.0")),
    ] {
        let found = &device(&list, address)[field];
        check.is(*found == expected, format!("{address}: {field} is {found}, not {expected}"));
    }
    for address in GIVEN {
        check.is(device(&list, address)["driver"] == "vfio-pci", format!("{address} is not given"));
    }

    let libvirt = text(check, "libvirt");
    let found = hand_off::libvirt(&libvirt, &GIVEN);
    tell(check, found);
    let nix = text(check, "nix");
    let items: Vec<&Value> = GIVEN.iter().map(|address| &device(&list, address)["item"]).collect();
    let found = hand_off::nix(&nix, &items);
    tell(check, found);
    let ids: Vec<&str> = GIVEN.iter().filter_map(|at| device(&list, at)["id"].as_str()).collect();
    let kubevirt = text(check, "kubevirt");
    let found = hand_off::kubevirt(&kubevirt, &ids);
    tell(check, found);

    for (name, expected) in
        [("virtual functions", "2\n"), ("start", "started\n"), ("taken away", "done\n")]
    {
        let said = text(check, name);
        check.is(said == expected, format!("{name}: {said}"));
    }
    let files = text(check, "files").lines().count();
    check.is(files == GIVEN.len(), format!("QEMU in the guest has {files} devices open"));
    let monitor = text(check, "ask");
    let found = hand_off::qemu(&monitor, &ids);
    tell(check, found);
    let without_reset: Vec<&str> = GIVEN
        .into_iter()
        .filter(|address| device(&list, address)["reset_methods"] == json!([]))
        .filter(|address| device(&list, address)["resets_with"] == json!([]))
        .collect();
    let stop = text(check, "stop");
    let found = hand_off::qemu_output(&stop, &without_reset);
    tell(check, found);

    let all = GIVEN.map(|at| {
        format!(
            "{at} {}: bound to vfio-pci\n",
            &device(&list, at)["id"].as_str().unwrap_or_default()
        )
    });
    let all = all.concat() + "0\n";
    for name in ["status with a VM", "status again"] {
        let said = text(check, name);
        check.is(said == all, format!("{name}: {said}"));
    }
    let told = text(check, "status without one");
    let named = |line: &str| line.contains(GIVEN[0]) && line.contains("lost: e1000e has it now");
    check.is(
        told.ends_with("\n1\n")
            && told.lines().filter(|line| line.contains("lost")).all(named)
            && told.contains("lost"),
        format!("the lost device is not told: {told}"),
    );
    let json = text(check, "as JSON");
    check.is(
        json.contains(r#""driver":"e1000e""#) && json.ends_with("\n1\n"),
        format!("the lost device is not in the JSON: {json}"),
    );
    let back = text(check, "taken back");
    check.is(
        back.contains("0000:00:05.0 8086:10d3: bound to vfio-pci (was e1000e)")
            && back.ends_with("\n0\n"),
        format!("it is not taken back: {back}"),
    );
}
