//! Every scenario on every kernel with every IOMMU, where that makes sense.
//!
//! `cargo xtask test` runs a part of it, `cargo xtask test --matrix` all of it.

use crate::machine::topology::Iommu;
use crate::scenario::table;
use crate::scenario::{EVERY, Scenario};
use crate::supplies::arch::Arch;
use crate::supplies::kernels::{
    ARM64, BUILT, BUILT_IN, CDEV, CLOUD, CLOUD_ARM64, LINES, NIXOS, RT, arch_of, line_of,
};

/// A kernel, and how it is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Flavour {
    /// One of [`NAMES`](crate::supplies::kernels::NAMES).
    pub kernel: &'static str,
    /// What sets it apart from that kernel started plainly; empty where nothing does.
    pub variant: &'static str,
    /// Added to the command line.
    pub command_line: &'static str,
    /// Whether UEFI firmware starts it, which on Arm brings ACPI; there it is a device tree otherwise.
    pub uefi: bool,
    /// A line of the kernel's log that shows that it is this one; empty where its release does.
    pub sign: &'static str,
}

const fn plain(kernel: &'static str) -> Flavour {
    Flavour { kernel, variant: "", command_line: "", uefi: false, sign: "" }
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

const fn acpi(kernel: &'static str) -> Flavour {
    Flavour { variant: "acpi", uefi: true, sign: "ACPI: RSDP", ..plain(kernel) }
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
    plain(ARM64[0]),
    plain(ARM64[1]),
    plain(ARM64[2]),
    acpi(ARM64[0]),
    acpi(ARM64[1]),
    acpi(ARM64[2]),
    plain(CLOUD_ARM64[0]),
    plain(CLOUD_ARM64[1]),
];

/// The IOMMUs that a scenario can have there, where it does not say that it makes sense with one alone.
fn iommus(flavour: &Flavour) -> Vec<Iommu> {
    let kernel = flavour.kernel;
    let own = match arch_of(kernel) {
        Arch::Amd64 => &[Iommu::Intel, Iommu::Amd][..],
        Arch::Arm64 => &[Iommu::Smmu],
    };
    // A module of Debian's since 6.12, on x86; the others have none.
    let has_virtio = matches!(line_of(kernel), "6.12" | "7.2") && !BUILT.contains(&kernel);
    let is_plain = flavour.variant.is_empty() || flavour.uefi;
    let virtio = (has_virtio && is_plain).then_some(Iommu::Virtio);
    own.iter().copied().chain(virtio).collect()
}

/// That of a scenario as it is written.
fn first(flavour: &Flavour) -> Iommu {
    iommus(flavour)[0]
}

/// What the flavour of a kernel has built in, of the host drivers in the table of models.
pub(crate) fn built_in(kernel: &str) -> &'static [&'static str] {
    match kernel {
        "6.12" | "7.2" | "6.12-arm64" | "7.2-arm64" => &["virtio_pci"],
        CLOUD | "6.1-cloud-arm64" => &["nvme"],
        "6.12-cloud-arm64" => &["nvme", "virtio_pci"],
        kernel if BUILT.contains(&kernel) => &["ahci", "i2c_i801", "virtio_pci"],
        _ => &[],
    }
}

/// Which of them it does not have at all.
fn lacking(kernel: &str) -> &'static [&'static str] {
    match kernel {
        CLOUD | "6.1-cloud-arm64" | "6.12-cloud-arm64" => &[
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
    [*kernel, variant, iommu.name()].join(" ").replace("  ", " ")
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
        let written = self.scenario.only_with.is_some() || self.iommu == first(self.flavour);
        self.flavour.variant.is_empty() && written
    }
}

/// Without an IOMMU a scenario stands in the first column.
fn scenario_iommu(scenario: &Scenario) -> Iommu {
    match scenario.topology.iommu {
        Iommu::None => Iommu::Intel,
        iommu => iommu,
    }
}

/// All cells that make sense, and all others.
#[must_use]
pub fn all() -> (Vec<Cell>, Vec<Left>) {
    let (mut cells, mut left) = (Vec::new(), Vec::new());
    for flavour in FLAVOURS {
        for iommu in iommus(flavour) {
            for scenario in table::all() {
                match why_not(&scenario, flavour, iommu, false) {
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

/// The scenario on each of Debian's lines, with every IOMMU, where it makes sense: what the fake kernel
/// is asked. Those of one IOMMU and one `Iommu::has_groups_at_probe` are side by side, and have one
/// answer.
#[must_use]
pub fn on_lines(scenario: &Scenario) -> Vec<(&'static str, Scenario)> {
    let mut all = Vec::new();
    for iommu in [Iommu::Intel, Iommu::Amd, Iommu::Virtio, Iommu::Smmu] {
        let kernels = if iommu == Iommu::Smmu { &ARM64[..] } else { &LINES };
        let flavours = FLAVOURS.iter().filter(|it| it.variant.is_empty());
        for flavour in flavours.filter(|it| kernels.contains(&it.kernel)) {
            if iommus(flavour).contains(&iommu) && why_not(scenario, flavour, iommu, true).is_none()
            {
                let placed = placed(scenario.clone(), flavour, iommu);
                all.push((line_of(flavour.kernel), placed));
            }
        }
    }
    all
}

/// The scenario on that machine.
fn placed(mut scenario: Scenario, flavour: &Flavour, iommu: Iommu) -> Scenario {
    let (arch, line) = (arch_of(flavour.kernel), line_of(flavour.kernel));
    if scenario.only_with.is_none() {
        scenario = scenario.iommu(iommu);
    }
    let topology = &mut scenario.topology;
    topology.arch = arch;
    topology.groups_at_probe = iommu.has_groups_at_probe(line);
    let by_device_tree = arch == Arch::Arm64 && !flavour.uefi;
    topology.ports_keep_apart = !(by_device_tree && topology.groups_at_probe);
    if iommu == Iommu::Virtio {
        // Else no driver is probed before, whose device it is.
        scenario.before.insert(0, "virtio_iommu");
        scenario.built_in.push("virtio_pci");
    }
    if iommu == Iommu::Virtio && arch == Arch::Amd64 {
        for wanted in scenario.wanted.iter_mut().filter(|wanted| wanted.outcome == "bound") {
            wanted.obstacles.push("cannot keep the interrupts of devices apart");
        }
    }
    scenario
}

fn is_on(scenario: &Scenario, kernel: &str) -> bool {
    scenario.only_on.is_none_or(|(kernels, _)| {
        let of_line = !BUILT.contains(&kernel) && kernels.contains(&line_of(kernel));
        of_line || kernels.contains(&kernel)
    })
}

/// Why a scenario makes no sense there; none where it does.
fn why_not(scenario: &Scenario, flavour: &Flavour, iommu: Iommu, is_fake: bool) -> Option<String> {
    let kernel = flavour.kernel;
    if let Some((_, why)) = scenario.only_on.filter(|_| !is_on(scenario, kernel)) {
        return Some(why.to_owned());
    }
    if let Some((_, why)) = scenario.only_with.filter(|_| scenario_iommu(scenario) != iommu) {
        return Some(why.to_owned());
    }
    if let Some(why) = scenario.one_iommu
        && scenario.only_with.is_none()
        && iommu != first(flavour)
        && !is_fake
    {
        return Some(why.to_owned());
    }
    if iommu.has_groups_at_probe(line_of(kernel)) && scenario.command_line.contains("group:") {
        return Some("who is in a group is not known there before".to_owned());
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
            ("6.12", "", Iommu::Virtio) | ("6.1", "lockdown", Iommu::Intel) => {
                kernels == EVERY.len()
            }
            (kernel, "", Iommu::Smmu) => CLOUD_ARM64.contains(&kernel) && kernels == EVERY.len(),
            _ => false,
        }
    };
    let mut scenario = scenario;
    // In front: one scenario ends with a double dash and more.
    if !flavour.command_line.is_empty() {
        scenario.command_line = format!("{} {}", flavour.command_line, scenario.command_line);
    }
    scenario = placed(scenario, flavour, iommu);
    if kernel == BUILT_IN {
        // They are always there.
        scenario.loads_vfio = None;
    }
    let has_usual_drivers =
        !BUILT.contains(&kernel) && kernel != CLOUD && !CLOUD_ARM64.contains(&kernel);
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
        let columns: usize = FLAVOURS.iter().map(|flavour| iommus(flavour).len()).sum();
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
