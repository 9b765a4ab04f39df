//! What the binary weighs, and what of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::initrd::{self, Contents};
use crate::supplies::kernels::Kernel;
use crate::supplies::musl::{self, Unpacks};
use crate::supplies::{binary, step};

/// Bytes of the binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// As it is.
    pub plain: usize,
    /// Compressed by itself.
    pub zstd: usize,
    /// Compressed by itself.
    pub xz: usize,
    /// How much larger it makes an initrd with busybox and the vfio modules.
    pub in_zstd_initrd: usize,
    /// How much larger it makes an initrd with busybox and the vfio modules.
    pub in_xz_initrd: usize,
}

/// As `mkinitramfs` and dracut call them; the kernel knows only this checksum.
const ZSTD: [&str; 4] = ["zstd", "-q", "-19", "-c"];
const XZ: [&str; 3] = ["xz", "--check=crc32", "-c"];

fn compressed(command: &[&str], file: &Path) -> Result<usize> {
    Ok(step::run(Command::new(command[0]).args(&command[1..]).arg(file))?.len())
}

/// Weighs it, in an initrd for that kernel.
///
/// # Errors
/// When an initrd cannot be made, or a program to compress it does not run.
pub fn weigh(program: &Path, kernel: &Kernel) -> Result<Sizes> {
    let folder = tempfile::Builder::new().prefix("vfio-early-size-").tempdir()?;
    let with = folder.path().join("with");
    let without = folder.path().join("without");
    let mut contents = Contents {
        modules: ["vfio_pci", "vfio_iommu_type1"].map(str::to_owned).into(),
        ..Contents::default()
    };
    initrd::write(kernel, &contents, folder.path(), &without)?;
    let program = &binary::initrds(program);
    contents.tools.insert("/bin/vfio-early".to_owned(), fs::read(program)?);
    initrd::write(kernel, &contents, folder.path(), &with)?;
    let difference = |command: &[&str]| -> Result<usize> {
        Ok(compressed(command, &with)? - compressed(command, &without)?)
    };
    Ok(Sizes {
        plain: usize::try_from(fs::metadata(program)?.len())?,
        zstd: compressed(&ZSTD, program)?,
        xz: compressed(&XZ, program)?,
        in_zstd_initrd: difference(&ZSTD)?,
        in_xz_initrd: difference(&XZ)?,
    })
}

/// A crate or library, and its bytes in the binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Code.
    pub code: u64,
    /// Constants and data that the file holds.
    pub data: u64,
}

impl Part {
    /// All of it.
    pub fn size(&self) -> u64 {
        self.code + self.data
    }
}

/// What the initrd's program consists of, by the linker's own map.
///
/// # Errors
/// When it cannot be built.
pub fn parts() -> Result<Vec<Part>> {
    let map = binary::workspace().join("target/map");
    fs::create_dir_all(&map)?;
    let file = map.join("vfio-early.map");
    let argument = format!("link-arg=-Wl,-Map={}", file.display());
    // In a folder of its own: the binary that is measured is not built anew by this.
    let mut command = binary::cargo(&["rustc", "--release", "--bin=vfio-early-initrd", "--quiet"])?;
    musl::for_it(&mut command, Unpacks::Xz)?;
    command.args(binary::remap()?).arg("--target-dir").arg(&map).args(["--", "-C", &argument]);
    step::run_with_progress(&mut command)?;
    let text = fs::read_to_string(&file)
        .with_context(|| format!("the linker wrote no map {}: it must be lld", file.display()))?;
    let parts = read_map(&text);
    ensure!(!parts.is_empty(), "{} is no map of lld's", file.display());
    Ok(parts)
}

/// Sections of which the file holds nothing, and those for tools, which are stripped.
const NOT_LOADED: [&str; 7] =
    [".bss", ".tbss", ".relro_padding", ".note", ".comment", ".gnu", ".shstrtab"];

/// Smaller ones are summed up.
const SMALL: u64 = 1000;

/// Sums up the input sections of lld's map, largest part first. Its columns are as wide as numbers
/// can be; then come, each further to the right, output sections, input sections and symbols.
fn read_map(text: &str) -> Vec<Part> {
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let mut output = "";
    for line in text.lines() {
        let size = line.get(34..42).and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let (Some(size), Some(what)) = (size, line.get(49..)) else { continue };
        if !what.starts_with(' ') {
            output = what;
        }
        let input = what.strip_prefix("        ").filter(|rest| !rest.starts_with(' '));
        let Some((file, section)) = input.and_then(|input| input.rsplit_once(":(")) else {
            continue;
        };
        if NOT_LOADED.iter().any(|name| output.starts_with(name)) {
            continue;
        }
        let name = part_of(file, section.trim_end_matches(')'));
        let part = parts.entry(name.clone()).or_insert(Part { name, code: 0, data: 0 });
        let is_code = [".text", ".init", ".fini", ".iplt"].contains(&output);
        *(if is_code { &mut part.code } else { &mut part.data }) += size;
    }
    let (mut parts, small): (Vec<Part>, Vec<Part>) =
        parts.into_values().partition(|part| part.size() >= SMALL);
    parts.sort_by_key(|part| std::cmp::Reverse(part.size()));
    if !small.is_empty() {
        parts.push(Part {
            name: format!("{} smaller ones", small.len()),
            code: small.iter().map(|part| part.code).sum(),
            data: small.iter().map(|part| part.data).sum(),
        });
    }
    parts
}

/// The library that an input section comes from; of Rust's own, by its name, the crate.
fn part_of(file: &str, section: &str) -> String {
    let library = file.rsplit('/').next().unwrap_or(file);
    let library = library.split_once('(').map_or(library, |(archive, _)| archive);
    for (beginning, name) in [
        ("libkmod", "libkmod"),
        ("liblzma", "liblzma"),
        ("libc.a", "C library"),
        ("crt", "C library"),
    ] {
        if library.starts_with(beginning) {
            return name.to_owned();
        }
    }
    if library.starts_with('<') {
        return "linker".to_owned();
    }
    crate_of(section).unwrap_or_else(|| "Rust, of no crate".to_owned())
}

/// The crate in a mangled name: `_ZN4core3fmt…`, or `_RNvNtCs…_4core3fmt…`.
fn crate_of(section: &str) -> Option<String> {
    let (_, symbol) = section.split_once("._")?;
    let demangled = format!("{:#}", rustc_demangle::demangle(&format!("_{symbol}")));
    // The first path in it: `<T as core::fmt::Debug>::fmt`.
    let (path, _) = demangled.rsplit_once("::")?;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = path
        .split("::")
        .map(|part| part.rfind(|c| !is_of_name(c)).map_or(part, |index| &part[index + 1..]));
    // What has no path is a method of a type that core defines.
    Some(names.find(|name| !name.is_empty()).unwrap_or("core").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
          401000           401000     1800    16 .text
          401000           401000      800    16         /t/vfio_early.o:(.text._ZN4core3fmt5write17h0123456789abcdefE)
          401000           401000      800     1                 core::fmt::write
          401800           401800     1000    16         /usr/lib/x/libc.a(malloc.o):(.text)
          402000           402000       30    16 .rodata
          402000           402000       30    16         /t/vfio_early.o:(.rodata..Lanon.1)
          403000           403000       40    16 .bss
          403000           403000       40    16         /usr/lib/x/libc.a(malloc.o):(.bss)
";

    #[test]
    fn the_linkers_map_tells_what_the_binary_consists_of() {
        let part = |name: &str, code, data| Part { name: name.to_owned(), code, data };
        assert_eq!(
            read_map(MAP),
            [part("C library", 0x1000, 0), part("core", 0x800, 0), part("1 smaller ones", 0, 0x30)]
        );
    }

    #[test]
    fn the_crate_of_a_name_is_the_first_path_in_it() {
        for (section, expected) in [
            (".text._ZN10vfio_early5apply5apply17h0123456789abcdefE", Some("vfio_early")),
            (
                ".text._ZN44_$LT$$RF$T$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE",
                Some("core"),
            ),
            (".rodata..Lanon.1", None),
            (".text.malloc", None),
        ] {
            assert_eq!(crate_of(section).as_deref(), expected, "{section}");
        }
    }
}
