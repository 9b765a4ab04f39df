//! Who is measured.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::guest_program;
use crate::initrd;
use crate::kernels::Kernel;

/// How a contender gets the list of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `vfio.devs=` with the addresses, or, where they do not fit, the devices' id.
    CommandLine,
    /// `vfio.devs=` with the devices' id.
    Id,
    /// As arguments: no system call is cheaper.
    Arguments,
}

/// A way to give devices to vfio-pci.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    /// As `--only` takes it.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Where its list comes from.
    pub shape: Shape,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Program,
    Floor,
}

/// All of them.
pub const CONTENDERS: &[Contender] = &[
    Contender {
        name: "program",
        title: "vfio-early",
        shape: Shape::CommandLine,
        way: Way::Program,
    },
    Contender {
        name: "program-by-id",
        title: "vfio-early, pci:1234:11e8",
        shape: Shape::Id,
        way: Way::Program,
    },
    Contender {
        name: "floor",
        title: "floor: C, fewest system calls",
        shape: Shape::Arguments,
        way: Way::Floor,
    },
];

impl Contender {
    /// Its programs in the initrd.
    ///
    /// # Errors
    /// When one is not there, or cannot be compiled.
    pub fn tools(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        Ok(match self.way {
            Way::Program => BTreeMap::new(),
            Way::Floor => [("/bin/floor".to_owned(), guest_program::compile("floor")?)].into(),
        })
    }

    /// Its environment and its words; `ADDRESSES` stands for the devices.
    ///
    /// # Errors
    /// When the kernel has no vfio-pci.
    pub fn words(&self, kernel: &Kernel) -> Result<Vec<String>> {
        Ok(match self.way {
            Way::Program => vec!["/bin/vfio-early".to_owned()],
            Way::Floor => {
                let modules = initrd::load_order(kernel, &["vfio_pci", "vfio_iommu_type1"])?;
                let mut words = vec!["/bin/floor".to_owned()];
                words.extend(modules);
                words.extend(["--", "ADDRESSES"].map(str::to_owned));
                words
            }
        })
    }
}
