//! What people paste after `check`, as what it is read.

use vfio_early::host::paste::{length_with_the_rest, length_without_lists, read, too_long};

const LIST: &str = "items, which a command line has without blanks or in quotes";
const GRUB: &str = "what is assigned";
const STRINGS: &str = "the strings of a list";
const ENTRY: &str = "the options of a loader entry";
const GIVEN: &str = "what a command is given";

/// Each text is read as that command line, and taken for that.
fn assert_read(table: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (text, expected, what) in table {
        let (read, taken_for) = read(text);
        if (read.as_str(), taken_for) != (*expected, *what) {
            wrong.push(format!("{text:?}: {read:?}, {taken_for:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_and_lists_are_read_as_meant() {
    assert_read(&[
        ("01:00.0", "vfio.devs=01:00.0", ""),
        ("10de:1c03@01:00.*,02:00.0 ", "vfio.devs=10de:1c03@01:00.*,02:00.0", ""),
        ("01:00.0, 01:00.1", "vfio.devs=01:00.0,01:00.1", LIST),
        ("01:00.0 01:00.1", "vfio.devs=01:00.0,01:00.1", LIST),
        (r#""01:00.0 01:00.1""#, "vfio.devs=01:00.0,01:00.1", LIST),
        ("'01:00.0,01:00.1'\n", "vfio.devs=01:00.0,01:00.1", LIST),
        ("vfs:03:00.0=4", "vfio.devs=vfs:03:00.0=4", ""),
        ("01:00.0 vfs:03:00.0=4 root=x", "vfio.devs=01:00.0,vfs:03:00.0=4 root=x", LIST),
        ("vfio.devs=01:00.0 quiet", "vfio.devs=01:00.0 quiet", ""),
        ("01:00.0 vfio.strict", "vfio.devs=01:00.0 vfio.strict", ""),
        ("01:00.0, 01:00.1 vfio.wait=3", "vfio.devs=01:00.0,01:00.1 vfio.wait=3", LIST),
        ("quiet vfio.devs=01:00.0", "quiet vfio.devs=01:00.0", ""),
        ("quiet splash root=x", "quiet splash root=x", ""),
        ("", "", ""),
        ("# vfio.devs=01:00.0", "", "a comment"),
        ("#a vfio.devs=01:00.0\nquiet vfio.devs=02:00.0", "quiet vfio.devs=02:00.0", ""),
        (
            "GRUB_CMDLINE_LINUX=''\nGRUB_CMDLINE_LINUX_DEFAULT='quiet vfio.devs=01:00.0'",
            "quiet vfio.devs=01:00.0",
            GRUB,
        ),
        (
            r#"ivrs_ioapic[4]=00:14.0 dyndbg="file x +p" vfio.devs=01:00.0"#,
            r#"ivrs_ioapic[4]=00:14.0 dyndbg="file x +p" vfio.devs=01:00.0"#,
            "",
        ),
        (r#""vfio.devs=01:00.0 02:00.0" quiet"#, r#""vfio.devs=01:00.0 02:00.0" quiet"#, ""),
        (
            "root=ZFS=rpool/ROOT/pve-1 boot=zfs\nvfio.devs=01:00.0",
            "root=ZFS=rpool/ROOT/pve-1 boot=zfs\nvfio.devs=01:00.0",
            "several lines, of which Proxmox VE reads the first alone",
        ),
        (r#"GRUB_CMDLINE_LINUX="quiet vfio.devs=01:00.0""#, "quiet vfio.devs=01:00.0", GRUB),
        (
            r#"GRUB_CMDLINE_LINUX_DEFAULT="vfio.devs=\"01:00.0 02:00.0\" \$x""#,
            r#"vfio.devs="01:00.0 02:00.0" $x"#,
            GRUB,
        ),
        (
            r#"GRUB_CMDLINE_LINUX='vfio.devs="01:00.0 02:00.0"'"#,
            r#"vfio.devs="01:00.0 02:00.0""#,
            GRUB,
        ),
        (r#"GRUB_CMDLINE_LINUX="vfio.devs=\\\"01:00.0\\\"""#, r#"vfio.devs=\"01:00.0\""#, GRUB),
        (r#"KERNEL_CMDLINE[default]+="quiet vfio.strict""#, "quiet vfio.strict", GRUB),
        (
            "GRUB_TIMEOUT=5\n#GRUB_CMDLINE_LINUX=\"a=b\"\nGRUB_CMDLINE_LINUX=\"c=d\"\n\
                 GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n",
            "c=d quiet",
            GRUB,
        ),
        ("options root=LABEL=r rw vfio.devs=01:00.0", "root=LABEL=r rw vfio.devs=01:00.0", ENTRY),
        (
            r#"boot.kernelParams = [ "quiet" "vfio.devs=01:00.0,02:00.0" ];"#,
            "quiet vfio.devs=01:00.0,02:00.0",
            STRINGS,
        ),
        (
            "kernelParams = [\n  # the card's\n  \"vfio.devs=\\\"01:00.0 02:00.0\\\"\"\n]",
            r#"vfio.devs="01:00.0 02:00.0""#,
            STRINGS,
        ),
        ("GRUB_CMDLINE_LINUX=vfio.devs=01:00.0", "vfio.devs=01:00.0", GRUB),
        ("grubby --args='vfio.devs=01:00.0'", "vfio.devs=01:00.0", GIVEN),
        ("kargs --append='vfio.devs=\"01:00.0\"'", r#"vfio.devs="01:00.0""#, GIVEN),
        ("x=it's vfio.devs=01:00.0", "x=it's vfio.devs=01:00.0", ""),
        ("x='a b' vfio.devs=01:00.0", "x='a b' vfio.devs=01:00.0", ""),
        ("kernelParams = [ ''vfio.devs=01:00.0'' ];", "vfio.devs=01:00.0", STRINGS),
        ("[ 01:00.0", "vfio.devs=[,01:00.0", LIST),
        (r#"devices = [ "01:00.0" "02:00.*" ];"#, "vfio.devs=01:00.0,02:00.*", LIST),
        (r#"kargs = ["vfio.devs=01:00.0", "quiet"]"#, "vfio.devs=01:00.0 quiet", STRINGS),
    ]);
}

/// Of a variable that is assigned twice the last one counts, and GRUB's are in an order of its own.
#[test]
fn variables_are_what_a_shell_makes_of_them() {
    assert_read(&[
        (
            "GRUB_CMDLINE_LINUX=\"vfio.devs=01:00.0\"\nGRUB_CMDLINE_LINUX='vfio.devs=02:00.0'",
            "vfio.devs=02:00.0",
            GRUB,
        ),
        (
            "GRUB_CMDLINE_LINUX_DEFAULT='vfio.strict=0'\nGRUB_CMDLINE_LINUX=vfio.strict",
            "vfio.strict vfio.strict=0",
            GRUB,
        ),
        (
            "GRUB_CMDLINE_LINUX=a\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX b $c\"\n\
                 GRUB_CMDLINE_LINUX=\"${GRUB_CMDLINE_LINUX}, vfio.devs=01:00.0\"",
            "a b $c, vfio.devs=01:00.0",
            GRUB,
        ),
        (
            "KERNEL_CMDLINE[default]=a\nKERNEL_CMDLINE[default]+=' vfio.strict'",
            "a vfio.strict",
            GRUB,
        ),
        ("GRUB_DEFAULT=\"saved\"\nGRUB_CMDLINE_LINUX=vfio.devs=01:00.0", "vfio.devs=01:00.0", GRUB),
        ("GRUB_CMDLINE_LINUX=\"quiet \\\nvfio.devs=01:00.0\"", "quiet vfio.devs=01:00.0", GRUB),
        ("GRUB_CMDLINE_LINUX=quiet # vfio.devs=01:00.0", "quiet", GRUB),
        ("GRUB_CMDLINE_LINUX='quiet # vfio.strict'", "quiet # vfio.strict", GRUB),
        ("GRUB_CMDLINE_LINUX=a'b c'\"d\"", "ab cd", GRUB),
        ("GRUB_CMDLINE_XEN_DEFAULT='vfio.devs=01:00.0'\nGRUB_CMDLINE_LINUX='a'", "a", GRUB),
        ("sed s/GRUB_CMDLINE_LINUX=\"/a/", "sed s/GRUB_CMDLINE_LINUX=\"/a/", ""),
        ("rd.cmdline=ask vfio.devs=01:00.0", "rd.cmdline=ask vfio.devs=01:00.0", ""),
        (
            "kernel_cmdline+=\" vfio.devs=01:00.0\"",
            "vfio.devs=01:00.0",
            "dracut's kernel_cmdline=, which is the kernel's in images of dracut --uefi alone",
        ),
        (
            "zfs set org.zfsbootmenu:commandline=\"quiet vfio.devs=01:00.0\" zroot/ROOT",
            "quiet vfio.devs=01:00.0",
            GRUB,
        ),
    ]);
}

#[test]
fn entries_and_commands_are_read_as_their_readers_do() {
    assert_read(&[
        // Entries of boot loaders.
        (
            "title Debian\nlinux /vmlinuz\noptions root=r\ninitrd /i\noptions  vfio.devs=01:00.0",
            "root=r vfio.devs=01:00.0",
            ENTRY,
        ),
        (
            "options \"vfio.devs=01:00.0 02:00.0\" quiet",
            "\"vfio.devs=01:00.0 02:00.0\" quiet",
            ENTRY,
        ),
        (
            "\"Boot\"  \"root=r vfio.devs=\"\"01:00.0 02:00.0\"\"\"\n\"Single\" \"root=r single\"",
            "root=r vfio.devs=\"01:00.0 02:00.0\"",
            ENTRY,
        ),
        ("options \"vfio.devs=\"\"01:00.0 02:00.0\"\"\"", "vfio.devs=\"01:00.0 02:00.0\"", ENTRY),
        ("\"Boot\"  \"root=r vfio.devs=01:00.0\"", "root=r vfio.devs=01:00.0", ENTRY),
        // Commands.
        ("grubby --args=\"vfio.devs=01:00.0 quiet\"", "vfio.devs=01:00.0 quiet", GIVEN),
        ("grubby --args=vfio.devs=01:00.0", "vfio.devs=01:00.0", GIVEN),
        (
            "grubby --remove-args='vfio.devs=01:00.0' --args='vfio.devs=02:00.0'",
            "vfio.devs=02:00.0",
            GIVEN,
        ),
        (
            "kernelstub --delete-options 'vfio.strict' -a vfio.devs=02:00.0",
            "vfio.devs=02:00.0",
            GIVEN,
        ),
        ("zbm-kcl -a 'quiet vfio.devs=02:00.0' zroot/ROOT", "quiet vfio.devs=02:00.0", GIVEN),
        (
            "sudo kernelstub -a \"vfio.devs=01:00.0 vfio.strict\"",
            "vfio.devs=01:00.0 vfio.strict",
            GIVEN,
        ),
        (
            "RUN echo 'kargs = [\"vfio.devs=01:00.0\"]' > /usr/lib/bootc/kargs.d/a.toml",
            "vfio.devs=01:00.0",
            "what is in quotes",
        ),
        (
            "ukify build --cmdline='vfio.devs=01:00.0' \\\n  --output=vfio.addon.efi",
            "vfio.devs=01:00.0",
            GIVEN,
        ),
        ("'vfio.devs=01:00.0'", "vfio.devs=01:00.0", "what is in quotes"),
        // A command line as it is, with what reads otherwise elsewhere.
        ("x=\"a vfio.devs=01:00.0\"", "x=\"a vfio.devs=01:00.0\"", ""),
        ("vfio.devs=01:00.0 -- -x", "vfio.devs=01:00.0 -- -x", ""),
        ("quiet -- -x vfio.devs=01:00.0", "quiet -- -x vfio.devs=01:00.0", ""),
        ("vfio.strict quiet", "vfio.strict quiet", ""),
        ("nameserver=[2001:db8::53] vfio.strict", "nameserver=[2001:db8::53] vfio.strict", ""),
        (
            r#"{"user": {"kernel_options": ["quiet", "vfio.devs=01:00.0"], "esp_path": "/x"}}"#,
            "quiet vfio.devs=01:00.0",
            STRINGS,
        ),
        ("title Bob's\noptions a vfio.devs=01:00.0", "a vfio.devs=01:00.0", ENTRY),
        // Nix, of which other lists and strings are none.
        (
            "a = \"x\"; boot.kernelParams =\n [ \"vfio.devs=01:00.0\" ] ++ [ \"quiet\" ]; b = \"y\";",
            "vfio.devs=01:00.0 quiet",
            STRINGS,
        ),
    ]);
    // No depth of these ends the program.
    let nested = "--args=".repeat(100_000) + "vfio.devs=01:00.0";
    assert_eq!(read(&nested).1, GIVEN);
}

#[test]
fn the_lists_that_are_there_do_not_count() {
    for (text, expected) in [
        ("quiet rw", 8),
        ("quiet vfio.devs=01:00.0 rw", 8),
        ("quiet rw vfio.devs=01:00.0 vfio.devs=02:00.0,03:00.0", 8),
        ("quiet vfio.devs=\"01:00.0 02:00.0\" rw", 8),
    ] {
        assert_eq!(length_without_lists(text.as_bytes()), expected, "{text}");
    }
    for (running, text, expected) in [
        ("quiet rw", "vfio.devs=01:00.0", 26),
        ("quiet vfio.devs=05:00.0 rw", "vfio.devs=01:00.0 vfio.strict", 38),
        ("quiet vfio.devs=05:00.0 rw", "vfio.devs=01:00.0", 26),
        ("quiet vfio.devs=05:00.0 vfio.strict", "vfio.devs=01:00.0", 35),
        ("quiet x=1", "quiet x=2 vfio.devs=01:00.0", 31),
        ("quiet x=\"a b\"", "vfio.devs=01:00.0", 31),
        ("BOOT_IMAGE=/v quiet root=/dev/sda", "root=/dev/sda vfio.devs=01:00.0", 31),
        ("", "quiet vfio.devs=01:00.0", 23),
    ] {
        let length = length_with_the_rest(running.as_bytes(), text.as_bytes());
        assert_eq!(length, expected, "{running:?} {text:?}");
    }
    assert_eq!(too_long(2047), None);
    assert!(too_long(2048).is_some_and(|text| text.contains("2048 bytes, and 2047 fit")));
}
