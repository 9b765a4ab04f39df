//! The pages that have the tables: docs/measurements, and a part of the README.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::results::Measurements;
use super::tables::{Rows, contenders, leaves, row, sections, title};
use super::{plot, results};
use crate::checks::bench::contender::{CONTENDERS, PROGRAM};
use crate::supplies::binary;

const BEGIN: &str = "<!-- measured: begin; cargo xtask bench --write writes this part -->\n";
const END: &str = "<!-- measured: end -->\n";

fn markdown(rows: &Rows) -> String {
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        lines.push(format!("| {} |\n", row.join(" | ")));
        if index == 0 {
            // Numbers stand right, names left.
            let rule: Vec<&str> = row
                .iter()
                .enumerate()
                .map(|(column, _)| {
                    let is_number = |row: &Vec<String>| {
                        let text = row.get(column).map_or("", String::as_str);
                        text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit())
                    };
                    let plain = column == 0 || !rows[1..].iter().all(is_number);
                    if plain { "---" } else { "---:" }
                })
                .collect();
            lines.push(format!("| {} |\n", rule.join(" | ")));
        }
    }
    lines.concat()
}

/// The page of docs/measurements.
fn page(measurements: &Measurements) -> String {
    let mut text = vec![
        "# Measurements\n\n\
        `cargo xtask bench --write` writes this page, its pictures, `measurements.json` and the \
        table in the README; `cargo xtask bench --help` tells how to measure less.\n\n\
        Every run is a fresh boot of the same machine and initrd in QEMU, and is measured from the \
        program's start to its end. Costs are counted instructions, the kernel's and the \
        program's, on one processor (`-icount shift=0`): the same work has the same count, to the \
        instruction, whatever the machine is busy with (`--repeat 2` verifies it). Another initrd \
        puts things elsewhere in memory, which makes up to 0.1 %. The devices are `edu`, each \
        behind a root port of its own up to 64 devices, then 2, 4 and 8 of them behind one; \
        the IOMMU is `amd-iommu`. The floor and the scripts get the addresses as arguments, which \
        costs them nothing. All rows are of the build of vfio-early and of the kernels that the \
        last table names; those of others are dropped when newer ones are kept.\n"
            .to_owned(),
    ];
    text.push("\n| contender | |\n| --- | --- |\n".to_owned());
    for contender in CONTENDERS {
        text.push(format!("| {} | {} |\n", contender.title, contender.about));
    }
    text.push("\n".to_owned());
    for kernel in measurements.kernels() {
        text.push(format!(
            "![Cost against devices on Linux {kernel}]({})\n\n",
            plot::name(&kernel)
        ));
    }
    text.push("A hollow point: no VM can start then.\n".to_owned());
    for section in sections(measurements) {
        text.push(format!(
            "\n## {}\n\n{}\n\n{}",
            section.heading,
            section.words,
            markdown(&section.rows)
        ));
    }
    text.push("\n## With\n\n".to_owned());
    let versions = measurements.versions.iter();
    text.push(markdown(
        &[row(["", "version"])]
            .into_iter()
            .chain(versions.map(|(name, version)| row([name, version])))
            .collect(),
    ));
    text.concat()
}

/// Kernel and device counts of the README's table.
const README: (&str, [usize; 3]) = ("6.1", [3, 64, 512]);

fn readme_part(measurements: &Measurements) -> String {
    let (kernel, counts) = README;
    let mut heading = row([&format!("kernel {kernel}")]);
    heading.extend(counts.map(|count| format!("{count} devices")));
    heading.push("a VM can start then".to_owned());
    let mut rows = vec![heading];
    for name in contenders(measurements, kernel) {
        if name == "program-by-id" {
            continue;
        }
        let mut cells = vec![title(name).to_owned()];
        cells.extend(counts.map(|count| {
            let Some(cost) = measurements.cost(kernel, count, name) else { return String::new() };
            let program = measurements.cost(kernel, count, PROGRAM);
            let own = cost.milliseconds();
            match program.filter(|_| name != PROGRAM) {
                Some(program) => format!("{own:.1} ({:.2})", program.milliseconds() / own),
                None => format!("{own:.1}"),
            }
        }));
        cells.push(leaves(measurements, kernel, name));
        rows.push(cells);
    }
    format!(
        "{BEGIN}{}\n\
         Million instructions, the kernel's included (milliseconds at 1 GHz), by `cargo xtask bench`.\n\
         In brackets: vfio-early's cost over this one's; above 1, vfio-early costs more.\n\
         [What each is, other kernels, and all else that was measured](docs/measurements/README.md).\n\
         {END}",
        markdown(&rows)
    )
}

fn readme() -> PathBuf {
    binary::workspace().join("README.md")
}

/// The README with its marked part replaced.
fn replaced(readme: &str, part: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no marked part")?;
    let (_, after) = rest.split_once(END).context("the marked part of README.md has no end")?;
    Ok(format!("{before}{part}{after}"))
}

/// Writes the page, and the README's part.
///
/// # Errors
/// When one cannot be written, or the README has no marked part.
pub fn write(measurements: &Measurements) -> Result<()> {
    fs::write(results::folder().join("README.md"), page(measurements))?;
    let text = fs::read_to_string(readme()).context("cannot read README.md")?;
    fs::write(readme(), replaced(&text, &readme_part(measurements))?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever was written by hand into what a command writes, or was kept without the rest.
    #[test]
    fn everything_that_is_kept_comes_from_the_same_measurements() {
        let kept = Measurements::kept().unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        let mend = "`cargo xtask bench --redraw` writes it";
        assert_eq!(
            read(results::folder().join("README.md")),
            page(&kept),
            "docs/measurements: {mend}"
        );
        let readme = read(readme());
        assert_eq!(replaced(&readme, &readme_part(&kept)).unwrap(), readme, "README.md: {mend}");
        for kernel in kept.kernels() {
            let drawn = plot::draw(&kept, &kernel).unwrap();
            assert_eq!(read(results::folder().join(plot::name(&kernel))), drawn, "picture: {mend}");
        }
    }
}
