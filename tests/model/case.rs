//! The machines that are explored, what is asked for on them, and what others do there.

use super::mutant::Mutant;
use crate::console::{OTHER, VGA, two_displays};
use crate::fake::modules::Module;
use crate::machine::{Function, Line, Machine};

/// One machine and one request.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// How many acts of others are explored, where nothing else is asked for.
    pub depth: usize,
    /// What is in its `hot_added` is plugged in by others, or never.
    pub machine: Machine,
    /// Modules that are loaded before.
    pub loaded: &'static [&'static str],
    pub text: &'static str,
    /// What is asked for: where, and the id that a guard wants there.
    pub asked: &'static [(&'static str, Option<(u16, u16)>)],
    /// How those end that are there, not in use and pass their guard.
    pub end: &'static str,
    /// Those of them that end otherwise.
    pub other_ends: &'static [(&'static str, &'static [&'static str])],
    /// What others load.
    pub loads: &'static [&'static str],
    /// Whether `claim` runs first, and `bind` goes on from there while udev is at work.
    pub two_moments: bool,
    /// What udev loads then.
    pub coldplug: &'static [&'static str],
    /// Where others probe, bind and unbind.
    pub rival_at: &'static [&'static str],
    /// Where they pull devices.
    pub pulls: &'static [&'static str],
    /// What others write to overrides; empty clears one.
    pub overrides: &'static [&'static str],
    /// Whether others release devices there, and start VMs with them.
    pub releases: bool,
    /// Drivers of disks that others mount.
    pub disks: &'static [&'static str],
    /// Displays of the host that may get the console.
    pub displays: &'static [&'static str],
    pub mutant: Mutant,
}

const NVME: (u16, u16) = (0x144d, 0xa808);
const NIC: (u16, u16) = (0x8086, 0x15b8);

const CARD: &str = "0000:00:03.0";
const BUILT_IN: &str = "0000:00:04.0";
const OTHER_ID: &str = "0000:00:05.0";
const UNASKED: &str = "0000:00:06.0";

impl Case {
    /// With the line of kernels.
    pub fn title(&self) -> String {
        format!("{}, {}", self.name, self.machine.line.text())
    }

    fn new(name: &'static str, machine: Machine, text: &'static str) -> Self {
        Case {
            name,
            depth: 2,
            machine,
            loaded: &[],
            text,
            asked: &[],
            end: "bound",
            other_ends: &[],
            loads: &[],
            two_moments: false,
            coldplug: &[],
            rival_at: &[],
            pulls: &[],
            overrides: &[],
            releases: false,
            disks: &[],
            displays: &[],
            mutant: Mutant::None,
        }
    }

    /// In two moments, with all that others load as udev's, and vfio-pci loaded by anybody.
    fn beside_udev(self, name: &'static str) -> Self {
        let coldplug = self.loads;
        Case { name, two_moments: true, coldplug, loads: &["vfio-pci"], ..self }
    }
}

/// The same without a device that has its driver before udev starts.
fn free() -> Machine {
    let mut machine = small();
    machine.functions.retain(|function| function.address != BUILT_IN);
    machine
}

/// A network card, a device that a built-in driver has, one that is not what its guard says, and one
/// that nobody asks for; and what can come in the card's place.
fn small() -> Machine {
    let nic = |address| Function::new(address, "8086:15b8", 0x02_0000).host("e1000e");
    let mut machine = Machine::new([
        nic(CARD),
        Function::new(BUILT_IN, "8086:a12f", 0x0c_0330).built_in("xhci_hcd"),
        nic(OTHER_ID),
        nic(UNASKED),
    ]);
    machine.hot_added.push(Function::new(CARD, "1b21:2142", 0x0c_0330).host("other"));
    machine
}

const SMALL: &str = "vfio.devs=8086:15b8@00:03.0,00:04.0,10de:1c03@00:05.0";
const SMALL_ASKED: &[(&str, Option<(u16, u16)>)] =
    &[(CARD, Some(NIC)), (BUILT_IN, None), (OTHER_ID, Some((0x10de, 0x1c03)))];

/// A disk that its controller's driver can get at any time.
fn storage() -> Case {
    let machine = Machine::new([
        Function::new(CARD, "144d:a808", 0x01_0802).host("nvme"),
        Function::new(UNASKED, "144d:a808", 0x01_0802).host("nvme"),
    ]);
    Case {
        asked: &[(CARD, Some(NVME))],
        loads: &["nvme", "vfio-pci"],
        rival_at: &[CARD],
        disks: &["nvme"],
        ..Case::new("a disk is asked for", machine, "vfio.devs=144d:a808@00:03.0")
    }
}

fn plain(line: Line) -> Case {
    Case {
        asked: SMALL_ASKED,
        loads: &["e1000e", "vfio-pci"],
        rival_at: &[CARD, BUILT_IN, OTHER_ID],
        ..Case::new("drivers come, others bind and unbind", small().line(line), SMALL)
    }
}

/// A device that comes where the host's driver is loaded, which can have it first.
fn with_its_driver_loaded() -> Case {
    let mut machine = small();
    machine.hot_added = vec![machine.functions.remove(0)];
    Case {
        name: "a device comes during the wait with its driver loaded",
        depth: 1,
        machine,
        loaded: &["e1000e"],
        text: "vfio.devs=8086:15b8@00:03.0,00:04.0 vfio.wait=10",
        asked: &[(CARD, Some(NIC)), (BUILT_IN, None)],
        loads: &[],
        rival_at: &[CARD],
        pulls: &[CARD],
        ..plain(Line::V6_1)
    }
}

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases = vec![plain(Line::V6_1), Case { depth: 1, ..plain(Line::V5_10) }];
    cases.push(storage());
    cases.push(Case { loaded: &["nvme"], name: "a disk on its driver is asked for", ..storage() });
    cases.push(Case {
        name: "devices are pulled and others come in their place",
        loads: &["e1000e", "other"],
        rival_at: &[CARD],
        pulls: &[CARD],
        ..plain(Line::V6_12)
    });
    cases.push(Case {
        name: "a device comes during the wait",
        machine: {
            let mut machine = small();
            machine.hot_added = vec![machine.functions.remove(0)];
            machine
        },
        text: "vfio.devs=8086:15b8@00:03.0,00:04.0 vfio.wait=10",
        asked: &[(CARD, Some(NIC)), (BUILT_IN, None)],
        loads: &["e1000e"],
        rival_at: &[CARD],
        pulls: &[CARD],
        ..plain(Line::V6_1)
    });
    cases.push(Case {
        name: "vfio-pci was there before",
        loaded: &["vfio-pci"],
        loads: &["e1000e"],
        ..plain(Line::V7_2)
    });
    cases.push(Case {
        name: "no vfio-pci",
        machine: small().left_out("vfio-pci"),
        end: "failed",
        loads: &["e1000e"],
        ..plain(Line::V6_1)
    });
    cases.push(Case {
        name: "another tool writes overrides",
        loads: &["e1000e"],
        rival_at: &[CARD],
        overrides: &["", "e1000e", "vfio-pci"],
        ..plain(Line::V6_1)
    });
    cases.push(Case {
        name: "devices are released, and VMs start",
        loaded: &["vfio-pci"],
        loads: &["e1000e"],
        rival_at: &[CARD, BUILT_IN],
        releases: true,
        ..plain(Line::V6_12)
    });
    cases.push(with_its_driver_loaded());
    cases.push(Case {
        name: "groups come with the first probe",
        depth: 1,
        machine: small().with_smmu(),
        ..plain(Line::V6_12)
    });
    let variant =
        Module::variant("nic_vfio_pci", "nic-vfio-pci", "v00008086d000015B8sv*sd*bc*sc*i*");
    cases.push(Case {
        name: "a variant of vfio-pci",
        depth: 1,
        machine: small().module(variant),
        loads: &["e1000e", "vfio-pci", "nic_vfio_pci"],
        rival_at: &[CARD, OTHER_ID],
        pulls: &[CARD],
        ..plain(Line::V6_12)
    });
    let display = |name, second_class, text| Case {
        // Most of what is read is about the screen.
        depth: 1,
        loads: &["i915", "nouveau", "vfio-pci"],
        rival_at: &["0000:00:02.0", "0000:01:00.0"],
        displays: &["0000:00:02.0", "0000:01:00.0"],
        ..Case::new(name, two_displays(VGA, second_class), text)
    };
    cases.push(Case {
        asked: &[("0000:00:02.0", None), ("0000:00:14.0", None)],
        // Its own driver comes first, or the display that was to get the console has none.
        other_ends: &[("0000:00:02.0", &["bound", "failed", "reserved"])],
        ..display("the boot display", VGA, "vfio.devs=00:02.0,00:14.0")
    });
    cases.push(Case {
        asked: &[("0000:01:00.0", None)],
        // Its driver comes first, and perhaps the console is on it; or the other display has none.
        other_ends: &[("0000:01:00.0", &["bound", "failed", "reserved"])],
        ..display("the second display", OTHER, "vfio.devs=01:00.0")
    });
    cases.extend(beside_udev(&cases));
    cases
}

/// Those in which udev starts when the devices are claimed.
fn beside_udev(cases: &[Case]) -> Vec<Case> {
    let named =
        |name: &str| cases.iter().find(|case| case.name == name).expect("it is there").clone();
    let free = Case {
        machine: free(),
        text: "vfio.devs=8086:15b8@00:03.0,10de:1c03@00:05.0",
        asked: &[(CARD, Some(NIC)), (OTHER_ID, Some((0x10de, 0x1c03)))],
        rival_at: &[CARD, OTHER_ID],
        loads: &["e1000e"],
        ..plain(Line::V6_1)
    };
    vec![
        Case { machine: self::free().line(Line::V6_12), ..free.clone() }
            .beside_udev("udev starts at claimed: drivers come, others bind and unbind"),
        Case { pulls: &[CARD], loads: &["e1000e", "other"], rival_at: &[CARD], ..free.clone() }
            .beside_udev("udev starts at claimed: devices are pulled and others come"),
        Case { overrides: &["", "e1000e", "vfio-pci"], rival_at: &[CARD], ..free.clone() }
            .beside_udev("udev starts at claimed: another tool writes overrides"),
        Case { loads: &["nvme"], ..storage() }
            .beside_udev("udev starts at claimed: a disk is asked for"),
        Case { depth: 1, ..named("drivers come, others bind and unbind") }
            .beside_udev("udev starts when all is done: a driver has a device"),
        Case { depth: 1, ..named("a device comes during the wait") }
            .beside_udev("udev starts when all is done: a device comes during the wait"),
        Case { loads: &["nic_vfio_pci", "e1000e"], ..named("a variant of vfio-pci") }
            .beside_udev("udev starts at claimed: a variant of vfio-pci"),
        Case { loads: &["i915", "nouveau"], ..named("the boot display") }
            .beside_udev("udev starts at claimed: the boot display"),
        Case { loads: &["i915", "nouveau"], ..named("the second display") }
            .beside_udev("udev starts at claimed: the second display"),
    ]
}

impl Case {
    /// How a device may end that is there and not in use, where nobody undoes what is done.
    pub fn end_of(&self, address: &str, passes_its_guard: bool) -> &[&'static str] {
        if !passes_its_guard {
            return &["refused"];
        }
        let other = self.other_ends.iter().find(|(other, _)| *other == address);
        other.map_or(std::slice::from_ref(&self.end), |(_, ends)| ends)
    }
}
