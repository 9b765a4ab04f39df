//! Every scenario on every kernel with every IOMMU, where that makes sense.
//!
//! `cargo xtask test` runs a part of it, `cargo xtask test --matrix` all of it.

use crate::machine::topology::Iommu;
use crate::scenario::table;
use crate::scenario::{EVERY, Scenario};
use crate::supplies::kernels::{BUILT, BUILT_IN, CDEV, CLOUD, LINES, NIXOS, RT, line_of};

/// A kernel, and how it is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Flavour {
    /// One of [`NAMES`](crate::supplies::kernels::NAMES).
    pub kernel: &'static str,
    /// What sets it apart from that kernel started plainly; empty where nothing does.
    pub variant: &'static str,
    /// Added to the command line.
    pub command_line: &'static str,
    /// A line of the kernel's log that shows that it is this one; empty where its release does.
    pub sign: &'static str,
}

const fn plain(kernel: &'static str) -> Flavour {
    Flavour { kernel, variant: "", command_line: "", sign: "" }
}

/// Debian's modules are signed: they load although the kernel takes no others.
const fn locked_down(kernel: &'static str) -> Flavour {
    Flavour {
        variant: "lockdown",
        command_line: "lockdown=integrity",
        sign: "Kernel is locked down from command line",
        ..plain(kernel)
    }
}

/// All of them.
pub const FLAVOURS: &[Flavour] = &[
    plain(LINES[0]),
    plain(LINES[1]),
    plain(LINES[2]),
    plain(LINES[3]),
    plain(NIXOS),
    plain(CLOUD),
    Flavour { sign: "PREEMPT_RT", ..plain(RT) },
    plain(BUILT_IN),
    plain(CDEV),
    locked_down(LINES[1]),
    locked_down(LINES[2]),
];

/// IOMMUs that a scenario can have, where it does not say that it makes sense with one alone.
const IOMMUS: [Iommu; 2] = [Iommu::Intel, Iommu::Amd];

/// What the flavour of a kernel has built in, of the host drivers in the table of models.
pub(crate) fn built_in(kernel: &str) -> &'static [&'static str] {
    match kernel {
        "6.12" | "7.2" => &["virtio_pci"],
        CLOUD => &["nvme"],
        kernel if BUILT.contains(&kernel) => &["ahci", "i2c_i801", "virtio_pci"],
        _ => &[],
    }
}

/// Which of them it does not have at all.
fn lacking(kernel: &str) -> &'static [&'static str] {
    match kernel {
        CLOUD => &[
            "ahci",
            "bochs",
            "e1000",
            "e1000e",
            "i2c_i801",
            "lpc_ich",
            "snd_hda_intel",
            "xhci_pci",
        ],
        _ => &[],
    }
}

/// A scenario on one flavour with one IOMMU.
#[derive(Debug)]
pub struct Cell {
    /// The kernel and how it is started.
    pub flavour: &'static Flavour,
    /// With which the scenario is run there.
    pub iommu: Iommu,
    /// As it is there.
    pub scenario: Scenario,
    /// Whether it is in the part that is run each time.
    pub usual: bool,
    /// Whether the kernel's drivers are those that the fake kernel has.
    pub has_usual_drivers: bool,
}

/// A scenario that makes no sense somewhere, and why.
#[derive(Debug)]
pub struct Left {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Which cell it is.
    pub column: String,
    /// A sentence without its end.
    pub why: String,
}

/// Kernel, variant and IOMMU, as names of checks begin.
#[must_use]
pub fn column(flavour: &Flavour, iommu: Iommu) -> String {
    let Flavour { kernel, variant, .. } = flavour;
    let iommu = if iommu == Iommu::Amd { "amd" } else { "intel" };
    [*kernel, variant, iommu].join(" ").replace("  ", " ")
}

impl Cell {
    /// The name of its check, without the kernel. Those that differ by nothing from the scenario as
    /// it is written have its name.
    #[must_use]
    pub fn name(&self) -> String {
        let (column, name) = (column(self.flavour, self.iommu), self.scenario.name);
        if self.is_as_written() {
            return name.to_owned();
        }
        let variant = column.trim_start_matches(self.flavour.kernel).trim_start();
        format!("{variant}: {name}")
    }

    fn is_as_written(&self) -> bool {
        let written = self.scenario.only_with.is_some() || self.iommu == Iommu::Intel;
        self.flavour.variant.is_empty() && written
    }
}

/// Without an IOMMU a scenario stands in the first column.
fn scenario_iommu(scenario: &Scenario) -> Iommu {
    match scenario.topology.iommu {
        Iommu::Amd => Iommu::Amd,
        Iommu::Intel | Iommu::None => Iommu::Intel,
    }
}

/// All cells that make sense, and all others.
#[must_use]
pub fn all() -> (Vec<Cell>, Vec<Left>) {
    let (mut cells, mut left) = (Vec::new(), Vec::new());
    for flavour in FLAVOURS {
        for iommu in IOMMUS {
            for scenario in table::all() {
                match why_not(&scenario, flavour, iommu) {
                    None => cells.push(cell(scenario, flavour, iommu)),
                    Some(why) => {
                        let (scenario, column) = (scenario.name, column(flavour, iommu));
                        left.push(Left { scenario, column, why });
                    }
                }
            }
        }
    }
    (cells, left)
}

/// The scenario with every IOMMU with which it makes sense.
#[must_use]
pub fn on_iommus(scenario: &Scenario) -> Vec<Scenario> {
    if scenario.only_with.is_some() {
        return vec![scenario.clone()];
    }
    IOMMUS.iter().map(|iommu| scenario.clone().iommu(*iommu)).collect()
}

/// Debian's lines on which it makes sense.
#[must_use]
pub fn lines(scenario: &Scenario) -> Vec<&'static str> {
    let lines = LINES.iter().filter(|line| is_on(scenario, line));
    lines.copied().collect()
}

fn is_on(scenario: &Scenario, kernel: &str) -> bool {
    scenario.only_on.is_none_or(|(kernels, _)| {
        let of_line = !BUILT.contains(&kernel) && kernels.contains(&line_of(kernel));
        of_line || kernels.contains(&kernel)
    })
}

/// Why a scenario makes no sense there; none where it does.
fn why_not(scenario: &Scenario, flavour: &Flavour, iommu: Iommu) -> Option<String> {
    let kernel = flavour.kernel;
    if let Some((_, why)) = scenario.only_on.filter(|_| !is_on(scenario, kernel)) {
        return Some(why.to_owned());
    }
    if let Some((_, why)) = scenario.only_with.filter(|_| scenario_iommu(scenario) != iommu) {
        return Some(why.to_owned());
    }
    if let Some(why) =
        scenario.one_iommu.filter(|_| scenario.only_with.is_none() && iommu == Iommu::Amd)
    {
        return Some(why.to_owned());
    }
    if kernel == CLOUD && iommu == Iommu::Amd {
        return Some("this kernel has no driver for that IOMMU".to_owned());
    }
    if kernel == BUILT_IN && scenario.is_about_modules_of_vfio() {
        return Some("vfio is built into this kernel".to_owned());
    }
    if kernel == CDEV && scenario.is_about_iommu_type1() {
        return Some("this kernel has no vfio_iommu_type1".to_owned());
    }
    let driver = scenario.before.iter().find(|module| lacking(kernel).contains(module))?;
    Some(format!("this kernel has no {driver}"))
}

fn cell(scenario: Scenario, flavour: &'static Flavour, iommu: Iommu) -> Cell {
    let kernel = flavour.kernel;
    let as_written = flavour.variant.is_empty() && scenario_iommu(&scenario) == iommu;
    // Those of the main job, so to say, are on more kernels than others.
    let kernels = scenario.kernels.len();
    let usual = if as_written {
        scenario.kernels.contains(&kernel)
    } else {
        match (kernel, flavour.variant, iommu) {
            ("6.12", "", Iommu::Amd) => kernels > 2,
            ("6.1", "lockdown", Iommu::Intel) => kernels == EVERY.len(),
            _ => false,
        }
    };
    let mut scenario = scenario;
    // In front: one scenario ends with a double dash and more.
    if !flavour.command_line.is_empty() {
        scenario.command_line = format!("{} {}", flavour.command_line, scenario.command_line);
    }
    if scenario.only_with.is_none() {
        scenario = scenario.iommu(iommu);
    }
    if kernel == BUILT_IN {
        // They are always there.
        scenario.loads_vfio = None;
    }
    let has_usual_drivers =
        LINES.contains(&line_of(kernel)) && !BUILT.contains(&kernel) && kernel != CLOUD;
    for module in built_in(kernel) {
        if !scenario.built_in.contains(module) {
            scenario.built_in.push(module);
        }
    }
    scenario.lacking = lacking(kernel).to_vec();
    scenario.host_modules.retain(|module| !lacking(kernel).contains(module));
    Cell { flavour, iommu, scenario, usual, has_usual_drivers }
}

impl Scenario {
    /// Whether it is about how vfio's modules lie in the initrd, or how they are loaded.
    fn is_about_modules_of_vfio(&self) -> bool {
        let of_vfio = |module: &&str| module.starts_with("vfio");
        self.left_out.iter().any(of_vfio)
            || self.compressed
            || self.command_line.contains("module_blacklist=vfio")
            || self.files.keys().any(|path| path.starts_with("/etc/modprobe.d/"))
    }

    fn is_about_iommu_type1(&self) -> bool {
        let is_it = |name: &str| name.starts_with("vfio_iommu_type1");
        self.left_out.iter().any(|name| is_it(name)) || self.parameters.keys().any(|n| is_it(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_of_its_own_and_every_scenario_is_in_its_usual_places() {
        let (cells, _) = all();
        let mut names: Vec<String> =
            cells.iter().map(|cell| format!("{} {}", cell.flavour.kernel, cell.name())).collect();
        for scenario in table::all() {
            for kernel in scenario.kernels {
                let name = format!("{kernel} {}", scenario.name);
                assert!(names.contains(&name), "{name}");
            }
        }
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_scenario_is_in_a_cell_or_left_out_of_it_with_a_reason() {
        let (cells, left) = all();
        let columns = FLAVOURS.len() * IOMMUS.len();
        assert_eq!(cells.len() + left.len(), columns * table::all().len());
        assert!(left.iter().all(|left| !left.why.is_empty()));
        let is_left = |scenario: &str, column: &str| {
            left.iter().any(|left| left.scenario == scenario && left.column == column)
        };
        let off = "with an Intel IOMMU that is off devices are refused, with what to remove";
        assert!(is_left(off, "6.1 amd") && !is_left(off, "6.1 intel"));
        let type1 =
            "without vfio_iommu_type1 in the initrd devices are bound, and no VM can have them";
        let iommufd = "with iommufd and without vfio_iommu_type1 some VMs can have the devices";
        assert!(is_left(type1, "cdev intel") && is_left(type1, "nixos intel"));
        assert!(is_left(iommufd, "cdev intel") && !is_left(iommufd, "nixos intel"));
        assert!(is_left(type1, "builtin amd") && !is_left(type1, "6.1 lockdown amd"));
    }
}
