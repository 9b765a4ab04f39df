//! Kernels that have vfio built in, or without files for groups.

use vfio_early::cmdline;

use crate::machine::{Line, Vfio, desktop};
use crate::outcome::{assert_says, obstacles, outcomes};

const CARD: &str = "vfio.devs=8086:15b8@00:19.0";

#[test]
fn where_vfio_is_built_in_nothing_is_loaded_and_a_probe_binds() {
    for line in Line::ALL {
        let mut fake = desktop().line(line).vfio(Vfio::BuiltIn).boot();
        let report = fake.bind(CARD);
        assert_eq!(outcomes(&report), ["0000:00:19.0 bound"]);
        assert!(report.warnings.is_empty(), "{report:#?}");
        assert_eq!(
            fake.take_lines(),
            ["0000:00:19.0/driver_override vfio-pci", "drivers_probe 0000:00:19.0"],
        );
    }
}

#[test]
fn without_groups_iommufd_is_loaded_and_nobody_is_told_to_add_what_the_kernel_does_not_have() {
    for line in [Line::V6_12, Line::V7_2] {
        let mut fake = desktop().line(line).vfio(Vfio::WithoutGroups).boot();
        let report = fake.bind(CARD);
        assert_eq!(outcomes(&report), ["0000:00:19.0 bound"]);
        assert!(report.warnings.is_empty(), "{report:#?}");
        assert!(report.groups.iter().all(|group| group.viable.is_none()), "{report:#?}");
        let lines = fake.take_lines();
        assert!(lines.contains(&"load iommufd".to_owned()), "{lines:#?}");
        // Nor is it looked for once more.
        let request = cmdline::parse(CARD.as_bytes());
        let again = vfio_early::check(request, &fake.sysfs(), &mut fake).expect("there is a bus");
        assert!(again.report.warnings.is_empty(), "{:#?}", again.report);
        let plan = again.plan.to_string();
        assert!(!plan.contains("load "), "{plan}");
    }
}

#[test]
fn without_vfio_it_is_not_known_whether_there_are_groups() {
    let machine = desktop().line(Line::V6_12).vfio(Vfio::WithoutGroups).left_out("vfio-pci");
    let report = machine.boot().bind(CARD);
    assert_eq!(outcomes(&report), ["0000:00:19.0 failed"]);
    assert!(report.warnings.is_empty(), "{report:#?}");
}

#[test]
fn without_type1_and_with_iommufd_some_vms_can_use_the_devices() {
    let text = "only a VM that goes by iommufd";
    let mut fake = desktop().line(Line::V6_12).vfio(Vfio::WithoutGroups).boot();
    // Whether there are groups is not known before vfio is there.
    let request = cmdline::parse(CARD.as_bytes());
    let check = vfio_early::check(request.clone(), &fake.sysfs(), &mut fake);
    let warnings = check.expect("there is a bus").report.warnings;
    assert!(warnings.iter().any(|warning| warning.contains(text)), "{warnings:#?}");

    let mut fake = desktop().left_out("vfio_iommu_type1").boot();
    let check = vfio_early::check(request, &fake.sysfs(), &mut fake);
    for report in [check.expect("there is a bus").report, fake.bind(CARD)] {
        assert_says(&obstacles(&report, "0000:00:19.0"), &["vfio_iommu_type1", "to the initrd"]);
        assert_eq!((report.exit_status, report.warnings.as_slice()), (0, &[][..]));
    }
    fake.tree.folder("sys/class/misc/iommu");
    let warnings = fake.bind(CARD).warnings;
    assert!(warnings.iter().any(|warning| warning.contains(text)), "{warnings:#?}");
}
