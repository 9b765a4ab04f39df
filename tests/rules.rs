//! The fake kernel is asked what real ones were (`docs/kernel-rules.md`), and answers as they did.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use qemu_tests::checks::rules::record::Record;
use qemu_tests::checks::rules::rule::{Op, Place, Rule, Step, escaped};
use qemu_tests::checks::rules::{self, machines};
use vfio_early::kernel::{Kernel, Write};

use crate::fake::modules::{Module, name_of};
use crate::fake::{Fake, Fault};
use crate::machine::{Function, Line, Machine};

/// The console driver over all framebuffers.
const FBCON: &str = "class/vtconsole/vtcon1/bind";

fn errno(answer: Result<(), Errno>) -> String {
    match answer {
        Ok(()) => "ok".to_owned(),
        Err(Errno::ETIMEDOUT) => "hangs".to_owned(),
        Err(errno) => format!("{errno:?}"),
    }
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// The machine that a rule is asked on.
fn machine(place: Place, line: Line) -> Machine {
    match place {
        Place::Plain => {
            let mut machine = Machine::of(&machines::plain()).line(line);
            // Without ACS, the port's group is also that of what is below it.
            let of_port = machine.function(machines::PORT).group;
            let below =
                machine.functions.iter_mut().filter(|it| it.address == machines::BELOW_PORT);
            below.for_each(|function| function.group = of_port);
            let apart = Function::new(machines::NO_GROUP, "1234:11e8", 0x00_ff00).group(None);
            machine.functions.push(apart);
            machine.bridges_have("shpchp").module(Module::new("pci_stub", &[]).driver("pci-stub"))
        }
        Place::TwoCards => {
            let mut machine = Machine::of(&machines::two_cards()).line(line);
            for function in &mut machine.functions {
                function.boot_vga = function.address == machines::FIRST_CARD;
                // The kernel takes the copy for that of each VGA device whose accesses get there;
                // 5.10 only for that of the first.
                function.rom_shadow = match line {
                    Line::V5_10 => function.boot_vga,
                    _ => function.class >> 8 == 0x0300 && function.above == "pci0000:00",
                };
            }
            machine.firmware_on(machines::FIRST_CARD)
        }
        Place::Guest => Machine::of(&machines::guest()).line(line),
    }
}

/// The fake kernel in the course of a rule.
struct Asked {
    fake: Fake,
    unplugged: Option<Function>,
    machine: Machine,
}

impl Asked {
    fn write(&mut self, write: Write) -> String {
        errno(self.fake.perform(&[write])[0])
    }

    fn insert(&mut self, module: &str) -> String {
        let module = name_of(module);
        self.write(Write::Insert { module, needs: Vec::new() })
    }

    fn answer(&mut self, op: &Op) -> String {
        match op {
            Op::Store { attribute, value } => {
                self.write(Write::Store { attribute: attribute.clone(), value: value.clone() })
            }
            Op::Read(path) => match fs::read(self.fake.tree.root().join(path)) {
                Ok(text) => escaped(&String::from_utf8_lossy(&text)),
                Err(error) => errno(Err(Errno::from_raw(error.raw_os_error().unwrap_or(0)))),
            },
            Op::Link(path) => {
                self.fake.tree.link_name(path).unwrap_or_else(|| errno(Err(Errno::ENOENT)))
            }
            Op::Exists(path) => yes_or_no(self.fake.tree.root().join(path).exists()),
            Op::Insert(module) => self.insert(module),
            Op::Load(module) => {
                let needed = self.fake.modules_for(module).expect("the module is there");
                let mut answers = needed.iter().map(|needed| self.insert(&needed.name));
                answers.find(|answer| answer != "ok").unwrap_or_else(|| errno(Ok(())))
            }
            Op::Needs(module) => match self.fake.modules_for(module) {
                None => "not there".to_owned(),
                Some(mut needed) => {
                    needed.pop();
                    let mut names: Vec<_> = needed.into_iter().map(|needed| needed.name).collect();
                    names.sort();
                    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
                }
            },
            Op::Viable(address) => {
                let group = self.machine.function(address).group.expect("it is in a group");
                match self.fake.group_viable(group) {
                    None => "no file",
                    Some(true) => "viable",
                    Some(false) => "not viable",
                }
                .to_owned()
            }
            Op::Unplug(address) => {
                self.unplugged = Some(self.machine.function(address).clone());
                self.fake.remove_device(address);
                errno(Ok(()))
            }
            Op::Replug { .. } => {
                self.fake.plug_in_later(self.unplugged.take().expect("it was unplugged"));
                self.fake.listen().expect("there is netlink");
                for _ in ["it is there", "it has its group"] {
                    assert!(self.fake.wait_for_uevent(Duration::ZERO));
                }
                "announced".to_owned()
            }
            Op::Hold(_) => {
                self.fake.fault(Fault::UnbindHangs { driver: "serial".into() });
                self.fake.fault(Fault::ProbeHangs { address: "0000:00:07.0".into() });
                errno(Ok(()))
            }
            Op::ReadOnly => {
                self.fake.fault(Fault::ReadOnly);
                errno(Ok(()))
            }
            Op::RomShadow(address) => {
                let resource =
                    self.fake.tree.read(&format!("sys/bus/pci/devices/{address}/resource"));
                let line = resource.lines().nth(6).expect("there are seven lines");
                yes_or_no(line.starts_with("0x00000000000c0000"))
            }
            Op::MapConsoles(framebuffer) => {
                self.write(Write::MapConsoles { framebuffer: *framebuffer })
            }
            Op::Console => match self.fake.screen.console_number() {
                Some(number) => format!("fb{number}"),
                None => "dark".to_owned(),
            },
            Op::BindConsole => {
                self.write(Write::Store { attribute: FBCON.into(), value: "1".into() })
            }
        }
    }
}

fn answers(rule: &Rule, line: Line) -> Vec<String> {
    let machine = machine(rule.place, line);
    let mut asked = Asked { fake: machine.boot(), unplugged: None, machine };
    let mut announced = 0;
    let mut answers = Vec::new();
    for step in &rule.steps {
        answers.push(asked.answer(&step.op));
        // Only then the kernel goes on.
        match &step.op {
            Op::Replug { announced: steps, .. } => announced = steps + 1,
            _ if announced == 0 => continue,
            _ => {}
        }
        announced -= 1;
        if announced == 0 {
            assert!(asked.fake.wait_for_uevent(Duration::ZERO), "{}", rule.name);
        }
    }
    answers
}

#[test]
fn the_fake_kernel_answers_as_linux_does() {
    let record = Record::read().expect("the record is there");
    let rules = rules::all();
    let mut complaints = Vec::new();
    // How often the answer to a step is an exception.
    let mut exceptions: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for rule in &rules {
        for line in Line::ALL.into_iter().filter(|line| rule.is_asked_on(line.text())) {
            let mut found = answers(rule, line);
            let kept = record.answers(rule, line.text()).unwrap_or_default();
            let steps = rule.steps.iter().enumerate().zip(kept).zip(&mut found);
            for (((number, Step { exception, .. }), kept), found) in steps {
                if exception.is_some() {
                    let count = exceptions.entry((rule.name, number + 1)).or_default();
                    *count += usize::from(kept != found);
                    found.clone_from(kept);
                }
            }
            complaints.extend(record.complaints(rule, line.text(), "the fake kernel", &found));
        }
    }
    for ((name, number), count) in exceptions {
        if count == 0 {
            complaints.push(format!("{name}, step {number}: it is no exception any more"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
