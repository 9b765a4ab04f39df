//! Which checks are not run each time, but where one names them or their kernel.
//!
//! What else is not run are kernels that are not set up, and the part of the
//! [matrix](crate::scenario::matrix) that is not usual.

use crate::supplies::kernels::{LINES, NIXOS};

/// Checks that are left out.
pub(crate) struct LeftOut {
    /// The kernels with which their names begin; none where there is no kernel in them.
    kernels: &'static [&'static str],
    /// How their names go on.
    name: &'static str,
    /// None: it ends so. Else all that begin so, but for those whose names go on as one of these.
    but: Option<&'static [&'static str]>,
    /// A clause.
    why: &'static str,
}

const fn on(kernels: &'static [&'static str], name: &'static str, why: &'static str) -> LeftOut {
    LeftOut { kernels, name, but: None, why }
}

const AS_ON_6_1: &str = "it depends little on the kernel, and is run on 6.1 each time";

const ONE_WAY: &str =
    "each time one way to list it is booted, and mkinitcpio's hook is tried with all";

/// Of dracut in Debian 13 one boot each is left, with systemd and without.
pub(crate) const LIST: &[LeftOut] = &[
    on(
        &["6.12"],
        "systemd: without vfio.devs= nothing runs, and what looks like it is told",
        AS_ON_6_1,
    ),
    on(&["6.12"], "systemd: without vfio.strict the boot goes on with failed units", AS_ON_6_1),
    on(
        &["6.12"],
        "systemd: ten devices that are plugged in at once come to vfio-pci, but for one that is another",
        AS_ON_6_1,
    ),
    on(&["6.12"], "dracut: without vfio.devs= the program says and does nothing", AS_ON_6_1),
    on(
        &["6.12"],
        "dracut: vfio.strict with an absent device stops the boot in the emergency shell",
        AS_ON_6_1,
    ),
    on(
        &["6.12"],
        "killed before any of its writes and run again it comes to the same end",
        AS_ON_6_1,
    ),
    on(&["6.1"], "dracut: a root disk that is listed by its address stays with the host", ONE_WAY),
    on(&["6.1"], "dracut: a root disk that is listed by its group stays with the host", ONE_WAY),
    on(&["6.1"], "dracut: a root disk that is listed goes with vfio.host=release", ONE_WAY),
    on(
        &["6.12"],
        "Debian 13: initramfs-tools: a root disk that is listed by its address stays with the host",
        ONE_WAY,
    ),
    on(
        &["6.12"],
        "Debian 13: initramfs-tools: a root disk that is listed by its id stays with the host",
        ONE_WAY,
    ),
    on(
        &["6.12"],
        "Debian 13: initramfs-tools: a root disk that is listed by its group stays with the host",
        ONE_WAY,
    ),
    on(
        &["6.12"],
        "Debian 13: initramfs-tools: a root disk that is listed goes with vfio.host=release",
        ONE_WAY,
    ),
    LeftOut {
        kernels: &["5.10", "6.1", "6.12", "7.2", NIXOS],
        name: "host: verify agrees with a QEMU",
        but: Some(&[" on groups"]),
        why: "a boot takes half a minute, and who changes verify runs them: the other half is QEMU's",
    },
    on(&["5.10", "6.12", "7.2", NIXOS], "host: verify agrees with a QEMU on groups", AS_ON_6_1),
    on(
        &["6.1", "6.12"],
        "host: devices go over to a QEMU and back, twenty times",
        "it takes many minutes, and once is run on 6.1 each time",
    ),
    on(
        &["6.12", "7.2"],
        "host: a device file that is open holds the way back up, and it goes on by itself",
        AS_ON_6_1,
    ),
    on(
        &["6.1"],
        "nix: modules compressed with zstd",
        "it builds the program twice more, for kernels that people configure themselves",
    ),
    on(
        &["7.2"],
        "iommu: the driver of a virtio-iommu is loaded, and a VM monitor has the devices",
        "it is run on 6.12 each time, where groups come with the first probe",
    ),
    on(
        &["7.2"],
        "rules: until the driver of a virtio-iommu comes no driver is probed",
        "it is run on 6.12 each time, and answers the same",
    ),
    LeftOut {
        kernels: &["6.1"],
        name: "boot loaders: ",
        but: Some(&["GRUB by BIOS"]),
        why: "one is run each time; most take firmware for UEFI, and tools of Debian 13's",
    },
    LeftOut {
        kernels: &["6.1"],
        name: "Debian 12: ",
        but: Some(&[]),
        why: "the same is run in Debian 13 each time",
    },
    on(
        &["6.12"],
        "Debian 13: initramfs-tools: for an absent device the boot goes on",
        "the same is run with dracut: each time",
    ),
    on(
        &["6.12"],
        "Debian 13: initramfs-tools: without vfio.devs= the boot is as without the package",
        "the same is run with dracut: and systemd: each time",
    ),
    LeftOut {
        kernels: &["6.12"],
        name: "Debian 13: dracut: ",
        but: Some(&[]),
        why: "initramfs-tools is what it installs, and dracut's part is run with systemd: and dracut:",
    },
    LeftOut {
        kernels: &["6.12"],
        name: "Debian 13: unified kernel image: ",
        but: Some(&[]),
        why: "its initrd is that of initramfs-tools, which is run each time",
    },
    LeftOut {
        kernels: &["7.2"],
        name: "Debian sid: ",
        but: Some(&[]),
        why: "it moves, and its signatures expire: that it cannot be had is no failure of ours",
    },
    LeftOut {
        kernels: &[],
        name: "newcomer: ",
        but: Some(&[]),
        why: "it fetches and builds all once more, in a Debian made for it",
    },
    LeftOut {
        kernels: &[LINES[0], LINES[2], LINES[3], NIXOS],
        name: "screens: ",
        but: Some(&[
            "the boot card is given away while udev loads the other card's driver",
            "the only card stays with the host",
        ]),
        why: "all of them are run on 6.1, which takes the console most readily",
    },
];

/// The line of the list that leaves out the check of that name, kernel included.
pub(crate) fn by(name: &str) -> Option<&'static LeftOut> {
    LIST.iter().find(|left| left.has(name))
}

impl LeftOut {
    fn has(&self, name: &str) -> bool {
        let of_kernel = |kernel| name.strip_prefix(kernel)?.strip_prefix(' ');
        let rest = match self.kernels {
            [] => Some(name),
            kernels => kernels.iter().find_map(|kernel| of_kernel(*kernel)),
        };
        let rest = rest.and_then(|rest| rest.strip_prefix(self.name));
        rest.is_some_and(|rest| match self.but {
            None => rest.is_empty(),
            Some(but) => !but.contains(&rest),
        })
    }

    /// What is left out, and why.
    pub(crate) fn text(&self) -> String {
        let Self { kernels, name, but, why } = self;
        let kernels = kernels.join(", ");
        let but = match but {
            None => String::new(),
            Some([]) => "all".to_owned(),
            Some(but) => format!("all but {}", but.join("; ")),
        };
        format!("{kernels} {name}{but} ({why})").trim_start().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks;

    fn names() -> Vec<String> {
        let boots = checks::boots().into_iter().map(|boot| boot.name());
        boots.chain(checks::others().into_iter().map(|check| check.name)).collect()
    }

    #[test]
    fn each_line_leaves_something_out_on_each_of_its_kernels() {
        let names = names();
        for left in LIST {
            for kernel in left.kernels {
                let mut out = names.iter().filter(|name| left.has(name));
                let is_on = |name: &String| name.starts_with(&format!("{kernel} "));
                assert!(out.any(is_on), "{kernel}: {}", left.text());
            }
            for but in left.but.unwrap_or_default() {
                let kept = format!("{}{but}", left.name);
                assert!(names.iter().any(|name| name.ends_with(&kept)), "{kept}");
            }
        }
    }

    #[test]
    fn what_is_left_out_for_its_kernel_alone_is_run_on_6_1() {
        let names = names();
        for name in names.iter().filter(|name| by(name).is_some_and(|left| left.why == AS_ON_6_1)) {
            let (_, rest) = name.split_once(' ').unwrap();
            let on_6_1 = format!("6.1 {rest}");
            assert!(names.contains(&on_6_1) && by(&on_6_1).is_none(), "{on_6_1}");
        }
    }

    #[test]
    fn a_line_leaves_out_what_it_says_and_no_more() {
        let left = by("6.12 screens: in text mode the second card is given away").unwrap();
        assert!(left.text().starts_with("5.10, 6.12, 7.2, nixos screens: all but the boot card"));
        for kept in [
            "6.12 screens: the only card stays with the host",
            "6.1 screens: in text mode the second card is given away",
            "6.12 a guard that matches lets its device be bound",
            "6.12 systemd: systemd-analyze verify finds nothing wrong with the units",
        ] {
            assert!(by(kept).is_none(), "{kept}");
        }
    }
}
