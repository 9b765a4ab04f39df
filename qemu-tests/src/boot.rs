//! `cargo xtask boot`: one virtual machine, any devices, any command line.

use anyhow::{Result, bail};

/// Arguments of `cargo xtask boot`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Kernel line
    #[arg(long, value_name = "LINE", default_value = "6.1", value_parser = crate::kernels::LINES)]
    pub kernel: String,
    /// IOMMU of the machine
    #[arg(long, default_value = "intel", value_parser = ["intel", "amd", "none"])]
    pub iommu: String,
    /// Text to add to the kernel command line
    #[arg(long, value_name = "TEXT")]
    pub append: Option<String>,
    /// Host drivers to load after vfio-early has run
    #[arg(long, value_name = "MODULES", value_delimiter = ',')]
    pub host_modules: Vec<String>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Arguments for QEMU, such as its devices
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub qemu: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When the machine does not boot.
pub fn run(_arguments: Arguments) -> Result<()> {
    bail!("not written yet")
}
