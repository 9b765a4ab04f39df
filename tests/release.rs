//! `vfio-early release`, and `bind` with items: devices go over and back while the host runs.

use log::Level;
use nix::errno::Errno;
use serde_json::Value;
use vfio_early::cmdline;
use vfio_early::host::release::{self, Lines};
use vfio_early::host::released::{self, Released};
use vfio_early::host::{finish, named, status};
use vfio_early::report::Report;

use crate::console::{OTHER, VGA, two_displays};
use crate::fake::modules::Module;
use crate::fake::{Fake, Fault};
use crate::machine::{Line, Machine, desktop};
use crate::outcome::{assert_says, outcomes, words};

const CARD: &str = "0000:01:00.0";
const AUDIO: &str = "0000:01:00.1";
const USB: &str = "0000:00:14.0";
const NIC: &str = "0000:00:19.0";

/// A host that runs, after a boot with this command line.
struct Host {
    fake: Fake,
    text: &'static str,
    report: Value,
}

impl Host {
    fn new(machine: &Machine, text: &'static str) -> Host {
        let mut fake = machine.boot();
        let report = Report { command_line: text.to_owned(), ..fake.bind(text) };
        fake.take_writes();
        Host { fake, text, report: serde_json::to_value(report).expect("JSON") }
    }

    fn request(&self, words: &[&str]) -> cmdline::Request {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        let named = named::read(&words).expect("items");
        named::instead(cmdline::parse(self.text.as_bytes()), named)
    }

    fn release(&mut self, words: &[&str]) -> Lines {
        let sysfs = self.fake.sysfs();
        let folder = self.fake.tree.root().join("run/vfio-early");
        self.fake.tree.folder("run");
        let lines = release::release(&self.request(words), &sysfs, &mut self.fake, &folder);
        lines.expect("the PCI bus can be read")
    }

    /// As the program does it; what becomes of the report is tried with the program itself.
    fn bind(&mut self, words: &[&str]) -> Report {
        let sysfs = self.fake.sysfs();
        let report = vfio_early::bind(self.request(words), &sysfs, &mut self.fake);
        let report = report.expect("the PCI bus can be read");
        let taken = released::taken(&report);
        let folder = self.fake.tree.root().join("run/vfio-early");
        Released::read(&sysfs).change(&taken, false, &folder).expect("it can be written");
        report
    }

    /// One start of the unit; the outcomes of what it did.
    fn finish(&mut self) -> Vec<String> {
        let request = cmdline::parse(self.text.as_bytes());
        let sysfs = self.fake.sysfs();
        let now = vfio_early::finish(request, &self.report, &sysfs, &mut self.fake);
        now.expect("the PCI bus can be read").map(|report| outcomes(&report)).unwrap_or_default()
    }

    fn status(&self) -> status::Status {
        self.fake.tree.write("run/report.json", &self.report.to_string());
        let path = self.fake.tree.root().join("run/report.json");
        status::status(&path, &self.fake.sysfs()).expect("it can be read")
    }

    fn marks(&self) -> String {
        let path = self.fake.tree.root().join("run/vfio-early/released");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn driver(&self, address: &str) -> String {
        self.fake.driver(address).unwrap_or_default()
    }
}

fn said(told: &Lines) -> String {
    told.iter().map(|(_, line)| line.clone() + "\n").collect()
}

fn is_unmet(told: &Lines) -> bool {
    told.iter().any(|(level, _)| *level == Level::Error)
}

#[test]
fn what_is_released_goes_to_the_hosts_driver_which_is_loaded_for_it() {
    let mut host = Host::new(&desktop(), "vfio.devs=01:00.*,00:14.0");
    let told = host.release(&["01:00.*"]);
    assert_eq!(
        said(&told),
        "0000:01:00.0 10de:1c03: released to nouveau\n\
         0000:01:00.1 10de:10f1: released to snd_hda_intel\n"
    );
    assert!(!is_unmet(&told));
    assert_eq!(
        host.fake.take_lines(),
        [
            "0000:01:00.0/driver_override \n",
            "drivers/vfio-pci/unbind 0000:01:00.0",
            "0000:01:00.1/driver_override \n",
            "drivers/vfio-pci/unbind 0000:01:00.1",
            "load nouveau",
            "load snd_hda_intel",
            "drivers_probe 0000:01:00.0",
            "drivers_probe 0000:01:00.1",
        ]
    );
    assert_eq!(
        [CARD, AUDIO, USB].map(|it| host.driver(it)),
        ["nouveau", "snd_hda_intel", "vfio-pci"]
    );
    assert_eq!([CARD, AUDIO].map(|it| host.fake.driver_override(it)), [None, None]);
    assert_eq!(host.marks(), "10de:1c03@0000:01:00.0\n10de:10f1@0000:01:00.1\n");
}

#[test]
fn twenty_times_over_and_back_it_is_as_before() {
    for line in Line::ALL {
        let mut host = Host::new(&desktop().line(line), "vfio.devs=01:00.*");
        host.release(&["01:00.*"]);
        host.bind(&["01:00.*"]);
        let before = host.fake.tree.everything();
        for turn in 0..20 {
            assert!(!is_unmet(&host.release(&["01:00.*"])), "{line:?} {turn}");
            let found = [CARD, AUDIO].map(|it| host.driver(it));
            assert_eq!(found, ["nouveau", "snd_hda_intel"], "{line:?} {turn}");
            let report = host.bind(&["01:00.*"]);
            let all = ["0000:01:00.0 bound", "0000:01:00.1 bound"];
            assert_eq!(outcomes(&report), all, "{line:?} {turn}");
            assert_eq!(host.marks(), "", "{line:?} {turn}");
        }
        assert_eq!(host.fake.tree.everything(), before, "{line:?}");
    }
}

#[test]
fn what_is_released_stays_so_until_it_is_named_again() {
    let mut host = Host::new(&desktop(), "vfio.devs=01:00.*,00:14.0");
    host.release(&["01:00.0"]);
    assert_eq!(host.finish(), [""; 0]);
    // Not even without a driver.
    let unbind = "bus/pci/drivers/nouveau/unbind".to_owned();
    let unbind = vfio_early::kernel::Write::Store { attribute: unbind, value: CARD.to_owned() };
    host.fake.answer(&unbind).expect("it is there");
    host.fake.take_writes();
    assert_eq!(host.finish(), [""; 0]);
    assert_eq!(host.fake.take_writes(), []);
    let status = host.status();
    let line = status.to_string();
    let line = line.lines().nth(1).expect("a line for each device").to_owned();
    assert_eq!(
        line,
        "0000:01:00.0 10de:1c03: released: no driver has it now; vfio-early bind takes it back"
    );
    let card = &status.devices[1];
    assert_eq!((card.released, card.lost, card.bound, status.exit_status), (true, false, false, 0));
    let given_back = finish::given_back(&host.report, &host.fake.sysfs());
    let expected = "0000:01:00.0 was released and is with no driver now: it is left there; vfio-early \
                    bind takes it back";
    assert_eq!(given_back, [expected]);
    // What others take back without a word is bound.
    host.bind(&["01:00.0"]);
    let status = host.status();
    assert_eq!((status.devices[1].bound, status.devices[1].released), (true, false));
}

/// The finish unit takes what was reserved or absent, but not what was released meanwhile.
#[test]
fn what_the_initrd_had_to_leave_and_was_released_is_left() {
    let machine = two_displays(VGA, VGA).left_out("nouveau").left_out("i915");
    let mut host = Host::new(&machine, "vfio.devs=00:02.0");
    assert_eq!(host.report["devices"][0]["outcome"], "reserved");
    let told = host.release(&["00:02.0"]);
    assert_eq!(
        said(&told),
        "0000:00:02.0 8086:5912: released, and no driver of the host is for it\n"
    );
    assert_eq!(host.fake.driver_override("0000:00:02.0"), None);
    host.fake.provide("nouveau");
    assert_eq!(host.finish(), [""; 0]);
    // Another device at that place was not released.
    host.fake.tree.write("run/vfio-early/released", "8086:5913@0000:00:02.0\n");
    assert_eq!(host.finish(), ["0000:00:02.0 bound"]);
}

#[test]
fn a_device_in_a_vm_is_not_taken_from_it() {
    for (file, is_open, holder) in [
        ("/dev/vfio/2", false, "qemu-system-x86 (4711) has /dev/vfio/2 open"),
        ("/dev/vfio/devices/vfio7", false, "(4711) has /dev/vfio/devices/vfio7 open"),
        ("/dev/vfio/3", true, "some process has its group open"),
    ] {
        let mut host = Host::new(&desktop(), "vfio.devs=01:00.*,00:14.0");
        host.fake.tree.write("dev/vfio/2", "");
        // The file of the other function of the card.
        let name = format!("sys/bus/pci/devices/{AUDIO}/vfio-dev/vfio7/dev");
        host.fake.tree.write(&name, "511:7\n");
        host.fake.tree.write("proc/4711/comm", "qemu-system-x86\n");
        host.fake.tree.folder("proc/4711/fd");
        host.fake.tree.link("proc/4711/fd/12", file);
        if is_open {
            host.fake.open(CARD);
        }
        let told = host.release(&["01:00.0", "00:14.0"]);
        let text = said(&told);
        assert_says(&text, &["0000:01:00.0 10de:1c03: refused: ", holder, "shut that VM down"]);
        assert!(is_unmet(&told), "{file}");
        // The other one is released all the same, and nothing is written for this one.
        assert_says(&text, &["0000:00:14.0 8086:a12f: released to xhci_hcd"]);
        assert!(host.fake.take_lines().iter().all(|line| !line.contains("01:00")), "{file}");
        assert_eq!(host.marks(), "8086:a12f@0000:00:14.0\n", "{file}");
    }
}

/// Of what is named and cannot be had, the report of the boot is not changed: that is with the host as before.
#[test]
fn what_is_named_in_vain_is_not_in_the_report() {
    let mut host = Host::new(&desktop(), "vfio.devs=01:00.*");
    let before = host.report["devices"].clone();
    let now = host.bind(&["01:00.0", "10de:1c04@00:14.0", "1f:00.0"]);
    assert_eq!(outcomes(&now).len(), 3, "{:?}", outcomes(&now));
    let merged = finish::merged(host.report.clone(), &now, true).expect("JSON");
    assert_eq!(merged["devices"].as_array().map(Vec::len), before.as_array().map(Vec::len));
    let all = finish::merged(host.report.clone(), &now, false).expect("JSON");
    assert_eq!(all["devices"].as_array().map(Vec::len), Some(4));
}

/// The kernel closes the files of a process that ends after they are gone from its `/proc`.
#[test]
fn a_group_that_is_being_closed_is_waited_for() {
    let mut host = Host::new(&desktop(), "vfio.devs=01:00.*");
    host.fake.tree.write("dev/vfio/2", "");
    host.fake.open(CARD);
    host.fake.fault(Fault::GroupCloses);
    let told = host.release(&["01:00.0"]);
    assert_says(&said(&told), &["0000:01:00.0 10de:1c03: released to nouveau"]);
    assert!(!is_unmet(&told));
}

#[test]
fn an_unbind_that_hangs_is_told_and_goes_on_by_itself() {
    let mut host = Host::new(&desktop(), "vfio.devs=00:14.0,00:19.0");
    host.fake.fault(Fault::UnbindHangs { driver: "vfio-pci".to_owned() });
    let told = host.release(&["00:14.0", "00:19.0"]);
    let text = said(&told);
    assert_says(&text, &["00:14.0 8086:a12f: failed: the unbind hangs: some process has it open"]);
    assert_says(&text, &["00:19.0", "release it again then"]);
    assert!(is_unmet(&told));
    // Nothing is probed that hangs, and who finishes leaves it.
    assert!(!host.fake.take_lines().iter().any(|line| line.contains("drivers_probe")));
    assert_eq!(host.finish(), [""; 0]);
    assert_eq!(host.status().exit_status, 0);
}

#[test]
fn what_cannot_be_released_says_why() {
    let mut host = Host::new(&desktop(), "vfio.devs=00:19.0");
    let told = host.release(&["8086:ffff@00:19.0", "05:00.0"]);
    let expected = "8086:ffff@00:19.0: no device here is that\n05:00.0: no device here is that\n";
    assert_eq!((said(&told).as_str(), is_unmet(&told)), (expected, true));
    assert_eq!(host.fake.take_writes(), []);
    assert_eq!(host.driver(NIC), "vfio-pci");
    // The kernel does not write.
    let mut host = Host::new(&desktop(), "vfio.devs=00:19.0");
    host.fake.fault(Fault::ReadOnly);
    let told = host.release(&["00:19.0"]);
    assert_says(&said(&told), &["failed: its override cannot be cleared: Read-only file system"]);
    assert_eq!((is_unmet(&told), host.driver(NIC).as_str()), (true, "vfio-pci"));
    // The host's driver does not take it.
    host.fake.no_more_faults();
    let errno = Errno::ENOMEM;
    host.fake.fault(Fault::DriverRefuses { driver: "e1000e".to_owned(), errno });
    let told = host.release(&["00:19.0"]);
    assert_says(&said(&told), &["failed: the host's driver does not take it; see dmesg"]);
    assert!(is_unmet(&told));
    // It hangs, with its link made.
    let mut host = Host::new(&desktop(), "vfio.devs=00:19.0");
    host.fake.load("e1000e");
    host.fake.fault(Fault::ProbeHangs { address: NIC.to_owned() });
    let told = host.release(&["00:19.0"]);
    assert_says(&said(&told), &["failed: the probe hangs; see dmesg"]);
}

#[test]
fn what_goes_by_its_id_comes_back_to_vfio_pci_and_is_told() {
    let mut host = Host::new(&desktop(), "vfio.devs=00:14.0");
    let new_id = vfio_early::kernel::Write::Store {
        attribute: "bus/pci/drivers/vfio-pci/new_id".to_owned(),
        value: "8086 15b8".to_owned(),
    };
    host.fake.answer(&new_id).expect("it is there");
    assert_eq!(host.driver(NIC), "vfio-pci");
    host.fake.load("e1000e");
    let told = host.release(&["00:19.0"]);
    assert_says(&said(&told), &["failed: vfio-pci has it again, by its id: look for ids="]);
    assert!(is_unmet(&told));
}

/// Whatever `vfio.driver=` names is none of the host's.
#[test]
fn another_driver_for_vms_is_taken_from_as_well() {
    let machine = desktop().module(Module::new("igb_uio", &[]).driver("igb_uio"));
    let mut host = Host::new(&machine, "vfio.devs=00:19.0 vfio.driver=igb_uio");
    assert_eq!(host.driver(NIC), "igb_uio");
    let told = host.release(&["00:19.0"]);
    assert_says(&said(&told), &["released to e1000e"]);
}

#[test]
fn a_device_that_the_host_has_is_left_alone_and_stays_the_hosts() {
    let mut host = Host::new(&desktop(), "vfio.devs=00:14.0");
    host.fake.load("e1000e");
    host.fake.take_writes();
    let told = host.release(&["00:19.0", "00:19.0"]);
    assert_eq!(said(&told), "0000:00:19.0 8086:15b8: e1000e has it already\n");
    assert!(!is_unmet(&told));
    assert_eq!(host.fake.take_writes(), []);
    assert_eq!(host.marks(), "8086:15b8@0000:00:19.0\n");
}

#[test]
fn a_blacklisted_driver_is_not_loaded() {
    let mut host = Host::new(&desktop().blacklisted("nouveau"), "vfio.devs=01:00.0");
    let told = host.release(&["01:00.0"]);
    assert_says(&said(&told), &["0000:01:00.0 10de:1c03: released, and no driver of the host"]);
    assert!(!host.fake.is_loaded("nouveau") && !is_unmet(&told));
}

/// The group was looked at, and a VM came to have it all the same.
#[test]
fn a_vm_that_starts_meanwhile_holds_the_unbind_up() {
    let mut host = Host::new(&desktop(), "vfio.devs=01:00.*");
    // Nothing tells of it: there is no file of the group.
    host.fake.open(CARD);
    let told = host.release(&["01:00.0"]);
    assert_says(&said(&told), &["failed: the unbind hangs: some process has it open"]);
    assert_eq!(host.driver(AUDIO), "vfio-pci");
}

#[test]
fn the_console_goes_back_to_the_boot_display_and_over_again() {
    let boot = "0000:00:02.0";
    for line in Line::ALL {
        for second in [VGA, OTHER] {
            let mut host = Host::new(&two_displays(VGA, second).line(line), "vfio.devs=00:02.0");
            let case = format!("{line:?} {second:x}");
            for _ in 0..3 {
                assert_eq!(host.fake.screen.console(), Some(CARD), "{case}");
                let told = host.release(&["00:02.0"]);
                assert_says(
                    &said(&told),
                    &["released to i915", "0000:00:02.0 8086:5912: the console is there again"],
                );
                assert_eq!(host.fake.screen.console(), Some(boot), "{case}");
                let report = host.bind(&["00:02.0"]);
                assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{case}");
            }
        }
        // The second one had no console to go back to.
        let mut host = Host::new(&two_displays(VGA, VGA).line(line), "vfio.devs=01:00.0");
        host.fake.load("i915");
        let before = host.fake.screen.console().map(str::to_owned);
        let told = host.release(&["01:00.0"]);
        assert!(!said(&told).contains("console"), "{line:?}: {told:?}");
        assert_eq!(host.fake.screen.console().map(str::to_owned), before, "{line:?}");
    }
}

#[test]
fn the_only_display_gets_the_console_that_was_dark() {
    for line in Line::ALL {
        let mut machine = two_displays(VGA, VGA).line(line);
        machine.functions.retain(|function| function.address != CARD);
        let mut host = Host::new(&machine, "vfio.devs=00:02.0 vfio.console=release");
        for _ in 0..3 {
            let told = host.release(&["00:02.0"]);
            assert_says(&said(&told), &["released to i915"]);
            assert_eq!(host.fake.screen.console(), Some("0000:00:02.0"), "{line:?}");
            // It is said each time that the screen may go, on the command line or with the item.
            assert_eq!(outcomes(&host.bind(&["00:02.0"])), ["0000:00:02.0 bound"], "{line:?}");
        }
    }
}

#[test]
fn a_device_that_is_named_is_taken_with_all_that_bind_looks_after() {
    let mut host = Host::new(&desktop(), "vfio.devs=01:00.0");
    host.text = "vfio.devs=00:14.0,zz vfio.off";
    host.fake.load("e1000e");
    host.fake.tree.write("proc/net/route", "Iface\tDestination\tGateway\neno1\t00000000\t0\n");
    host.fake.tree.folder(&format!("sys/devices/pci0000:00/{NIC}/net/eno1"));
    host.fake.tree.link_up("class/net/eno1", &format!("devices/pci0000:00/{NIC}/net/eno1"));
    let report = host.bind(&["00:19.0"]);
    assert_eq!(outcomes(&report), ["0000:00:19.0 refused"]);
    assert_says(&words(&report, NIC), &["eno1 has an address"]);
    host.fake.tree.write("proc/net/route", "Iface\tDestination\tGateway\n");
    // Only what is named: neither the list of the command line, nor what is wrong in it.
    assert_eq!(outcomes(&host.bind(&["00:19.0"])), ["0000:00:19.0 bound"]);
    assert_eq!(host.driver(USB), "");
}
