//! What is other on kernels that have vfio built in or without groups, and on one that is locked
//! down.

use crate::check::Boot;
use crate::check::prediction::Unforeseen;
use crate::check::trial::{self, Check, Trial};
use crate::machine::vm::Vm;
use crate::supplies::kernels::{BUILT_IN, CDEV};

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    trial::boots(&all())
}

fn all() -> Vec<Trial> {
    vec![
        Trial {
            name: "without groups a VM takes a device by iommufd, unless the host has its sibling",
            kernels: &[CDEV],
            programs: &["by-iommufd"],
            unforeseen: &[],
            machine: without_groups,
            expect: without_groups_expected,
        },
        Trial::new(
            "where vfio is built in nothing is loaded, and an override alone binds nothing",
            &[BUILT_IN],
            built_in,
            built_in_expected,
        ),
        Trial {
            name: "a kernel that is locked down takes no vfio-pci without a signature",
            kernels: &["6.1"],
            programs: &[],
            unforeseen: &[(
                1,
                CARD,
                Unforeseen {
                    expected: "bound to vfio-pci",
                    why: "the kernel looks at a signature when it gets the module",
                },
            )],
            machine: locked_down,
            expect: locked_down_expected,
        },
    ]
}

const CARD: &str = "0000:00:03.0";
const PARTNER: &str = "0000:00:06.0";

/// The name of a device's own file is in its folder.
fn take(address: &str) -> String {
    format!("by-iommufd \"$(ls /sys/bus/pci/devices/{address}/vfio-dev)\" 2>&1")
}

fn without_groups(machine: Vm) -> Vm {
    machine
        .device("edu", "03.0")
        .device("edu", "06.0")
        .device("nvme", "06.1")
        .cmdline("vfio.devs=00:03.0,00:06.0")
        .run(["bind"])
        .shell("ls /dev/vfio /dev/iommu; ls /sys/class/vfio /sys/module/vfio_iommu_type1 2>&1")
        .shell(&format!("{}; {}", take(CARD), take(PARTNER)))
        .load(["nvme"])
        .shell(&format!("{}; {}", take(CARD), take(PARTNER)))
        .run(["bind"])
}

fn without_groups_expected(check: &mut Check<'_>) {
    let files = check.shell(1);
    let has_no_groups = files.contains("devices\n") && files.matches("No such file").count() == 2;
    check.is(
        has_no_groups && files.contains("/dev/iommu\n"),
        format!("the kernel is not as it should be: {files}"),
    );
    let before = check.shell(2);
    check.is(before == "taken\ntaken\n", format!("before the host's driver comes: {before}"));
    let after = check.shell(3);
    check.is(after == "taken\nbind: EPERM\n", format!("after the host's driver came: {after}"));
    for run in [1, 2] {
        let seen = check.of_run(run).exits(0);
        let seen = seen.device(CARD, "bound", &[]).device(PARTNER, "bound", &[]);
        let seen = seen.says(&[PARTNER, "also has 0000:00:06.1", "no VM can have the group"]);
        seen.says_nothing_of("vfio_iommu_type1");
    }
}

fn built_in(machine: Vm) -> Vm {
    machine
        .device("edu", "03.0")
        .cmdline("vfio.devs=00:03.0")
        .shell(
            "cd /sys/bus/pci/devices/0000:00:03.0 && echo vfio-pci >driver_override && \
             ls -d /sys/bus/pci/drivers/vfio-pci driver 2>&1",
        )
        .run(["bind"])
        .shell("cat /proc/modules; ls /dev/vfio")
}

fn built_in_expected(check: &mut Check<'_>) {
    let before = check.shell(1);
    check.is(
        before.contains("/drivers/vfio-pci\n") && before.contains("driver: No such file"),
        format!("the driver is not there, or has the device: {before}"),
    );
    check.of_run(1).exits(0).device(CARD, "bound", &[]);
    let after = check.shell(2);
    let words: Vec<&str> = after.split_whitespace().collect();
    let [group, "devices", "vfio"] = words[..] else {
        return check.complain(format!("modules were loaded, or there is no file: {after}"));
    };
    check.is(group.parse::<u32>().is_ok(), format!("there is no file for the group: {after}"));
}

fn locked_down(machine: Vm) -> Vm {
    // A signed module ends with a line of 28 bytes that says so (MODULE_SIG_STRING).
    let cut = "module=$(find /lib/modules -name vfio-pci.ko) && cp \"$module\" /tmp/signed && \
               tail -c 28 \"$module\" && size=$(stat -c %s \"$module\") && \
               dd if=/tmp/signed of=\"$module\" bs=$((size - 28)) count=1 2>/dev/null && \
               mount -t securityfs none /sys/kernel/security && \
               cat /sys/kernel/security/lockdown";
    machine
        .device("edu", "03.0")
        .cmdline("lockdown=integrity vfio.devs=00:03.0")
        .shell(cut)
        .run(["bind"])
        .shell("cat /tmp/signed >\"$(find /lib/modules -name vfio-pci.ko)\" && echo signed")
        .run(["bind"])
}

fn locked_down_expected(check: &mut Check<'_>) {
    let said = check.shell(1);
    check.is(
        said.starts_with("~Module signature appended~\n") && said.contains("[integrity]"),
        format!("the module was not signed, or the kernel is not locked down: {said}"),
    );
    let why = "loading vfio_pci: Operation not permitted (EPERM), as lockdown does";
    check.of_run(1).exits(1).device(CARD, "failed", &[why]);
    check.is(check.shell(2) == "signed\n", "the signed module did not come back");
    check.of_run(2).exits(0).device(CARD, "bound", &[]);
}
