//! The NixOS module evaluated, its files checked, its scripted branch booted.
//!
//! What a machine does not have is said to be not run, and never counted as passed: a whole nixpkgs (the
//! folder that `NIXPKGS` names), or its lib alone (`NIXPKGS_LIB`), nixfmt and deadnix. nix-bin is a Debian
//! package.

mod evaluation;
mod expected;
mod image;
mod initrd;
mod items;
mod scripted;
mod tree;
mod zstd;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::evaluation::Nix;
use self::expected::{EXPECTED, GROUPS, STORE, differences};
use crate::check::{Check, Outcome};
use crate::supplies::binary::{self, workspace};
use crate::supplies::musl::{self, Unpacks};
use crate::supplies::packages::{self, Package};
use crate::supplies::{kernels, step};

/// Names the folder of nixpkgs' lib, or one that has it as `lib`.
const LIBRARY: &str = "NIXPKGS_LIB";
/// Names the folder of a whole nixpkgs, which has a lib, too.
const TREE: &str = "NIXPKGS";

/// The kernel line that the scripted branch is booted on.
const KERNEL: &str = "6.1";
/// That of the Debian whose systemd is nearest to NixOS'.
const KERNEL_INITRD: &str = "6.12";

const OPTIONS_PAGE: &str = "docs/nixos-options.md";

/// All of them.
pub(crate) fn checks() -> Vec<Check> {
    type Kind = fn(Option<&Path>) -> Result<Outcome>;
    let check = |name: &str, kernel: Option<&'static str>, kind: Kind| Check {
        name: kernel.map_or(String::new(), |kernel| format!("{kernel} ")) + "nix: " + name,
        kernel,
        run: Box::new(move |program| kind(program).into()),
    };
    vec![
        check("files parse", None, |_| parse()),
        check("format", None, |_| tool("nixfmt", "no nixfmt", &["--check"])),
        check("dead code", None, |_| tool("deadnix", "no deadnix", &["--fail"])),
        check("module", None, module),
        check("over a whole nixpkgs", None, |_| over_a_tree()),
        check("the systemd initrd that it is evaluated to", Some(KERNEL_INITRD), evaluated),
        check("the scripted branch in its place of stage 1", Some(KERNEL), scripted),
        check("modules compressed with zstd", Some(KERNEL), |_| with_zstd()),
    ]
}

/// That program, or the binary of this tree.
fn program(given: Option<&Path>) -> Result<PathBuf> {
    given.map_or_else(binary::build, |program| Ok(program.to_owned()))
}

fn scripted(program: Option<&Path>) -> Result<Outcome> {
    let program = self::program(program)?;
    packages::ensure(packages::BOOT)?;
    Ok(Outcome::of(&scripted::problems(&kernels::set_up(KERNEL)?, &program)?))
}

/// The systemd units as the module has them for programs where dracut's module puts them: name to text.
///
/// # Errors
/// When there is no nixpkgs lib, or the module does not evaluate.
pub fn units() -> Result<BTreeMap<String, String>> {
    packages::ensure(NIX)?;
    let library = library()?
        .with_context(|| format!("no nixpkgs lib: {LIBRARY} must name the folder that has it"))?;
    let units = Nix::new(&library, "/usr")?.evaluate("tests.units")?;
    let mut units: BTreeMap<String, String> =
        serde_json::from_value(units).context("the units are no texts")?;
    // NixOS has each program in an initrd at its place in the store.
    for text in units.values_mut() {
        *text = text.replace("/usr/lib/vfio-early/vfio-early-initrd", "/usr/bin/vfio-early");
    }
    Ok(units)
}

/// The devices in `boot.initrd.vfio-early.devices = […];`, as `list --format nix` prints it. The
/// module has to take them where nixpkgs' lib is there.
///
/// # Errors
/// When it does not evaluate, or the module refuses it.
pub(crate) fn devices(text: &str) -> Result<Value> {
    packages::ensure(NIX)?;
    let configuration = format!("{{ {text} }}");
    if let Some(library) = library()? {
        let nix = Nix::new(&library, STORE)?;
        nix.evaluate(&format!("tests.parametersOf {configuration}"))?;
    }
    let devices = format!("({configuration}).boot.initrd.vfio-early.devices");
    Nix::without_library()?.evaluate(&devices)
}

const NIX: &[Package] =
    &[Package { name: "nix-bin", purpose: "parses and evaluates the NixOS module" }];

/// Every Nix file of the repository.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = vec![workspace().join("flake.nix"), workspace().join("default.nix")];
    for folder in ["initrd/nixos", "initrd/nixos/tests"] {
        let folder = workspace().join(folder);
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "nix"));
    files.sort_unstable();
    Ok(files)
}

fn parse() -> Result<Outcome> {
    packages::ensure(NIX)?;
    let nix = Nix::without_library()?;
    let errors = files()?.into_iter().filter_map(|file| nix.parse(&file).err());
    let problems: Vec<String> = errors.map(|error| format!("{error:#}")).collect();
    Ok(Outcome::of(&problems))
}

fn with_zstd() -> Result<Outcome> {
    if let Some(why) = musl::missing() {
        return Ok(Outcome::NotRun(why.to_owned()));
    }
    packages::ensure(packages::BOOT)?;
    let program = binary::build_that(Unpacks::XzAndZstd)?;
    // The usual one is built in its place.
    let folder = tempfile::tempdir()?;
    let with_zstd = folder.path().join("vfio-early");
    fs::copy(binary::initrds(&program), binary::initrds(&with_zstd))?;
    fs::copy(&program, &with_zstd)?;
    let usual = binary::build()?;
    Ok(Outcome::of(&zstd::problems(&kernels::set_up(KERNEL)?, &with_zstd, &usual)?))
}

/// A tool over all files, where it is installed.
fn tool(name: &str, missing: &str, arguments: &[&str]) -> Result<Outcome> {
    let mut version = Command::new(name);
    if version.arg("--version").stdin(Stdio::null()).output().is_err() {
        return Ok(Outcome::NotRun(missing.to_owned()));
    }
    let ran = step::run(Command::new(name).args(arguments).args(files()?));
    Ok(ran.map_or_else(|error| Outcome::Failed(format!("{error:#}")), |_| Outcome::Passed))
}

/// The folder of nixpkgs' lib: the one that is named, or that of a whole nixpkgs.
///
/// # Errors
/// When the variable names something else.
fn library() -> Result<Option<PathBuf>> {
    for variable in [LIBRARY, TREE] {
        let Some(folder) = folder(variable)? else { continue };
        for folder in [folder.join("lib"), folder.clone()] {
            if folder.join("modules.nix").is_file() {
                return Ok(Some(folder));
            }
        }
        bail!("{variable} names {}, which has not nixpkgs' lib: no modules.nix", folder.display())
    }
    Ok(None)
}

/// The folder that a variable names.
fn folder(variable: &str) -> Result<Option<PathBuf>> {
    let Some(folder) = env::var_os(variable).filter(|folder| !folder.is_empty()) else {
        return Ok(None);
    };
    let folder = Path::new(&folder);
    let found =
        folder.canonicalize().with_context(|| format!("{variable}={}", folder.display()))?;
    Ok(Some(found))
}

/// Whether the module can be evaluated here.
pub(crate) fn is_there() -> bool {
    [LIBRARY, TREE].iter().any(|name| env::var_os(name).is_some_and(|folder| !folder.is_empty()))
}

fn evaluated(program: Option<&Path>) -> Result<Outcome> {
    let Some(nixpkgs) = folder(TREE)? else {
        return Ok(Outcome::NotRun(format!("no nixpkgs ({TREE})")));
    };
    for packages in [NIX, packages::BOOT] {
        packages::ensure(packages)?;
    }
    let (kernel, program) = (kernels::set_up(KERNEL_INITRD)?, self::program(program)?);
    Ok(Outcome::of(&initrd::problems(&nixpkgs, &kernel, &program)?))
}

fn over_a_tree() -> Result<Outcome> {
    let Some(nixpkgs) = folder(TREE)? else {
        return Ok(Outcome::NotRun(format!("no nixpkgs ({TREE})")));
    };
    packages::ensure(NIX)?;
    Ok(Outcome::of(&tree::problems(&nixpkgs)?))
}

/// What the module makes of the configurations in `tests/cases.nix`.
fn outcomes(nix: &Nix) -> Result<Value> {
    nix.evaluate(&format!("{{ inherit (tests) {}; }}", GROUPS.join(" ")))
}

/// Takes what comes out for what is expected, and writes the options page.
///
/// # Errors
/// When it does not come out, or cannot be written.
pub(crate) fn write() -> Result<()> {
    packages::ensure(NIX)?;
    let library = library()?
        .with_context(|| format!("nothing is written: {LIBRARY} names no nixpkgs lib"))?;
    let nix = Nix::new(&library, STORE)?;
    let outcomes = serde_json::to_string_pretty(&outcomes(&nix)?)? + "\n";
    fs::write(workspace().join(EXPECTED), outcomes)?;
    let page = nix.evaluate("tests.optionsPage")?;
    fs::write(workspace().join(OPTIONS_PAGE), page.as_str().context("the page is no text")?)?;
    Ok(())
}

fn module(program: Option<&Path>) -> Result<Outcome> {
    let Some(library) = library()? else { return Ok(Outcome::NotRun("no nixpkgs lib".to_owned())) };
    packages::ensure(NIX)?;
    let nix = Nix::new(&library, STORE)?;
    let read = |file: &str| {
        fs::read_to_string(workspace().join(file)).with_context(|| format!("cannot read {file}"))
    };

    let mut problems = differences(&expected::read()?, &outcomes(&nix)?, &GROUPS);

    if nix.evaluate("tests.optionsPage")? != json!(read(OPTIONS_PAGE)?) {
        problems.push(format!("{OPTIONS_PAGE} is out of date: cargo xtask nix --write"));
    }

    let own = |text: &str, program: &str| {
        let is_comment = |line: &&str| line.starts_with('#');
        let text: String = text.split_inclusive('\n').filter(|line| !is_comment(line)).collect();
        let text = text.replace("/usr/bin/vfio-early", &format!("{STORE}/vfio-early/{program}"));
        let text = text.replace("/usr/bin/systemctl", &format!("{STORE}/systemd/bin/systemctl"));
        text.trim_start().to_owned()
    };
    let units = nix.evaluate("tests.units")?;
    let units = units.as_object().context("no units")?;
    let names: Vec<&str> = units.keys().map(String::as_str).collect();
    let all = ["vfio-early-claim", "vfio-early-finish", "vfio-early-strict", "vfio-early"];
    if names != all.map(|name| format!("{name}.service")) {
        problems.push(format!("the module has the units {names:?}"));
    }
    for (name, text) in units {
        let generic = read(&format!("initrd/systemd/{name}"))?;
        let is_hosts = name.as_str() == "vfio-early-finish.service";
        let program = if is_hosts { "bin/vfio-early" } else { "lib/vfio-early/vfio-early-initrd" };
        if *text != json!(own(&generic, program)) {
            problems.push(format!(
                "{name} is not initrd/systemd/{name} with the programs' paths, less its comments"
            ));
        }
        if !["", "-"]
            .iter()
            .any(|ignored| generic.contains(&format!("\nExecStart={ignored}/usr/bin/vfio-early ")))
        {
            problems.push(format!("{name} does not start vfio-early"));
        }
    }

    // The message for a wrong item has the right form.
    let wrong = r#"tests.parametersOf { boot.initrd.vfio-early.devices = [ "10de:1c03" ]; }"#;
    match nix.evaluate(wrong) {
        Err(error) if error.to_string().contains("an id (pci:10de:1c03)") => {}
        other => problems.push(format!("10de:1c03 is no item, but the module says {other:?}")),
    }
    problems.extend(items::problems(&nix, &self::program(program)?)?);
    Ok(Outcome::of(&problems))
}
