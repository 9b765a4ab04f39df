//! The Debian package in Debians as they are installed today: by apt, with a kernel's package and the
//! generator's own settings, so that its trigger makes the initrd; nothing of the root is masked.

mod image;
pub(crate) mod passphrase;
mod system;

use std::collections::BTreeSet;

use self::image::{Files, Image, PROFILES, ROOT};
use self::system::{ALL_BOUND, Generator, SYSTEMS, System};
use crate::check::real_root::{
    self, AFTER_INITRD, DISK, NETWORK, Seen, USB, Wrong, bound, in_the_real_root,
    one_bound_one_absent, root_disk_kept, root_disk_released, shell_was_used, untouched,
    without_errors, without_udev,
};
use crate::check::{Boot, Outcome};
use crate::machine::distro::Suite;
use crate::machine::observed::{BEFORE, HOST};
use crate::machine::vm::Vm;
use crate::supplies::kernels::Kernel;

/// One machine, or one look at what the package brings, and what comes out.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// A sentence.
    name: &'static str,
    check: Check,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Listed,
    Booted(fn(&Image) -> Vm, fn(&Seen, &mut Wrong)),
}

const GOING_ON: &str = "vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0,00:1e.0";
const BOUND: &str = "devices are bound before udev starts, and no unit complains";
const USABLE_SHELL: &str =
    "vfio.strict with an absent device stops the boot in a shell that can be used";

/// Those without a boot. What is made once takes a minute here.
pub(crate) fn listings() -> Vec<Boot> {
    let case = Case {
        name: "the package's trigger makes the initrd, and purged it leaves no trace",
        check: Check::Listed,
    };
    // That of a unified kernel image is the same as without.
    let systems = SYSTEMS.iter().filter(|system| system.unified.is_none());
    systems.map(|system| case.on(system)).collect()
}

/// Those with a boot.
pub(crate) fn boots() -> Vec<Boot> {
    let on =
        |system: &'static System| boots_of(system).into_iter().map(move |case| case.on(system));
    SYSTEMS.iter().flat_map(on).collect()
}

fn boots_of(system: &System) -> Vec<Case> {
    let boots = |name, machine, check| Case { name, check: Check::Booted(machine, check) };
    if system.unified.is_some() {
        return vec![
            boots(BOUND, machine, all_bound),
            boots(USABLE_SHELL, |image| to_be_mended(machine(image)), stopped),
            boots(
                "vfio.off in the boot menu is the way out",
                |image| machine(image).cmdline("vfio.off"),
                |seen, wrong| {
                    without_udev(seen, wrong);
                    untouched(seen, wrong);
                },
            ),
        ];
    }
    let stopping = match system.generator {
        Generator::InitramfsTools => vec![boots(
            USABLE_SHELL,
            |image| to_be_mended(machine(image).cmdline(ALL_BOUND)),
            stopped,
        )],
        Generator::Dracut => vec![
            boots(
                USABLE_SHELL,
                |image| stopping_in_dracut(image).cmdline(FORCED),
                stopped_in_dracut,
            ),
            boots(
                "vfio.strict stops the boot without a shell where root is locked",
                |image| stopping_in_dracut(image).cmdline("systemd.setenv=SYSTEMD_SULOGIN_FORCE=1"),
                locked_out,
            ),
        ],
    };
    let mut cases = vec![
        boots(BOUND, |image| machine(image).cmdline(ALL_BOUND), all_bound),
        boots(
            "for an absent device the boot goes on",
            |image| machine(image).cmdline(GOING_ON),
            if system.has_options() { going_on } else { going_on_without_options },
        ),
        boots(
            "without vfio.devs= the boot is as without the package",
            |image| machine(image).cmdline("vfio.strict"),
            if system.generator == Generator::Dracut { nothing } else { script_does_nothing },
        ),
    ];
    cases.extend(stopping);
    if system.is_encrypted() {
        // Once is enough: cryptsetup asks, and the kernel shows it; and what is refused no tool sees.
        cases.extend([
            boots(
                "a passphrase is asked for on a living screen, with the boot card given away",
                |image| passphrase::locked(image).cmdline("quiet harness.characters"),
                passphrase::unlocked,
            ),
            boots(
                "a root disk that is listed by its address stays with the host",
                |image| machine(image).cmdline("vfio.devs=8086:10d3@00:03.0,00:02.0"),
                root_disk_kept,
            ),
            boots(
                "a root disk that is listed by its id stays with the host",
                |image| machine(image).cmdline("vfio.devs=8086:10d3@00:03.0,pci:1af4:1001"),
                root_disk_kept,
            ),
            boots(
                "a root disk that is listed by its group stays with the host",
                |image| machine(image).cmdline("vfio.devs=8086:10d3@00:03.0,group:00:02.0"),
                root_disk_kept,
            ),
            boots(
                "a root disk that is listed goes with vfio.host=release",
                |image| {
                    let released =
                        "vfio.devs=00:02.0 vfio.host=release rootdelay=5 panic= harness.collect";
                    machine(image).cmdline(released)
                },
                root_disk_released,
            ),
        ]);
    }
    cases
}

impl Case {
    fn on(self, system: &'static System) -> Boot {
        Boot {
            name: format!("{}: {}", system.name, self.name),
            kernel: system.kernel,
            check: Box::new(move |kernel, _, _| self.run(system, kernel)),
        }
    }

    /// What is wrong, with all that helps.
    fn run(&self, system: &System, kernel: &Kernel) -> Outcome {
        if let Err(error) = system.debian.set_up() {
            return not_to_be_had(system, &format!("{error:#}"));
        }
        let image = match image::set_up(system, kernel) {
            Ok(image) => image,
            Err(error) => return Outcome::Failed(format!("{error:#}")),
        };
        match self.check {
            Check::Listed => {
                let mut wrong = Wrong::default();
                listed(system, &image, &mut wrong);
                Outcome::of(&wrong.0)
            }
            Check::Booted(machine, check) => real_root::boot(machine(&image), check).into(),
        }
    }
}

/// Sid moves: a package of it may fit no other for a day. A release does not.
fn not_to_be_had(system: &System, error: &str) -> Outcome {
    let name = system.debian.suite().name();
    if system.debian.suite() == Suite::Sid {
        return Outcome::NotRun(format!("Debian {name} cannot be had today: {error}"));
    }
    Outcome::Failed(format!(
        "Debian {name} cannot be had: {error}\nThe mirror is that of this machine's apt, of which `apt-get \
         indextargets --format '$(REPO_URI)'` says the address; where it has {name}, `cargo xtask test \
         '{}:'` tries again",
        system.name
    ))
}

/// With room for an initrd of all of the kernel's drivers.
fn machine(image: &Image) -> Vm {
    let machine = real_root::machine(&image.kernel, &image.initrd, &image.root, [])
        .memory(1024)
        .cmdline(PROFILES);
    match &image.unified {
        Some(unified) => machine.unified(unified),
        None => machine.cmdline(ROOT),
    }
}

/// The lines that only the one has, and those that only the other has.
fn differing<'a>(one: &'a str, other: &'a str) -> [Vec<&'a str>; 2] {
    let lines = |text: &'a str| text.lines().collect::<BTreeSet<_>>();
    let (one, other) = (lines(one), lines(other));
    [one.difference(&other).copied().collect(), other.difference(&one).copied().collect()]
}

fn listed(system: &System, image: &Image, wrong: &mut Wrong) {
    let Image { before, installed, purged, .. } = image;
    let pairs = |one: &Files, other: &Files| {
        [("root", &one.root, &other.root), ("initrd", &one.initrd, &other.initrd)]
            .map(|(what, one, other)| (what, one.clone(), other.clone()))
    };
    // The first initrd is from before the harness looked into it: its scripts, those of their folders that have
    // no other ones, and the lists in ORDER.
    let folders = ["scripts/panic", "scripts/init-premount d", "scripts/local-top d"];
    let its = ["harness", "/ORDER"].into_iter().chain(folders);
    let is_ours = |line: &&str| !its.clone().any(|name| line.contains(name));
    for (what, before, purged) in pairs(before, purged) {
        let [gone, left] = differing(&before, &purged);
        let gone: Vec<_> = gone.into_iter().filter(is_ours).collect();
        let left: Vec<_> = left.into_iter().filter(is_ours).collect();
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
    let of_generator: &[&str] = match system.generator {
        Generator::InitramfsTools => &[
            "./scripts/init-top/00-vfio-early f 755 ",
            "./scripts/init-premount/00-vfio-early-wait f 755 ",
        ],
        Generator::Dracut => &[
            "/system/vfio-early.service f 644 ",
            "/system/vfio-early-claim.service f 644 ",
            "/system/vfio-early-strict.service f 644 ",
            "/system-generators/vfio-early-generator l ",
        ],
    };
    let everywhere = [
        "./usr/bin/vfio-early f 755 ",
        "./etc/vfio-early/keep f 644 ",
        "/vfio-pci.ko",
        "/vfio_iommu_type1.ko",
        // The machine has two displays of which one may have to stay.
        "/bochs.ko",
    ];
    for wanted in everywhere.iter().chain(of_generator) {
        let is_there = brought.iter().any(|line| line.contains(wanted));
        wrong.unless(is_there, format!("the package does not bring {wanted} into the initrd"));
    }
    // It has the second name in the kernel of Debian sid.
    let [in_root, in_initrd] = [&installed.root, &installed.initrd]
        .map(|files| ["/cirrus.ko", "/cirrus-qemu.ko"].iter().any(|name| files.contains(name)));
    wrong.unless(
        in_root && !in_initrd,
        format!("the driver of a display on vfio-pci: in the root {in_root}, initrd {in_initrd}"),
    );
    let has_options = installed.initrd.contains("./etc/modprobe.d/harness.conf");
    wrong.unless(
        has_options == system.has_options(),
        format!("/etc/modprobe.d in the initrd: {has_options}"),
    );
    if system.generator == Generator::InitramfsTools {
        let is_left = purged.order.contains("vfio-early") || purged.order.is_empty();
        wrong.unless(
            !is_left,
            format!("the order of scripts after the purge is {:?}", purged.order),
        );
        let mut scripts = installed.order.lines().filter(|line| line.contains('"'));
        let first = scripts.find(|line| !line.contains("harness"));
        wrong.unless(
            first.is_some_and(|line| line.starts_with("/scripts/init-top/00-vfio-early ")),
            format!("the first script of init-top is {first:?}"),
        );
    }
}

fn all_bound(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    without_udev(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &[]);
    without_errors(seen, wrong);
    let finish = seen.state("vfio-early-finish.service");
    wrong.unless(finish == "active", format!("vfio-early-finish.service is {finish}"));
    let is_asked = seen.run.console.contains("login: ");
    wrong.unless(is_asked, "nobody is asked to log in on the console");
}

fn going_on(seen: &Seen, wrong: &mut Wrong) {
    going_on_with("Y", seen, wrong);
}

/// What the page for dracut says of it.
fn going_on_without_options(seen: &Seen, wrong: &mut Wrong) {
    going_on_with("N", seen, wrong);
}

/// With that value of the module's option which the file in modprobe.d sets.
fn going_on_with(expected: &str, seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root(seen, wrong);
    without_udev(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &["absent"]);
    one_bound_one_absent(seen, wrong);
    let said = seen.run.log.iter().any(|record| record.text.contains("00:1e.0: absent"));
    wrong.unless(said, "the log does not say what is absent");
    let option = seen.run.parameters.get("vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    wrong.unless(
        option.is_some_and(|value| value == expected),
        format!("of the option in modprobe.d the module got {option:?}"),
    );
}

/// The disk is not there before the user of the shell, on a USB keyboard, has the bus scanned.
fn to_be_mended(machine: Vm) -> Vm {
    machine
        // The user sits at tty0, and has `quiet`, as Debian's installer sets it: what the kernel says
        // of the keyboard, which comes up meanwhile, would push the words for him off the screen.
        .cmdline(&format!("harness.absent={DISK} console=tty0 quiet panic="))
        .arguments(["-device", "qemu-xhci,id=usb,addr=08.0", "-device", "usb-kbd,bus=usb.0"])
        .asks()
}

/// Nothing but this, by itself on the command line, lets a root without a password into the shell.
const FORCED: &str = "SYSTEMD_SULOGIN_FORCE=1";

fn stopping_in_dracut(image: &Image) -> Vm {
    let absent = "vfio.strict vfio.devs=8086:10d3@00:03.0,00:1e.0";
    machine(image).cmdline(absent).cmdline("console=tty0 quiet").asks()
}

fn stopped_in_dracut(seen: &Seen, wrong: &mut Wrong) {
    without_udev(seen, wrong);
    shell_was_used(seen, wrong);
    one_bound_one_absent(seen, wrong);
}

/// What the page for dracut says of it.
fn locked_out(seen: &Seen, wrong: &mut Wrong) {
    for (text, expected) in [("the root account is locked", true), ("Press Enter for ", false)] {
        let screen = seen.stopped;
        wrong.unless(
            screen.contains(text) == expected,
            format!("{text:?} is not {expected}: {screen}"),
        );
    }
    one_bound_one_absent(seen, wrong);
}

fn stopped(seen: &Seen, wrong: &mut Wrong) {
    for text in
        ["vfio.strict is given, and not all of vfio.devs= is known to be bound", "(initramfs)"]
    {
        let screen = seen.stopped;
        wrong.unless(screen.contains(text), format!("the screen did not show {text:?}: {screen}"));
    }
    without_udev(seen, wrong);
    // What is there is bound; what is not, when the user has mended that and left the shell. Then the
    // boot goes on.
    for (moment, network, disk) in [
        (BEFORE, None, None),
        ("stopped", Some("vfio-pci"), None),
        (AFTER_INITRD, Some("vfio-pci"), Some("vfio-pci")),
        (HOST, Some("vfio-pci"), Some("vfio-pci")),
    ] {
        let found = (seen.driver(moment, NETWORK), seen.driver(moment, DISK));
        wrong.unless(found == (network, disk), format!("{moment}: the drivers are {found:?}"));
    }
    in_the_real_root(seen, wrong);
    let status = seen.run.last();
    wrong.unless(
        status.status == 0 && status.stdout.matches("bound to vfio-pci").count() == 3,
        format!("`vfio-early status` ends with {}: {}", status.status, status.stdout),
    );
    wrong.unless(status.report_mode == "644", "the report is not for everybody to read");
}

/// The program is the first script there, and asks the command line itself.
fn script_does_nothing(seen: &Seen, wrong: &mut Wrong) {
    without_udev(seen, wrong);
    nothing(seen, wrong);
}

fn nothing(seen: &Seen, wrong: &mut Wrong) {
    wrong.unless(seen.spoken().is_none(), "the program said something");
    untouched(seen, wrong);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use crate::supplies::binary::workspace;

    /// That there is something to wait for.
    const BEGUN: &str = "run/initramfs/vfio-early";

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
        for (claim, goes_on, is_begun, said) in [
            ("exit 0", false, false, ""),
            ("exit 1", false, true, ""),
            ("exit 3", false, true, ""),
            ("exit 5", true, true, ""),
            ("exit 2", false, true, "<3>vfio-early: claim ended with exit status 2\n"),
            ("kill -KILL $$", false, true, "<3>vfio-early: claim ended with exit status 137\n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let program = format!("case $1 in claim) {claim} ;; wait) : >ROOT/bound ;; esac");
            run("init-top/00-vfio-early", folder.path(), &program);
            let is_there = |path: &str| folder.path().join(path).exists();
            if goes_on {
                // In the background.
                let tries = (0..6000).take_while(|_| !is_there("bound"));
                tries.for_each(|_| std::thread::sleep(std::time::Duration::from_millis(10)));
            }
            assert_eq!(is_there("bound"), goes_on, "{claim}");
            assert_eq!(is_there(BEGUN), is_begun, "{claim}");
            let read = fs::read_to_string(folder.path().join("dev/kmsg")).unwrap();
            assert_eq!(read, said, "{claim}");
        }
    }

    #[test]
    fn a_strict_boot_stops_until_all_is_bound() {
        // What is strict the program knows best; where it was killed, it is asked again.
        for (waited, asked_again, shells) in [
            (None, "exit 3", 0),
            (Some("exit 0"), "exit 3", 0),
            (Some("exit 1"), "exit 3", 0),
            (Some("exit 3"), "exit 0", 2),
            (Some("kill -KILL $$"), "exit 3", 2),
            (Some("kill -KILL $$"), "exit 1", 0),
            (Some("kill -KILL $$"), "exit 0", 0),
            (Some("kill -KILL $$"), "kill -KILL $$", 0),
            (Some("exit 2"), "exit 1", 0),
        ] {
            let folder = tempfile::tempdir().unwrap();
            if waited.is_some() {
                let path = folder.path().join(BEGUN);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            // It is of use when the user has left the second shell.
            let bind = "[ $(grep -c 'vfio.strict is given' ROOT/shells) -ge 2 ] || exit 3";
            let wait = waited.unwrap_or("exit 3");
            let program =
                format!("case $1 in wait) {wait} ;; status) {asked_again} ;; bind) {bind} ;; esac");
            run("init-premount/00-vfio-early-wait", folder.path(), &program);
            let said = fs::read_to_string(folder.path().join("shells")).unwrap_or_default();
            let found = said.matches("vfio.strict is given").count();
            assert_eq!(found, shells, "{waited:?}, {asked_again}: {said}");
            assert!(!folder.path().join(BEGUN).exists());
        }
    }
}
