//! `cargo xtask screenshots`: the pictures in the documentation, taken anew.

mod terminal;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::checks::debian;
use crate::checks::screens::{BOOT, OTHER};
use crate::machine::screen::Screenshot;
use crate::machine::topology::{Device, Topology};
use crate::machine::vm::{Vm, vm};
use crate::supplies::kernels::{self, Kernel};
use crate::supplies::{binary, packages};

/// Arguments of `cargo xtask screenshots`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Kernel line
    #[arg(long, value_name = "LINE", default_value = "6.12", value_parser = kernels::LINES)]
    pub kernel: String,
    /// Folder for the pictures; by default docs/ of this tree
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Only those of a terminal, for which nothing is booted
    #[arg(long)]
    pub terminal: bool,
}

/// One picture: its file, and what is in it.
struct Picture {
    file: &'static str,
    cards: &'static [(&'static str, &'static str)],
    command_line: &'static str,
    /// Whose display is shown, at the end.
    display: &'static str,
}

const PICTURES: &[Picture] = &[
    Picture {
        file: "announcement.png",
        cards: &[("01.0", BOOT)],
        command_line: "vfio.devs=00:01.0 vfio.console=release",
        display: BOOT,
    },
    Picture {
        file: "console-alive.png",
        cards: &[("01.0", BOOT), ("05.0", OTHER)],
        command_line: "vfio.devs=00:01.0",
        display: OTHER,
    },
];

/// Draws those of a terminal, then boots a machine for each of the others, and writes them.
///
/// # Errors
/// When something cannot be set up, a machine does not come to its end, or binds nothing.
pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = arguments.folder.clone().unwrap_or_else(|| binary::workspace().join("docs"));
    for path in terminal::draw(&folder)? {
        println!("{}", path.display());
    }
    if arguments.terminal {
        return Ok(());
    }
    packages::ensure(packages::BOOT)?;
    let kernel = kernels::set_up(&arguments.kernel)?;
    let program = binary::build()?;
    for picture in PICTURES {
        let run = machine(picture, &kernel).program(&program).boot()?;
        let status = run.last().status;
        ensure!(status == 0, "the card was not given away\n{}", run.details());
        let path = folder.join(picture.file);
        Screenshot::read(&run.picture("end", picture.display))?.cropped().save(&path)?;
        println!("{}", path.display());
    }
    let path = folder.join("passphrase.png");
    debian::passphrase::picture()?.cropped().save(&path)?;
    println!("{}", path.display());
    Ok(())
}

fn machine(picture: &Picture, kernel: &Kernel) -> Vm {
    let card = |(place, name): &(&str, &str)| Device::new("VGA", place).named(name);
    let driver = if kernel.line == "5.10" { "bochs_drm" } else { "bochs" };
    let mut machine = vm(kernel)
        .topology(Topology::new(picture.cards.iter().map(card)))
        .uefi()
        .cmdline(picture.command_line)
        .cmdline("console=tty0")
        .modules([driver]);
    for (_, name) in picture.cards {
        machine = machine.display(name);
    }
    let say = |text: &str| format!("echo '{text}' >/dev/tty0; sleep 0.5");
    machine
        .shell(r"printf '\033[?25l\033[2J\033[H' >/dev/tty0")
        .shell(&say("The initrd prints this before vfio-early runs."))
        .run([""; 0])
        .shell(&say("The initrd prints this after vfio-early has run."))
        .picture("end")
}
