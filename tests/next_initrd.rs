//! `vfio-early check` on what the initrd of the next boot needs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::console::{VGA, two_displays};
use crate::fake::Fake;
use crate::list::hosts;
use crate::machine::Function;

const RELEASE: &str = "6.1.0-31-amd64";

fn modules_folder(fake: &Fake) -> PathBuf {
    fake.tree.write("proc/sys/kernel/osrelease", &format!("{RELEASE}\n"));
    fake.tree.root().join("lib/modules").join(RELEASE)
}

/// A module as `depmod` reads it: what it exports, what it uses of others, and two aliases that
/// fit nothing else.
pub fn module(fake: &Fake, name: &str, uses: &[&str]) {
    module_for(fake, name, uses, &format!("test:{name}*"));
}

/// The same, with another alias.
fn module_for(fake: &Fake, name: &str, uses: &[&str], alias: &str) {
    let symbol = |name: &str| format!("symbol_of_{name}");
    let mut source = format!(
        "const char info[] __attribute__((section(\".modinfo\"))) =\n\
             \"alias=test:{name}\\0alias={alias}\";\n\
         const char names[] __attribute__((section(\"__ksymtab_strings\"))) = \"{}\";\n",
        symbol(name)
    );
    for other in uses {
        let other = symbol(other);
        source.extend(["extern int ", &other, "; int *use_", &other, " = &", &other, ";\n"]);
    }
    let folder = modules_folder(fake).join("kernel");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(name).with_extension("c");
    fs::write(&file, source).unwrap();
    let object = file.with_extension("ko");
    let output = Command::new("gcc").arg("-c").arg(&file).arg("-o").arg(&object).output();
    let output = output.expect("gcc, which cargo xtask setup installs, runs");
    assert!(output.status.success(), "{output:?}");
}

pub fn indexes(fake: &Fake, built_in: &[&str]) {
    let folder = modules_folder(fake);
    let lines = built_in.iter().map(|name| format!("kernel/{name}.ko\n"));
    fs::write(folder.join("modules.builtin"), lines.collect::<String>()).unwrap();
    fs::write(folder.join("modules.order"), "").unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("depmod")
        .env("PATH", path)
        .arg("--basedir")
        .arg(fake.tree.root())
        .arg(RELEASE)
        .output()
        .expect("depmod, of Debian's package kmod, runs");
    assert!(output.status.success(), "{output:?}");
}

/// The lines about it.
fn next_initrd(fake: &Fake, items: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-early"))
        .arg("check")
        .arg(items)
        .arg("--root")
        .arg(fake.tree.root())
        .output()
        .expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().skip_while(|line| !line.starts_with("the next initrd needs"));
    let needs = |line: &&str| line.starts_with("    ") || line.starts_with("the next");
    lines.take_while(needs).map(str::to_owned).collect()
}

#[test]
fn each_module_is_a_file_built_in_or_missing() {
    let fake = hosts::desktop();
    module(&fake, "irqbypass", &[]);
    module(&fake, "vfio", &[]);
    module(&fake, "vfio-pci", &["vfio", "irqbypass"]);
    indexes(&fake, &["vfio_iommu_type1"]);
    let heading = format!("the next initrd needs, by the modules of {RELEASE}:");
    let lines = next_initrd(&fake, "144d:a808@02:00.0");
    assert_eq!(lines[0], heading);
    let ours = lines[1].strip_prefix("    vfio-pci: a module, with ").expect(&lines[1]);
    let mut needed: Vec<_> = ours.split(", ").collect();
    needed.sort_unstable();
    assert_eq!(needed, ["irqbypass", "vfio"]);
    assert_eq!(lines[2..], ["    vfio_iommu_type1: built in"]);

    let fake = hosts::desktop();
    module(&fake, "vfio_iommu_type1", &[]);
    indexes(&fake, &[]);
    let lines = next_initrd(&fake, "144d:a808@02:00.0");
    assert_eq!(
        lines[1..],
        [
            "    vfio-pci: MISSING: this kernel has it neither built in nor as a module",
            "    vfio_iommu_type1: a module",
        ]
    );
}

#[test]
fn a_kernel_whose_vfio_has_no_groups_needs_iommufd() {
    let fake = hosts::desktop();
    module(&fake, "iommufd", &[]);
    module(&fake, "vfio", &["iommufd"]);
    module(&fake, "vfio-pci", &["vfio"]);
    indexes(&fake, &[]);
    let lines = next_initrd(&fake, "144d:a808@02:00.0");
    assert_eq!(lines[2..], ["    iommufd: a module"]);
    // Where it has groups as well, both ways are open.
    module(&fake, "vfio_iommu_type1", &[]);
    indexes(&fake, &[]);
    let lines = next_initrd(&fake, "144d:a808@02:00.0");
    assert_eq!(lines[2..], ["    vfio_iommu_type1: a module"]);
}

#[test]
fn beside_a_variant_vfio_pci_is_needed() {
    let fake = hosts::desktop();
    for name in ["vfio-pci", "vfio_iommu_type1"] {
        module(&fake, name, &[]);
    }
    module_for(&fake, "ssd_vfio_pci", &[], "vfio_pci:v0000144Dd0000A808sv*sd*bc*sc*i*");
    indexes(&fake, &[]);
    let lines = next_initrd(&fake, "144d:a808@02:00.0");
    let modules = ["ssd_vfio_pci", "vfio-pci", "vfio_iommu_type1"];
    assert_eq!(lines[1..], modules.map(|name| format!("    {name}: a module")));
}

/// The modules that the desktop needs in its next initrd.
pub fn modules_of_desktop(fake: &Fake) {
    module(fake, "vfio-pci", &[]);
    module(fake, "vfio_iommu_type1", &[]);
    module(fake, "i915", &[]);
    indexes(fake, &[]);
    fake.tree.folder("sys/module/i915");
    fake.tree.link_up("bus/pci/drivers/i915/module", "module/i915");
}

#[test]
fn where_a_display_goes_the_driver_of_the_one_that_stays_is_needed() {
    let fake = hosts::desktop();
    modules_of_desktop(&fake);
    let lines = next_initrd(&fake, "10de:1c03@01:00.*");
    assert_eq!(lines[3..], ["    i915, for the console on 0000:00:02.0: a module"]);

    // These draw nothing: a card that is given away already, and one without outputs.
    let mut machine = two_displays(VGA, VGA);
    machine.functions.push(Function::new("0000:03:00.0", "10de:1b38", 0x03_0200).host("nvidia"));
    machine.functions.push(Function::new("0000:04:00.0", "10de:1c03", VGA).group(40));
    let mut fake = machine.boot();
    fake.load("i915");
    fake.load("nvidia");
    fake.bind("vfio.devs=04:00.0");
    module(&fake, "vfio-pci", &[]);
    module(&fake, "vfio_iommu_type1", &[]);
    module(&fake, "i915", &[]);
    indexes(&fake, &[]);
    let lines = next_initrd(&fake, "01:00.0");
    assert_eq!(lines[3..], ["    i915, for the console on 0000:00:02.0: a module"]);
}

#[test]
fn nothing_is_said_where_it_is_not_known_or_nothing_goes() {
    let fake = hosts::desktop();
    // Another machine's /proc and /sys alone.
    assert_eq!(next_initrd(&fake, "02:00.0"), Vec::<String>::new());
    module(&fake, "vfio-pci", &[]);
    indexes(&fake, &[]);
    assert_eq!(next_initrd(&fake, "00:01.0"), Vec::<String>::new());
}
