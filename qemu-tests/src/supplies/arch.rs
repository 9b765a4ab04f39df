//! The processors of machines and programs.

use std::str::FromStr;

use anyhow::{Error, bail};

/// A processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Arch {
    /// x86 with 64 bits.
    #[default]
    Amd64,
    /// Arm with 64 bits.
    Arm64,
}

/// Their names.
pub const NAMES: [&str; 2] = ["amd64", "arm64"];

impl Arch {
    /// As Debian calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => NAMES[0],
            Self::Arm64 => NAMES[1],
        }
    }

    /// As the GNU tools call it.
    #[must_use]
    pub fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// That of this machine; another one than these counts as the first, whose emulator is asked for.
    #[must_use]
    pub fn of_this_machine() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            _ => bail!("there is no processor {text}: try {}", NAMES.join(", ")),
        }
    }
}
