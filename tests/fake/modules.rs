//! The initrd's modules, as `modules.dep` has them.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use vfio_early::modules::Needed;

use crate::machine::{Line, Vfio};

/// The kernel's name of a module: file names and drivers also have `-`.
pub fn name_of(module: &str) -> String {
    module.replace('-', "_")
}

/// One module.
#[derive(Clone, Debug)]
pub struct Module {
    pub name: String,
    /// Modules whose symbols it uses.
    pub needs: Vec<String>,
    /// The PCI driver that it registers.
    pub driver: Option<String>,
    /// Whether that is a vfio driver.
    pub vfio: bool,
    /// As in `modules.alias`, where it is a variant of vfio-pci.
    pub alias: Option<String>,
}

impl Module {
    pub fn new(name: &str, needs: &[&str]) -> Self {
        let needs = needs.iter().map(|&name| name.to_owned()).collect();
        Module { name: name.to_owned(), needs, driver: None, vfio: false, alias: None }
    }

    pub fn driver(mut self, driver: &str) -> Self {
        self.driver = Some(driver.to_owned());
        self
    }

    pub fn vfio(mut self) -> Self {
        self.vfio = true;
        self
    }

    /// A variant of vfio-pci for the devices that the alias fits: `v00001AF4d00001041sv*sd*bc*sc*i*`.
    pub fn variant(name: &str, driver: &str, alias: &str) -> Self {
        let alias = Some(format!("alias vfio_pci:{alias} {name}\n"));
        Module { alias, ..Module::new(name, &["vfio_pci_core"]).driver(driver).vfio() }
    }
}

/// Those of vfio, as each kernel has them cut.
fn of_vfio(line: Line, vfio: Vfio) -> Vec<Module> {
    let core: &[&str] = match line {
        Line::V5_10 => &["vfio", "vfio_virqfd", "irqbypass"],
        Line::V6_1 => &["vfio_pci_core", "vfio", "vfio_virqfd", "irqbypass"],
        Line::V6_12 | Line::V7_2 => &["vfio_pci_core", "vfio", "irqbypass"],
    };
    let mut modules = vec![
        Module::new("irqbypass", &[]),
        Module::new("vfio", &[]),
        Module::new("vfio_iommu_type1", &["vfio"]),
        Module::new("vfio_pci", core).driver("vfio-pci").vfio(),
    ];
    if line >= Line::V6_1 {
        modules.push(Module::new("vfio_pci_core", &core[1..]));
    }
    if line <= Line::V6_1 {
        modules.push(Module::new("vfio_virqfd", &[]));
    }
    if vfio == Vfio::WithoutGroups {
        modules.retain(|module| module.name != "vfio_iommu_type1");
        modules.push(Module::new("iommufd", &[]));
        for module in modules.iter_mut().filter(|module| module.name == "vfio") {
            module.needs.push("iommufd".to_owned());
        }
    }
    modules
}

/// All of them, and which are loaded.
#[derive(Debug)]
pub struct Modules {
    there: BTreeMap<String, Module>,
    left_out: Vec<Module>,
    loaded: BTreeSet<String>,
}

impl Modules {
    pub fn new(
        line: Line,
        vfio: Vfio,
        further: impl IntoIterator<Item = Module>,
        left_out: &[String],
    ) -> Self {
        let mut there = BTreeMap::new();
        for module in of_vfio(line, vfio).into_iter().chain(further) {
            there.insert(module.name.clone(), module);
        }
        let remove = |module: &String| {
            let removed = there.remove(&name_of(module));
            removed.unwrap_or_else(|| panic!("{module} is left out, but no kernel here has it"))
        };
        let left_out = left_out.iter().map(remove).collect();
        Modules { there, left_out, loaded: BTreeSet::new() }
    }

    /// One that was left out is there after all.
    pub fn provide(&mut self, module: &str) {
        let place = self.left_out.iter().position(|other| other.name == name_of(module));
        let module = self.left_out.remove(place.expect("it was left out"));
        self.there.insert(module.name.clone(), module);
    }

    /// Dependencies first, without those that are loaded; `None` where it is not in the initrd.
    pub fn with_dependencies(&self, module: &str) -> Option<Vec<Needed>> {
        let module = self.there.get(&name_of(module))?;
        let mut modules = Vec::new();
        self.collect(module, &mut modules);
        modules.retain(|module| !self.loaded.contains(module));
        let needed = |name: String| Needed { needs: self.there[&name].needs.clone(), name };
        Some(modules.into_iter().map(needed).collect())
    }

    pub fn is_loaded(&self, module: &str) -> bool {
        self.loaded.contains(module)
    }

    pub fn loaded(&self) -> impl Iterator<Item = &str> {
        self.loaded.iter().map(String::as_str)
    }

    /// The text of `modules.alias`, as far as it is about vfio.
    pub fn aliases(&self) -> String {
        self.there.values().filter_map(|module| module.alias.as_deref()).collect()
    }

    /// The modules of these drivers.
    pub fn of_drivers(&self, drivers: &[&str]) -> Vec<String> {
        let is_one = |module: &&Module| {
            module.driver.as_deref().is_some_and(|driver| drivers.contains(&driver))
        };
        self.there.values().filter(is_one).map(|module| module.name.clone()).collect()
    }

    fn collect(&self, module: &Module, modules: &mut Vec<String>) {
        // depmod leaves out what it does not find.
        for needed in module.needs.iter().filter_map(|needed| self.there.get(needed)) {
            self.collect(needed, modules);
        }
        if !modules.contains(&module.name) {
            modules.push(module.name.clone());
        }
    }

    /// `finit_module`; the module where it was not loaded yet.
    pub fn insert(&mut self, name: &str) -> Result<Option<Module>, Errno> {
        let module = self.there.get(name).ok_or(Errno::ENOENT)?;
        if self.loaded.contains(name) {
            return Ok(None);
        }
        // "Unknown symbol in module".
        if !module.needs.iter().all(|needed| self.loaded.contains(needed)) {
            return Err(Errno::ENOENT);
        }
        self.loaded.insert(name.to_owned());
        Ok(Some(module.clone()))
    }
}
