//! The fake kernel's own answers: what was measured on Linux 5.10, 6.1, 6.12 and 7.2.

use nix::errno::Errno;
use vfio_early::kernel::{Kernel, Needed, Write};

use crate::fake::{Fake, Fault};
use crate::machine::{Function, Line, Machine, desktop};

const CARD: &str = "0000:01:00.0";

fn store(fake: &mut Fake, attribute: &str, value: &str) -> Result<(), Errno> {
    let (attribute, value) = (format!("bus/pci/{attribute}"), value.to_owned());
    fake.perform(&[Write::Store { attribute, value }])[0]
}

fn insert(fake: &mut Fake, module: &str) -> Result<(), Errno> {
    fake.perform(&[Write::Insert { module: module.to_owned(), needs: Vec::new() }])[0]
}

fn set_override(fake: &mut Fake, address: &str, value: &str) -> Result<(), Errno> {
    store(fake, &format!("devices/{address}/driver_override"), value)
}

#[test]
fn an_override_takes_any_name_up_to_the_first_newline() {
    let mut fake = desktop().boot();
    let long = "x".repeat(4094);
    for (value, expected) in [
        ("no-such-driver", Some("no-such-driver")),
        ("vfio-pci\n", Some("vfio-pci")),
        ("one\ntwo", Some("one")),
        (&long, Some(long.as_str())),
        // The kernel hears nothing of it.
        ("", Some(long.as_str())),
        ("\n", None),
    ] {
        assert_eq!(set_override(&mut fake, CARD, value), Ok(()), "{value:?}");
        assert_eq!(fake.driver_override(CARD).as_deref(), expected, "{value:?}");
        let shown = fake.tree.read(&format!("sys/bus/pci/devices/{CARD}/driver_override"));
        assert_eq!(shown, format!("{}\n", expected.unwrap_or("(null)")), "{value:?}");
    }
    assert_eq!(set_override(&mut fake, CARD, &"x".repeat(4095)), Err(Errno::EINVAL));
    assert_eq!(set_override(&mut fake, "0000:05:00.0", "vfio-pci"), Err(Errno::ENOENT));
}

#[test]
fn an_override_leaves_a_bound_device_where_it_is_and_keeps_a_free_one_from_all_drivers() {
    let mut fake = desktop().boot();
    fake.load("nouveau");
    set_override(&mut fake, CARD, "vfio-pci").unwrap();
    set_override(&mut fake, "0000:00:19.0", "no-such-driver").unwrap();
    fake.load("vfio-pci");
    fake.load("e1000e");
    assert_eq!(fake.driver(CARD).as_deref(), Some("nouveau"));
    assert_eq!(fake.driver("0000:00:19.0"), None);
}

#[test]
fn a_driver_that_is_loaded_gets_what_it_matches_and_what_is_its_by_override() {
    let mut fake = desktop().boot();
    set_override(&mut fake, CARD, "vfio-pci").unwrap();
    set_override(&mut fake, "0000:00:14.0", "e1000e").unwrap();
    fake.load("vfio-pci");
    fake.load("nouveau");
    fake.load("e1000e");
    for (address, expected) in [
        (CARD, Some("vfio-pci")),
        ("0000:00:14.0", Some("e1000e")),
        ("0000:00:19.0", Some("e1000e")),
        ("0000:01:00.1", None),
        ("0000:00:01.0", Some("pcieport")),
    ] {
        assert_eq!(fake.driver(address).as_deref(), expected, "{address}");
        let link = fake.tree.link_name(&format!(
            "sys/bus/pci/drivers/{}/{address}",
            expected.unwrap_or("vfio-pci")
        ));
        assert_eq!(link.is_some(), expected.is_some(), "{address}");
        let uevent = fake.tree.read(&format!("sys/bus/pci/devices/{address}/uevent"));
        let named = uevent.lines().find_map(|line| line.strip_prefix("DRIVER="));
        assert_eq!(named, expected, "{address}");
    }
}

#[test]
fn drivers_probe_succeeds_whatever_comes_of_it() {
    let refused = Function::new("0000:00:04.0", "8086:37c8", 0x0b_4000);
    let mut fake = Machine::new([refused.refused_with(Errno::EINVAL)]).boot();
    set_override(&mut fake, "0000:00:04.0", "vfio-pci").unwrap();
    assert_eq!(store(&mut fake, "drivers_probe", "0000:00:04.0"), Ok(()));
    fake.load("vfio-pci");
    assert_eq!(store(&mut fake, "drivers_probe", "0000:00:04.0"), Ok(()));
    assert_eq!(fake.driver("0000:00:04.0"), None);
    assert_eq!(store(&mut fake, "drivers_probe", "0000:00:05.0"), Err(Errno::ENODEV));
}

#[test]
fn bind_tells_why_a_probe_failed_but_not_on_5_10() {
    for line in Line::ALL {
        let or_enodev = |errno| if line == Line::V5_10 { Errno::ENODEV } else { errno };
        let place = |slot: u32| format!("0000:00:{slot:02x}.0");
        let function = |slot| Function::new(&place(slot), "8086:37c8", 0x0b_4000);
        let machine = Machine::new([
            function(3),
            function(4).refused_with(Errno::EBUSY),
            function(5).group(None),
            Function::new(&place(6), "1b36:000c", 0x06_0400),
            function(7),
        ]);
        let mut fake = machine.line(line).boot();
        fake.load("vfio-pci");
        for slot in 3..7 {
            set_override(&mut fake, &place(slot), "vfio-pci").unwrap();
        }
        for (slot, expected) in [
            (3, Ok(())),
            (3, Err(or_enodev(Errno::EBUSY))),
            (4, Err(or_enodev(Errno::EBUSY))),
            (5, Err(or_enodev(Errno::EINVAL))),
            (6, Err(or_enodev(Errno::EINVAL))),
            // The override does not match.
            (7, Err(Errno::ENODEV)),
            (8, Err(Errno::ENODEV)),
        ] {
            let answer = store(&mut fake, "drivers/vfio-pci/bind", &place(slot));
            assert_eq!(answer, expected, "slot {slot} on {line:?}");
        }
    }
}

#[test]
fn modules_need_their_dependencies_and_to_be_in_the_initrd() {
    for line in Line::ALL {
        let mut fake = desktop().line(line).left_out("vfio_iommu_type1").boot();
        assert_eq!(fake.modules_for("vfio_iommu_type1"), None);
        assert_eq!(insert(&mut fake, "vfio_iommu_type1"), Err(Errno::ENOENT));
        assert_eq!(insert(&mut fake, "vfio_pci"), Err(Errno::ENOENT), "{line:?}: no dependencies");
        let needed = fake.modules_for("vfio-pci").expect("it is there");
        let has = |module: &str| needed.iter().any(|needed| needed.name == module);
        assert_eq!(has("vfio_pci_core"), line > Line::V5_10, "{line:?}");
        assert_eq!(has("vfio_virqfd"), line < Line::V6_12, "{line:?}");
        for Needed { name: module, .. } in &needed {
            assert_eq!(insert(&mut fake, module), Ok(()), "{module} on {line:?}");
        }
        assert_eq!(needed.last().map(|needed| needed.name.as_str()), Some("vfio_pci"));
        assert_eq!(fake.modules_for("vfio-pci"), Some(vec![]), "all are loaded");
        assert!(fake.sysfs().has_driver("vfio-pci"));
    }
}

#[test]
fn a_removal_that_hangs_has_taken_the_links_away_and_holds_the_lock() {
    let mut fake = desktop().boot();
    fake.load("nouveau");
    fake.fault(Fault::UnbindHangs { driver: "nouveau".into() });
    let unbind = format!("devices/{CARD}/driver/unbind");
    assert_eq!(store(&mut fake, &unbind, CARD), Err(Errno::ETIMEDOUT));
    assert_eq!(fake.driver(CARD), None);
    assert_eq!(store(&mut fake, &unbind, CARD), Err(Errno::ENOENT));
    assert_eq!(set_override(&mut fake, CARD, "vfio-pci"), Err(Errno::ETIMEDOUT));
    assert_eq!(store(&mut fake, "drivers_probe", CARD), Err(Errno::ETIMEDOUT));
    assert_eq!(set_override(&mut fake, "0000:01:00.1", "vfio-pci"), Ok(()));
}

#[test]
fn a_group_is_viable_by_the_rules_of_its_kernel() {
    for (line, on_a_bridge) in [
        (Line::V5_10, Some(true)),
        (Line::V6_1, Some(false)),
        (Line::V6_12, Some(false)),
        (Line::V7_2, Some(false)),
    ] {
        let bridge = Function::new("0000:00:03.0", "1b36:000e", 0x06_0400).host("shpchp");
        let one = Function::new("0000:01:01.0", "8086:100e", 0x02_0000).below(&bridge).group(3);
        let two = Function::new("0000:01:02.0", "8086:10d3", 0x02_0000).below(&bridge).group(3);
        let mut fake = Machine::new([bridge, one, two.host("e1000e")]).line(line).boot();
        assert_eq!(fake.group_viable(3), None, "{line:?}: no vfio driver has a member");
        set_override(&mut fake, "0000:01:01.0", "vfio-pci").unwrap();
        fake.load("vfio-pci");
        assert_eq!(fake.group_viable(3), Some(true), "{line:?}");
        fake.load("shpchp");
        assert_eq!(fake.group_viable(3), on_a_bridge, "{line:?}");
        store(&mut fake, "drivers/shpchp/unbind", "0000:00:03.0").unwrap();
        fake.load("e1000e");
        assert_eq!(fake.group_viable(3), Some(false), "{line:?}: a sibling is the host's");
    }
}
