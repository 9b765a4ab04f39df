//! Which variant of vfio-pci a device wants: libvirt's rule, the matching `vfio_pci:` alias with
//! the fewest wildcards. Pure.
//!
//! Such aliases are in `modules.alias` since Linux 5.15:
//! `alias vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_vfio_pci`.

use crate::pci::{Class, Id};

/// The aliases of variant drivers, without that of vfio-pci, which takes all devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variants(Vec<(String, String)>);

/// How such aliases begin.
pub const PREFIX: &str = "vfio_pci:";

/// The part of a modalias behind its bus (`file2alias.c` in the kernel's `scripts/mod`).
#[must_use]
pub fn modalias(id: Id, class: Class) -> String {
    let Id { vendor, device, subvendor, subdevice } = id;
    let (base, sub, interface) = (class.0 >> 16 & 0xff, class.0 >> 8 & 0xff, class.0 & 0xff);
    format!(
        "v{vendor:08X}d{device:08X}sv{subvendor:08X}sd{subdevice:08X}bc{base:02X}sc{sub:02X}\
         i{interface:02X}"
    )
}

impl Variants {
    /// From aliases, which may be others, too, each with its module.
    #[must_use]
    pub fn of(aliases: impl IntoIterator<Item = (String, String)>) -> Variants {
        let is_name = |module: &str| {
            module.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let variant = |(alias, module): (String, String)| {
            let pattern = alias.strip_prefix(PREFIX)?.to_owned();
            (module != "vfio_pci" && is_name(&module)).then_some((pattern, module))
        };
        Variants(aliases.into_iter().filter_map(variant).collect())
    }

    /// From the text of `modules.alias`, whose index says the same.
    #[must_use]
    pub fn read(text: &str) -> Variants {
        let aliases = text.lines().filter_map(|line| line.strip_prefix("alias ")?.split_once(' '));
        Variants::of(aliases.map(|(alias, module)| (alias.to_owned(), module.to_owned())))
    }

    /// The module for a device.
    #[must_use]
    pub fn module_for(&self, id: Id, class: Class) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let modalias = modalias(id, class);
        let fitting = self.0.iter().filter(|(pattern, _)| fits(pattern, &modalias));
        let best = fitting.min_by_key(|(pattern, _)| pattern.matches('*').count());
        best.map(|(_, module)| module.as_str())
    }
}

/// Whether a pattern, in which `*` stands for any text, fits. Each part takes the first place where
/// it fits, since no other can do more for the parts behind it: no pattern takes long.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(start).and_then(|text| text.strip_suffix(end));
    let step = |text: &mut &str, part: &str| {
        let (_, after) = text.split_once(part)?;
        *text = after;
        Some(())
    };
    inner.is_some_and(|mut inner| middle.split('*').all(|part| step(&mut inner, part).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIASES: &str = "\
# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_vfio_pci
alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci
alias vfio_pci:v000015B3d*sv*sd*bc*sc*i* other_vfio_pci
";

    #[test]
    fn the_alias_with_the_fewest_wildcards_wins() {
        let variants = Variants::read(ALIASES);
        for (id, expected) in [
            ("1af4:1041", Some("virtio_vfio_pci")),
            ("1af4:1042", None),
            ("15b3:101e", Some("mlx5_vfio_pci")),
            ("15b3:1017", Some("other_vfio_pci")),
            ("8086:10d3", None),
        ] {
            let found = variants.module_for(id.parse().unwrap(), Class(0x02_0000));
            assert_eq!(found, expected, "{id}");
        }
        assert_eq!(Variants::read("").module_for("1af4:1041".parse().unwrap(), Class(0)), None);
    }

    #[test]
    fn a_modalias_is_as_the_kernel_writes_it() {
        let id = "10de:1c03:1462:3282".parse().unwrap();
        let expected = "v000010DEd00001C03sv00001462sd00003282bc03sc00i00";
        assert_eq!(modalias(id, Class(0x03_0000)), expected);
    }
}
