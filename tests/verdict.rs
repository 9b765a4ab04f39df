//! Whether a VM could have what is bound, over imitated machines.

use std::fs;

use serde_json::Value;
use vfio_early::cmdline;
use vfio_early::host::status::{self, Status};
use vfio_early::report::{Outcome, Report};
use vfio_early::report_file::{self, NAME};

use crate::fake::Fake;
use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::{assert_says, obstacles, outcomes, words};

const CARD: &str = "0000:01:00.0";
const SOUND: &str = "0000:01:00.1";
const BOTH: &str = "vfio.devs=10de:1c03@01:00.0,01:00.1";

/// What `check` foresees.
fn check(fake: &mut Fake, text: &str) -> Report {
    let sysfs = fake.sysfs();
    let check = vfio_early::check(cmdline::parse(text.as_bytes()), &sysfs, fake);
    check.expect("the PCI bus can be read").report
}

/// What `status` says after that report.
pub(crate) fn status_of(fake: &Fake, report: &Report) -> Status {
    let folder = fake.tree.root().join("run/vfio-early");
    fake.tree.folder("run");
    report_file::save(report, &folder).expect("it can be written");
    status::status(&folder.join(NAME), &fake.sysfs()).expect("it can be read")
}

fn lines(status: &Status) -> Vec<String> {
    status.to_string().lines().map(str::to_owned).collect()
}

/// The regions of group 2, as `iommu_group_show_resv_regions()` writes them.
fn regions(fake: &Fake, kind: &str) {
    let text = format!(
        "0x00000000c8000000 0x00000000c801ffff {kind}\n0x00000000fee00000 0x00000000feefffff msi\n"
    );
    fake.tree.write("sys/kernel/iommu_groups/2/reserved_regions", &text);
}

#[test]
fn a_sibling_that_a_host_driver_takes_after_the_boot_is_told_by_status() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=01:00.0");
    assert_eq!(obstacles(&report, CARD), "");
    assert_says(&words(&report, CARD), &["once the host's driver takes that"]);
    let status = status_of(&fake, &report);
    assert_eq!((status.exit_status, status.devices[0].usable), (0, Some(true)));

    fake.load("snd_hda_intel");
    let status = status_of(&fake, &report);
    assert_eq!((status.exit_status, status.devices[0].usable), (4, Some(false)));
    let said = lines(&status);
    assert_eq!(said[0], "0000:01:00.0 10de:1c03: bound to vfio-pci");
    let expected = "0000:01:00.0 10de:1c03: no VM can have it: its IOMMU group 2 is not viable: \
                    snd_hda_intel has 0000:01:00.1 10de:10f1; ";
    assert!(said[1].starts_with(expected), "{said:#?}");

    // What is not bound is worse.
    let report = fake.bind("vfio.devs=01:00.0,05:00.0");
    assert_eq!(status_of(&fake, &report).exit_status, 1);
}

#[test]
fn what_the_host_uses_is_not_to_be_listed_too() {
    let mut machine = desktop();
    for function in &mut machine.functions {
        if matches!(&*function.address, "0000:02:00.0" | "0000:00:14.0") {
            function.group = Some(9);
        }
    }
    let mut fake = machine.boot();
    fake.load("nvme");
    let report = fake.bind("vfio.devs=00:14.0");
    let (said, other) = (obstacles(&report, "0000:00:14.0"), "nvme has 0000:02:00.0 144d:a808");
    assert_says(&said, &[other, "where the host can do without it"]);
    let disk = "devices/pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0/nvme0n1";
    fake.tree.folder(&format!("sys/{disk}/holders"));
    fake.tree.write(&format!("sys/{disk}/dev"), "259:0\n");
    fake.tree.link_up("class/block/nvme0n1", disk);
    fake.tree.write("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    for report in [fake.bind("vfio.devs=00:14.0"), check(&mut fake, "vfio.devs=00:14.0")] {
        let said = obstacles(&report, "0000:00:14.0");
        assert_says(&said, &[other, "nvme0n1 is mounted on /", "this slot cannot be given away"]);
        assert!(!said.contains("list it"), "{said}");
    }
}

/// Before 5.19 bridges did not count (`vfio_dev_viable()`), since then `shpchp` owns the DMA of its
/// bridge's group.
#[test]
fn a_bridge_on_a_driver_of_its_own_counts_since_5_19() {
    let bridge = Function::new("0000:00:1e.0", "1b36:000e", 0x06_0400).group(5).built_in("shpchp");
    let card = Function::new("0000:03:01.0", "8086:100e", 0x02_0000).below(&bridge).group(5);
    for line in Line::ALL {
        let mut fake = Machine::new([bridge.clone(), card.clone()]).line(line).boot();
        let text = "vfio.devs=8086:100e@03:01.0";
        let foreseen = obstacles(&check(&mut fake, text), "0000:03:01.0");
        let report = fake.bind(text);
        let found = obstacles(&report, "0000:03:01.0");
        assert_eq!(found, foreseen, "{line:?}");
        assert_eq!(found.contains("shpchp has 0000:00:1e.0"), line > Line::V5_10, "{found}");
        let status = status_of(&fake, &report).exit_status;
        assert_eq!(status, if line > Line::V5_10 { 4 } else { 0 }, "{line:?}");
    }
}

#[test]
fn memory_that_the_firmware_keeps_is_in_the_way() {
    for (kind, table, line, hindered) in [
        ("direct", "DMAR", Line::V5_10, true),
        ("direct", "DMAR", Line::V6_1, true),
        ("direct", "DMAR", Line::V7_2, true),
        ("direct-relaxable", "DMAR", Line::V6_12, false),
        ("reserved", "DMAR", Line::V6_12, false),
        // A VM could have it there: the kernel looked at Intel's alone.
        ("direct", "IVRS", Line::V5_10, false),
        ("direct", "IVRS", Line::V6_1, false),
        ("direct", "IVRS", Line::V6_12, true),
        ("direct", "IVRS", Line::V7_2, true),
    ] {
        let mut machine = desktop().line(line);
        machine.table = Some(table);
        let mut fake = machine.boot();
        regions(&fake, kind);
        let what = format!("{kind} {table} {line:?}");
        let foreseen = check(&mut fake, BOTH);
        let report = fake.bind(BOTH);
        for report in [&foreseen, &report] {
            for address in [CARD, SOUND] {
                let said = obstacles(report, address);
                assert_eq!(said.is_empty(), !hindered, "{what}: {said}");
                if hindered {
                    assert_says(&said, &["0x00000000c8000000-0x00000000c801ffff", "RMRR"]);
                }
            }
            assert_eq!(report.exit_status, 0, "it is bound: {what}");
        }
        let status = status_of(&fake, &report);
        assert_eq!(status.exit_status, if hindered { 4 } else { 0 }, "{what}");
    }
}

#[test]
fn without_remapping_an_option_decides_and_check_knows_it() {
    const OPTION: &str = "vfio_iommu_type1.allow_unsafe_interrupts=1";
    let boot = |command_line: &str| {
        let mut machine = desktop().command_line(command_line);
        machine.remapping = Some(false);
        machine.boot()
    };
    let is_hindered = |report: &Report| !obstacles(report, CARD).is_empty();
    assert!(is_hindered(&check(&mut boot(""), BOTH)));
    assert!(!is_hindered(&check(&mut boot(""), &format!("{BOTH} {OPTION}"))));
    // A list alone leaves the rest of the command line as it is.
    assert!(!is_hindered(&check(&mut boot(OPTION), BOTH)));
    // A whole one is another boot's.
    assert!(is_hindered(&check(&mut boot(OPTION), &format!("{BOTH} iommu=pt"))));
    for (options, hindered) in [
        ("allow_unsafe_interrupts=1", false),
        ("allow_unsafe_interrupts", false),
        ("disable_hugepages=1 allow_unsafe_interrupts=Y", false),
        ("allow_unsafe_interrupts=0", true),
        ("disallow_unsafe_interrupts=1", true),
    ] {
        let mut fake = boot("");
        fake.options.insert("vfio_iommu_type1".to_owned(), options.to_owned());
        assert_eq!(is_hindered(&check(&mut fake, BOTH)), hindered, "{options}");
    }
    // Once the module is there, it has the last word.
    let mut fake = boot("");
    let report = fake.bind(BOTH);
    assert!(is_hindered(&report));
    let parameter = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    fake.tree.write(parameter, "Y\n");
    assert!(!is_hindered(&fake.bind(BOTH)));
    assert_eq!(status_of(&fake, &report).exit_status, 0);
    fake.tree.write(parameter, "N\n");
    fake.tree.write("sys/module/iommufd/parameters/allow_unsafe_interrupts", "Y\n");
    assert!(!is_hindered(&fake.bind(BOTH)), "a VM can go by iommufd");
}

#[test]
fn a_module_that_is_unloaded_later_is_missed_by_status() {
    let mut fake = desktop().boot();
    let report = fake.bind(BOTH);
    assert_eq!(status_of(&fake, &report).exit_status, 0);
    fs::remove_dir_all(fake.tree.root().join("sys/module/vfio_iommu_type1")).unwrap();
    let status = status_of(&fake, &report);
    assert_eq!(status.exit_status, 4);
    assert_says(&lines(&status)[1], &["vfio_iommu_type1 is not loaded", "modprobe"]);
    fake.tree.folder("sys/class/misc/iommu");
    assert_eq!(status_of(&fake, &report).exit_status, 0, "a VM can go by iommufd");
}

/// As `vfio_noiommu_group_alloc()` makes it (`drivers/vfio/group.c`).
#[test]
fn vfio_without_an_iommu_is_for_no_vm() {
    let mut fake = desktop().boot();
    let report = fake.bind(BOTH);
    fake.tree.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    fake.tree.write("sys/kernel/iommu_groups/2/name", "vfio-noiommu\n");
    // Some kernels fall over where one reads this.
    let trap = fake.tree.root().join("sys/kernel/iommu_groups/2/reserved_regions");
    nix::unistd::mkfifo(&trap, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let status = status_of(&fake, &report);
    assert_eq!(status.exit_status, 4);
    assert_says(&lines(&status)[1], &["without an IOMMU", "DPDK"]);
}

/// A slot whose functions have groups of their own, as `pcie_acs_override=` makes them of any card.
fn split(resets: bool) -> Machine {
    let port = Function::new("0000:00:01.0", "8086:1901", 0x06_0400).built_in("pcieport");
    let function = |address, group| {
        let function = Function::new(address, "10de:1c03", 0x03_0200).below(&port).group(group);
        Function { resets, ..function }
    };
    Machine::new([function(CARD, 12), function(SOUND, 13), port.clone()])
}

#[test]
fn a_card_that_is_split_between_host_and_vm_gets_a_warning() {
    const RESET: &str = "can reset it only together with 0000:01:00.1, which the host keeps";
    const OVERRIDE: &str = "pcie_acs_override= made its IOMMU group";
    for (resets, text, reset, acs) in [
        (true, "vfio.devs=01:00.0", false, false),
        (false, "vfio.devs=01:00.0", true, false),
        (false, "vfio.devs=01:00.*", false, false),
        (false, "vfio.devs=01:00.0 pcie_acs_override=downstream,multifunction", true, true),
        (true, "vfio.devs=01:00.0 pcie_acs_override=downstream,multifunction", false, true),
        (true, "vfio.devs=01:00.* pcie_acs_override=downstream,multifunction", false, false),
    ] {
        let mut fake = split(resets).command_line(text).boot();
        let foreseen = check(&mut fake, text);
        let report = fake.bind(text);
        for report in [&foreseen, &report] {
            let said = words(report, CARD);
            assert_eq!((said.contains(RESET), said.contains(OVERRIDE)), (reset, acs), "{said}");
            assert_eq!(obstacles(report, CARD), "", "a VM can have it");
        }
        let status = status_of(&fake, &report);
        assert_eq!(status.exit_status, 0, "{text}");
        let said = status.to_string();
        assert_eq!((said.contains(RESET), said.contains(OVERRIDE)), (reset, acs), "{said}");
    }
}

#[test]
fn what_is_not_bound_has_no_verdict() {
    let mut machine = desktop().left_out("vfio-pci");
    machine.remapping = Some(false);
    let report = machine.boot().bind("vfio.devs=01:00.0,05:00.0,00:01.0");
    for device in &report.devices {
        assert_ne!(device.outcome, Outcome::Bound);
        assert_eq!((device.usable, device.obstacles.len()), (None, 0), "{device:?}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["devices"][0]["usable"], Value::Null);
    assert!(
        outcomes(&report).len() == 3 && !report.lines().iter().any(|(_, it)| it.contains("no VM"))
    );
}

#[test]
fn a_driver_that_is_none_of_vfio_is_for_no_vm() {
    let stub = crate::fake::modules::Module::new("pci_stub", &[]).driver("pci-stub");
    let report = desktop().module(stub).boot().bind("vfio.devs=00:14.0 vfio.driver=pci-stub");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    assert_says(&obstacles(&report, "0000:00:14.0"), &["pci-stub is no vfio driver"]);
}
