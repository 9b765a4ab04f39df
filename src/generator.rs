//! What systemd asks before it starts anything: which units of ours this boot has.
//!
//! In systemd's folder of generators lies a link to the program, and by that name systemd runs it,
//! in the initrd and in the real root, with folders for links and drop-ins (systemd.generator(7)).
//! systemd's own conditions read the command line by other rules than the kernel.

use std::ffi::OsStr;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::Mode;
use nix::unistd::{mkdir, symlinkat};

use crate::cmdline::Request;

/// The name of the link to the program.
pub const NAME: &str = "vfio-early-generator";

/// Whether the program was called by that name.
#[must_use]
pub fn is_called(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// The units to start, each as the name of its link.
#[must_use]
pub fn links(request: &Request, in_initrd: bool) -> &'static [&'static str] {
    match (request.asks_for_devices(), in_initrd, request.strict) {
        (false, ..) => &[],
        (true, false, _) => &["multi-user.target.wants/vfio-early-finish.service"],
        (true, true, false) => &["sysinit.target.wants/vfio-early.service"],
        (true, true, true) => &[
            "sysinit.target.wants/vfio-early.service",
            "initrd-root-fs.target.requires/vfio-early-strict.service",
        ],
    }
}

/// Makes a link in systemd's folder. Of where it leads only the last name counts (`process_deps()` in
/// systemd's `load-dropin.c`): units lie elsewhere on `NixOS`.
///
/// # Errors
/// When it cannot be made; not when it is there.
pub fn link(folder: &OsStr, link: &str) -> Result<(), Errno> {
    let (target, unit) = link.split_once('/').unwrap_or_default();
    let unit = ["/usr/lib/systemd/system/", unit].concat();
    // There for another unit, or this one.
    let there = |result| if result == Err(Errno::EEXIST) { Ok(()) } else { result };
    let folder = Path::new(folder);
    there(mkdir(&folder.join(target), Mode::from_bits_truncate(0o755)))?;
    there(symlinkat(unit.as_str(), AT_FDCWD, &folder.join(link)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cmdline::parse;

    #[test]
    fn the_programs_name_is_the_links() {
        let folder = "/usr/lib/systemd/system-generators/";
        for (program, expected) in [
            (format!("{folder}{NAME}"), true),
            (NAME.to_owned(), true),
            ("/usr/bin/vfio-early".to_owned(), false),
            (format!("/nix/store/{NAME}/bin/vfio-early"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_called(OsStr::new(&program)), expected, "{program}");
        }
    }

    #[test]
    fn the_units_of_a_boot_are_those_that_the_program_reads_from_the_command_line() {
        let (early, strict) = ("vfio-early.service", "vfio-early-strict.service");
        for (text, expected) in [
            ("quiet vfio.strict", &[][..]),
            ("vfio.devs= vfio.strict", &[]),
            ("vfio_devs=01:00.0", &[]),
            ("quiet -- vfio.devs=01:00.0", &[]),
            ("vfio.off vfio.devs=01:00.0", &[]),
            ("vfio.devs=01:00.0", &[early]),
            ("vfio.devs=nonsense", &[early]),
            ("x=it's vfio.devs=01:00.0", &[early]),
            (r"x=C:\ vfio.devs=01:00.0", &[early]),
            (r#"x='" vfio.devs=01:00.0 vfio.strict" vfio.devs=01:00.0"#, &[early]),
            ("x=it's vfio.devs=01:00.0 vfio.strict", &[early, strict]),
            ("vfio.devs=01:00.0 vfio.strict=0 vfio.strict", &[early, strict]),
            ("vfio.devs=01:00.0 vfio.strict vfio.strict=false", &[early]),
        ] {
            let request = parse(text.as_bytes());
            let names = |in_initrd| -> Vec<_> {
                let links = links(&request, in_initrd).iter();
                links.map(|link| link.rsplit('/').next().unwrap()).collect()
            };
            assert_eq!(names(true), expected, "in the initrd: {text}");
            let finish = if expected.is_empty() { &[][..] } else { &["vfio-early-finish.service"] };
            assert_eq!(names(false), finish, "in the real root: {text}");
        }
    }

    #[test]
    fn every_unit_is_one_of_this_tree() {
        let request = parse(b"vfio.devs=01:00.0 vfio.strict");
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("initrd/systemd");
        for link in [true, false].iter().flat_map(|in_initrd| links(&request, *in_initrd)) {
            let (target, unit) = link.split_once('/').unwrap();
            let text = fs::read_to_string(units.join(unit)).unwrap();
            assert!(target.ends_with(".target.wants") || target.ends_with(".target.requires"));
            assert!(!text.contains("ConditionKernelCommandLine"), "{unit} reads parameters");
            assert!(
                !text.lines().any(|line| line == "[Install]"),
                "{unit} is started by another link as well"
            );
        }
    }

    #[test]
    fn a_link_that_is_there_is_no_error_and_a_folder_that_is_not_is_one() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            link(folder.path().as_os_str(), "a.target.wants/b.service").unwrap();
        }
        let made = fs::read_link(folder.path().join("a.target.wants/b.service")).unwrap();
        assert_eq!(made, Path::new("/usr/lib/systemd/system/b.service"));
        assert!(link(folder.path().join("none").as_os_str(), "a.target.wants/b.service").is_err());
    }
}
