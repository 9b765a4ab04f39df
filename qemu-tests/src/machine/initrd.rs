//! The initrd of a virtual machine: what a real one has before udev, and the steps to run.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

use super::newc::Archive;
use crate::supplies::arch::Arch;
use crate::supplies::kernels::Kernel;
use crate::supplies::{binary, busybox};

/// `/init` of the guest.
const INIT: &str = include_str!("../guest/init");

/// What a guest without serial ports of its own needs for [`PORTS`].
const PORT_MODULES: [&str; 2] = ["virtio_mmio", "virtio_console"];

/// Where the guest finds the paths of these, one a line.
const PORTS: &str = "harness/ports";

/// How the modules lie in the initrd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As the kernel's package has them.
    #[default]
    AsPackaged,
    /// `.ko.xz`, also for a kernel that cannot decompress them itself.
    Xz,
    /// `.ko.zst`, also for a kernel that cannot decompress them itself.
    Zstd,
}

/// What goes into an initrd.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Modules to take along with everything that they need, by name.
    pub modules: BTreeSet<String>,
    /// Modules to leave out, although something needs them.
    pub left_out: BTreeSet<String>,
    /// How modules lie there.
    pub compression: Compression,
    /// The program under test, as `/bin/vfio-early`; the initrd's, beside it, as `/bin/vfio-early-initrd`.
    pub program: Option<PathBuf>,
    /// Further files: absolute path to content.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Further programs: absolute path to content.
    pub tools: BTreeMap<String, Vec<u8>>,
    /// Modules to put, with everything that they need, where modprobe and libkmod do not look.
    pub late: BTreeSet<String>,
    /// What the guest does, one step a line.
    pub steps: Vec<Step>,
    /// A program that is `/init` in place of the one that does the steps.
    pub init: Option<Vec<u8>>,
}

/// One step of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Notes every PCI device's state under that name.
    Moment(String),
    /// Loads modules by name, with what they need.
    Load(Vec<String>),
    /// Loads modules of [`Contents::late`].
    LoadLate(Vec<String>),
    /// Waits until pictures of the displays have been taken under that name.
    Picture(String),
    /// Asks what the next run is going to do.
    Check(Vec<String>),
    /// Runs a program with arguments; the first run is number 1.
    Run(Vec<String>),
    /// Runs the binary in its two moments, and loads modules by name, with what they need, beside
    /// the second; also numbered as a run.
    RunBeside(Vec<String>),
    /// Runs a line of shell and notes what it prints; also numbered from 1.
    Shell(String),
}

/// Writes the initrd for that kernel to `file`; `folder` is for what is made on the way.
///
/// # Errors
/// When a module, busybox or the program is not there, or a file cannot be written.
pub fn write(kernel: &Kernel, contents: &Contents, folder: &Path, file: &Path) -> Result<()> {
    let catalogue = Modules::read(kernel)?;
    let paths = catalogue.closure(&contents.modules, &contents.left_out)?;
    let lib = stage(kernel, &paths, contents.compression, folder)?;

    let mut archive = Archive::create(file)?;
    for each in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "etc", "harness"] {
        archive.folder(each)?;
    }
    archive.tree(&lib, "lib")?;
    archive.file("bin/busybox", 0o755, &busybox::bytes(kernel.arch)?)?;
    for applet in busybox::applets(kernel.arch)? {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    // Programs look for modprobe here, and the kernel does too.
    archive.link("sbin/modprobe", "../bin/busybox")?;
    if let Some(program) = &contents.program {
        for (place, program) in [
            ("bin/vfio-early", program.clone()),
            ("bin/vfio-early-initrd", binary::initrds(program)),
        ] {
            let bytes = fs::read(&program).with_context(|| {
                format!("cannot read the program under test {}", program.display())
            })?;
            archive.file(place, 0o755, &bytes)?;
        }
    }
    for (path, content) in &contents.files {
        archive.file(path.trim_start_matches('/'), 0o644, content)?;
    }
    for (path, content) in &contents.tools {
        archive.file(path.trim_start_matches('/'), 0o755, content)?;
    }
    let mut late = catalogue.closure(&contents.late, &BTreeSet::new())?;
    if kernel.arch == Arch::Arm64 {
        let mut ports = String::new();
        for module in PORT_MODULES {
            for path in catalogue.load_order(module)? {
                ports.extend([&late_path(&path), "\n"]);
                if !late.contains(&path) {
                    late.push(path);
                }
            }
        }
        archive.file(PORTS, 0o644, ports.as_bytes())?;
    }
    for path in late {
        let source = kernel.modules.join(&path);
        let module =
            fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        archive.file(late_path(&path).trim_start_matches('/'), 0o644, &module)?;
    }
    let steps = render(&contents.steps, &catalogue, &paths, contents.compression)?;
    archive.file("harness/steps", 0o644, steps.as_bytes())?;
    let init = contents.init.as_deref().unwrap_or(INIT.as_bytes());
    archive.file("init", 0o755, init)?;
    archive.finish()
}

/// Lays out a `lib` in `folder` with these modules and all that they need, and depmod's files.
///
/// # Errors
/// When the kernel has no such module, or a file cannot be written.
pub(crate) fn lay_out_modules<'a>(
    kernel: &Kernel,
    names: impl IntoIterator<Item = &'a str>,
    folder: &Path,
) -> Result<()> {
    let names = names.into_iter().map(str::to_owned).collect();
    let paths = Modules::read(kernel)?.closure(&names, &BTreeSet::new())?;
    stage(kernel, &paths, Compression::AsPackaged, folder).map(drop)
}

/// Paths, in the initrd of that kernel, of modules to insert so that these are loaded: each once,
/// after what it needs.
///
/// # Errors
/// When the kernel has no such module.
pub(crate) fn load_order(kernel: &Kernel, names: &[&str]) -> Result<Vec<String>> {
    let catalogue = Modules::read(kernel)?;
    let mut order = Vec::new();
    for name in names {
        for path in catalogue.load_order(name)? {
            let path = format!("/lib/modules/{}/{path}", kernel.release);
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

fn render(
    steps: &[Step],
    catalogue: &Modules,
    present: &[String],
    compression: Compression,
) -> Result<String> {
    let mut text = String::new();
    let (mut runs, mut shells) = (0, 0);
    let paths = |modules: &[String]| -> Result<Vec<String>> {
        let mut words = Vec::new();
        for module in modules {
            for path in catalogue.load_order(module)? {
                if !present.contains(&path) {
                    bail!("the step that loads {module} needs {path}, which was left out");
                }
                let path = file_name_in_initrd(&path, compression);
                words.push(format!("/lib/modules/{}/{path}", catalogue.release));
            }
        }
        Ok(words)
    };
    for step in steps {
        let (verb, words) = match step {
            Step::Moment(name) => ("moment", vec![name.clone()]),
            Step::Load(modules) => ("load", paths(modules)?),
            Step::LoadLate(modules) => {
                let mut words = Vec::new();
                for module in modules {
                    words.extend(catalogue.load_order(module)?.iter().map(|path| late_path(path)));
                }
                ("load", words)
            }
            Step::Picture(name) => ("picture", vec![name.clone()]),
            Step::Check(words) => ("check", [vec![(runs + 1).to_string()], words.clone()].concat()),
            Step::Run(words) => {
                runs += 1;
                ("run", [vec![runs.to_string()], words.clone()].concat())
            }
            Step::RunBeside(modules) => {
                runs += 1;
                let words = vec![runs.to_string(), "two_moments".to_owned()];
                ("run", [words, paths(modules)?].concat())
            }
            Step::Shell(line) => {
                shells += 1;
                ("shell", vec![shells.to_string(), line.clone()])
            }
        };
        if let Some(word) = words.iter().find(|word| word.contains('\n')) {
            bail!("a step of the guest cannot hold a line break: {word:?}");
        }
        let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
        let line: Vec<String> = [verb.to_owned()].into_iter().chain(quoted).collect();
        text.push_str(&line.join(" "));
        text.push('\n');
    }
    Ok(text)
}

/// What `modules.dep` and its companions say of a kernel's modules.
struct Modules {
    line: String,
    release: String,
    /// Name, with `_` only, to path below the release's folder.
    paths: BTreeMap<String, String>,
    /// Path to the paths that it needs, in the order of the file: the deepest last.
    needs: BTreeMap<String, Vec<String>>,
    /// Name to names that shall be loaded with it.
    soft: BTreeMap<String, Vec<String>>,
    built_in: BTreeSet<String>,
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Modules {
    fn read(kernel: &Kernel) -> Result<Self> {
        let text = |file: &str| {
            let path = kernel.modules.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut modules = Self {
            line: kernel.line.clone(),
            release: kernel.release.clone(),
            paths: BTreeMap::new(),
            needs: BTreeMap::new(),
            soft: BTreeMap::new(),
            built_in: text("modules.builtin")?.lines().map(name_of).collect(),
        };
        for line in text("modules.dep")?.lines() {
            let (path, needs) =
                line.split_once(':').context("modules.dep: a line without colon")?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            modules.paths.insert(name_of(path), path.to_owned());
            modules.needs.insert(path.to_owned(), needs);
        }
        for line in text("modules.softdep")?.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("softdep")
                && let Some(name) = words.next()
            {
                let others = words.filter(|word| !word.ends_with(':'));
                let soft = modules.soft.entry(name.replace('-', "_")).or_default();
                soft.extend(others.map(|other| other.replace('-', "_")));
            }
        }
        Ok(modules)
    }

    /// Paths to load for a module, in order; none when it is built in.
    fn load_order(&self, name: &str) -> Result<Vec<String>> {
        let name = name.replace('-', "_");
        let Some(path) = self.paths.get(&name) else {
            if self.built_in.contains(&name) {
                return Ok(Vec::new());
            }
            bail!("kernel {} has no module {name}", self.line);
        };
        let needs = self.needs[path].iter().rev();
        Ok(needs.chain([path]).cloned().collect())
    }

    /// Paths of these modules and all that they need, softly or not.
    fn closure(
        &self,
        names: &BTreeSet<String>,
        left_out: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let left_out: BTreeSet<String> =
            left_out.iter().map(|name| name.replace('-', "_")).collect();
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = names.iter().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            for path in self.load_order(&name)? {
                let own = name_of(&path);
                // What a soft dependency names need not exist.
                let soft = self.soft.get(&own).into_iter().flatten();
                open.extend(soft.filter(|soft| self.paths.contains_key(*soft)).cloned());
                if !left_out.contains(&own) {
                    found.insert(path);
                }
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn file_name_in_initrd(path: &str, compression: Compression) -> String {
    let as_packaged = path.split(".ko").next().unwrap_or(path);
    match compression {
        Compression::AsPackaged => path.to_owned(),
        Compression::Xz => format!("{as_packaged}.ko.xz"),
        Compression::Zstd => format!("{as_packaged}.ko.zst"),
    }
}

/// Where a module of [`Contents::late`] lies.
fn late_path(path: &str) -> String {
    format!("/late/{}", path.rsplit('/').next().unwrap_or(path))
}

/// Lays the modules out in `folder` as they will lie in the initrd, and returns its `lib`.
///
/// depmod runs over the copy: its binary indexes must hold these modules and no others.
fn stage(
    kernel: &Kernel,
    paths: &[String],
    compression: Compression,
    folder: &Path,
) -> Result<PathBuf> {
    let lib = folder.join("lib");
    let release = lib.join("modules").join(&kernel.release);
    fs::create_dir_all(&release)?;
    for entry in fs::read_dir(&kernel.modules)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        // depmod makes its own indexes of the built-in ones out of these.
        if text == "modules.order"
            || (text.starts_with("modules.builtin") && !text.ends_with(".bin"))
        {
            fs::copy(kernel.modules.join(&name), release.join(&name))?;
        }
    }
    for path in paths {
        let source = kernel.modules.join(path);
        let target = release.join(file_name_in_initrd(path, compression));
        fs::create_dir_all(target.parent().context("a module has a folder")?)?;
        if *path == file_name_in_initrd(path, compression) {
            fs::copy(&source, &target)
                .with_context(|| format!("cannot copy {}", source.display()))?;
        } else {
            // Kernels that can decompress xz know only this checksum.
            let words: &[&str] = match compression {
                Compression::Zstd => &["zstd", "--stdout", "--quiet", "-1"],
                _ => &["xz", "--stdout", "--check=crc32", "-1"],
            };
            cmd(words[0], words[1..].iter().map(OsStr::new).chain([source.as_os_str()]))
                .stdout_path(&target)
                .run()
                .with_context(|| format!("cannot compress {}", source.display()))?;
        }
    }
    cmd!("/sbin/depmod", "-b", folder, &kernel.release).run().context("depmod failed")?;
    Ok(lib)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(folder: &Path) -> Modules {
        let pci = "kernel/drivers/vfio/pci";
        let files = [
            ("modules.builtin", "kernel/drivers/char/random.ko\n".to_owned()),
            (
                "modules.dep",
                format!(
                    "{pci}/vfio-pci.ko.xz: {pci}/vfio-pci-core.ko.xz kernel/vfio.ko.xz\n\
                     {pci}/vfio-pci-core.ko.xz: kernel/vfio.ko.xz\n\
                     kernel/vfio.ko.xz:\n\
                     kernel/vfio_iommu_type1.ko.xz: kernel/vfio.ko.xz\n"
                ),
            ),
            ("modules.softdep", "softdep vfio post: vfio_iommu_type1 not_there\n".to_owned()),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        Modules::read(&Kernel {
            line: "6.12".to_owned(),
            arch: Arch::default(),
            release: "6.12.0".to_owned(),
            vmlinuz: PathBuf::new(),
            vmlinux: PathBuf::new(),
            modules: folder.to_owned(),
            package_version: String::new(),
        })
        .unwrap()
    }

    #[test]
    fn a_module_is_loaded_after_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let names = catalogue(folder.path()).load_order("vfio-pci").unwrap();
        let names: Vec<_> = names.iter().map(|path| name_of(path)).collect();
        assert_eq!(names, ["vfio", "vfio_pci_core", "vfio_pci"]);
    }

    #[test]
    fn a_built_in_module_needs_no_loading_and_an_unknown_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = catalogue(folder.path());
        assert!(catalogue.load_order("random").unwrap().is_empty());
        let error = catalogue.load_order("nvidia").unwrap_err().to_string();
        assert_eq!(error, "kernel 6.12 has no module nvidia");
    }

    #[test]
    fn soft_dependencies_come_along_unless_they_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = catalogue(folder.path());
        let names = BTreeSet::from(["vfio-pci".to_owned()]);
        assert_eq!(catalogue.closure(&names, &BTreeSet::new()).unwrap().len(), 4);
        let left_out = BTreeSet::from(["vfio-iommu-type1".to_owned()]);
        assert_eq!(catalogue.closure(&names, &left_out).unwrap().len(), 3);
    }

    #[test]
    fn words_of_a_step_are_quoted_for_the_shell() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = catalogue(folder.path());
        let steps = [Step::Run(vec!["/bin/vfio-early".to_owned(), "a'b c".to_owned()])];
        let text = render(&steps, &catalogue, &[], Compression::AsPackaged).unwrap();
        assert_eq!(text, "run '1' '/bin/vfio-early' 'a'\\''b c'\n");
    }

    #[test]
    fn modules_beside_a_run_are_named_by_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = catalogue(folder.path());
        let present = catalogue.load_order("vfio").unwrap();
        let steps = |module: &str| [Step::RunBeside(vec![module.to_owned()])];
        let text = render(&steps("vfio"), &catalogue, &present, Compression::AsPackaged).unwrap();
        let path = "/lib/modules/6.12.0/kernel/vfio.ko.xz";
        assert_eq!(text, format!("run '1' 'two_moments' '{path}'\n"));
        let not_there = render(&steps("vfio_pci"), &catalogue, &present, Compression::AsPackaged);
        assert!(not_there.unwrap_err().to_string().contains("which was left out"));
    }
}
