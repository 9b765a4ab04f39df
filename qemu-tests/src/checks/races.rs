//! What others do while the binary is at work: `tests/model` explores all orders over the fake
//! kernel, and what it found is here in real ones.

use std::time::Duration;

use crate::check::Boot;
use crate::check::trial::{self, Check, Trial};
use crate::machine::topology::Device;
use crate::machine::vm::Vm;

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    trial::boots(&all())
}

fn all() -> Vec<Trial> {
    let trial = |kernels, machine| Trial {
        name: "drivers that come, and disks that are mounted, while it is at work",
        kernels,
        programs: &["interrupt"],
        unforeseen: &[],
        machine,
        expect: at_work_expected,
    };
    vec![
        trial(&["5.10", "6.1", "6.12"], |machine| {
            at_work(machine.load(["nvme", "crc32c_generic", "ext4"]))
        }),
        // Checksums are no module of their own there.
        trial(&["7.2"], |machine| at_work(machine.load(["nvme", "ext4"]))),
    ]
}

const CARD: &str = "0000:00:03.0";
const DISK: &str = "0000:00:04.0";

/// A driver that comes when the machine has been read and no override is written yet, and a disk
/// that is mounted then.
fn at_work(machine: Vm) -> Vm {
    let interrupted = |line: &str, items: &str| {
        let items = format!("vfio.devs={items}");
        // The first write is that of the override, after the folder of the lock.
        ["interrupt", "2", line, "/bin/vfio-early", "bind", "--cmdline", &items].map(str::to_owned)
    };
    let disk = "1b36:0010@00:04.0";
    machine
        .device("e1000e", "03.0")
        .with(Device::new("nvme", "04.0").option("drive=data"))
        .disk("data")
        .modules(["e1000e"])
        .limit(Duration::from_mins(5))
        .shell(
            "until [ -e /dev/nvme0n1 ]; do sleep 0.1; done; mke2fs -F /dev/nvme0n1 >/dev/null && \
             mkdir /tmp/disk && mount -t ext4 /dev/nvme0n1 /tmp/disk && \
             echo precious >/tmp/disk/file && umount /tmp/disk && echo ready",
        )
        .run_by(interrupted("modprobe e1000e", "8086:10d3@00:03.0"))
        .run_by(interrupted("mount -t ext4 /dev/nvme0n1 /tmp/disk", disk))
        .shell("echo 3 >/proc/sys/vm/drop_caches; cat /tmp/disk/file && umount /tmp/disk")
        .run(["bind", "--cmdline", &format!("vfio.devs={disk}")])
}

fn at_work_expected(check: &mut Check<'_>) {
    for (number, word) in [(1, "ready"), (2, "precious")] {
        let said = check.shell(number);
        check.is(said.contains(word), format!("shell {number} says {said:?}"));
    }
    check
        .of_run(1)
        .exits(0)
        .says(&["interrupt: write 2: write", "0000:00:03.0/driver_override"])
        .device(CARD, "bound", &[]);
    check
        .of_run(2)
        .exits(1)
        .says(&["interrupt: write 2: write", "0000:00:04.0/driver_override"])
        .device(DISK, "failed", &["nvme has it", "nvme0n1 is mounted on /tmp/disk"])
        .driver(DISK, Some("nvme"));
    check.of_run(3).exits(0).device(DISK, "bound", &[]);
}
