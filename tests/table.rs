//! The table of scenarios that the fake kernel shares with the VM harness.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use qemu_tests::machine::moment::{Device, Moment};
use qemu_tests::machine::observed::{BEFORE, Execution, HOST, Observed, Prediction, Record};
use qemu_tests::scenario::{Scenario, Sides};
use qemu_tests::scenario::{answers, matrix, table};
use vfio_early::report::{Report, exit_status};
use vfio_early::{Claim, cmdline, kmsg, report_file};

use crate::fake::Fake;
use crate::journal;
use crate::machine::{Line, Machine};

/// Every device as the files show it.
fn moment(fake: &Fake) -> Moment {
    let devices = fake.tree.root().join("sys/bus/pci/devices");
    let mut moment = Moment::default();
    for entry in fs::read_dir(&devices).expect("the devices' folder") {
        let entry = entry.expect("a device");
        let address = entry.file_name().into_string().expect("an address");
        let text = |name: &str| {
            let text = fs::read_to_string(entry.path().join(name)).expect("an attribute");
            text.trim_end().trim_start_matches("0x").to_owned()
        };
        let link =
            |name: &str| fake.tree.link_name(&format!("sys/bus/pci/devices/{address}/{name}"));
        let folder = fs::read_link(entry.path()).expect("a link");
        let above = folder.parent().and_then(Path::file_name).expect("a bus");
        let above = above.to_str().expect("a name").to_owned();
        let device = Device {
            id: format!("{}:{}", text("vendor"), text("device")),
            subsystem: format!("{}:{}", text("subsystem_vendor"), text("subsystem_device")),
            class: text("class"),
            driver: link("driver"),
            driver_override: Some(text("driver_override")).filter(|name| name != "(null)"),
            group: link("iommu_group").map(|number| number.parse().expect("a number")),
            parent: Some(above).filter(|above| !above.starts_with("pci")),
        };
        moment.devices.insert(address, device);
    }
    moment
}

fn parameters(fake: &Fake) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, content) in fake.tree.everything() {
        if let Some(name) = path.strip_prefix("sys/module/vfio")
            && name.contains("/parameters/")
        {
            found.insert(format!("vfio{name}"), content.trim_end().to_owned());
        }
    }
    found
}

/// What `main` does with the command line that the tree has.
fn run(fake: &mut Fake, folder: &Path, beside: &[&str]) -> Execution {
    let text = fake.sysfs().cmdline().expect("the tree has a command line");
    let request = cmdline::parse(&text);
    let check = vfio_early::check(request.clone(), &fake.sysfs(), fake);
    let expected = check.expect("the PCI bus can be read").report;
    let prediction = Prediction {
        status: expected.exit_status.into(),
        report: serde_json::to_value(&expected).expect("a report is JSON"),
    };
    let mut execution = Execution { prediction: Some(prediction), ..Execution::default() };
    if request.asks_for_devices() {
        let command_line = String::from_utf8_lossy(&text).into_owned();
        let report = if beside.is_empty() {
            fake.try_bind(&text).expect("the PCI bus can be read")
        } else {
            in_two_moments(fake, &command_line, beside)
        };
        let report = Report { command_line, kernel: fake.sysfs().kernel_release(), ..report };
        report_file::save(&report, folder).expect("the report can be written");
        for (level, line) in report.lines() {
            log::log!(target: "vfio_early", level, "{line}");
        }
        execution.status = report.exit_status.into();
    } else {
        for warning in &request.warnings {
            log::warn!(target: "vfio_early", "{warning}");
        }
        execution.status = exit_status(false, false).into();
    }
    let report = folder.join(report_file::NAME);
    if let Ok(text) = fs::read(&report) {
        execution.report = serde_json::from_slice(&text).expect("the report is JSON");
        let mode = fs::metadata(&report).expect("the report is there").permissions().mode();
        execution.report_mode = format!("{:o}", mode & 0o7777);
    }
    execution
}

/// Loads these modules after the first.
fn in_two_moments(fake: &mut Fake, text: &str, modules: &[&str]) -> Report {
    let claim = fake.claim(text);
    for module in modules {
        fake.load(module);
    }
    match claim {
        Claim::Claimed(claimed) => fake.go_on(text, claimed),
        Claim::Done(report) => *report,
    }
}

/// What the fake kernel makes of a scenario.
pub fn observe(scenario: &Scenario, line: Line) -> Observed {
    let mut fake = Machine::of_scenario(scenario, line).boot();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut seen = Observed::default();
    for module in &scenario.before {
        fake.load(module);
    }
    seen.moments.insert(BEFORE.to_owned(), moment(&fake));
    journal::start();
    for number in 1..=scenario.runs.len() {
        let beside = if number == 1 { scenario.beside.as_slice() } else { &[] };
        seen.executions.push(run(&mut fake, &folder.path().join("vfio-early"), beside));
        seen.moments.insert(format!("after {number}"), moment(&fake));
    }
    let record = |(level, text)| Record { level: kmsg::printk_level(level), text };
    seen.log = journal::take().into_iter().map(record).collect();
    if !scenario.host_modules.is_empty() {
        for module in &scenario.host_modules {
            fake.load(module);
        }
        seen.moments.insert(HOST.to_owned(), moment(&fake));
    }
    seen.parameters = parameters(&fake);
    seen
}

#[test]
fn every_scenario_ends_as_the_table_says() {
    let mut complaints = Vec::new();
    let mut count = 0;
    for scenario in table::all().iter().filter(|scenario| scenario.sides == Sides::Both) {
        // Kernels of Debian's that are built otherwise, and NixOS's, differ in what is built in.
        let machines = matrix::on_lines(scenario);
        assert!(!machines.is_empty(), "{} is on no machine", scenario.name);
        let kind =
            |scenario: &Scenario| (scenario.topology.iommu, scenario.topology.groups_at_probe);
        for alike in machines.chunk_by(|(_, one), (_, next)| kind(one) == kind(next)) {
            count += 1;
            let mut last: Option<Observed> = None;
            for (line, scenario) in alike {
                let topology = &scenario.topology;
                let seen = observe(scenario, Line::of(line));
                let mut found = scenario.topology_complaints(&seen.moments[BEFORE]);
                found.extend(scenario.complaints(&seen));
                // One answer is kept, for every kernel that the harness boots.
                let differences = |last| answers::differences(topology, last, &seen);
                found.extend(last.iter().flat_map(differences));
                let name = format!("{} ({line}, {:?})", scenario.name, topology.iommu);
                complaints.extend(found.into_iter().map(|text| format!("{name}: {text}")));
                last = Some(seen);
            }
            let (scenario, last) = (&alike[0].1, last.expect("a scenario has a kernel"));
            answers::keep(scenario, &last).expect("the answer can be kept");
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(count > 80, "only {count} scenarios run over the fake kernel");
}
