//! What goes wrong around the binary: each time there is an outcome, a message, and the boot comes
//! to its end.

use crate::check::Boot;
use crate::check::prediction::Unforeseen;
use crate::check::trial::{self, Check, Trial};
use crate::machine::topology::{Device, SUBSYSTEM};
use crate::machine::vm::Vm;
use crate::supplies::kernels::NIXOS;

const KERNELS: &[&str] = &["6.1", "6.12"];

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    trial::boots(&all())
}

fn all() -> Vec<Trial> {
    vec![
        Trial::new(
            "an initrd without what it usually has mounted gets messages and no panic",
            KERNELS,
            poor_initrd,
            poor_initrd_expected,
        ),
        Trial::new(
            "without file descriptors there is a message and no panic",
            KERNELS,
            few_descriptors,
            few_descriptors_expected,
        ),
        Trial {
            name: "what is in use, lets go of nothing, or goes away spoils nothing else",
            kernels: KERNELS,
            programs: &["hold-port", "interrupt"],
            unforeseen: &[(
                1,
                PORT,
                Unforeseen {
                    expected: "bound to vfio-pci",
                    why: "the driver of a port that is open does not let go of it",
                },
            )],
            machine: in_use,
            expect: in_use_expected,
        },
        Trial::new(
            "an SR-IOV device with virtual functions on stays with the host",
            KERNELS,
            virtual_functions,
            virtual_functions_expected,
        ),
        Trial::new("what ids= gives away besides is told", &["6.1"], by_ids, by_ids_expected),
        Trial::new(
            "iommufd and the device's own file are there",
            &[NIXOS],
            device_files,
            device_files_expected,
        ),
        Trial::new(
            "modules go in side by side, and a broken one stops those that need it",
            &["5.10", "6.1", "6.12", "7.2"],
            side_by_side,
            side_by_side_expected,
        ),
        Trial {
            name: "killed before any of its writes and run again it comes to the same end",
            kernels: KERNELS,
            programs: &["interrupt"],
            unforeseen: &[],
            machine: kill_matrix,
            expect: kill_matrix_expected,
        },
    ]
}

/// Runs a line of shell in a mount namespace of its own, which ends with the binary's run for one
/// device.
fn in_namespace(machine: Vm, line: &str) -> Vm {
    machine.run_by(["unshare", "-m", "sh", "-c", line])
}

const BIND: &str = "/bin/vfio-early bind --cmdline vfio.devs=";

/// Two of one id, and two of another; one of each is asked for.
fn by_ids(machine: Vm) -> Vm {
    machine
        .device("e1000e", "03.0")
        .device("e1000e", "04.0")
        .device("qemu-xhci", "05.0")
        .device("qemu-xhci", "06.0")
        .cmdline("vfio-pci.ids=8086:10d3 vfio.devs=8086:10d3@00:03.0,1b36:000d@00:05.0")
        .file("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=1b36:000d\n")
}

/// The kernel's module takes the last `ids=`, and libkmod puts that of the command line last.
fn by_ids_expected(check: &mut Check<'_>) {
    let on_command_line = "vfio_pci.ids= on the kernel command line gives away what";
    check
        .of_run(1)
        .exits(0)
        .driver("0000:00:03.0", Some("vfio-pci"))
        .driver("0000:00:04.0", Some("vfio-pci"))
        .says(&[on_command_line, ": 0000:00:04.0 8086:10d3; remove it"])
        .driver("0000:00:06.0", None)
        .says_nothing_of("0000:00:06.0");
}

/// One device a run: each starts with one that is nobody's.
fn poor_initrd(mut machine: Vm) -> Vm {
    for slot in 3..12 {
        machine = machine.device("edu", &format!("{slot:02x}.0"));
    }
    // A root of its own, with all but /run.
    let root = "mount -t tmpfs root /tmp && cd /tmp && mkdir bin dev etc lib proc sys && \
                cp /bin/vfio-early bin && mount --bind /lib lib && mount --bind /dev dev && \
                mount --bind /proc proc && mount --bind /sys sys && touch etc/initrd-release && \
                exec chroot .";
    let lines = [
        format!("mount -o remount,bind,ro /sys && exec {BIND}00:03.0"),
        "umount -l /sys && exec /bin/vfio-early bind --cmdline vfio.devs=00:04.0".to_owned(),
        "umount -l /proc && exec /bin/vfio-early".to_owned(),
        format!("umount -l /proc && exec {BIND}00:05.0"),
        format!("{root} {BIND}00:06.0"),
        format!("mount -t tmpfs dev /dev && exec {BIND}00:07.0"),
        format!(
            "mkdir -p /run/vfio-early && mount -t tmpfs -o size=4k full /run/vfio-early && \
             dd if=/dev/zero of=/run/vfio-early/full bs=4k count=1 2>/dev/null; \
             {BIND}00:08.0; status=$?; ls -A /run/vfio-early; exit $status"
        ),
        format!(
            "mount -t tmpfs run /run && ln -s /tmp/nowhere /run/vfio-early && exec {BIND}00:09.0"
        ),
        format!(
            "mount -t tmpfs run /run && mkdir -p /tmp/elsewhere && \
             ln -s /tmp/elsewhere /run/vfio-early && \
             {BIND}00:0a.0; status=$?; ls -A /tmp/elsewhere; exit $status"
        ),
        format!("exec {BIND}00:0b.0"),
    ];
    lines.iter().fold(machine, |machine, line| in_namespace(machine, line))
}

/// The first run finds something else in the place of a module that others need.
fn side_by_side(machine: Vm) -> Vm {
    let broken = format!(
        "echo broken >/tmp/broken && \
         mount --bind /tmp/broken $(find /lib/modules/ -name 'irqbypass.ko*') && \
         {BIND}00:03.0,00:04.0; status=$?; dmesg | grep 'Unknown symbol'; ls /sys/module | \
         grep vfio; exit $status"
    );
    in_namespace(machine.processors(2).device("edu", "03.0").device("edu", "04.0"), &broken).run([
        "bind",
        "--cmdline",
        "vfio.devs=00:03.0,00:04.0",
    ])
}

fn side_by_side_expected(check: &mut Check<'_>) {
    let texts = ["loading irqbypass", "Exec format error (ENOEXEC)"];
    check
        .of_run(1)
        .exits(1)
        .device("0000:00:03.0", "failed", &texts)
        .device("0000:00:04.0", "failed", &texts)
        // Nothing that needs it was tried; what does not need it is there.
        .prints_no("Unknown symbol")
        .prints_no("vfio_pci")
        .prints("vfio_iommu_type1");
    check.of_run(2).exits(0).device("0000:00:03.0", "bound", &[]).device(
        "0000:00:04.0",
        "bound",
        &[],
    );
}

fn poor_initrd_expected(check: &mut Check<'_>) {
    check
        .of_run(1)
        .exits(1)
        .device("0000:00:03.0", "failed", &["Read-only file system (EROFS)", "must be writable"])
        .driver("0000:00:03.0", None)
        .override_of("0000:00:03.0", None);
    check
        .of_run(2)
        .exits(1)
        .says(&["no device is bound", "/sys/bus/pci", "mount /sys before vfio-early"])
        .driver("0000:00:04.0", None);
    check.of_run(3).exits(1).says(&["no command line", "mount /proc before vfio-early"]);
    check.of_run(4).exits(0).device("0000:00:05.0", "bound", &[]);
    check
        .of_run(5)
        .exits(0)
        .says(&["no report in /run/vfio-early", "No such file or directory"])
        .driver("0000:00:06.0", Some("vfio-pci"));
    check
        .of_run(6)
        .exits(0)
        .says(&["0000:00:07.0", "bound to vfio-pci"])
        .driver("0000:00:07.0", Some("vfio-pci"));
    check
        .of_run(7)
        .exits(0)
        .says(&["no report in /run/vfio-early", "No space left on device"])
        .driver("0000:00:08.0", Some("vfio-pci"))
        .prints("full\n");
    check
        .of_run(8)
        .exits(0)
        .says(&["no report in /run/vfio-early"])
        .driver("0000:00:09.0", Some("vfio-pci"));
    // A link in the folder's place is not followed, wherever it leads.
    check
        .of_run(9)
        .exits(0)
        .says(&["no report in /run/vfio-early", "it is no folder: remove it"])
        .prints_no("report.json")
        .driver("0000:00:0a.0", Some("vfio-pci"));
    check.of_run(10).exits(0).device("0000:00:0b.0", "bound", &[]);
}

/// Descriptors 0 to 2 are there always.
const FEWEST: usize = 3;
const MOST: usize = 10;

fn few_descriptors(mut machine: Vm) -> Vm {
    for number in FEWEST..=MOST {
        machine = machine.device("edu", &format!("{number:02x}.0")).run_by([
            "sh",
            "-c",
            &format!("ulimit -n {number}; exec {BIND}00:{number:02x}.0"),
        ]);
    }
    machine
}

fn few_descriptors_expected(check: &mut Check<'_>) {
    for number in FEWEST..=MOST {
        let address = format!("0000:00:{number:02x}.0");
        check.of_run(number - FEWEST + 1).tells_the_truth_about(&address);
    }
    check.of_run(1).exits(1).says(&["(os error 24)"]);
    check.of_run(MOST - FEWEST + 1).exits(0);
}

const PORT: &str = "0000:00:03.0";
const DISK: &str = "0000:00:04.0";
const CARD: &str = "0000:00:05.0";

/// A serial port that a program watches, a mounted disk, a network card with an address, and
/// devices that go away: before their override is written, and after it.
fn in_use(machine: Vm) -> Vm {
    let all = "vfio.devs=00:03.0,1b36:0010@00:04.0,8086:10d3@00:05.0,00:06.0";
    let gone = |number: &str, slot: &str, items: &str| {
        let remove = format!("echo 1 >/sys/bus/pci/devices/0000:00:{slot}.0/remove");
        let items = format!("vfio.devs={items}");
        ["interrupt", number, &remove, "/bin/vfio-early", "bind", "--cmdline", &items]
            .map(str::to_owned)
    };
    machine
        .device("pci-serial", "03.0")
        .with(Device::new("nvme", "04.0").option("drive=data"))
        .disk("data")
        .device("e1000e", "05.0")
        .device("edu", "06.0")
        .device("edu", "07.0")
        .device("edu", "08.0")
        .device("edu", "09.0")
        .device("edu", "0a.0")
        .load(["nvme", "e1000e", "crc32c_generic", "ext4"])
        .shell(
            "until [ -e /dev/nvme0n1 ]; do sleep 0.1; done; mke2fs -F /dev/nvme0n1 >/dev/null && \
             mkdir /tmp/disk && mount -t ext4 /dev/nvme0n1 /tmp/disk && \
             ip link set eth0 up && ip address add 192.0.2.1/24 dev eth0 && echo ready",
        )
        .shell(
            "port=$(ls -l /sys/class/tty | sed -n 's#.*0000:00:03.0.*/##p'); hold-port /dev/$port & \
             echo $! >/tmp/holder; \
             until grep '(hold-port) S' /proc/$!/stat || [ ! -e /proc/$! ]; do sleep 0.1; done",
        )
        .check(["--cmdline", all])
        // The port is let go right afterwards: while the unbind hangs, whoever reads the override
        // hangs with it, such as the harness.
        .run_by([
            "sh",
            "-c",
            &format!(
                "/bin/vfio-early bind --cmdline {all}; status=$?; \
                 kill -9 $(cat /tmp/holder); \
                 cat /sys/bus/pci/devices/{PORT}/driver_override; exit $status"
            ),
        ])
        // From here it is not seen any more.
        .shell(
            "unshare -m sh -c 'echo $$ >/tmp/elsewhere; exec sleep 1000' & \
             until grep -s . /tmp/elsewhere && grep '(sleep) S' /proc/$!/stat; do sleep 0.1; done; \
             umount /tmp/disk && echo elsewhere",
        )
        .run(["bind", "--cmdline", "vfio.devs=1b36:0010@00:04.0"])
        // swapon fails for as long as the file system has the disk.
        .shell(
            "kill $(cat /tmp/elsewhere); mkswap /dev/nvme0n1; \
             until swapon /dev/nvme0n1; do sleep 0.1; done; swapoff /dev/nvme0n1; \
             ip address flush dev eth0; ip link set eth0 down; echo released",
        )
        .run(["bind", "--cmdline", all])
        .run_by(gone("2", "07", "00:07.0,00:08.0"))
        .run_by(gone("3", "09", "00:09.0,00:0a.0"))
}

fn in_use_expected(check: &mut Check<'_>) {
    let words = ["ready", "(hold-port) S", "elsewhere", "released"];
    for (number, word) in (1..).zip(words) {
        let said = check.shell(number);
        check.is(said.contains(word), format!("shell {number} says {said:?}"));
    }
    check
        .of_run(1)
        .exits(1)
        .device(PORT, "failed", &["serial does not let go of it", "the unbind hangs"])
        .device(DISK, "refused", &["nvme0n1 is mounted on /tmp/disk"])
        .driver(DISK, Some("nvme"))
        .override_of(DISK, None)
        .device(CARD, "refused", &["eth0 has an address"])
        .driver(CARD, Some("e1000e"))
        .override_of(CARD, None)
        .device("0000:00:06.0", "bound", &[])
        .takes_at_most(60);
    check
        .of_run(2)
        .exits(1)
        .device(DISK, "refused", &["a pool has it, or it is mounted where that is not seen"])
        .driver(DISK, Some("nvme"));
    check
        .of_run(3)
        .exits(0)
        .device(PORT, "bound", &[])
        .device(DISK, "bound", &[])
        .device(CARD, "bound", &[])
        .device("0000:00:06.0", "bound", &[]);
    check
        .of_run(4)
        .exits(1)
        .says(&["interrupt: write 2: write", "0000:00:07.0/driver_override"])
        .device("0000:00:07.0", "failed", &["the device went away", "vfio.wait=10"])
        .device("0000:00:08.0", "bound", &[]);
    check
        .of_run(5)
        .exits(1)
        .says(&["interrupt: write 3: write", "0000:00:0a.0/driver_override"])
        .device("0000:00:09.0", "failed", &["the device went away"])
        .device("0000:00:0a.0", "bound", &[]);
}

const PARENT: &str = "0000:01:00.0";

fn virtual_functions(machine: Vm) -> Vm {
    let all = "vfio.devs=1b36:0010@01:00.0,00:03.0";
    machine
        .arguments(SUBSYSTEM)
        .with(Device::new("pcie-root-port", "02.0").named("port"))
        .with(Device::new("nvme", "00.0").below("port").virtual_functions())
        .device("edu", "03.0")
        .load(["nvme"])
        .shell(
            "cd /sys/bus/pci/devices/0000:01:00.0 && echo 0 >sriov_drivers_autoprobe && \
             echo 2 >sriov_numvfs && cat sriov_numvfs && ls -d virtfn*",
        )
        .run(["bind", "--cmdline", all])
        .shell("echo 0 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs && echo off")
        .run(["bind", "--cmdline", all])
}

fn virtual_functions_expected(check: &mut Check<'_>) {
    let said = check.shell(1);
    check.is(said.contains("virtfn1"), format!("there are no virtual functions: {said}"));
    check
        .of_run(1)
        .exits(1)
        .device(PARENT, "refused", &["2 virtual functions", "sriov_numvfs"])
        .driver(PARENT, Some("nvme"))
        .override_of(PARENT, None)
        .device("0000:00:03.0", "bound", &[]);
    check.of_run(2).exits(0).device(PARENT, "bound", &[]).device("0000:00:03.0", "bound", &[]);
}

fn device_files(machine: Vm) -> Vm {
    machine
        .device("edu", "03.0")
        .cmdline("vfio.devs=00:03.0")
        .run(["bind"])
        .shell("ls /sys/bus/pci/devices/0000:00:03.0/vfio-dev; ls /dev/vfio/devices /dev/iommu")
}

fn device_files_expected(check: &mut Check<'_>) {
    check.of_run(1).exits(0).device("0000:00:03.0", "bound", &[]);
    let said = check.shell(1);
    let same = said.matches("vfio0\n").count() == 2;
    check.is(same && said.contains("/dev/iommu\n"), format!("the files are not there: {said}"));
}

const MATRIX: &str = include_str!("../guest/kill-matrix");

fn kill_matrix(machine: Vm) -> Vm {
    // Loading modules takes long where they are compressed.
    let step = if machine.kernel() == "6.1" { 1 } else { 2 };
    machine
        .device("pci-serial", "03.0")
        .device("edu", "04.0")
        .device("e1000e", "05.0")
        .load(["e1000e"])
        .file("/harness/kill-matrix", MATRIX)
        .limit(std::time::Duration::from_mins(5))
        .run(["bind", "--cmdline", "vfio.off"])
        .shell(&format!("sh /harness/kill-matrix {step}"))
}

fn kill_matrix_expected(check: &mut Check<'_>) {
    let said = check.shell(1);
    let points: Vec<&str> = said.lines().filter(|line| line.starts_with("point ")).collect();
    check.is(points.len() >= 8, format!("only {} points:\n{said}", points.len()));
    check.is(
        points.iter().all(|line| line.ends_with(": same")) && said.contains("\nall points\n"),
        format!("not the same end everywhere:\n{said}"),
    );
    if points.len() < 15 {
        return;
    }
    for part in ["driver_override", "/unbind", "finit_module", "drivers_probe", "rename"] {
        check.is(
            points.iter().any(|line| line.contains(part)),
            format!("no point is before a write to {part}:\n{said}"),
        );
    }
}
