//! Holds what was seen against what a [`Scenario`] expects.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::check::prediction::{self, Unforeseen};
use crate::machine::moment::Moment;
use crate::machine::observed::Observed;
use crate::machine::observed::{BEFORE, Execution, HOST};
use crate::machine::topology::Function;
use crate::scenario::{Scenario, Wanted};

/// From here on the binary logs a line only for devices that are not bound.
const LINES_FOR_ALL: usize = 32;

/// No scenario has to wait so long: a run that does waits for what is there already, or hangs.
const MICROSECONDS: u64 = 30_000_000;

impl Scenario {
    /// All that is not as expected, one sentence each; empty when everything is.
    #[must_use]
    pub fn complaints(&self, seen: &Observed) -> Vec<String> {
        let mut check = Check { scenario: self, seen, found: Vec::new() };
        check.runs();
        check.devices();
        check.log();
        check.modules();
        check.found.extend(prediction::complaints(&seen.executions, |_| self.unforeseen_devices()));
        check.found
    }

    fn unforeseen_devices(&self) -> BTreeMap<&str, Unforeseen> {
        let wanted = self.wanted.iter();
        wanted.filter_map(|it| Some((it.address.as_deref()?, it.unforeseen?))).collect()
    }

    /// What the guest shows that the topology does not say, or the other way round.
    #[must_use]
    pub fn topology_complaints(&self, moment: &Moment) -> Vec<String> {
        let functions: Vec<Function> =
            self.topology.functions().into_iter().filter(|function| !function.hot_added).collect();
        let mut found = Vec::new();
        let mut numbers: BTreeMap<usize, u32> = BTreeMap::new();
        for function in &functions {
            let Some(shown) = moment.devices.get(&function.address) else {
                found.push(format!("{}: the guest has no such device", function.address));
                continue;
            };
            let group = function.group.filter(|_| !self.iommu_off);
            // Until a driver is probed for it nothing is known.
            let is_unknown = self.topology.groups_at_probe && shown.group.is_none();
            let in_group = group.is_some() && !is_unknown;
            let text = |(one, other): (u16, u16)| format!("{one:04x}:{other:04x}");
            for (what, claimed, shown) in [
                ("id", text(function.id), shown.id.clone()),
                ("subsystem", text(function.subsystem), shown.subsystem.clone()),
                ("class", format!("{:06x}", function.class), shown.class.clone()),
                ("parent", format!("{:?}", function.parent), format!("{:?}", shown.parent)),
                ("in a group", in_group.to_string(), shown.group.is_some().to_string()),
            ] {
                if claimed != shown {
                    let address = &function.address;
                    found
                        .push(format!("{address}: {what} is {shown}, the topology says {claimed}"));
                }
            }
            if let (Some(group), Some(number)) = (group, shown.group)
                && *numbers.entry(group).or_insert(number) != number
            {
                found.push(format!("{} is in no group with the ones claimed", function.address));
            }
        }
        let mut distinct: Vec<u32> = numbers.values().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != numbers.len() {
            found.push("two groups of the topology are one in the guest".to_owned());
        }
        for address in moment.devices.keys() {
            if !functions.iter().any(|function| function.address == *address) {
                found.push(format!("{address}: the topology has no such device"));
            }
        }
        found
    }
}

struct Check<'a> {
    scenario: &'a Scenario,
    seen: &'a Observed,
    found: Vec<String>,
}

impl Check<'_> {
    fn complain(&mut self, text: impl Into<String>) {
        self.found.push(text.into());
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, seen: &T, wanted: &T) {
        if seen != wanted {
            self.complain(format!("{what} is {seen:?}, expected {wanted:?}"));
        }
    }

    fn runs(&mut self) {
        let (scenario, seen) = (self.scenario, self.seen);
        self.same("the number of runs", &seen.executions.len(), &scenario.runs.len());
        for (index, execution) in seen.executions.iter().enumerate() {
            let run = format!("run {}", index + 1);
            let status = scenario.expected_status();
            self.same(&format!("{run}: the exit status"), &execution.status, &status);
            if !scenario.reports {
                if !execution.report.is_null() {
                    self.complain(format!("{run}: there is a report, although nothing was done"));
                }
                continue;
            }
            if execution.prediction.is_none() {
                self.complain(format!("{run}: check was not asked"));
            }
            if execution.report.is_null() {
                self.complain(format!("{run}: there is no report"));
                continue;
            }
            self.report(&run, execution);
        }
        for text in &scenario.stdout {
            if !seen.executions.first().is_some_and(|first| first.stdout.contains(text)) {
                self.complain(format!("the first run does not print {text:?}"));
            }
        }
        // Run it again, any time: it changes nothing.
        for index in 2..=seen.executions.len() {
            let (one, two) = (format!("after {}", index - 1), format!("after {index}"));
            if seen.moments.get(&one) != seen.moments.get(&two) {
                self.complain(format!("run {index} changed a device"));
            }
        }
    }

    fn report(&mut self, run: &str, execution: &Execution) {
        let (scenario, report) = (self.scenario, &execution.report);
        self.same(&format!("{run}: the report's version"), &report["version"], &Value::from(1));
        let status = i64::from(execution.status);
        self.same(
            &format!("{run}: the report's exit status"),
            &report["exit_status"].as_i64(),
            &Some(status),
        );
        self.same(
            &format!("{run}: the report's permissions"),
            &execution.report_mode.as_str(),
            &"644",
        );
        match report["elapsed_us"].as_u64() {
            None => self.complain(format!("{run}: the report does not say how long it took")),
            Some(long @ MICROSECONDS..) => self.complain(format!("{run}: it took {long} us")),
            Some(_) => {}
        }
        let rejected = list(&report["request"]["rejected"]);
        let texts: Vec<&str> = rejected.iter().filter_map(|each| each["text"].as_str()).collect();
        self.same(&format!("{run}: the rejected items"), &texts, &scenario.rejected);
        let warnings: Vec<&str> =
            list(&report["warnings"]).iter().filter_map(Value::as_str).collect();
        self.told(&format!("{run}: a machine-wide warning"), &warnings, &scenario.warnings);

        let entries = list(&report["devices"]);
        for entry in entries {
            let known = scenario.wanted.iter().any(|wanted| matches(wanted, entry));
            if !known {
                self.complain(format!("{run}: the report has {}, unexpected", short(entry)));
            }
        }
        for wanted in &scenario.wanted {
            let found: Vec<_> = entries.iter().filter(|entry| matches(wanted, entry)).collect();
            match found[..] {
                [entry] => self.entry(run, wanted, entry, group_of(entry, report)),
                [] => self.complain(format!("{run}: the report lacks {}", name(wanted))),
                _ => self.complain(format!("{run}: the report repeats {}", name(wanted))),
            }
        }
    }

    fn entry(&mut self, run: &str, wanted: &Wanted, entry: &Value, group: &Value) {
        let who = format!("{run}: {}", name(wanted));
        self.same(
            &format!("{who}: the outcome"),
            &entry["outcome"].as_str(),
            &Some(wanted.outcome),
        );
        let text = ["reason", "remedy"].map(|field| entry[field].as_str().unwrap_or_default());
        let warnings: Vec<&str> =
            list(&entry["warnings"]).iter().filter_map(Value::as_str).collect();
        let all = [text.to_vec(), warnings.clone()].concat().join("\n");
        for wanted in &wanted.texts {
            if !all.contains(wanted) {
                self.complain(format!("{who}: {wanted:?} is neither reason, remedy nor warning"));
            }
        }
        let expected = |warning: &&str| wanted.texts.iter().any(|text| warning.contains(text));
        for warning in warnings.iter().filter(|warning| !expected(warning)) {
            self.complain(format!("{who}: an unexpected warning: {warning}"));
        }
        let obstacles: Vec<String> = list(&entry["obstacles"])
            .iter()
            .map(|why| format!("{}; {}", why["reason"], why["remedy"]))
            .collect();
        let texts: Vec<&str> = obstacles.iter().map(String::as_str).collect();
        self.told(&format!("{who}: an obstacle"), &texts, &wanted.obstacles);
        let usable = (wanted.outcome == "bound").then_some(wanted.obstacles.is_empty());
        self.same(&format!("{who}: usable"), &entry["usable"].as_bool(), &usable);
        if wanted.outcome != "bound" && (text[0].is_empty() || text[1].is_empty()) {
            self.complain(format!("{who}: {} without a reason or a remedy", wanted.outcome));
        }
        let Some(address) = &wanted.address else { return };
        let functions = self.scenario.topology.functions();
        let Some(function) = functions.iter().find(|function| function.address == *address) else {
            self.complain(format!("{address}: the scenario names a device that it does not have"));
            return;
        };
        self.same(
            &format!("{who}: the id in the report"),
            &entry["id"].as_str(),
            &Some(function.id_text().as_str()),
        );
        self.same(
            &format!("{who}: the class in the report"),
            &entry["class"].as_str(),
            &Some(format!("{:06x}", function.class).as_str()),
        );
        let members: Vec<&str> = functions
            .iter()
            .filter(|other| function.group.is_some() && other.group == function.group)
            .filter(|_| !self.scenario.iommu_off)
            .map(|other| other.address.as_str())
            .collect();
        let listed = list(&group["members"]);
        let listed: Vec<&str> =
            listed.iter().filter_map(|member| member["address"].as_str()).collect();
        if !self.scenario.topology.groups_at_probe {
            self.same(&format!("{who}: the members of its group"), &listed, &members);
        } else if wanted.outcome == "bound" {
            // Some may not be known yet.
            let is_there = listed.contains(&address.as_str());
            if !is_there || listed.iter().any(|member| !members.contains(member)) {
                self.complain(format!("{who}: its group has {listed:?}, expected of {members:?}"));
            }
        }
    }

    /// Each text that is wanted is in one that was told, and the other way round.
    fn told(&mut self, what: &str, told: &[&str], wanted: &[&'static str]) {
        for text in wanted {
            if !told.iter().any(|it| it.contains(text)) {
                self.complain(format!("{what}: none says {text:?}"));
            }
        }
        for it in told {
            if !wanted.iter().any(|text| it.contains(text)) {
                self.complain(format!("{what}: unexpected: {it}"));
            }
        }
    }

    /// What sysfs shows of every device of the machine, asked for or not.
    fn devices(&mut self) {
        let (scenario, seen) = (self.scenario, self.seen);
        let last = format!("after {}", seen.executions.len());
        let none = Moment::default();
        let at = |name: &str| seen.moments.get(name).unwrap_or(&none);
        for function in scenario.topology.functions() {
            let address = function.address.as_str();
            let at_power_on = scenario.bound_at_power_on(&function);
            let is_listed = |modules: &[&str]| {
                function
                    .host_module
                    .is_some_and(|own| modules.iter().any(|module| module.replace('-', "_") == own))
            };
            let loaded_before = is_listed(&scenario.before);
            let host_driver = scenario.host_driver(&function);
            let before = host_driver.filter(|_| at_power_on || loaded_before);
            if !function.hot_added {
                let what = format!("{address}: the driver before");
                self.same(&what, &at(BEFORE).driver(address), &before);
                let shown = at(BEFORE).devices.get(address);
                let shown = shown.and_then(|device| device.driver_override.as_deref());
                self.same(&format!("{address}: the override before"), &shown, &None);
            }
            let wanted =
                scenario.wanted.iter().find(|wanted| wanted.address.as_deref() == Some(address));
            let (outcome, vfio) = (wanted.map(|it| it.outcome), wanted.map(|it| it.driver));
            let untouched = !matches!(outcome, Some("bound" | "failed"));
            let host = match outcome {
                Some("bound") => vfio,
                Some("failed") => before,
                _ if is_listed(&scenario.host_modules) => host_driver,
                _ => before,
            };
            let after = match outcome {
                Some("bound") => vfio,
                Some("failed") => before,
                _ if is_listed(&scenario.beside) => host_driver,
                _ => before,
            };
            self.same(&format!("{address}: the driver"), &at(&last).driver(address), &after);
            if !scenario.host_modules.is_empty() {
                let what = format!("{address}: the driver after the host's modules");
                self.same(&what, &at(HOST).driver(address), &host);
            }
            let seen = at(&last).devices.get(address);
            let seen = seen.and_then(|device| device.driver_override.as_deref());
            let wanted = if untouched { None } else { vfio };
            self.same(&format!("{address}: the override"), &seen, &wanted);
        }
    }

    fn log(&mut self) {
        let (scenario, seen) = (self.scenario, self.seen);
        let lines: Vec<&str> = seen.log.iter().map(|record| record.text.as_str()).collect();
        for text in &scenario.log {
            if !lines.iter().any(|line| line.contains(text)) {
                self.complain(format!("no line of the log says {text:?}"));
            }
        }
        if let Some(long) = lines.iter().find(|line| line.len() > 900) {
            self.complain(format!("a line of the log is longer than 900 bytes: {long}"));
        }
        let all = scenario.wanted.len() <= LINES_FOR_ALL;
        for wanted in scenario.wanted.iter().filter(|wanted| all || wanted.outcome != "bound") {
            let name = name(wanted);
            let outcome = if wanted.outcome == "bound" { "bound to" } else { wanted.outcome };
            let is_it = |line: &&&str| line.contains(&name) && line.contains(outcome);
            let count = lines.iter().filter(is_it).count();
            let runs = seen.executions.len();
            if count < runs {
                self.complain(format!(
                    "{name}: the log has {count} lines that say {outcome:?}, expected {runs}"
                ));
            }
        }
    }

    fn modules(&mut self) {
        let (scenario, seen) = (self.scenario, self.seen);
        for (name, value) in &scenario.parameters {
            let seen = seen.parameters.get(*name).map(String::as_str);
            self.same(&format!("the module parameter {name}"), &seen, &Some(value));
        }
        if let Some(wanted) = scenario.loads_vfio {
            let loaded = !seen.parameters.is_empty();
            self.same("whether vfio's modules are loaded", &loaded, &wanted);
        }
    }
}

/// The object of a device's group in a report; null where it has none.
pub(crate) fn group_of<'r>(device: &Value, report: &'r Value) -> &'r Value {
    let mut groups = list(&report["groups"]).iter();
    groups.find(|group| group["number"] == device["group"]).unwrap_or(&Value::Null)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn matches(wanted: &Wanted, entry: &Value) -> bool {
    let address = entry["address"].as_str() == wanted.address.as_deref();
    let item = wanted.item.as_deref().is_none_or(|item| entry["item"].as_str() == Some(item));
    address && item
}

fn name(wanted: &Wanted) -> String {
    let item = wanted.item.clone().unwrap_or_default();
    wanted.address.clone().unwrap_or(item)
}

fn short(entry: &Value) -> String {
    format!("{} {} {}", entry["item"], entry["address"], entry["outcome"])
}
