//! The kernel command line: text to [`Request`].
//!
//! Splitting follows `next_arg()` in the kernel's `lib/cmdline.c` and `parse_args()` in
//! `kernel/params.c`.

use serde::{Serialize, Serializer};

use crate::escape;
use crate::pci::{Item, Rejected, items};
use crate::stray::{self, Strays};
pub use crate::stray::{KEYS, PREFIX};

/// What may become of the host's console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Console {
    /// A host that had a console keeps one.
    #[default]
    Keep,
    /// The screen may go dark.
    Release,
}

/// What may become of the disks that the host lives from ([`crate::keep`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// They stay with it.
    #[default]
    Keep,
    /// They may go: "I mean it".
    Release,
}

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The items of every `vfio.devs=`, in their order.
    #[serde(serialize_with = "texts")]
    pub items: Vec<Item>,
    /// Items that are none, with the reason.
    pub rejected: Vec<Rejected>,
    /// `vfio.off`: do nothing.
    pub off: bool,
    /// `vfio.console=`.
    pub console: Console,
    /// `vfio.host=`.
    pub host: Host,
    /// `vfio.wait=`: seconds to wait for devices that are not there yet, at most 60.
    pub wait: u8,
    /// `vfio.driver=`: this driver for all.
    pub driver: Option<String>,
    /// `vfio.strict`: anything not bound must stop the boot.
    pub strict: bool,
    /// `vfio.debug`: say more.
    pub debug: bool,
    /// Parameters that are wrong, each with what was done about it.
    pub warnings: Vec<String>,
    /// What the kernel and its modules are told.
    #[serde(skip)]
    pub foreign: Foreign,
}

/// Parameters that are none of ours and matter here: a name of [`FOREIGN`] and its value, empty without
/// one, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign(pub Vec<(&'static str, String)>);

fn texts<S: Serializer>(items: &[Item], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(|item| &item.text))
}

impl Foreign {
    /// Whether the kernel refuses that module; unlike elsewhere, `-` is not `_` to it here
    /// (`blacklisted()` in `kernel/module/main.c`).
    #[must_use]
    pub fn is_blacklisted(&self, module: &str) -> bool {
        let list = self.told("module_blacklist").last().unwrap_or_default();
        list.split(',').any(|name| name == module)
    }

    /// The values of a parameter of [`FOREIGN`], in their order.
    pub fn told<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let value = move |(known, value): &'a (&str, String)| (*known == name).then_some(&**value);
        self.0.iter().filter_map(value)
    }

    /// Whether the last of that flag of a module says yes (`kstrtobool()` in `lib/kstrtox.c`).
    #[must_use]
    pub fn is_told(&self, name: &str) -> bool {
        self.told(name).last().is_some_and(|value| match value.as_bytes() {
            [] | [b'1' | b'y' | b'Y' | b't' | b'T', ..] => true,
            [_, second, ..] => matches!(second, b'n' | b'N'),
            _ => false,
        })
    }
}

impl Request {
    /// Whether any device is asked for, well-formed or not.
    #[must_use]
    pub fn asks_for_devices(&self) -> bool {
        !self.off && (!self.items.is_empty() || !self.rejected.is_empty())
    }
}

/// Parameters of the module `vfio` (`drivers/vfio/`), and what every module has.
const MODULE_KEYS: [&str; 3] = ["enable_unsafe_noiommu_mode", "dyndbg", "async_probe"];

/// Parameters of the kernel and of modules that decide over an IOMMU, over vfio and over what a VM can
/// have; the kernel takes `-` for `_` in them.
pub static FOREIGN: [&str; 14] = [
    "amd_iommu",
    "initcall_blacklist",
    "intel_iommu",
    "intremap",
    "iommu",
    "iommufd.allow_unsafe_interrupts",
    "module_blacklist",
    "nointremap",
    "pci_stub.ids",
    "pcie_acs_override",
    "vfio.enable_unsafe_noiommu_mode",
    "vfio_iommu_type1.allow_unsafe_interrupts",
    "vfio_pci.disable_denylist",
    "vfio_pci.ids",
];

/// Of more wrong parameters than these, only the number is told.
const MOST_WARNINGS: usize = 64;

/// The longest wait, in seconds.
const LONGEST_WAIT: u8 = 60;

/// The kernel's `isspace()`, which takes a Latin-1 no-break space for one, too.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

/// One parameter off the front of `text`, as `next_arg()` does: name, value, and what follows.
fn next_parameter<'a>(text: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>, &'a [u8]) {
    let quoted = text.first() == Some(&b'"');
    let text = &text[usize::from(quoted)..];
    let mut in_quote = quoted;
    let end = text
        .iter()
        .position(|&byte| {
            in_quote ^= byte == b'"';
            is_space(byte) && !in_quote
        })
        .unwrap_or(text.len());
    let (parameter, rest) = text.split_at(end);
    // At most one closing quote goes, and a leading `=` is part of the name.
    let unquoted = |text: &'a [u8]| text.strip_suffix(b"\"").unwrap_or(text);
    let Some(before) = parameter.iter().skip(1).position(|&byte| byte == b'=') else {
        return (if quoted { unquoted(parameter) } else { parameter }, None, rest);
    };
    let (name, value) = (&parameter[..=before], &parameter[before + 2..]);
    let value = match value.strip_prefix(b"\"") {
        Some(value) => unquoted(value),
        None if quoted => unquoted(value),
        None => value,
    };
    (name, Some(value), rest)
}

/// A parameter's name, and its value where it has one.
pub type Parameter<'a> = (&'a [u8], Option<&'a [u8]>);

/// What ends the kernel's parameters: all behind it is for init.
const END: Parameter = (b"--", None);

fn words(text: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|&byte| !is_space(byte))?;
        let (name, value, after) = next_parameter(&rest[start..]);
        rest = after;
        Some((name, value))
    })
}

/// The parameters of a kernel command line (or of a module's options), up to a bare `--`:
/// name and value, unquoted.
pub fn parameters(text: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    words(text).take_while(|word| *word != END)
}

/// Whether a parameter of the module `vfio` is in truth one of ours: libkmod hands over
/// `vfio.devs=` from the command line, and the kernel logs such as unknown.
#[must_use]
pub fn is_ours(name: &[u8]) -> bool {
    KEYS.iter().any(|key| key.as_bytes() == name)
}

/// The kernel takes `-` for `_` in names (`parameq()` in `kernel/params.c`).
fn same_name(name: &str) -> String {
    name.replace('-', "_")
}

/// As [`same_name`], without a copy.
fn is_named(name: &[u8], known: &str) -> bool {
    let same = |(one, other): (&u8, u8)| *one == other || (*one, other) == (b'-', b'_');
    name.len() == known.len() && name.iter().zip(known.bytes()).all(same)
}

/// Yes or no, as the kernel (`kstrtobool()`), systemd and dracut have them between them.
fn flag(name: &str, value: Option<&str>, warnings: &mut Vec<String>) -> bool {
    match value.unwrap_or("1").to_ascii_lowercase().as_str() {
        "1" | "y" | "yes" | "t" | "true" | "on" => true,
        "0" | "n" | "no" | "f" | "false" | "off" => false,
        value => {
            let value = escape::short(value);
            warnings.push(format!("vfio.{name}={value} is neither yes nor no; taken as yes"));
            true
        }
    }
}

/// Reads what concerns us from a kernel command line; the rest is the kernel's.
#[must_use]
pub fn parse(text: &[u8]) -> Request {
    let mut request = Request::default();
    let mut strays = Strays::default();
    let mut is_for_init = false;
    for (name, value) in words(text) {
        is_for_init |= (name, value) == END;
        if !is_for_init && let Some(known) = FOREIGN.iter().find(|known| is_named(name, known)) {
            let value = String::from_utf8_lossy(value.unwrap_or_default());
            request.foreign.0.push((known, value.into_owned()));
        }
        let Some(key) = name.strip_prefix(PREFIX.as_bytes()) else {
            if !is_for_init {
                strays.look_at(name, value, &mut request.warnings);
            }
            continue;
        };
        strays.is_behind_a_list = key == KEYS[0].as_bytes();
        let key = same_name(&String::from_utf8_lossy(key));
        if is_for_init {
            request.warnings.push(format!(
                "vfio.{} stands behind --, where all is for init, and is not read: move it in front",
                escape::short(&key)
            ));
            continue;
        }
        let value = value.map(String::from_utf8_lossy);
        request.read(&key, value.as_deref());
    }
    request.warnings.extend(strays.warning(request.items.last()));
    let more = request.warnings.len().saturating_sub(MOST_WARNINGS);
    if more > 0 {
        request.warnings.truncate(MOST_WARNINGS);
        request.warnings.push(format!("{more} more vfio. parameters are wrong"));
    }
    request
}

impl Request {
    fn read(&mut self, key: &str, value: Option<&str>) {
        let warnings = &mut self.warnings;
        match (key, value) {
            ("devs", Some(list)) => {
                // No other item has one.
                let is_other = |item: &str| item.contains('=') && !item.starts_with("vfs:");
                if items(list).any(is_other) || list.contains(PREFIX) {
                    warnings.push(
                        "vfio.devs= has other parameters in it: is its closing quote missing?"
                            .to_owned(),
                    );
                }
                for item in items(list) {
                    match item.parse() {
                        Ok(item) => self.items.push(item),
                        Err(rejected) => self.rejected.push(rejected),
                    }
                }
            }
            ("off", value) => self.off = flag(key, value, warnings),
            ("strict", value) => self.strict = flag(key, value, warnings),
            ("debug", value) => self.debug = flag(key, value, warnings),
            ("console", Some("keep")) => self.console = Console::Keep,
            ("console", Some("release")) => self.console = Console::Release,
            ("console", Some(other)) => warnings.push(format!(
                "vfio.console={} is neither keep nor release; the console is kept",
                escape::short(other)
            )),
            ("host", Some("keep")) => self.host = Host::Keep,
            ("host", Some("release")) => self.host = Host::Release,
            ("host", Some(other)) => warnings.push(format!(
                "vfio.host={} is neither keep nor release; what the host lives from is kept",
                escape::short(other)
            )),
            ("wait", Some(value)) => match value.parse::<u64>() {
                Ok(seconds) if seconds > u64::from(LONGEST_WAIT) => {
                    self.wait = LONGEST_WAIT;
                    warnings.push(format!(
                        "vfio.wait={} is too long; waiting at most {LONGEST_WAIT} seconds",
                        escape::short(value)
                    ));
                }
                // At most LONGEST_WAIT here.
                Ok(seconds) => self.wait = u8::try_from(seconds).unwrap_or(LONGEST_WAIT),
                Err(_) => warnings.push(format!(
                    "vfio.wait={} is no number of seconds, as in vfio.wait=10; not waiting",
                    escape::short(value)
                )),
            },
            ("driver", Some(name)) => {
                if is_driver_name(name) {
                    self.driver = Some(name.to_owned());
                } else {
                    warnings.push(format!(
                        "vfio.driver={} is no driver name, as in vfio.driver=vfio-pci; ignored",
                        escape::short(name)
                    ));
                }
            }
            ("devs" | "console" | "host" | "wait" | "driver", None) => {
                warnings.push(format!("vfio.{key} has no value, as in vfio.{key}=…; ignored"));
            }
            _ if MODULE_KEYS.contains(&key) => {}
            _ => {
                warnings.push(stray::is_unknown(&[PREFIX, key].concat(), key));
            }
        }
    }
}

/// A name that can stand in `/sys/bus/pci/drivers` and in one line of `driver_override`.
fn is_driver_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, Option<String>)> {
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        parameters(text.as_bytes()).map(|(name, value)| (string(name), value.map(string))).collect()
    }

    #[test]
    fn quoting_is_the_kernels() {
        for (text, expected) in [
            ("", &[][..]),
            ("  \t\n ", &[]),
            ("a", &[("a", None)]),
            ("a=", &[("a", Some(""))]),
            ("a=b=c", &[("a", Some("b=c"))]),
            ("=a", &[("=a", None)]),
            ("=a=b", &[("=a", Some("b"))]),
            ("a=1 b\tc=2\n", &[("a", Some("1")), ("b", None), ("c", Some("2"))]),
            (r#"k="a b" c"#, &[("k", Some("a b")), ("c", None)]),
            (r#""k=a b" c"#, &[("k", Some("a b")), ("c", None)]),
            (r#""k="a b"" c"#, &[("k", Some("a")), ("b\"\"", None), ("c", None)]),
            (r#""k="x"" c"#, &[("k", Some("x\"")), ("c", None)]),
            (r#"k=a" "b"#, &[("k", Some("a\" \"b"))]),
            (r#"k="a b"#, &[("k", Some("a b"))]),
            (r#""k"#, &[("k", None)]),
            (r#"""#, &[("", None)]),
            (r#"k=""#, &[("k", Some(""))]),
            (r#"k="""#, &[("k", Some(""))]),
            ("a -- b", &[("a", None)]),
            ("a --x b", &[("a", None), ("--x", None), ("b", None)]),
            ("a --=x b", &[("a", None), ("--", Some("x")), ("b", None)]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
                .collect();
            assert_eq!(pairs(text), expected, "command line {text:?}");
        }
    }

    fn items(text: &str) -> Vec<String> {
        parse(text.as_bytes()).items.into_iter().map(|item| item.text).collect()
    }

    #[test]
    fn every_list_counts_and_empty_items_are_skipped() {
        for (text, expected) in [
            ("quiet", &[][..]),
            ("vfio.devs=", &[]),
            ("vfio.devs=,,", &[]),
            ("vfio.devs=01:00.0", &["01:00.0"]),
            ("vfio.devs=01:00.0,,02:00.0,", &["01:00.0", "02:00.0"]),
            ("vfio.devs=01:00.0 vfio.devs=02:00.0", &["01:00.0", "02:00.0"]),
            (r#"vfio.devs="01:00.0 02:00.0, 03:00.0""#, &["01:00.0", "02:00.0", "03:00.0"]),
            (r#""vfio.devs=01:00.0 02:00.0" x"#, &["01:00.0", "02:00.0"]),
            ("vfio.devs=01:00.0 -- 02:00.0", &["01:00.0"]),
            ("x=it's vfio.devs=01:00.0", &["01:00.0"]),
            (r"x=C:\ vfio.devs=01:00.0", &["01:00.0"]),
            ("vfio_pci.ids=10de:1c03", &[]),
        ] {
            assert_eq!(items(text), expected, "command line {text:?}");
            assert_eq!(parse(text.as_bytes()).warnings, [""; 0], "command line {text:?}");
        }
    }

    #[test]
    fn a_list_whose_closing_quote_is_missing_is_told() {
        let request = parse(br#"vfio.devs="01:00.0 02:00.0 root=/dev/sda"#);
        assert_eq!((request.items.len(), request.rejected.len()), (2, 1));
        assert!(request.warnings[0].contains("is its closing quote missing?"));
    }

    #[test]
    fn one_bad_item_never_spoils_the_others() {
        let request = parse(b"vfio.devs=01:00.0,nonsense,02:00.0");
        assert_eq!(request.items.len(), 2);
        assert_eq!(request.rejected.len(), 1);
        assert_eq!(request.rejected[0].text, "nonsense");
    }

    fn foreign(parameters: &[(&'static str, &str)]) -> Foreign {
        let owned = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
        Foreign(parameters.iter().map(owned).collect())
    }

    #[test]
    fn every_parameter_is_read() {
        let base = Request::default;
        for (text, expected) in [
            ("vfio.off", Request { off: true, ..base() }),
            ("vfio.off=1", Request { off: true, ..base() }),
            ("vfio.off=no", base()),
            ("vfio.off vfio.off=0", base()),
            ("vfio.strict=y vfio.debug=on", Request { strict: true, debug: true, ..base() }),
            ("vfio.off=True vfio.strict=T", Request { off: true, strict: true, ..base() }),
            ("vfio.off=false vfio.strict=F", base()),
            // The last one counts.
            ("vfio.strict=0 vfio.strict", Request { strict: true, ..base() }),
            ("vfio.strict vfio.strict=0", base()),
            ("vfio.console=keep", base()),
            ("vfio.console=release", Request { console: Console::Release, ..base() }),
            ("vfio.host=keep", base()),
            ("vfio.host=release", Request { host: Host::Release, ..base() }),
            ("vfio.wait=10", Request { wait: 10, ..base() }),
            ("vfio.wait=60", Request { wait: 60, ..base() }),
            (
                "vfio.driver=mlx5_vfio_pci",
                Request { driver: Some("mlx5_vfio_pci".to_owned()), ..base() },
            ),
            (
                "module_blacklist=a intel-iommu=on module_blacklist=vfio_pci,b",
                Request {
                    foreign: foreign(&[
                        ("module_blacklist", "a"),
                        ("intel_iommu", "on"),
                        ("module_blacklist", "vfio_pci,b"),
                    ]),
                    ..base()
                },
            ),
            (
                "vfio.enable-unsafe-noiommu-mode vfio.dyndbg=+p",
                Request { foreign: foreign(&[("vfio.enable_unsafe_noiommu_mode", "")]), ..base() },
            ),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "command line {text:?}");
        }
    }

    #[test]
    fn the_kernel_refuses_modules_by_their_whole_names() {
        let request = parse(b"module_blacklist=vfio_pci,b");
        for (module, expected) in [("vfio_pci", true), ("b", true), ("vfio", false), ("", false)] {
            assert_eq!(request.foreign.is_blacklisted(module), expected, "{module:?}");
        }
    }

    #[test]
    fn the_last_of_a_modules_flag_counts() {
        const FLAG: &str = "vfio_iommu_type1.allow_unsafe_interrupts";
        for (text, expected) in [
            ("", false),
            (FLAG, true),
            ("vfio-iommu-type1.allow-unsafe-interrupts=Y", true),
            ("vfio_iommu_type1.allow_unsafe_interrupts=on", true),
            ("vfio_iommu_type1.allow_unsafe_interrupts=off", false),
            (
                "vfio_iommu_type1.allow_unsafe_interrupts=1 vfio_iommu_type1.allow_unsafe_interrupts=0",
                false,
            ),
            ("vfio_iommu_type1.allow_unsafe_interrupts_=1", false),
        ] {
            assert_eq!(parse(text.as_bytes()).foreign.is_told(FLAG), expected, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_parameter_gets_a_warning_and_a_safe_value() {
        for (text, warning, expected) in [
            ("vfio.dev=01:00.0", "is vfio.devs meant?", Request::default()),
            ("vfio.Devs=01:00.0", "is vfio.devs meant?", Request::default()),
            ("vfio.strickt", "is vfio.strict meant?", Request::default()),
            ("vfio.consol=release", "is vfio.console meant?", Request::default()),
            ("vfio.devs", "vfio.devs has no value", Request::default()),
            ("vfio.driver", "vfio.driver has no value", Request::default()),
            ("vfio.console=dark", "the console is kept", Request::default()),
            ("vfio.host=mine", "what the host lives from is kept", Request::default()),
            ("vfio.host", "vfio.host has no value", Request::default()),
            ("vfio.hosts=release", "is vfio.host meant?", Request::default()),
            ("vfio.wait=soon", "not waiting", Request::default()),
            ("vfio.wait=-1", "not waiting", Request::default()),
            ("vfio.wait=61", "at most 60", Request { wait: 60, ..Request::default() }),
            (
                "vfio.wait=18446744073709551615",
                "at most 60",
                Request { wait: 60, ..Request::default() },
            ),
            ("vfio.driver=../x", "is no driver name", Request::default()),
            ("vfio.driver=", "is no driver name", Request::default()),
            ("vfio.off=maybe", "taken as yes", Request { off: true, ..Request::default() }),
            ("quiet -- vfio.devs=01:00.0", "vfio.devs stands behind --", Request::default()),
        ] {
            let mut request = parse(text.as_bytes());
            let warnings = std::mem::take(&mut request.warnings);
            assert_eq!(warnings.len(), 1, "command line {text:?}");
            assert!(warnings[0].contains(warning), "command line {text:?}: {}", warnings[0]);
            assert_eq!(request, expected, "command line {text:?}");
        }
    }
}
