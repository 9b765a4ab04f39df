//! What goes wrong on the way: each device for itself, with its reason, and the run goes on.

use std::fs;

use nix::errno::Errno;
use vfio_early::report::Report;

use crate::fake::{Fake, Fault};
use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::{assert_says, device, obstacles, outcomes, words};

fn with_nouveau() -> Fake {
    let mut fake = desktop().boot();
    fake.load("nouveau");
    fake
}

fn assert_no_override(report: &Report, name: &str) {
    assert_eq!(device(report, name).driver_override, None, "{report:#?}");
}

#[test]
fn on_a_read_only_sysfs_every_device_fails_and_no_host_driver_loses_any() {
    let mut fake = with_nouveau();
    fake.fault(Fault::ReadOnly);
    let report = fake.bind("vfio.devs=01:00.0,00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 failed", "0000:01:00.0 failed"]);
    for name in ["0000:01:00.0", "0000:00:14.0"] {
        assert_says(&words(&report, name), &["EROFS", "/sys must be writable"]);
        assert_no_override(&report, name);
    }
    assert_eq!(fake.driver("0000:01:00.0").as_deref(), Some("nouveau"));
    assert_eq!(report.exit_status, 1);
}

#[test]
fn an_unbind_that_hangs_fails_its_device_and_no_other() {
    for line in Line::ALL {
        let mut fake = desktop().line(line).boot();
        fake.load("nouveau");
        fake.load("e1000e");
        fake.fault(Fault::UnbindHangs { driver: "nouveau".into() });
        let report = fake.bind("vfio.devs=01:00.0,00:14.0,8086:15b8@00:19.0");
        assert_eq!(
            outcomes(&report),
            ["0000:00:14.0 bound", "0000:00:19.0 bound", "0000:01:00.0 failed"],
            "{line:?}"
        );
        assert_says(&words(&report, "0000:01:00.0"), &["nouveau", "hangs"]);
        let lines = fake.take_lines();
        let given_up = !lines.iter().any(|line| line.starts_with("drivers_probe 0000:01:00.0"));
        assert!(given_up, "a probe would hang as well: {lines:#?}");
    }
}

#[test]
fn a_bind_after_an_unbind_that_hangs_ends_too() {
    for line in Line::ALL {
        let mut fake = desktop().line(line).boot();
        fake.load("nouveau");
        fake.fault(Fault::UnbindHangs { driver: "nouveau".into() });
        fake.bind("vfio.devs=01:00.0,00:14.0");
        let report = fake.bind("vfio.devs=01:00.0,00:14.0");
        assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:01:00.0 failed"], "{line:?}");
        assert_says(&words(&report, "0000:01:00.0"), &["ETIMEDOUT"]);
    }
}

#[test]
fn a_probe_that_hangs_fails_its_device_and_no_other() {
    let mut fake = desktop().boot();
    fake.load("vfio-pci");
    fake.fault(Fault::ProbeHangs { address: "0000:00:14.0".into() });
    let report = fake.bind("vfio.devs=00:14.0,01:00.*");
    assert_eq!(
        outcomes(&report),
        ["0000:00:14.0 failed", "0000:01:00.0 bound", "0000:01:00.1 bound"]
    );
    assert_says(&words(&report, "0000:00:14.0"), &["probe hangs"]);
}

#[test]
fn a_device_that_goes_away_before_its_override_fails_and_the_others_are_bound() {
    let mut fake = desktop().boot();
    fake.fault(Fault::GoesAway { address: "0000:02:00.0".into(), before: 1 });
    let report = fake.bind("vfio.devs=00:14.0,144d:a808@02:00.0,01:00.0");
    assert_eq!(
        outcomes(&report),
        ["0000:00:14.0 bound", "0000:01:00.0 bound", "0000:02:00.0 failed"]
    );
    assert_says(&words(&report, "0000:02:00.0"), &["went away", "vfio.wait="]);
    assert_no_override(&report, "0000:02:00.0");
}

#[test]
fn a_device_that_goes_away_later_fails_and_the_others_are_bound() {
    let writes = {
        let mut fake = desktop().boot();
        fake.load("nvme");
        fake.bind("vfio.devs=144d:a808@02:00.0,00:14.0");
        fake.take_writes().len()
    };
    for before in 1..writes {
        let mut fake = desktop().boot();
        fake.load("nvme");
        fake.fault(Fault::GoesAway { address: "0000:02:00.0".into(), before });
        let report = fake.bind("vfio.devs=144d:a808@02:00.0,00:14.0");
        assert_eq!(
            outcomes(&report),
            ["0000:00:14.0 bound", "0000:02:00.0 failed"],
            "before write {before}"
        );
        assert_says(&words(&report, "0000:02:00.0"), &["went away", "vfio.wait="]);
    }
}

#[test]
fn what_vfio_pci_refuses_fails_with_the_kernels_reason() {
    let one = |errno| {
        let function = Function::new("0000:00:04.0", "8086:37c8", 0x0b_4000);
        Machine::new([function.refused_with(errno), Function::new("0000:00:05.0", "1:1", 0)])
    };
    for (errno, line, texts) in [
        (Errno::EINVAL, Line::V6_1, ["EINVAL", "denylist"]),
        (Errno::EBUSY, Line::V6_12, ["EBUSY", "sriov_numvfs"]),
        (Errno::EIO, Line::V7_2, ["EIO", "dmesg"]),
        // That kernel does not tell.
        (Errno::EBUSY, Line::V5_10, ["ENODEV", "dmesg"]),
    ] {
        let mut fake = one(errno).line(line).boot();
        let report = fake.bind("vfio.devs=00:04.0,00:05.0");
        assert_eq!(outcomes(&report), ["0000:00:04.0 failed", "0000:00:05.0 bound"], "{line:?}");
        assert_says(&words(&report, "0000:00:04.0"), &texts);
        // Taken all the same: no host driver gets it later.
        assert_eq!(fake.driver_override("0000:00:04.0").as_deref(), Some("vfio-pci"));
    }
}

#[test]
fn a_module_that_does_not_load_is_named_with_its_errno() {
    for (module, errno, text) in [
        ("vfio_pci", Errno::EPERM, "EPERM"),
        ("vfio", Errno::EKEYREJECTED, "EKEYREJECTED"),
        ("irqbypass", Errno::ENOEXEC, "ENOEXEC"),
        ("vfio_pci", Errno::ETIMEDOUT, "ETIMEDOUT"),
    ] {
        let mut fake = with_nouveau();
        fake.fault(Fault::InsertFails { module: module.into(), errno });
        let report = fake.bind("vfio.devs=01:00.0,00:14.0");
        assert_eq!(outcomes(&report), ["0000:00:14.0 failed", "0000:01:00.0 failed"], "{module}");
        assert_says(&words(&report, "0000:01:00.0"), &[module, text]);
        assert_eq!(fake.driver("0000:01:00.0").as_deref(), Some("nouveau"), "{module}: {text}");
    }
}

#[test]
fn without_vfio_iommu_type1_devices_are_bound_and_no_vm_can_have_them() {
    let mut fake = desktop().boot();
    let errno = Errno::EPERM;
    fake.fault(Fault::InsertFails { module: "vfio_iommu_type1".into(), errno });
    let report = fake.bind("vfio.devs=00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    assert_says(&obstacles(&report, "0000:00:14.0"), &["vfio_iommu_type1", "EPERM"]);
    assert_eq!(report.exit_status, 0);
}

#[test]
fn a_host_driver_that_holds_a_device_after_all_is_named() {
    // It cannot be unbound, and it does not hang: the write fails.
    let mut fake = with_nouveau();
    fake.fault(Fault::UnbindFails { driver: "nouveau".into(), errno: Errno::EPERM });
    let report = fake.bind("vfio.devs=01:00.0,00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:01:00.0 failed"]);
    assert_says(&words(&report, "0000:01:00.0"), &["nouveau has it"]);
    assert_eq!(device(&report, "0000:01:00.0").driver.as_deref(), Some("nouveau"));
}

#[test]
fn without_sysfs_it_is_an_error_that_names_the_folder_and_nothing_is_written() {
    let mut fake = desktop().boot();
    fs::remove_dir_all(fake.tree.root().join("sys")).expect("the folder is there");
    fs::create_dir(fake.tree.root().join("sys")).expect("a mount point");
    let why = fake.try_bind(b"vfio.devs=00:14.0").expect_err("there is no PCI bus");
    assert_says(&why.to_string(), &["/sys/bus/pci"]);
    assert_eq!(fake.take_lines(), [""; 0]);
}

#[test]
fn without_proc_devices_are_bound_all_the_same() {
    let mut fake = desktop().boot();
    fs::remove_dir_all(fake.tree.root().join("proc")).expect("the folder is there");
    let report = fake.bind("vfio.devs=00:14.0");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"]);
    assert_eq!(report.warnings, [""; 0]);
    assert!(fake.sysfs().cmdline().is_err());
    assert_eq!(fake.sysfs().kernel_release(), None);
}

#[test]
fn a_probe_that_hangs_while_the_driver_is_loaded_fails_its_device_and_no_other() {
    let mut fake = desktop().boot();
    fake.fault(Fault::ProbeHangs { address: "0000:00:14.0".into() });
    let report = fake.bind("vfio.devs=00:14.0,01:00.*");
    assert_eq!(
        outcomes(&report),
        ["0000:00:14.0 failed", "0000:01:00.0 bound", "0000:01:00.1 bound"]
    );
}

#[test]
fn a_probe_that_hung_in_an_earlier_run_is_not_taken_for_a_bound_device() {
    for line in Line::ALL {
        for loaded in [false, true] {
            let mut fake = desktop().line(line).boot();
            if loaded {
                fake.load("vfio-pci");
            }
            fake.fault(Fault::ProbeHangs { address: "0000:00:14.0".into() });
            for run in 1..=2 {
                let report = fake.bind("vfio.devs=00:14.0,01:00.*");
                let expected = ["0000:00:14.0 failed", "0000:01:00.0 bound", "0000:01:00.1 bound"];
                assert_eq!(outcomes(&report), expected, "{line:?}, {loaded}, run {run}");
            }
        }
    }
}

#[test]
fn after_an_unbind_that_hangs_nobody_is_told_to_mount_sys() {
    let mut fake = with_nouveau();
    fake.fault(Fault::UnbindHangs { driver: "nouveau".into() });
    fake.bind("vfio.devs=01:00.0");
    let report = fake.bind("vfio.devs=01:00.0");
    assert!(!words(&report, "0000:01:00.0").contains("/sys must be writable"), "{report:#?}");
}

#[test]
fn a_module_is_named_as_the_kernel_or_as_its_driver_is() {
    let mut fake = desktop().boot();
    let report = fake.bind("vfio.devs=00:14.0 vfio.driver=vfio_pci");
    assert_eq!(outcomes(&report), ["0000:00:14.0 bound"], "{report:#?}");
}
