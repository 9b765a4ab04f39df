//! `vfio-early finish`: what the initrd had to leave is done later, and what somebody has given back
//! stays with the host, however often it is asked for.

use serde_json::Value;
use vfio_early::cmdline;
use vfio_early::host::{finish, status};
use vfio_early::kernel::{Kernel, PROBE, Write};
use vfio_early::report::Report;

use crate::console::{VGA, two_displays};
use crate::fake::Fake;
use crate::machine::{Function, Machine, desktop};
use crate::outcome::outcomes;

/// One boot: its command line, and the report that is in `/run`.
struct Boot {
    fake: Fake,
    text: &'static str,
    report: Value,
}

impl Boot {
    fn new(machine: &Machine, text: &'static str) -> Boot {
        let mut fake = machine.boot();
        let report = Report { command_line: text.to_owned(), ..fake.bind(text) };
        fake.take_writes();
        Boot { fake, text, report: serde_json::to_value(report).expect("JSON") }
    }

    /// One start of the unit; the outcomes of what it did.
    fn finish(&mut self) -> Vec<String> {
        let sysfs = self.fake.sysfs();
        let request = cmdline::parse(self.text.as_bytes());
        let now = vfio_early::finish(request, &self.report, &sysfs, &mut self.fake);
        let Some(now) = now.expect("the PCI bus can be read") else { return Vec::new() };
        self.report = finish::merged(self.report.clone(), &now, false).expect("JSON");
        outcomes(&now)
    }

    /// It changes nothing.
    fn assert_over(&mut self, why: &str) {
        let (tree, report) = (self.fake.tree.everything(), self.report.clone());
        self.fake.take_writes();
        assert_eq!(self.finish(), [""; 0], "{why}");
        assert_eq!(self.fake.take_writes(), [], "{why}");
        assert_eq!((self.fake.tree.everything(), self.report.clone()), (tree, report), "{why}");
    }

    fn store(&mut self, attribute: &str, value: &str) {
        let (attribute, value) = (attribute.to_owned(), value.to_owned());
        let written = self.fake.perform(&[Write::Store { attribute: attribute.clone(), value }]);
        assert_eq!(written, [Ok(())], "{attribute}");
    }

    /// As libvirt does it (`virsh nodedev-reattach`).
    fn give_back(&mut self, address: &str) {
        self.store("bus/pci/drivers/vfio-pci/unbind", address);
        self.store(&format!("bus/pci/devices/{address}/driver_override"), "\n");
        self.store(PROBE, address);
    }

    fn in_report(&self) -> Vec<String> {
        let devices = self.report["devices"].as_array().expect("an array").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |device: &Value| {
            let name = if device["address"].is_null() { "item" } else { "address" };
            format!("{} {}", text(&device[name]), text(&device["outcome"]))
        };
        devices.map(name).collect()
    }

    fn status(&self) -> (Vec<String>, u8) {
        self.fake.tree.write("run/report.json", &self.report.to_string());
        let path = self.fake.tree.root().join("run/report.json");
        let status = status::status(&path, &self.fake.sysfs()).expect("it can be read");
        (status.to_string().lines().map(str::to_owned).collect(), status.exit_status)
    }
}

const CARD: &str = "0000:01:00.0";

#[test]
fn where_all_is_bound_there_is_nothing_to_finish() {
    let mut boot = Boot::new(&desktop(), "vfio.devs=01:00.*,00:14.0,zz");
    boot.assert_over("all is bound");
}

#[test]
fn what_somebody_has_given_back_stays_with_the_host() {
    let mut boot = Boot::new(&desktop(), "vfio.devs=01:00.*,00:14.0");
    boot.fake.load("nouveau");
    boot.give_back(CARD);
    assert_eq!(boot.fake.driver(CARD).as_deref(), Some("nouveau"));
    for start in ["first", "second"] {
        boot.assert_over(start);
    }
    let said = finish::given_back(&boot.report, &boot.fake.sysfs());
    let expected = "0000:01:00.0 was bound at boot and is with nouveau now: it is left there; \
                    vfio-early bind takes it back";
    assert_eq!(said, [expected]);
    let (lines, exit_status) = boot.status();
    assert_eq!(exit_status, 1);
    assert!(lines[1].starts_with("0000:01:00.0 10de:1c03: lost: nouveau has it now"), "{lines:?}");
    // Without a driver it is somebody's, too.
    boot.store("bus/pci/drivers/nouveau/unbind", CARD);
    boot.assert_over("unbound");
    // Who wants it back says so.
    let report = boot.fake.bind(boot.text);
    assert!(outcomes(&report).contains(&"0000:01:00.0 bound".to_owned()), "{report:?}");
}

#[test]
fn a_reserved_card_is_bound_once() {
    let machine = two_displays(VGA, VGA).left_out("nouveau");
    let mut boot = Boot::new(&machine, "vfio.devs=00:02.0,00:14.0");
    let card = "0000:00:02.0";
    assert_eq!(boot.in_report(), ["0000:00:02.0 reserved", "0000:00:14.0 bound"]);
    // The other display's driver is there by now. Meanwhile the USB controller was given back.
    boot.fake.provide("nouveau");
    boot.fake.load("nouveau");
    boot.give_back("0000:00:14.0");
    assert_eq!(boot.finish(), ["0000:00:02.0 bound"]);
    assert_eq!(boot.in_report(), ["0000:00:02.0 bound", "0000:00:14.0 bound"]);
    assert_eq!(boot.fake.driver("0000:00:14.0"), None);
    boot.assert_over("it is bound");
    boot.fake.load("i915");
    boot.give_back(card);
    assert_eq!(boot.fake.driver(card).as_deref(), Some("i915"));
    boot.assert_over("and given back");
}

#[test]
fn a_reserved_card_that_somebody_gave_to_the_host_is_the_hosts() {
    let machine = two_displays(VGA, VGA).left_out("nouveau");
    let mut boot = Boot::new(&machine, "vfio.devs=00:02.0");
    boot.fake.provide("nouveau");
    boot.fake.load("nouveau");
    boot.store("bus/pci/devices/0000:00:02.0/driver_override", "\n");
    boot.fake.load("i915");
    assert_eq!(boot.fake.driver("0000:00:02.0").as_deref(), Some("i915"));
    boot.assert_over("its override was taken away");
}

#[test]
fn what_was_absent_is_taken_when_it_has_come() {
    let late = Function::new("0000:00:1b.0", "8086:a170", 0x04_0300).host("snd_hda_intel");
    let mut machine = desktop();
    // Nobody waits for it, but its driver is in the initrd.
    machine.hot_added.push(late.clone());
    let mut boot = Boot::new(&machine, "vfio.devs=00:14.0,8086:a170@00:1b.0,00:1e.0 vfio.strict");
    assert_eq!(
        boot.in_report(),
        ["0000:00:14.0 bound", "8086:a170@00:1b.0 absent", "00:1e.0 absent"]
    );
    boot.give_back("0000:00:14.0");
    boot.fake.add_device(late);
    boot.fake.settle("0000:00:1b.0");
    assert_eq!(boot.finish(), ["0000:00:1b.0 bound", "00:1e.0 absent"]);
    let all = ["0000:00:14.0 bound", "0000:00:1b.0 bound", "00:1e.0 absent"];
    assert_eq!(boot.in_report(), all);
    assert_eq!(boot.report["exit_status"], 3);
    assert_eq!(boot.report["groups"].as_array().map(Vec::len), Some(2));
    // What is absent still is looked for again, and the rest left alone.
    boot.fake.load("snd_hda_intel");
    boot.give_back("0000:00:1b.0");
    assert_eq!(boot.finish(), ["00:1e.0 absent"]);
    assert_eq!(boot.in_report(), all);
    assert_eq!(boot.fake.driver("0000:00:1b.0").as_deref(), Some("snd_hda_intel"));
}

/// Of a slot one function was bound and given back, and another has come.
#[test]
fn of_an_item_only_what_is_left_is_taken() {
    for text in ["vfio.devs=10de:1c03@01:00.*", "vfio.devs=group:10de:1c03@01:00.0"] {
        let mut machine = desktop();
        let at = machine.functions.iter().position(|it| it.address == "0000:01:00.1");
        let audio = machine.functions.remove(at.expect("it is there"));
        let mut boot = Boot::new(&machine, text);
        assert_eq!(boot.in_report(), ["0000:01:00.0 bound"]);
        boot.fake.load("nouveau");
        boot.give_back(CARD);
        boot.fake.add_device(audio);
        boot.fake.settle("0000:01:00.1");
        assert_eq!(boot.finish(), ["0000:01:00.1 bound"], "{text}");
        assert_eq!(boot.fake.driver(CARD).as_deref(), Some("nouveau"), "{text}");
        assert_eq!(boot.in_report(), ["0000:01:00.0 bound", "0000:01:00.1 bound"], "{text}");
        boot.assert_over(text);
    }
}

#[test]
fn what_failed_is_tried_again_and_what_was_refused_is_not() {
    let machine = desktop().left_out("vfio_pci");
    let mut boot = Boot::new(&machine, "vfio.devs=00:14.0,8086:ffff@00:19.0");
    assert_eq!(boot.in_report(), ["0000:00:14.0 failed", "0000:00:19.0 refused"]);
    boot.fake.provide("vfio_pci");
    assert_eq!(boot.finish(), ["0000:00:14.0 bound"]);
    assert_eq!(boot.in_report(), ["0000:00:14.0 bound", "0000:00:19.0 refused"]);
    assert_eq!(boot.report["exit_status"], 1);
    boot.assert_over("no more");
}

#[test]
fn a_report_that_is_not_of_this_boot_is_none() {
    let fake = desktop().boot();
    let path = fake.tree.root().join("run/report.json");
    let text = "vfio.devs=01:00.0";
    let read = |fake: &Fake| finish::read(&path, text.as_bytes(), &fake.sysfs());
    assert_eq!(read(&fake), Ok(None));
    for (report, why) in [
        ("", "EOF while parsing"),
        ("[]", "another version"),
        (r#"{"version":2,"devices":[],"command_line":"vfio.devs=01:00.0"}"#, "another version"),
        (r#"{"version":1,"devices":{},"command_line":"vfio.devs=01:00.0"}"#, "another version"),
        (
            r#"{"version":1,"devices":[],"command_line":"vfio.devs=02:00.0"}"#,
            "another command line",
        ),
        (r#"{"version":1,"devices":[]}"#, "another command line"),
    ] {
        fake.tree.write("run/report.json", report);
        let said = read(&fake).expect_err(report);
        assert!(said.contains("report.json") && said.contains(why), "{report}: {said}");
    }
    let report = r#"{"version":1,"devices":[],"command_line":"vfio.devs=01:00.0"}"#;
    fake.tree.write("run/report.json", report);
    assert!(matches!(read(&fake), Ok(Some(_))));
}

/// Whatever stands in a report, nothing panics, and the result is a report again.
#[test]
fn a_report_of_anything_is_borne() {
    for devices in [
        r"[1,null,{},[],{}]",
        r#"[{"address":"x","outcome":"bound"},{"address":"0000:01:00.0","outcome":5,"driver":{}}]"#,
        r#"[{"address":null,"item":{"a":1},"outcome":"absent"}]"#,
    ] {
        let mut boot = Boot::new(&desktop(), "vfio.devs=01:00.0");
        let text = format!(r#"{{"version":1,"devices":{devices},"groups":3,"warnings":{{}}}}"#);
        boot.report = serde_json::from_str(&text).expect("JSON");
        boot.finish();
        assert!(boot.report["devices"].is_array(), "{devices}");
        let _ = finish::given_back(&boot.report, &boot.fake.sysfs());
        boot.status();
    }
}
