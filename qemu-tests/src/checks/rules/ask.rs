//! Asks a real kernel, in a guest.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duct::cmd;

use super::machines;
use super::record::{self, Answers};
use super::rule::{Op, Place, Rule};
use crate::check::{Boot, verdict};
use crate::machine::guest_program;
use crate::machine::initrd;
use crate::machine::run::Run;
use crate::machine::vm::{Vm, vm};
use crate::supplies::arch::Arch;
use crate::supplies::kernels::{self, Kernel};

/// Where the guest has the modules, unpacked, and what it is asked.
const FOLDER: &str = "/rules";

/// The name that a module has on that kernel.
fn module_on(kernel: &str, module: &str) -> String {
    match (kernel, module) {
        ("5.10", "bochs") => "bochs_drm".to_owned(),
        _ => module.to_owned(),
    }
}

/// Paths of the files for a module, below the kernel's folder of modules: what it needs first.
fn files(kernel: &Kernel, module: &str) -> Result<Vec<String>> {
    let start = format!("/lib/modules/{}/", kernel.release);
    let order = initrd::load_order(kernel, &[&module_on(&kernel.line, module)])?;
    Ok(order.iter().map(|path| path.trim_start_matches(&start).to_owned()).collect())
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn in_guest(path: &str) -> String {
    format!("{FOLDER}/{}.ko", name_of(path))
}

/// As [`Op::Needs`] has it.
fn needs(kernel: &Kernel, module: &str) -> String {
    let Ok(order) = files(kernel, module) else { return "not there".to_owned() };
    let Some((_, needed)) = order.split_last() else { return "built in".to_owned() };
    let mut names: Vec<_> = needed.iter().map(|path| name_of(path)).collect();
    names.sort();
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}

fn hex(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Op {
    /// The line of `guest/ask-kernel.c`'s script; none where the guest is not needed.
    fn line(&self, kernel: &Kernel) -> Result<Option<String>> {
        Ok(Some(match self {
            Op::Store { attribute, value } => format!("store sys/{attribute} {}", hex(value)),
            Op::Read(path) => format!("read {path}"),
            Op::Link(path) => format!("link {path}"),
            Op::Exists(path) => format!("exists {path}"),
            Op::Insert(module) => {
                let files = files(kernel, module)?;
                let file = files.last().context("a module that is built in is not inserted")?;
                format!("insert {}", in_guest(file))
            }
            Op::Load(module) => {
                let files: Vec<_> =
                    files(kernel, module)?.iter().map(|path| in_guest(path)).collect();
                format!("load {}", files.join(" "))
            }
            Op::Needs(_) => return Ok(None),
            Op::Viable(address) => format!("viable {address}"),
            Op::Unplug(address) => format!("unplug {address}"),
            Op::Replug { address, announced } => format!("replug {address} {announced}"),
            Op::Hold(address) => format!("hold {address}"),
            Op::ReadOnly => "read-only".to_owned(),
            Op::RomShadow(address) => format!("rom-shadow {address}"),
            Op::MapConsoles(framebuffer) => format!("map {framebuffer}"),
            Op::Console => "console".to_owned(),
            Op::BindConsole => "bind-console".to_owned(),
        }))
    }
}

fn script(kernel: &Kernel, rules: &[&Rule]) -> Result<String> {
    let mut text = String::new();
    for (number, rule) in rules.iter().enumerate() {
        writeln!(text, "rule {number}")?;
        for step in &rule.steps {
            let line = step.op.line(kernel).with_context(|| rule.name)?;
            text.extend(line.map(|line| line + "\n"));
        }
        if rule.place == Place::Plain {
            text.push_str("reset\n");
        }
    }
    Ok(text)
}

/// What ends a signed module (`MODULE_SIG_STRING`).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A module's bytes without its signature, which takes long to check: the rules insert hundreds.
fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    // Before the text is a `struct module_signature`, whose last four bytes are the length of what
    // is before that.
    let signature = module.strip_suffix(SIGNED).and_then(|signed| signed.last_chunk::<4>());
    if let Some(length) = signature {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let end = SIGNED.len() + 12;
        module.truncate(module.len().saturating_sub(end.saturating_add(length)));
    }
    module
}

/// A module's bytes as every kernel takes them.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|end| end == "xz") {
        let output = cmd!("xz", "--decompress", "--stdout", path).stdout_capture().run();
        let output = output.with_context(|| format!("cannot unpack {}", path.display()))?;
        return Ok(unsigned(output.stdout));
    }
    let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(unsigned(module))
}

fn machine(kernel: &Kernel, rules: &[&Rule]) -> Result<Vm> {
    let mut machine = vm(kernel)
        .without_program()
        .limit(Duration::from_mins(15))
        .tool("/bin/ask-kernel", guest_program::compile("ask-kernel", kernel.arch)?)
        .file(&format!("{FOLDER}/script"), script(kernel, rules)?)
        .shell(&format!("/bin/ask-kernel {FOLDER}/script"));
    machine = match rules.first().map(|rule| rule.place) {
        // The last console is the one for programs; the kernel prints on both.
        Some(Place::TwoCards) => {
            machine.topology(machines::two_cards()).uefi().cmdline("console=tty0")
        }
        Some(Place::Guest) => machine.topology(machines::guest()),
        _ => machine.topology(machines::plain()).arguments(machines::PLAIN.iter().copied()),
    };
    for module in rules.iter().flat_map(|rule| &rule.steps).filter_map(|step| step.op.inserted()) {
        for path in files(kernel, module)? {
            machine = machine.file(&in_guest(&path), unpacked(&kernel.modules.join(&path))?);
        }
    }
    Ok(machine)
}

/// What the guest's program printed, as answers to the steps; the rest are complaints.
fn read(kernel: &Kernel, rules: &[&Rule], printed: &str) -> Result<(Answers, Vec<String>)> {
    let mut sections: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    let (mut number, mut complaints) = (0, Vec::new());
    for line in printed.lines() {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "rule" => number = rest.parse().context("a rule has a number")?,
            "answer" => sections.entry(number).or_default().push(rest),
            "problem" => complaints.push(format!("{}: {rest}", rules[number].name)),
            "end" | "" => {}
            _ => bail!("the guest says {line:?}"),
        }
    }
    ensure!(printed.contains("\nend\n"), "the guest came to no end; it printed\n{printed}");
    let mut answers = Answers::new();
    for (number, rule) in rules.iter().enumerate() {
        let mut of_guest = sections.remove(&number).unwrap_or_default().into_iter();
        let mut next = |op: &Op| match op {
            Op::Needs(module) => Some(needs(kernel, module)),
            _ => of_guest.next().map(str::to_owned),
        };
        let found: Option<Vec<_>> = rule.steps.iter().map(|step| next(&step.op)).collect();
        let found = found.with_context(|| format!("{}: an answer is missing", rule.name))?;
        ensure!(of_guest.next().is_none(), "{}: there are more answers than steps", rule.name);
        answers.insert(rule.name.to_owned(), found);
    }
    Ok((answers, complaints))
}

/// The answers, the run, and what was wrong with it.
type Asked = (Answers, Run, Vec<String>);

/// One boot: all of the rules are of one [`Place`].
fn ask(kernel: &Kernel, rules: &[&Rule]) -> Result<Asked> {
    let run = machine(kernel, rules)?.boot()?;
    let printed = run.shells.first().cloned().unwrap_or_default();
    match read(kernel, rules, &printed) {
        Ok((answers, mut complaints)) => {
            complaints.extend(run.log_complaints());
            Ok((answers, run, complaints))
        }
        Err(error) => bail!("{error:#}\n{}", run.details()),
    }
}

/// Rules that one boot answers.
fn boots_of<'r>(rules: &'r [Rule], kernel: &str) -> Vec<Vec<&'r Rule>> {
    let asked: Vec<_> = rules.iter().filter(|rule| rule.is_asked_on(kernel)).collect();
    let (plain, cards): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|rule| rule.place == Place::Plain);
    let boots = [plain].into_iter().chain(cards.into_iter().map(|rule| vec![rule]));
    boots.filter(|rules| !rules.is_empty()).collect()
}

/// Asks that kernel the rules; `keep` gets the answers of each boot.
///
/// # Errors
/// When a guest does not come to its end, or cannot be made, or the answers cannot be kept.
pub fn ask_all(
    kernel: &Kernel,
    rules: &[Rule],
    mut keep: impl FnMut(Answers) -> Result<()>,
) -> Result<()> {
    for boot in boots_of(rules, &kernel.line) {
        let (answers, run, complaints) = ask(kernel, &boot)?;
        if let Err(details) = verdict(run, &complaints) {
            bail!("{details}");
        }
        keep(answers)?;
    }
    Ok(())
}

/// The boots that hold the record against its kernels, which are Debian's.
pub(crate) fn boots() -> Vec<Boot> {
    kernels::LINES.into_iter().flat_map(boots_on).collect()
}

fn boots_on(kernel: &'static str) -> Vec<Boot> {
    let rules = super::all();
    let boots = boots_of(&rules, kernel);
    let boot = |rules: &Vec<&Rule>| {
        let rules: Vec<Rule> = rules.iter().map(|rule| (*rule).clone()).collect();
        let name = match &rules[..] {
            [Rule { place: Place::TwoCards | Place::Guest, name, .. }] => format!("rules: {name}"),
            rules => format!("rules: all {} that need no screen", rules.len()),
        };
        Boot { name, kernel, check: Box::new(move |kernel, _, _| check(kernel, &rules).into()) }
    };
    boots.iter().map(boot).collect()
}

fn check(kernel: &Kernel, rules: &[Rule]) -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let record = record::Record::read().map_err(text)?;
    let rules: Vec<&Rule> = rules.iter().collect();
    let (answers, run, mut complaints) = ask(kernel, &rules).map_err(text)?;
    for rule in rules {
        complaints.extend(record.complaints(
            rule,
            &kernel.line,
            "this kernel",
            &answers[rule.name],
        ));
    }
    verdict(run, &complaints)
}

/// Kernels to ask: those that are named; else all for x86, that of NixOS where it is set up.
pub(crate) fn wanted(named: &[String]) -> Vec<&'static str> {
    let is_wanted = |kernel: &&str| match named {
        [] if *kernel == kernels::NIXOS => kernels::get(kernel).is_ok(),
        [] => kernels::arch_of(kernel) == Arch::Amd64,
        _ => named.iter().any(|name| name == kernel),
    };
    kernels::NAMES.into_iter().filter(is_wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::rules::rule::rule;
    use std::path::PathBuf;

    fn kernel() -> Kernel {
        Kernel {
            line: "6.1".to_owned(),
            arch: Arch::default(),
            release: "6.1.0".to_owned(),
            vmlinuz: PathBuf::new(),
            vmlinux: PathBuf::new(),
            modules: PathBuf::new(),
            package_version: String::new(),
        }
    }

    #[test]
    fn a_signature_is_taken_off() {
        let end = [&[7; 5][..], &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5], SIGNED].concat();
        assert_eq!(unsigned([b"module", &end[..]].concat()), b"module");
        assert_eq!(unsigned(b"module".to_vec()), b"module");
    }

    #[test]
    fn answers_are_those_of_their_rule_and_none_may_be_missing() {
        let one = rule("one").read("proc/a").exists("proc/b");
        let two = rule("two").then(Op::Console);
        let rules = [&one, &two];
        let read = |printed: &str| read(&kernel(), &rules, printed);
        let printed = "rule 0\nanswer a b\nanswer no\nproblem x\nrule 1\nanswer dark\nend\n";
        let (answers, complaints) = read(printed).unwrap();
        assert_eq!(answers["one"], ["a b", "no"]);
        assert_eq!(answers["two"], ["dark"]);
        assert_eq!(complaints, ["one: x"]);
        for (printed, expected) in [
            ("rule 0\nanswer a b\nanswer no\n", "came to no end"),
            ("rule 0\nanswer a b\nrule 1\nanswer dark\nend\n", "one: an answer is missing"),
            ("rule 0\nanswer a\nanswer b\nanswer c\nend\n", "one: there are more answers"),
            ("Segmentation fault\nend\n", "Segmentation fault"),
        ] {
            let error = read(printed).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_script_has_a_line_for_each_step_and_ends_each_rule() {
        let one = rule("one").set("0000:00:03.0", "a\n").replug("0000:00:03.0", 1).console();
        let script = script(&kernel(), &[&one]).unwrap();
        let path = "sys/bus/pci/devices/0000:00:03.0/driver_override";
        let expected =
            format!("rule 0\nstore {path} 610a\nreplug 0000:00:03.0 1\nconsole\nreset\n");
        assert_eq!(script, expected);
    }
}
