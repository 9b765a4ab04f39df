//! What people write for a boot loader arrives: lists of every form go through real ones.

use std::collections::BTreeMap;

use serde_json::json;

use crate::check::{Boot, prediction, verdict};
use crate::machine::loader::Loader;
use crate::machine::topology::Device;
use crate::machine::vm::{Vm, vm};

/// By which firmware.
#[derive(Clone, Copy, PartialEq)]
enum Firmware {
    Bios,
    Uefi,
}

struct Case {
    name: &'static str,
    firmware: Firmware,
    loader: Loader,
    /// That is in `/proc/cmdline`.
    arrives: &'static str,
    /// The items that are in the report then.
    items: &'static [&'static str],
    /// Whether `vfio.strict`, which comes last, is read.
    is_strict: bool,
    /// The devices that have vfio-pci in the end.
    bound: &'static [&'static str],
}

/// A list with every form of item, as it is written.
macro_rules! list {
    ($quote:literal) => {
        concat!(
            "vfio.devs=00:03.*,8086:10d3@00:04.0 vfio.devs=",
            $quote,
            "00:05.0/00.0 pci:8086:2668",
            $quote,
            " vfio.devs=group:00:07.0 vfio.strict"
        )
    };
}

/// Seven times that.
macro_rules! many {
    ($($text:tt)*) => {
        concat!(
            $($text)*, $($text)*, $($text)*, $($text)*, $($text)*, $($text)*, $($text)*
        )
    };
}

const WRITTEN: &str = list!("\"");

/// GRUB puts the whole parameter into quotes, which is the same to the kernel.
const BY_GRUB: &str = "vfio.devs=00:03.*,8086:10d3@00:04.0 \"vfio.devs=00:05.0/00.0 pci:8086:2668\" \
                       vfio.devs=group:00:07.0 vfio.strict";

const ITEMS: &[&str] =
    &["00:03.*", "8086:10d3@00:04.0", "00:05.0/00.0", "pci:8086:2668", "group:00:07.0"];

/// More than fits.
const TOO_LONG: &str = concat!(
    "GRUB_CMDLINE_LINUX_DEFAULT=\"vfio.devs=00:03.0 vfio.devs=",
    many!(many!(many!("00:04.0,"))),
    "00:05.0 vfio.strict\""
);

/// What they mean in [`machine`].
const DEVICES: &[&str] = &[
    "0000:00:03.0",
    "0000:00:03.1",
    "0000:00:04.0",
    "0000:01:00.0",
    "0000:00:06.0",
    "0000:00:07.0",
];

fn machine(machine: Vm) -> Vm {
    machine
        .device("edu", "03.0")
        .device("edu", "03.1")
        .device("e1000e", "04.0")
        .with(Device::new("pcie-root-port", "05.0").named("port"))
        .with(Device::new("qemu-xhci", "00.0").below("port"))
        .device("intel-hda", "06.0")
        .device("edu", "07.0")
        .host_modules(["e1000e", "xhci_pci", "snd_hda_intel"])
}

fn cases() -> Vec<Case> {
    let case = |name, firmware, loader, arrives| Case {
        name,
        firmware,
        loader,
        arrives,
        items: ITEMS,
        is_strict: true,
        bound: DEVICES,
    };
    vec![
        Case {
            items: &["00:03.0"],
            is_strict: false,
            bound: &DEVICES[..1],
            ..case(
                "GRUB by BIOS drops the list that does not fit, and all behind it",
                Firmware::Bios,
                Loader::Grub(TOO_LONG),
                "vfio.devs=00:03.0",
            )
        },
        case(
            "GRUB by BIOS",
            Firmware::Bios,
            Loader::Grub(concat!("GRUB_CMDLINE_LINUX_DEFAULT=\"quiet ", list!("\\\""), "\"")),
            BY_GRUB,
        ),
        case(
            "GRUB by UEFI",
            Firmware::Uefi,
            Loader::Grub(concat!("GRUB_CMDLINE_LINUX_DEFAULT='", list!("\""), "'")),
            BY_GRUB,
        ),
        case("systemd-boot", Firmware::Uefi, Loader::SystemdBoot(WRITTEN), WRITTEN),
        case("rEFInd", Firmware::Uefi, Loader::Refind(list!("\"\"")), WRITTEN),
        case("a unified kernel image", Firmware::Uefi, Loader::Uki(WRITTEN), WRITTEN),
        case(
            "a unified kernel image with an add-on",
            Firmware::Uefi,
            Loader::UkiWithAddOn(WRITTEN),
            WRITTEN,
        ),
    ]
}

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |case: Case| Boot {
        name: format!("boot loaders: {}", case.name),
        kernel: "6.1",
        check: Box::new(move |kernel, program, _answers| {
            let machine = machine(vm(kernel).program(program).asking_first());
            case.check(machine).into()
        }),
    };
    cases().into_iter().map(boot).collect()
}

impl Case {
    fn check(&self, machine: Vm) -> Result<(), String> {
        let machine = match self.firmware {
            Firmware::Bios => machine.bios(),
            Firmware::Uefi => machine.uefi(),
        };
        let run = machine.loader(self.loader.clone()).boot().map_err(|why| format!("{why:#}"))?;
        let mut found = run.log_complaints();
        found.extend(prediction::complaints(&run.executions, |_| BTreeMap::new()));
        if !run.command_line.contains(self.arrives) {
            found.push(format!("/proc/cmdline has not {}: {}", self.arrives, run.command_line));
        }
        let last = run.last();
        if last.status != 0 {
            found.push(format!("the exit status is {}", last.status));
        }
        let request = &last.report["request"];
        if request["items"] != json!(self.items) || request["strict"] != self.is_strict {
            found.push(format!("the request is {request}"));
        }
        if last.report["warnings"] != json!([]) {
            found.push(format!("it warns: {}", last.report["warnings"]));
        }
        for address in self.bound {
            let driver = run.after_host_modules().driver(address);
            if driver != Some("vfio-pci") {
                found.push(format!("{address} is on {driver:?} in the end"));
            }
        }
        println!("{}: /proc/cmdline: {}", self.name, run.command_line);
        verdict(run, &found)
    }
}
