//! What is seen of a machine, real or fake: the runs of the binary, the devices at each moment, the log.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::moment::Moment;

/// Name of the moment before the binary runs.
pub const BEFORE: &str = "before";
/// Name of the moment after the binary's first run; a second is `after 2`.
pub const AFTER: &str = "after 1";
/// Name of the moment after the host's drivers were loaded.
pub const HOST: &str = "host";

/// One run of a program in the guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Execution {
    /// Exit status as the shell says it: 128 and more for a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// `/run/vfio-early/report.json` after it, `Null` when there was none.
    pub report: Value,
    /// Permissions of that file, such as `644`.
    pub report_mode: String,
    /// What `check` said before it; none where it was not asked.
    pub prediction: Option<Prediction>,
}

/// One record of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 0 emergency … 7 debug, without the facility.
    pub level: u8,
    /// The text without level and time.
    pub text: String,
}

/// What `check --json` said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Prediction {
    /// Its exit status.
    pub status: i32,
    /// The report that it expects.
    pub report: Value,
}

impl Prediction {
    /// From the exit status on a line of its own, and the standard output.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let (status, report) = text.split_once('\n').unwrap_or((text, ""));
        let status = status.parse().context("an exit status is a number")?;
        let report = serde_json::from_str(report)
            .with_context(|| format!("check --json prints no JSON, and exits with {text}"))?;
        Ok(Self { status, report })
    }
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Each run of the binary.
    pub executions: Vec<Execution>,
    /// `before`, `after 1`, `after 2` …, and `host` when host modules were loaded.
    pub moments: BTreeMap<String, Moment>,
    /// `MODULE/parameters/NAME` to value.
    pub parameters: BTreeMap<String, String>,
    /// What the binary logged.
    pub log: Vec<Record>,
}
