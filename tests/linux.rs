//! The fake kernel's own answers, where no guest can be asked (`rules.rs` has the others): a device
//! that refuses vfio-pci for a reason of its own, an initrd that lacks modules.

use nix::errno::Errno;
use vfio_early::kernel::{Kernel, Write};
use vfio_early::modules::Needed;

use crate::fake::Fake;
use crate::machine::{Function, Line, Machine, desktop};

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
