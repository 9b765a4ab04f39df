//! The measurements as tables.

use super::results::{Entry, Measurements, Wall, find, median};
use super::size::{Part, Sizes};
use crate::checks::bench::contender::{self, CONTENDERS, FLOOR, PROGRAM};
use crate::commands::table::table;

pub(super) type Rows = Vec<Vec<String>>;

/// A heading and its table.
pub(super) struct Section {
    pub heading: String,
    /// What one has to know to read it.
    pub words: String,
    /// The first row is the heading.
    pub rows: Rows,
}

pub(super) fn title(name: &str) -> &str {
    contender::find(name).map_or(name, |contender| contender.title)
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Contenders of that kernel's costs, in order.
pub(super) fn contenders(measurements: &Measurements, kernel: &str) -> Vec<&'static str> {
    let costs = &measurements.costs;
    let is_there =
        |name: &str| costs.iter().any(|entry| entry.kernel == kernel && entry.contender == name);
    CONTENDERS.iter().map(|each| each.name).filter(|name| is_there(name)).collect()
}

fn counts<T>(entries: &[Entry<T>], kernel: &str) -> Vec<usize> {
    let of_kernel = entries.iter().filter(|entry| entry.kernel == kernel);
    let mut counts: Vec<usize> = of_kernel.map(|entry| entry.devices).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// What a VM's start says after it.
pub(super) fn leaves(measurements: &Measurements, kernel: &str, name: &str) -> String {
    let of_it = measurements
        .costs
        .iter()
        .filter(|entry| entry.kernel == kernel && entry.contender == name && entry.devices > 0);
    let incomplete: Vec<_> = of_it.filter(|each| !each.value.is_complete(each.devices)).collect();
    let Some(entry) = incomplete.first() else { return "yes".to_owned() };
    let outcome = &entry.value;
    let why = if !outcome.iommu_type1 {
        "`vfio_iommu_type1` is not loaded".to_owned()
    } else if outcome.bound != entry.devices {
        format!("{} of {} are bound", outcome.bound, entry.devices)
    } else {
        let step = outcome.stopped.as_deref().unwrap_or("its exit status");
        format!("it stops at {step}")
    };
    format!("no: {why}")
}

/// A table of every contender against every count, with that in the cells.
fn grid(
    measurements: &Measurements,
    kernel: &str,
    last: &str,
    cell: impl Fn(usize, &str) -> Option<String>,
    end: impl Fn(&str) -> String,
) -> Rows {
    let counts = counts(&measurements.costs, kernel);
    let mut heading = row([&format!("kernel {kernel}, devices")]);
    heading.extend(counts.iter().map(ToString::to_string));
    heading.push(last.to_owned());
    let mut rows = vec![heading];
    for name in contenders(measurements, kernel) {
        let mut row = vec![title(name).to_owned()];
        row.extend(counts.iter().map(|count| cell(*count, name).unwrap_or_default()));
        row.push(end(name));
        rows.push(row);
    }
    rows
}

fn costs(measurements: &Measurements, kernel: &str) -> Vec<Section> {
    let cost = |count, name: &str| measurements.cost(kernel, count, name);
    let heading = |text: &str| format!("{text}, kernel {kernel}");
    // What starting and ending a process costs is in both.
    let per_device = |name: &str| {
        let counts = counts(&measurements.costs, kernel);
        let of = |count: usize| Some(cost(count, name)?.milliseconds());
        let (Some(first), Some(last)) =
            (counts.iter().find(|count| **count >= 16).copied(), counts.last().copied())
        else {
            return String::new();
        };
        match (of(first), of(last)) {
            (Some(low), Some(high)) if last > first => {
                let devices = f64::from(u32::try_from(last - first).unwrap_or(u32::MAX));
                format!("{:.3}", (high - low) / devices)
            }
            _ => String::new(),
        }
    };
    vec![
        Section {
            heading: heading("Million instructions"),
            words: "As many milliseconds where a processor does one in a nanosecond. With 0 \
                    devices nothing is asked for. The last column is what one more device costs, \
                    from 16 devices to the most."
                .to_owned(),
            rows: grid(
                measurements,
                kernel,
                "per device",
                |count, name| Some(format!("{:.3}", cost(count, name)?.milliseconds())),
                per_device,
            ),
        },
        Section {
            heading: heading("vfio-early's cost over that of others"),
            words: "Above 1, vfio-early costs more.".to_owned(),
            rows: grid(
                measurements,
                kernel,
                "a VM can start then",
                |count, name| {
                    let program = cost(count, PROGRAM)?.milliseconds();
                    Some(format!("{:.3}", program / cost(count, name)?.milliseconds()))
                },
                |name| leaves(measurements, kernel, name),
            ),
        },
        Section {
            heading: heading("Memory"),
            words: "The most that one process had at once, in KiB. Of the scripts it is the \
                    largest of the processes that they start; of vfio-early, as of every program \
                    here, at least the 700 KiB of what started it."
                .to_owned(),
            rows: grid(
                measurements,
                kernel,
                "",
                |count, name| Some(cost(count, name)?.memory_kib.to_string()),
                |_| String::new(),
            ),
        },
    ]
}

fn phases(measurements: &Measurements) -> Option<Section> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in measurements.phases.iter().flat_map(|entry| &entry.value.phases) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    measurements.phases.first()?;
    let mut heading = row(["kernel", "devices"]);
    heading.extend(names.iter().map(|name| (*name).to_owned()));
    let mut rows = vec![heading];
    for entry in &measurements.phases {
        let mut cells = vec![entry.kernel.clone(), entry.devices.to_string()];
        cells.extend(names.iter().map(|wanted| {
            let found = entry.value.phases.iter().find(|(name, _)| name == wanted);
            found.map(|(_, time)| thousands(*time)).unwrap_or_default()
        }));
        rows.push(cells);
    }
    Some(Section {
        heading: "Where vfio-early's time goes".to_owned(),
        words: "In thousand instructions (microseconds at 1 GHz), by the lines that `vfio.debug` \
                adds to the log. This is a run of its own, since each line costs something itself: \
                \"log of the plan\" is nothing but such lines, and there are more of them in \
                \"log\", which lasts until the end. \"parse\" begins with the program's start."
            .to_owned(),
        rows,
    })
}

fn calls(measurements: &Measurements) -> Option<Section> {
    measurements.calls.first()?;
    let mut rows = vec![row(["kernel", "devices", "contender", "system calls", "most of them"])];
    for entry in &measurements.calls {
        let mut most: Vec<(&String, &u64)> = entry.value.calls.iter().collect();
        most.sort_by_key(|(name, number)| (std::cmp::Reverse(**number), *name));
        let most: Vec<String> =
            most.iter().take(6).map(|(name, number)| format!("{number} {name}")).collect();
        rows.push(vec![
            entry.kernel.clone(),
            entry.devices.to_string(),
            title(&entry.contender).to_owned(),
            entry.value.total().to_string(),
            most.join(", "),
        ]);
    }
    Some(Section {
        heading: "System calls".to_owned(),
        words: "By `strace -f -c`, of every process that takes part.".to_owned(),
        rows,
    })
}

/// The median of such runs, and that of their ratios to the floor of the same round.
fn paired(
    wall: &[Entry<Wall>],
    entry: &Entry<Wall>,
    times: fn(&Wall) -> &[f64],
) -> Option<[String; 2]> {
    let own = times(&entry.value);
    let floor = times(find(wall, &entry.kernel, entry.devices, FLOOR)?);
    let ratios: Vec<f64> = own.iter().zip(floor).map(|(own, floor)| own / floor).collect();
    Some([format!("{:.1}", median(own)), format!("{:.3}", median(&ratios))])
}

fn wall(measurements: &Measurements) -> Option<Section> {
    let heading = [
        "kernel",
        "devices",
        "contender",
        "boots",
        "first run, ms",
        "to the floor",
        "second run, ms",
        "to the floor",
    ];
    let mut rows = vec![row(heading)];
    for entry in &measurements.wall {
        let mut cells = vec![
            entry.kernel.clone(),
            entry.devices.to_string(),
            title(&entry.contender).to_owned(),
            entry.value.milliseconds.len().to_string(),
        ];
        let kinds: [fn(&Wall) -> &[f64]; 2] = [|wall| &wall.milliseconds, |wall| &wall.again];
        for times in kinds {
            cells.extend(paired(&measurements.wall, entry, times).unwrap_or_default());
        }
        rows.push(cells);
    }
    measurements.wall.first()?;
    Some(Section {
        heading: "Time on two processors".to_owned(),
        words: "By the machine's own clock, in rounds of one boot each: medians, and medians of \
                the ratios within a round. The emulator translates code when it first comes to it, \
                which no processor does and which is most of the first run of a program that is \
                larger than the floor. Then all is undone and the modules are removed, and in the \
                second run the program's own code is there already, and only the modules' code is \
                new. Other than all else here this depends on the machine, which has to be idle."
            .to_owned(),
        rows,
    })
}

fn sizes(measurements: &Measurements) -> Vec<Section> {
    let mut sections = Vec::new();
    let number = |bytes: usize| thousands(bytes as u64);
    let of = |name: &str, sizes: &Sizes| {
        let Sizes { plain, zstd, xz, in_zstd_initrd, in_xz_initrd } = *sizes;
        [
            row([&format!("{name}alone"), &number(plain), &number(zstd), &number(xz)]),
            row([
                &format!("{name}in an initrd"),
                "",
                &number(in_zstd_initrd),
                &number(in_xz_initrd),
            ]),
        ]
    };
    if let Some(sizes) = &measurements.sizes {
        let mut rows = vec![row(["", "plain", "zstd -19", "xz"])];
        rows.extend(of("", sizes));
        rows.extend(
            measurements.glibc.iter().flat_map(|sizes| of("with the GNU C library, ", sizes)),
        );
        sections.push(Section {
            heading: "Size".to_owned(),
            words: "In bytes: the binary, compressed by itself, and by how much it enlarges an \
                    initrd that has busybox and the vfio modules. busybox is linked with the GNU C \
                    library, of which a program that is, too, adds less."
                .to_owned(),
            rows,
        });
    }
    if !measurements.parts.is_empty() {
        let mut rows = vec![row(["part", "code", "data", "of all"])];
        let all: u64 = measurements.parts.iter().map(Part::size).sum();
        for part in &measurements.parts {
            let percent = part.size() * 1000 / all;
            rows.push(vec![
                part.name.clone(),
                thousands(part.code),
                thousands(part.data),
                format!("{}.{} %", percent / 10, percent % 10),
            ]);
        }
        sections.push(Section {
            heading: "What the binary consists of".to_owned(),
            words: "In bytes, by the linker's map. The compiler puts code of the standard library \
                    and of small crates into that of those who call it, and constants have no \
                    crate."
                .to_owned(),
            rows,
        });
    }
    sections
}

/// `1234567` as `1 234 567`, with narrow spaces.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

pub(super) fn sections(measurements: &Measurements) -> Vec<Section> {
    let mut sections: Vec<Section> =
        measurements.kernels().iter().flat_map(|kernel| costs(measurements, kernel)).collect();
    sections.extend(phases(measurements));
    sections.extend(calls(measurements));
    sections.extend(wall(measurements));
    sections.extend(sizes(measurements));
    sections
}

/// Everything, to read on a terminal.
pub fn for_terminal(measurements: &Measurements) -> String {
    let sections = sections(measurements);
    let text = sections.iter().map(|each| format!("{}\n\n{}\n", each.heading, table(&each.rows)));
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        for (number, text) in
            [(7, "7"), (1234, "1\u{202f}234"), (1_234_567, "1\u{202f}234\u{202f}567")]
        {
            assert_eq!(thousands(number), text);
        }
    }
}
