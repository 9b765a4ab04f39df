//! `cargo xtask setup`: what builds and checks need, installed, fetched and built.

use anyhow::Result;

use crate::supplies::kernels::{self, arch_of};
use crate::supplies::{cross, libkmod, musl, packages, step};

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Fetch only this kernel (may be repeated); without it the four lines of Debian, and two small ones
    /// for arm64. nixos, builtin and cdev are built: the first of them for about ten minutes. With one
    /// for arm64 comes what builds and boots for it
    #[arg(long = "kernel", value_name = "LINE", value_parser = kernels::NAMES)]
    pub kernels: Vec<String>,
}

/// Sets up.
///
/// # Errors
/// When something cannot be installed, fetched or built.
pub fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(&[packages::BUILD, packages::TEST, packages::BOOT].concat())?;
    step::say(format_args!("libkmod {} is in {}", libkmod::VERSION, libkmod::set_up()?.display()));
    if musl::missing().is_none() {
        let libraries = musl::libraries(musl::Unpacks::Xz)?;
        step::say(format_args!("libraries for {} are in {}", musl::target(), libraries.display()));
    }
    for line in kernels::NAMES {
        let arch = arch_of(line);
        let usual = arguments.kernels.is_empty() && kernels::is_usual(line);
        if usual && let Some(why) = cross::missing(arch) {
            step::say(format_args!("not set up, and its checks are not run: {line}: {why}"));
            continue;
        }
        if usual || arguments.kernels.iter().any(|wanted| wanted == line) {
            packages::ensure(packages::cross(arch))?;
            let kernel = kernels::set_up(line)?;
            step::say(format_args!(
                "kernel {line} is {} (Debian {})",
                kernel.release, kernel.package_version
            ));
        }
    }
    Ok(())
}
