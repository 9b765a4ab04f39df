//! `vfio-early verify`: what it makes of the kernel's answers.

use std::cell::RefCell;

use nix::errno::Errno;
use vfio_early::cmdline;
use vfio_early::host::verify::{self, Options, Step, Verification, Verified};

use crate::fake::Fake;
use crate::machine::{self, Machine, desktop};

const CARD: &str = "01:00.0";
const BOTH: &str = "vfio.devs=10de:1c03@01:00.0,01:00.1";

/// A host on which both functions of the card are with vfio, and their group has a file.
fn given(machine: &Machine) -> Fake {
    let mut fake = machine.boot();
    fake.bind(BOTH);
    fake.tree.write("dev/vfio/2", "");
    fake
}

/// A kernel that lets all pass up to a step (by its words), which fails so; and what was asked of it.
struct Kernel {
    fails: Option<(&'static str, Errno)>,
    asked: RefCell<Vec<Vec<String>>>,
}

impl Kernel {
    fn failing(step: &'static str, errno: Errno) -> Self {
        Kernel { fails: Some((step, errno)), asked: RefCell::default() }
    }

    fn well() -> Self {
        Kernel { fails: None, asked: RefCell::default() }
    }

    fn attempt(&self, steps: &[Step]) -> Vec<Result<(), Errno>> {
        let words: Vec<_> = steps.iter().map(Step::to_string).collect();
        let mut result = Ok(());
        let mut results = Vec::new();
        for step in &words {
            if let Some((failing, errno)) = self.fails
                && step.starts_with(failing)
            {
                result = Err(errno);
            }
            results.push(result);
        }
        self.asked.borrow_mut().push(words);
        results
    }

    fn verify(&self, fake: &Fake, filters: &[&str], options: &Options) -> Verification {
        let sysfs = fake.sysfs();
        let machine = sysfs.whole_machine().expect("the PCI bus can be read");
        let filters: Vec<_> = filters.iter().map(|text| text.parse().expect(text)).collect();
        let request = cmdline::parse(&sysfs.cmdline().expect("a command line"));
        let chosen = verify::choose(&filters, &request, &machine);
        let attempt = |steps: &[Step]| self.attempt(steps);
        verify::verify(chosen, options, &machine, &sysfs, &attempt)
    }
}

/// All that is given there, on a kernel that lets all pass.
pub fn example(fake: &Fake) -> Verification {
    fake.tree.write("dev/vfio/20", "");
    Kernel::well().verify(fake, &["00:14.0"], &Options::default())
}

fn only(found: &Verification) -> &Verified {
    assert_eq!(found.devices.len(), 1, "{found:#?}");
    &found.devices[0]
}

fn said(found: &Verification) -> String {
    found.to_string()
}

#[test]
fn all_steps_are_tried_in_qemus_order_and_the_device_is_left_alone() {
    let fake = given(&desktop());
    let kernel = Kernel::well();
    let found = kernel.verify(&fake, &[CARD], &Options::default());
    assert_eq!((only(&found).usable, found.exit_status), (true, 0));
    assert_eq!(
        kernel.asked.borrow()[0],
        [
            "open /dev/vfio/2",
            "VFIO_GROUP_GET_STATUS",
            "open /dev/vfio/vfio",
            "VFIO_CHECK_EXTENSION",
            "VFIO_GROUP_SET_CONTAINER",
            "VFIO_GROUP_GET_STATUS",
            "VFIO_SET_IOMMU",
            "VFIO_IOMMU_GET_INFO",
            "the map of 2 MiB",
            "the unmap of 2 MiB",
        ]
    );
    let expected = "0000:01:00.0 10de:1c03: a VM can have it: tried up to the unmap of 2 MiB\n";
    assert_eq!(said(&found), expected);
    // Only where it is asked for.
    let found = kernel.verify(&fake, &[CARD], &Options { open: true, ..Options::default() });
    assert!(only(&found).usable);
    let asked = kernel.asked.borrow();
    let [.., open, read] = &asked[1][..] else { panic!("{asked:?}") };
    assert_eq!(
        (&**open, &**read),
        ("VFIO_GROUP_GET_DEVICE_FD 0000:01:00.0", "the configuration space")
    );
}

#[test]
fn a_group_is_tried_once() {
    let fake = given(&desktop());
    let kernel = Kernel::well();
    let found = kernel.verify(&fake, &["01:00.*"], &Options::default());
    assert_eq!((found.devices.len(), kernel.asked.borrow().len()), (2, 1));
    assert!(found.devices.iter().all(|device| device.usable), "{found:#?}");
    let kernel = Kernel::failing("VFIO_SET_IOMMU", Errno::EPERM);
    let found = kernel.verify(&fake, &["01:00.*"], &Options::default());
    assert!(found.devices.iter().all(|it| !it.usable && !it.obstacles.is_empty()), "{found:#?}");
}

#[test]
fn what_is_on_no_vfio_driver_is_not_touched() {
    let mut fake = given(&desktop());
    fake.load("xhci_hcd");
    let kernel = Kernel::well();
    for (filter, text) in [("00:14.0", "xhci_hcd has it"), ("00:19.0", "no driver has it")] {
        let found = kernel.verify(&fake, &[filter], &Options::default());
        assert_eq!((only(&found).usable, found.exit_status), (false, 1));
        assert!(said(&found).contains(text), "{}", said(&found));
    }
    assert_eq!(kernel.asked.borrow().len(), 0);
}

#[test]
fn what_fits_no_device_is_told() {
    let fake = given(&desktop());
    let found = Kernel::well().verify(&fake, &[CARD, "05:00.0"], &Options::default());
    assert!(only(&found).usable);
    assert_eq!((&found.missing[..], found.exit_status), (&["05:00.0".to_owned()][..], 1));
    assert!(said(&found).ends_with("\n\"05:00.0\": no device here is that\n"), "{}", said(&found));
    // Of the boot's own list, too.
    let fake = given(&desktop().command_line("vfio.devs=01:00.0,8086:1@01:00.1,x"));
    let found = Kernel::well().verify(&fake, &[], &Options::default());
    assert_eq!((only(&found).usable, found.exit_status), (true, 1));
    assert_eq!(found.missing, ["8086:1@01:00.1", "x"]);
}

#[test]
fn nothing_is_tried_beside_udev() {
    let fake = given(&desktop());
    fake.tree.write("run/udev/queue", "");
    let kernel = Kernel::well();
    let found = kernel.verify(&fake, &[CARD], &Options::default());
    assert!(!only(&found).usable && said(&found).contains("udevadm settle"), "{}", said(&found));
    assert_eq!(kernel.asked.borrow().len(), 0);
}

#[test]
fn without_a_filter_it_is_about_what_the_boot_asked_for_or_what_is_given() {
    for (command_line, count) in [(BOTH, 2), ("quiet", 2), ("vfio.devs=00:14.0", 1)] {
        let fake = given(&desktop().command_line(command_line));
        let found = Kernel::well().verify(&fake, &[], &Options::default());
        assert_eq!(found.devices.len(), count, "{command_line}");
    }
}

#[test]
fn who_has_the_group_is_proof_enough() {
    let fake = given(&desktop());
    fake.tree.write("proc/4711/comm", "qemu-system-x86\n");
    fake.tree.folder("proc/4711/fd");
    fake.tree.link("proc/4711/fd/12", "/dev/vfio/2");
    // Another VM, with another group.
    fake.tree.write("proc/4712/comm", "qemu-system-x86\n");
    fake.tree.folder("proc/4712/fd");
    fake.tree.link("proc/4712/fd/12", "/dev/vfio/3");
    fake.tree.link("proc/4712/fd/13", "/dev/vfio/vfio");
    let found = Kernel::failing("open /dev/vfio/2", Errno::EBUSY).verify(
        &fake,
        &[CARD],
        &Options::default(),
    );
    let device = only(&found);
    assert_eq!((device.usable, device.held_by.as_deref()), (true, Some("qemu-system-x86 (4711)")));
    assert_eq!(device.steps.len(), 1, "that is the end");
    assert!(said(&found).contains("a VM can have it: qemu-system-x86 (4711) has it"));
}

const RMRR: &str = "the firmware keeps memory";

/// Steps and errnos as 5.10, 6.1, 6.12 and 7.2 have them.
#[test]
fn what_sysfs_says_explains_what_the_kernel_answers() {
    let sibling = || {
        let mut fake = given(&desktop());
        fake.load("xhci_hcd");
        fake.tree.link_up(
            "kernel/iommu_groups/2/devices/0000:00:14.0",
            "devices/pci0000:00/0000:00:14.0",
        );
        std::fs::remove_file(
            fake.tree.root().join("sys/devices/pci0000:00/0000:00:14.0/iommu_group"),
        )
        .unwrap();
        fake.tree.link_up("devices/pci0000:00/0000:00:14.0/iommu_group", "kernel/iommu_groups/2");
        fake
    };
    let rmrr = || {
        let fake = given(&desktop());
        let regions = "0x0000000008000000 0x0000000008000fff direct\n";
        fake.tree.write("sys/kernel/iommu_groups/2/reserved_regions", regions);
        fake
    };
    let unmapped = || given(&Machine { remapping: Some(false), ..desktop() });
    let no_type1 = || given(&desktop().left_out("vfio_iommu_type1"));
    let well = || given(&desktop());
    for (fake, step, errno, at, text) in [
        (
            sibling(),
            "VFIO_GROUP_GET_STATUS",
            Errno::EPERM,
            "GET_STATUS (EPERM)",
            "xhci_hcd has 0000:00:14.0",
        ),
        (well(), "VFIO_GROUP_GET_STATUS", Errno::EPERM, "GET_STATUS (EPERM)", "see the kernel log"),
        (rmrr(), "VFIO_SET_IOMMU", Errno::EPERM, "SET_IOMMU (EPERM)", RMRR),
        (rmrr(), "VFIO_GROUP_SET_CONTAINER", Errno::EPERM, "SET_CONTAINER (EPERM)", RMRR),
        (rmrr(), "VFIO_GROUP_SET_CONTAINER", Errno::EINVAL, "SET_CONTAINER (EINVAL)", RMRR),
        (
            unmapped(),
            "VFIO_SET_IOMMU",
            Errno::EPERM,
            "SET_IOMMU (EPERM)",
            "allow_unsafe_interrupts=1",
        ),
        (no_type1(), "VFIO_CHECK_EXTENSION", Errno::ENODEV, "EXTENSION (ENODEV)", "is not loaded"),
        (well(), "open /dev/vfio/2", Errno::EACCES, "open /dev/vfio/2 (EACCES)", "as root"),
        (well(), "open /dev/vfio/vfio", Errno::EACCES, "open /dev/vfio/vfio (EACCES)", "as root"),
        (well(), "the map", Errno::ENOMEM, "the map of 2 MiB (ENOMEM)", "ulimit -l"),
        (well(), "VFIO_GROUP_SET_CONTAINER", Errno::ENODEV, "(ENODEV)", "unbound meanwhile"),
        (well(), "VFIO_SET_IOMMU", Errno::ETIMEDOUT, "(ETIMEDOUT)", "hangs"),
    ] {
        let found = Kernel::failing(step, errno).verify(&fake, &[CARD], &Options::default());
        let (device, words) = (only(&found), said(&found));
        assert!(!device.usable && found.exit_status == 4, "{step} {errno}: {words}");
        let last = device.steps.last().expect("a step").errno.clone();
        assert_eq!(last, Some(format!("{errno:?}")), "{step}");
        for text in [at, text] {
            assert!(words.contains(text), "{step} {errno}: {text:?} is not in {words}");
        }
    }
}

#[test]
fn the_kernel_has_the_last_word() {
    let fake = given(&desktop());
    fake.tree.write("sys/kernel/iommu_groups/2/reserved_regions", "0x1 0x2 direct\n");
    assert!(only(&Kernel::well().verify(&fake, &[CARD], &Options::default())).usable);
}

#[test]
fn with_iommufd_alone_sysfs_decides_unless_the_device_is_to_be_opened() {
    let by_iommufd = |fake: &Fake| {
        std::fs::remove_file(fake.tree.root().join("dev/vfio/2")).unwrap();
        fake.tree.write(
            "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/vfio-dev/vfio7/dev",
            "511:7\n",
        );
    };
    let fake = given(&desktop());
    by_iommufd(&fake);
    let kernel = Kernel::well();
    let found = kernel.verify(&fake, &[CARD], &Options::default());
    assert!(only(&found).usable && kernel.asked.borrow()[0].is_empty(), "{found:#?}");
    assert!(said(&found).contains("only --open, which resets it, tells more"), "{}", said(&found));
    let open = Options { open: true, ..Options::default() };
    let found = kernel.verify(&fake, &[CARD], &open);
    assert!(only(&found).usable);
    assert_eq!(
        kernel.asked.borrow()[1][..3],
        ["open /dev/vfio/devices/vfio7", "open /dev/iommu", "VFIO_DEVICE_BIND_IOMMUFD"]
    );
    let found = Kernel::failing("VFIO_DEVICE_BIND", Errno::EBUSY).verify(&fake, &[CARD], &open);
    assert_eq!(only(&found).held_by.as_deref(), Some("some process"));

    let fake =
        given(&Machine { remapping: Some(false), vfio: machine::Vfio::WithoutGroups, ..desktop() });
    by_iommufd(&fake);
    // It goes by iommufd's own option.
    for (module, usable) in [("vfio_iommu_type1", false), ("iommufd", true)] {
        let option = format!("sys/module/{module}/parameters/allow_unsafe_interrupts");
        fake.tree.write(&option, "Y\n");
        let found = Kernel::well().verify(&fake, &[CARD], &Options::default());
        assert_eq!(only(&found).usable, usable, "{module}: {found:#?}");
        assert_eq!(said(&found).contains("allow_unsafe_interrupts"), !usable, "{module}");
    }
}

#[test]
fn without_any_file_no_vm_can_have_it() {
    let fake = given(&desktop());
    std::fs::remove_file(fake.tree.root().join("dev/vfio/2")).unwrap();
    let found = Kernel::well().verify(&fake, &[CARD], &Options::default());
    assert!(!only(&found).usable && said(&found).contains("devtmpfs"), "{found:#?}");
}

#[test]
fn a_user_has_to_be_known_and_to_run_something() {
    let fake = given(&desktop());
    let options = |user: &str, memory: &str| Options {
        user: Some(user.to_owned()),
        memory: verify::memory(memory).expect(memory),
        ..Options::default()
    };
    // Who is root may lock all memory, whatever the limits say.
    fake.tree.write("etc/passwd", "root:x:0:0:::\n");
    let found = Kernel::well().verify(&fake, &[CARD], &options("root", "1G"));
    assert!(!said(&found).contains("may lock"), "{}", said(&found));
    let found = Kernel::well().verify(&fake, &[CARD], &options("nobody-here", "1G"));
    assert!(!only(&found).usable && found.exit_status == 4, "{found}");
    assert!(said(&found).contains("nobody-here is not in /etc/passwd"), "{found}");
    // This user may do what the tests may, and the files of the tree are none of /dev.
    let uid = nix::libc::uid_t::MAX - 7;
    fake.tree.write("etc/passwd", &format!("root:x:0:0:::\nalice:x:{uid}:{uid}::/:/bin/sh\n"));
    let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                  Max locked memory         8388608              8388608              bytes\n";
    for (process, uid, limits) in
        [("1", 0, "Max locked memory  unlimited  unlimited  bytes\n"), ("77", uid, limits)]
    {
        fake.tree.write(
            &format!("proc/{process}/status"),
            &format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        );
        fake.tree.write(&format!("proc/{process}/limits"), limits);
        fake.tree.write(&format!("proc/{process}/comm"), "bash\n");
    }
    let found = Kernel::well().verify(&fake, &[CARD], &options("alice", "1G"));
    let words = said(&found);
    assert!(
        words.contains("alice may lock 8 MiB of memory (bash (77)), and a VM of 1024 MiB"),
        "{words}"
    );
    let found = Kernel::well().verify(&fake, &[CARD], &options("alice", "8M"));
    assert!(!said(&found).contains("may lock"), "{}", said(&found));
    fake.tree.write("proc/77/status", "Uid:\t5\t5\t5\t5\n");
    let found = Kernel::well().verify(&fake, &[CARD], &options("alice", "1K"));
    assert!(said(&found).contains("warning: how much memory alice may lock is not"), "{found}");
}

#[test]
fn a_size_of_memory_has_a_unit() {
    for (text, expected) in [
        ("8G", Some(8 << 30)),
        ("512M", Some(512 << 20)),
        ("4096", Some(4096)),
        ("1T", Some(1 << 40)),
        ("2K", Some(2048)),
    ] {
        assert_eq!(verify::memory(text).ok(), expected, "{text}");
    }
    for text in ["", "G", "8g", "-1", "8 G", "18446744073709551615K"] {
        let why = verify::memory(text).expect_err(text);
        assert!(why.contains("no size of memory"), "{why}");
    }
}
