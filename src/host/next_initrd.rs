//! What the initrd of the next boot needs, as far as the modules of the running kernel tell. What
//! is in that initrd is not looked at: it is packed, and each distribution has its own way.

use std::path::Path;

use crate::host::check::Check;
use crate::modules::{Modules, Whereabouts};
use crate::plan::{Decision, Driver, is_same_name};
use crate::sysfs::{IOMMU_TYPE1, IOMMUFD, Sysfs, VFIO_PCI};

/// In words, one line each; none where nothing is to be bound, or where `root` has no modules, as
/// another machine's `/proc` and `/sys` alone.
#[must_use]
pub fn needs(check: &Check, sysfs: &Sysfs, root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for target in check.plan.targets.values() {
        if let Decision::Take(driver) = &target.decision {
            add(&mut names, driver.module(), String::new());
            if let Driver::Variant(_) = driver {
                add(&mut names, VFIO_PCI, String::new());
            }
        }
    }
    if names.is_empty() || root != Path::new("/") && !root.join("lib/modules").exists() {
        return Vec::new();
    }
    let modules = Modules::open(root);
    let find = |name: &str| modules.as_ref().map_or(Whereabouts::Absent, |it| it.find(name));
    // Without groups vfio has no such module.
    let needs_iommufd = match find("vfio") {
        Whereabouts::Module(needed) => needed.iter().any(|name| name == IOMMUFD),
        Whereabouts::BuiltIn | Whereabouts::Absent => sysfs.has_no_groups(),
    };
    let by_iommufd = needs_iommufd && find(IOMMU_TYPE1) == Whereabouts::Absent;
    add(&mut names, if by_iommufd { IOMMUFD } else { IOMMU_TYPE1 }, String::new());
    for address in &check.displays {
        if let Some(module) = sysfs.module_of(*address) {
            add(&mut names, &module, format!(", for the console on {address}"));
        }
    }
    let release = sysfs.kernel_release().unwrap_or_default();
    let mut lines = vec![format!("the next initrd needs, by the modules of {release}:")];
    for (name, purpose) in names {
        let text = match find(&name) {
            Whereabouts::BuiltIn => "built in".to_owned(),
            Whereabouts::Module(needed) if needed.is_empty() => "a module".to_owned(),
            Whereabouts::Module(needed) => format!("a module, with {}", needed.join(", ")),
            Whereabouts::Absent => {
                "MISSING: this kernel has it neither built in nor as a module".to_owned()
            }
        };
        lines.push(format!("    {name}{purpose}: {text}"));
    }
    lines
}

fn add(names: &mut Vec<(String, String)>, name: &str, purpose: String) {
    if !names.iter().any(|(there, _)| is_same_name(there, name)) {
        names.push((name.to_owned(), purpose));
    }
}
