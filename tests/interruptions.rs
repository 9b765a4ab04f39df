//! Killed before any of its writes and run again, `bind` ends where one undisturbed run does.

use crate::console::{OTHER, VGA, two_displays};
use crate::fake::Fake;
use crate::machine::{Function, Line, Machine, desktop};
use crate::outcome::outcomes;

pub struct Case {
    pub name: &'static str,
    pub machine: Machine,
    /// Loaded before.
    host: &'static [&'static str],
    pub text: &'static str,
}

impl Case {
    pub fn boot(&self) -> Fake {
        let mut fake = self.machine.boot();
        for module in self.host {
            fake.load(module);
        }
        fake
    }

    /// The end of an undisturbed run: its outcomes, all files, and the number of its writes.
    fn undisturbed(&self) -> (Vec<String>, Vec<(String, String)>, usize) {
        let mut fake = self.boot();
        let outcomes = outcomes(&fake.bind(self.text));
        (outcomes, fake.tree.everything(), fake.take_writes().len())
    }
}

/// A desktop with these modules loaded.
pub fn loaded(modules: &[&str]) -> Fake {
    let mut fake = desktop().boot();
    for module in modules {
        fake.load(module);
    }
    fake
}

pub fn cases() -> Vec<Case> {
    let edu = |place: &str| Function::new(&format!("0000:00:{place}"), "1234:11e8", 0x00_ff00);
    let case = |name, machine, host, text| Case { name, machine, host, text };
    let several = "vfio.devs=01:00.*,00:14.0,8086:15b8@00:19.0,144d:a808@00:1c.0/00.0";
    let mut cases = Vec::new();
    for line in Line::ALL {
        cases.push(case("no host driver yet", desktop().line(line), &[], several));
        let host = &["nouveau", "snd_hda_intel", "e1000e", "nvme", "xhci_hcd"];
        cases.push(case("all on host drivers", desktop().line(line), host, several));
        for (boot_class, host) in [(VGA, &[][..]), (OTHER, &[]), (VGA, &["i915"])] {
            let machine = two_displays(boot_class, VGA).line(line);
            cases.push(case("the boot display", machine, host, "vfio.devs=00:02.0,00:14.0"));
        }
        let machine = || two_displays(VGA, VGA).line(line);
        cases.extend([
            case("reserved", machine().left_out("nouveau"), &[], "vfio.devs=00:02.0,00:14.0"),
            case("both displays", machine(), &[], "vfio.devs=00:02.0,01:00.0"),
            case("released", machine(), &[], "vfio.devs=00:02.0,01:00.0 vfio.console=release"),
        ]);
        cases.push(case("vfio-pci is there", desktop().line(line), &["vfio-pci", "nvme"], several));
    }
    cases.extend([
        case(
            "a built-in driver",
            Machine::new([edu("03.0").built_in("serial"), edu("04.0").built_in("serial")]),
            &[],
            "vfio.devs=00:03.0",
        ),
        case(
            "no vfio-pci",
            desktop().left_out("vfio-pci"),
            &["nouveau"],
            "vfio.devs=01:00.*,00:14.0",
        ),
        case(
            "no vfio_iommu_type1",
            desktop().left_out("vfio_iommu_type1"),
            &["e1000e"],
            "vfio.devs=00:19.0",
        ),
        case(
            "one refused, one absent, one malformed",
            desktop(),
            &["nouveau"],
            "vfio.devs=01:00.0,8086:1@00:14.0,05:00.0,x,00:01.0,01:00.1",
        ),
        case(
            "one that vfio-pci does not take",
            Machine::new([
                edu("03.0").refused_with(nix::errno::Errno::EINVAL).host("edu"),
                edu("04.0"),
            ]),
            &["edu"],
            "vfio.devs=00:03.*,00:04.0",
        ),
    ]);
    cases
}

#[test]
fn killed_before_any_write_and_run_again_it_ends_the_same() {
    let (mut kills, mut complaints) = (0, Vec::new());
    for case in cases() {
        let (expected, files, writes) = case.undisturbed();
        for write in 0..writes {
            let mut fake = case.boot();
            let killed = fake.bind_until_killed(case.text, write);
            let line = case.machine.line;
            let which =
                format!("{} on {line:?}, killed before write {write} of {writes}", case.name);
            assert!(killed, "{which}: it was not killed");
            assert_eq!(fake.take_writes().len(), write, "{which}");
            let report = fake.bind(case.text);
            if outcomes(&report) != expected {
                complaints.push(format!("{which}: {:?}, not {expected:?}", outcomes(&report)));
            }
            let differs = |other: &&(String, String)| !files.contains(*other);
            let found = fake.tree.everything();
            if let Some((path, content)) = found.iter().find(differs) {
                complaints.push(format!("{which}: {path} is {content:?}"));
            } else if found != files {
                complaints.push(format!("{which}: files are missing"));
            }
            kills += 1;
        }
        let mut fake = case.boot();
        assert!(!fake.bind_until_killed(case.text, writes), "{}", case.name);
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(kills > 100, "only {kills} points");
}

#[test]
fn killed_twice_it_ends_the_same() {
    for case in cases().into_iter().filter(|case| case.name == "all on host drivers") {
        let (expected, files, writes) = case.undisturbed();
        for first in 0..writes {
            for second in (0..writes).step_by(3) {
                let mut fake = case.boot();
                fake.bind_until_killed(case.text, first);
                fake.bind_until_killed(case.text, second);
                let which = format!("killed before write {first}, then before {second}");
                assert_eq!(outcomes(&fake.bind(case.text)), expected, "{which}");
                assert_eq!(fake.tree.everything(), files, "{which}");
            }
        }
    }
}

#[test]
fn a_kill_is_what_the_matrix_takes_it_for() {
    // A host driver that is loaded in between takes what is not overridden yet, and no more.
    let mut fake = desktop().boot();
    let text = "vfio.devs=01:00.0,01:00.1";
    assert!(fake.bind_until_killed(text, 1));
    fake.load("nouveau");
    fake.load("snd_hda_intel");
    assert_eq!(fake.driver("0000:01:00.0"), None);
    assert_eq!(fake.driver("0000:01:00.1").as_deref(), Some("snd_hda_intel"));
    let report = fake.bind(text);
    assert_eq!(outcomes(&report), ["0000:01:00.0 bound", "0000:01:00.1 bound"]);
}
