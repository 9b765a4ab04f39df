//! What was measured, and the file that keeps it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::size::{Part, Sizes};
use crate::checks::bench::contender::{self, CONTENDERS, Contender};
use crate::checks::bench::machine::Outcome;
use crate::supplies::binary;

/// What holds for one contender, one kernel and one number of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// The kernel's line.
    pub kernel: String,
    /// Devices asked for.
    pub devices: usize,
    /// The contender's name.
    pub contender: String,
    /// What was measured.
    #[serde(flatten)]
    pub value: T,
}

impl<T> Entry<T> {
    fn place(&self) -> (Vec<u32>, usize, usize) {
        // 6.12 comes after 6.1, and 6.9 between them.
        let line = self.kernel.split('.').map(|number| number.parse().unwrap_or(0)).collect();
        let contender = CONTENDERS.iter().position(|each| each.name == self.contender);
        (line, self.devices, contender.unwrap_or(CONTENDERS.len()))
    }
}

/// Phases of a run with `vfio.debug`, in order, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Name and time.
    pub phases: Vec<(String, u64)>,
}

/// System calls of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Name and number.
    pub calls: BTreeMap<String, u64>,
}

impl Calls {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

/// Times on the machine's own clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wall {
    /// Of the first run of each boot, in order.
    pub milliseconds: Vec<f64>,
    /// Of the second run in the same boots.
    #[serde(default)]
    pub again: Vec<f64>,
}

/// The one in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// All that was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measurements {
    /// Of what took part: name to version.
    pub versions: BTreeMap<String, String>,
    /// What runs cost, in counted instructions.
    pub costs: Vec<Entry<Outcome>>,
    /// Where vfio-early's time goes.
    pub phases: Vec<Entry<Phases>>,
    /// System calls.
    pub calls: Vec<Entry<Calls>>,
    /// Times on two processors.
    pub wall: Vec<Entry<Wall>>,
    /// The binary's size.
    pub sizes: Option<Sizes>,
    /// That of a build with the GNU C library.
    pub glibc: Option<Sizes>,
    /// What the binary consists of.
    pub parts: Vec<Part>,
}

/// The folder that keeps them.
pub fn folder() -> PathBuf {
    binary::workspace().join("docs/measurements")
}

fn file() -> PathBuf {
    folder().join("measurements.json")
}

/// Puts new ones in place of old ones of the same case, and keeps of the others what stays: that is
/// told by its kernel and its contender.
fn merge<T>(old: &mut Vec<Entry<T>>, new: Vec<Entry<T>>, stays: impl Fn(&str, &str) -> bool) {
    old.retain(|entry| stays(&entry.kernel, &entry.contender));
    for entry in new {
        old.retain(|other| other.place() != entry.place());
        old.push(entry);
    }
}

impl Measurements {
    /// Those that are kept; none where there are none yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn kept() -> Result<Self> {
        let file = file();
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no such file", file.display()))
    }

    /// Takes newer ones in place of those of the same case. Those of another build of the program, or
    /// of another build of a kernel, are dropped: what stands side by side can be compared.
    pub fn take(&mut self, new: Self) {
        let is_other = |name: &str| {
            let (old, new) = (self.versions.get(name), new.versions.get(name));
            old.is_some() && new.is_some() && old != new
        };
        let is_other_program = is_other("vfio-early");
        let other_kernels: Vec<String> = self
            .versions
            .keys()
            .filter(|name| is_other(name))
            .filter_map(|name| Some(name.strip_prefix("kernel ")?.to_owned()))
            .collect();
        let stays = |kernel: &str, contender: &str| {
            let is_program = contender::find(contender).is_some_and(Contender::is_program);
            !(is_other_program && is_program || other_kernels.iter().any(|other| other == kernel))
        };
        if is_other_program {
            (self.sizes, self.glibc) = (None, None);
            self.parts = Vec::new();
        }
        merge(&mut self.costs, new.costs, stays);
        merge(&mut self.phases, new.phases, stays);
        merge(&mut self.calls, new.calls, stays);
        merge(&mut self.wall, new.wall, stays);
        self.versions.extend(new.versions);
        self.sizes = new.sizes.or(self.sizes.take());
        self.glibc = new.glibc.or(self.glibc.take());
        if !new.parts.is_empty() {
            self.parts = new.parts;
        }
        self.sort();
    }

    /// Puts them in the order of kernels, devices and contenders.
    pub fn sort(&mut self) {
        self.costs.sort_by_key(Entry::place);
        self.phases.sort_by_key(Entry::place);
        self.calls.sort_by_key(Entry::place);
        self.wall.sort_by_key(Entry::place);
    }

    /// Keeps them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self) -> Result<()> {
        fs::create_dir_all(folder())?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))
    }

    /// The cost of that case.
    pub fn cost(&self, kernel: &str, devices: usize, contender: &str) -> Option<&Outcome> {
        find(&self.costs, kernel, devices, contender)
    }

    /// Kernels that costs were measured on, in order.
    pub fn kernels(&self) -> Vec<String> {
        let mut kernels: Vec<String> = Vec::new();
        for entry in &self.costs {
            if !kernels.contains(&entry.kernel) {
                kernels.push(entry.kernel.clone());
            }
        }
        kernels
    }
}

/// The entry of that case.
pub fn find<'e, T>(
    entries: &'e [Entry<T>],
    kernel: &str,
    devices: usize,
    contender: &str,
) -> Option<&'e T> {
    let is_it = |entry: &&Entry<T>| {
        entry.kernel == kernel && entry.devices == devices && entry.contender == contender
    };
    entries.iter().find(is_it).map(|entry| &entry.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_measurements_replace_those_of_the_same_case_only() {
        let entry = |devices, milliseconds: f64| Entry {
            kernel: "6.1".to_owned(),
            devices,
            contender: "floor".to_owned(),
            value: Wall { milliseconds: vec![milliseconds], again: vec![] },
        };
        let with = |wall| Measurements { wall, ..Measurements::default() };
        let mut kept = with(vec![entry(64, 1.0), entry(3, 2.0)]);
        kept.take(with(vec![entry(64, 3.0), entry(16, 4.0)]));
        assert_eq!(kept.wall, [entry(3, 2.0), entry(16, 4.0), entry(64, 3.0)]);
    }

    #[test]
    fn measurements_of_another_build_are_dropped() {
        let entry = |kernel: &str, contender: &str| Entry {
            kernel: kernel.to_owned(),
            devices: 3,
            contender: contender.to_owned(),
            value: Wall { milliseconds: vec![1.0], again: vec![] },
        };
        let with = |program: &str, kernel: &str, wall: &[(&str, &str)]| Measurements {
            versions: [("vfio-early", program), ("kernel 6.1", kernel)]
                .map(|(name, version)| (name.to_owned(), version.to_owned()))
                .into(),
            wall: wall.iter().map(|(kernel, contender)| entry(kernel, contender)).collect(),
            ..Measurements::default()
        };
        let all = [("6.1", "program"), ("6.1", "floor"), ("6.12", "program"), ("6.12", "floor")];
        for (program, kernel, left) in
            [("1", "6.1.1", &[0, 1, 2, 3][..]), ("2", "6.1.1", &[1, 3]), ("1", "6.1.2", &[2, 3])]
        {
            let mut kept = with("1", "6.1.1", &all);
            kept.take(with(program, kernel, &[]));
            let expected: Vec<_> =
                left.iter().map(|place| entry(all[*place].0, all[*place].1)).collect();
            assert_eq!(kept.wall, expected, "{program}, {kernel}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in [(&[3.0, 1.0, 2.0][..], 2.0), (&[4.0, 1.0, 2.0, 3.0], 2.5)] {
            assert!((median(values) - expected).abs() < 1e-9, "{values:?}");
        }
    }
}
