//! The Debian package in real roots of Debian, with the initrds that its trigger makes.

mod image;

use std::collections::BTreeSet;

use anyhow::Result;

use self::image::{Files, Image, PASSPHRASE};
use crate::check::Boot;
use crate::check::real_root::{
    self, AFTER_INITRD, DISK, NETWORK, Seen, USB, Wrong, bound, entries, in_the_real_root,
    in_the_real_root_on, one_bound_one_absent, root_disk_kept, root_disk_released, untouched,
    without_udev,
};
use crate::machine::distro::Suite;
use crate::machine::observed::{BEFORE, HOST};
use crate::machine::run::Run;
use crate::machine::screen::{Font, Screenshot};
use crate::machine::topology::Device;
use crate::machine::vm::Vm;
use crate::supplies::kernels::{self, Kernel};

/// One machine, or one look at what the package brings, and what comes out.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// A sentence.
    name: &'static str,
    check: Check,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Listed(fn(&Image, &mut Wrong)),
    Booted(fn(&Kernel, &Image) -> Vm, fn(&Seen, &mut Wrong)),
}

const GOING_ON: &str = "vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0,00:1e.0";
const STOPPING: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0";

/// Each with its kernel.
const SUITES: [(Suite, &str); 2] = [(Suite::Trixie, "6.12"), (Suite::Bookworm, "6.1")];

/// Those without a boot. What is made once takes a minute here.
pub(crate) fn listings() -> Vec<Boot> {
    let case = Case {
        name: "the package's trigger makes the initrd, and purged it leaves no trace",
        check: Check::Listed(listed),
    };
    SUITES.into_iter().map(|(suite, line)| case.on(suite, line)).collect()
}

/// Those with a boot.
pub(crate) fn boots() -> Vec<Boot> {
    let on = |(suite, line)| boots_of(suite).into_iter().map(move |case| case.on(suite, line));
    SUITES.into_iter().flat_map(on).collect()
}

fn boots_of(suite: Suite) -> Vec<Case> {
    let boots = |name, machine, check| Case { name, check: Check::Booted(machine, check) };
    let mut cases = vec![
        boots(
            "vfio.strict with an absent device stops the boot in a shell that can be used",
            stopping,
            stopped,
        ),
        boots(
            "devices are bound before udev starts; for an absent one the boot goes on",
            |kernel, image| machine(kernel, image).cmdline(GOING_ON),
            going_on,
        ),
        boots(
            "without vfio.devs= the boot is as without the package",
            |kernel, image| machine(kernel, image).cmdline("vfio.strict"),
            nothing,
        ),
    ];
    // Once is enough: cryptsetup asks, and the kernel shows it; and what is refused no tool sees.
    if suite == Suite::Bookworm {
        cases.extend([
            boots(
                "a passphrase is asked for on a living screen, with the boot card given away",
                |kernel, image| locked(kernel, image).cmdline("quiet harness.characters"),
                unlocked,
            ),
            boots(
                "a root disk that is listed by its address stays with the host",
                |kernel, image| {
                    machine(kernel, image).cmdline("vfio.devs=8086:10d3@00:03.0,00:02.0")
                },
                root_disk_kept,
            ),
            boots(
                "a root disk that is listed by its id stays with the host",
                |kernel, image| {
                    machine(kernel, image).cmdline("vfio.devs=8086:10d3@00:03.0,pci:1af4:1001")
                },
                root_disk_kept,
            ),
            boots(
                "a root disk that is listed by its group stays with the host",
                |kernel, image| {
                    machine(kernel, image).cmdline("vfio.devs=8086:10d3@00:03.0,group:00:02.0")
                },
                root_disk_kept,
            ),
            boots(
                "a root disk that is listed goes with vfio.host=release",
                |kernel, image| {
                    let released =
                        "vfio.devs=00:02.0 vfio.host=release rootdelay=5 panic= harness.collect";
                    machine(kernel, image).cmdline(released)
                },
                root_disk_released,
            ),
        ]);
    }
    cases
}

impl Case {
    fn on(self, suite: Suite, line: &'static str) -> Boot {
        Boot {
            name: format!("initramfs-tools: {}", self.name),
            kernel: line,
            check: Box::new(move |kernel, _, _| self.run(suite, kernel)),
        }
    }

    /// What is wrong, with all that helps.
    fn run(&self, suite: Suite, kernel: &Kernel) -> Result<(), String> {
        let image = image::set_up(suite, kernel).map_err(|error| format!("{error:#}"))?;
        match self.check {
            Check::Listed(check) => {
                let mut wrong = Wrong::default();
                check(&image, &mut wrong);
                if wrong.0.is_empty() { Ok(()) } else { Err(wrong.0.join("\n")) }
            }
            Check::Booted(machine, check) => real_root::boot(machine(kernel, &image), check),
        }
    }
}

fn machine(kernel: &Kernel, image: &Image) -> Vm {
    real_root::machine(kernel, &image.initrd, &image.root, [])
        .cmdline("root=/dev/vda rootfstype=ext4 rw")
}

/// The lines that only the one has, and those that only the other has.
fn differing<'a>(one: &'a str, other: &'a str) -> [Vec<&'a str>; 2] {
    let lines = |text: &'a str| text.lines().collect::<BTreeSet<_>>();
    let (one, other) = (lines(one), lines(other));
    [one.difference(&other).copied().collect(), other.difference(&one).copied().collect()]
}

fn listed(image: &Image, wrong: &mut Wrong) {
    let Image { before, installed, purged, .. } = image;
    let pairs = |one: &Files, other: &Files| {
        [("root", &one.root, &other.root), ("initrd", &one.initrd, &other.initrd)]
            .map(|(what, one, other)| (what, one.clone(), other.clone()))
    };
    for (what, before, purged) in pairs(before, purged) {
        let [gone, left] = differing(&before, &purged);
        wrong.unless(gone.is_empty(), format!("the {what} lacks after the purge {gone:?}"));
        wrong.unless(left.is_empty(), format!("the {what} has after the purge {left:?}"));
    }
    let [gone, brought] = differing(&before.initrd, &installed.initrd);
    // The lists of scripts and modules are longer.
    let gone: Vec<_> = gone
        .into_iter()
        .filter(|line| !line.ends_with("/ORDER") && !line.contains("/modules."))
        .collect();
    wrong.unless(gone.is_empty(), format!("the initrd lacks with the package {gone:?}"));
    for wanted in [
        "./usr/bin/vfio-early f 755 ",
        "./scripts/init-top/00-vfio-early f 755 ",
        "./scripts/init-premount/00-vfio-early-strict f 755 ",
        "./etc/vfio-early/keep f 644 ",
        "/vfio-pci.ko",
        "/vfio_iommu_type1.ko",
        // The machine has two displays of which one may have to stay.
        "/bochs.ko",
    ] {
        let is_there = brought.iter().any(|line| line.contains(wanted));
        wrong.unless(is_there, format!("the package does not bring {wanted} into the initrd"));
    }
    let [in_root, in_initrd] =
        [&installed.root, &installed.initrd].map(|files| files.contains("/cirrus.ko"));
    wrong.unless(
        in_root && !in_initrd,
        format!("the driver of a display on vfio-pci: in the root {in_root}, initrd {in_initrd}"),
    );
    let has_options = installed.initrd.contains("./etc/modprobe.d/harness.conf");
    wrong.unless(has_options, "modprobe.d is not in the initrd");
    let first =
        installed.order.lines().find(|line| !line.contains("harness") && line.contains('"'));
    wrong.unless(
        first.is_some_and(|line| line.starts_with("/scripts/init-top/00-vfio-early ")),
        format!("the first script of init-top is {first:?}"),
    );
}

fn going_on(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    without_udev(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &["absent"]);
    one_bound_one_absent(seen, wrong);
    let said = seen.run.log.iter().any(|record| record.text.contains("00:1e.0: absent"));
    wrong.unless(said, "the log does not say what is absent");
    let option = seen.run.parameters.get("vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    wrong.unless(
        option.is_some_and(|value| value == "Y"),
        format!("of the option in modprobe.d the module got {option:?}"),
    );
}

/// The disk is not there before the user of the shell, on a USB keyboard, has the bus scanned.
fn stopping(kernel: &Kernel, image: &Image) -> Vm {
    machine(kernel, image)
        .cmdline(STOPPING)
        // The user sits at tty0, and has `quiet`, as Debian's installer sets it: what the kernel says
        // of the keyboard, which comes up meanwhile, would push the words for him off the screen.
        .cmdline(&format!("harness.absent={DISK} console=tty0 quiet panic="))
        .arguments(["-device", "qemu-xhci,id=usb,addr=08.0", "-device", "usb-kbd,bus=usb.0"])
        .asks()
}

fn stopped(seen: &Seen, wrong: &mut Wrong) {
    for text in
        ["vfio.strict is given, and not all of vfio.devs= is known to be bound", "(initramfs)"]
    {
        let screen = seen.stopped;
        wrong.unless(screen.contains(text), format!("the screen did not show {text:?}: {screen}"));
    }
    without_udev(seen, wrong);
    // What is there is bound before udev; what is not, when the user has mended that and left the
    // shell. Then the boot goes on.
    for (moment, network, disk) in [
        (BEFORE, None, None),
        (AFTER_INITRD, Some("vfio-pci"), None),
        ("stopped", Some("vfio-pci"), None),
        (HOST, Some("vfio-pci"), Some("vfio-pci")),
    ] {
        let found = (seen.driver(moment, NETWORK), seen.driver(moment, DISK));
        wrong.unless(found == (network, disk), format!("{moment}: the drivers are {found:?}"));
    }
    in_the_real_root(seen, wrong);
    let status = seen.run.last();
    wrong.unless(
        status.status == 0 && status.stdout.matches("bound to vfio-pci").count() == 2,
        format!("`vfio-early status` ends with {}: {}", status.status, status.stdout),
    );
    wrong.unless(status.report_mode == "644", "the report is not for everybody to read");
}

fn nothing(seen: &Seen, wrong: &mut Wrong) {
    without_udev(seen, wrong);
    wrong.unless(seen.spoken().is_none(), "the program said something");
    untouched(seen, wrong);
}

/// The graphics card that the firmware draws on, and the one that stays with the host.
const BOOT_SCREEN: &str = "boot";
const OTHER_SCREEN: &str = "other";
/// The pictures of all characters, of the question, and after a wrong answer.
const CHARACTERS: &str = "characters";
const QUESTION: &str = "question";
const AGAIN: &str = "again";

/// Two graphics cards; the one with the firmware's screen is given away, and a network card.
fn locked(kernel: &Kernel, image: &Image) -> Vm {
    let card = |place, name| Device::new("VGA", place).named(name);
    let cards = [card("01.0", BOOT_SCREEN), card("07.0", OTHER_SCREEN)];
    real_root::machine(kernel, &image.initrd_encrypted, &image.encrypted, cards)
        .cmdline("root=/dev/mapper/host-root rootfstype=ext4 rw console=tty0")
        .cmdline("vfio.strict vfio.devs=00:01.0,8086:10d3@00:03.0")
        .cmdline(&format!("harness.passphrase={PASSPHRASE}"))
        .uefi()
        .display(BOOT_SCREEN)
        .display(OTHER_SCREEN)
        .asks()
}

fn unlocked(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root_on("/dev/mapper/host-root", seen, wrong);
    without_udev(seen, wrong);
    bound(seen, wrong, &["0000:00:01.0", NETWORK], &[]);
    let disk = "disk 1af4:1001@00:02.0  # vda is part of dm-0, and dm-0 is part of dm-1, and dm-1 is mounted on /\n";
    wrong.unless(
        entries(seen.lives_from) == disk,
        format!("`vfio-early keep` says {:?}", seen.lives_from),
    );
    if let Err(error) = question(seen.run, wrong) {
        wrong.0.push(format!("{error:#}"));
    }
}

/// The question on the display that stays, in Debian 12.
///
/// # Errors
/// When something cannot be set up, or the machine does not come to its end.
pub(crate) fn picture() -> Result<Screenshot> {
    let kernel = kernels::set_up("6.1")?;
    let image = image::set_up(Suite::Bookworm, &kernel)?;
    Screenshot::read(&locked(&kernel, &image).boot()?.picture(QUESTION, OTHER_SCREEN))
}

/// The question, and what follows, can be read on the display that stays.
fn question(run: &Run, wrong: &mut Wrong) -> Result<()> {
    let picture = |name| Screenshot::read(&run.picture(name, OTHER_SCREEN));
    let font = Font::learn(&picture(CHARACTERS)?)?;
    for (name, wanted) in
        [(QUESTION, "Please unlock disk root"), (AGAIN, "cryptsetup failed, bad password")]
    {
        let text = font.text(&picture(name)?);
        wrong.unless(
            text.contains(wanted),
            format!("the display that stays shows, and not {wanted:?}:\n{}", text.trim_end()),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use crate::supplies::binary::workspace;

    const STATUS: &str = "run/initramfs/vfio-early-status";

    /// Runs a script of ours with all its paths below that folder, where the program is this one.
    fn run(script: &str, folder: &Path, program: &str) {
        for (path, content) in [
            ("usr/bin/vfio-early", program),
            ("scripts/functions", "panic() { echo \"$*\" >>ROOT/shells; }\n"),
            ("dev/kmsg", ""),
            ("run/initramfs/other", ""),
        ] {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.replace("ROOT", folder.to_str().unwrap())).unwrap();
        }
        let source = workspace().join("initrd/initramfs-tools/scripts").join(script);
        let mut text = fs::read_to_string(source).unwrap();
        for (path, before) in [
            // A file that was just written may still be open in another test's process.
            ("/usr/bin/vfio-early", "sh "),
            ("/scripts/functions", ""),
            ("/dev/kmsg", ""),
            ("/run/initramfs", ""),
        ] {
            text = text.replace(path, &format!("{before}{}{path}", folder.display()));
        }
        let status = Command::new("sh").args(["-c", &text]).status().unwrap();
        assert!(status.success(), "{script}: {status}");
    }

    #[test]
    fn the_program_says_by_its_exit_status_whether_there_is_more_to_do() {
        for (program, status, said) in [
            ("exit 0", None, ""),
            ("exit 1", None, ""),
            ("exit 3", Some("3\n"), ""),
            ("exit 2", Some("2\n"), "<3>vfio-early: ended with exit status 2\n"),
            ("kill -KILL $$", Some("137\n"), "<3>vfio-early: ended with exit status 137\n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            run("init-top/00-vfio-early", folder.path(), program);
            let read = |path| fs::read_to_string(folder.path().join(path)).ok();
            assert_eq!(read(STATUS).as_deref(), status, "{program}");
            assert_eq!(read("dev/kmsg").as_deref(), Some(said), "{program}");
        }
    }

    #[test]
    fn a_strict_boot_stops_until_all_is_bound() {
        // What is strict the program knows best; where it was killed, it is asked again.
        for (status, asked_again, shells) in [
            (None, "exit 3", 0),
            (Some("3"), "exit 0", 2),
            (Some("137"), "exit 3", 2),
            (Some("137"), "exit 1", 0),
            (Some("137"), "exit 0", 0),
            (Some("137"), "kill -KILL $$", 0),
            (Some("2"), "exit 1", 0),
        ] {
            let folder = tempfile::tempdir().unwrap();
            if let Some(status) = status {
                let path = folder.path().join(STATUS);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{status}\n")).unwrap();
            }
            // It is of use when the user has left the second shell.
            let bind = "[ $(grep -c 'vfio.strict is given' ROOT/shells) -ge 2 ] || exit 3";
            let program = format!("case $1 in status) {asked_again} ;; bind) {bind} ;; esac");
            run("init-premount/00-vfio-early-strict", folder.path(), &program);
            let said = fs::read_to_string(folder.path().join("shells")).unwrap_or_default();
            let found = said.matches("vfio.strict is given").count();
            assert_eq!(found, shells, "{status:?}, {asked_again}: {said}");
            assert!(!folder.path().join(STATUS).exists());
        }
    }
}
