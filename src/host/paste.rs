//! What people paste after `check`: words, lists, files of boot loaders, Nix; to the kernel command
//! line that is meant. And whether it fits. Pure.

use crate::cmdline::{PREFIX, parameters};
use crate::pci::{Item, items};

/// `COMMAND_LINE_SIZE` of x86 and of arm64, less the byte at its end.
const ROOM: usize = 2047;

/// The command line, and what the text was taken for: `""` where it is one, or a list as it would stand
/// on one.
#[must_use]
pub fn read(text: &str) -> (String, &'static str) {
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let lines: Vec<_> = text.trim().lines().filter(|line| !is_comment(line)).collect();
    let taken_for = if text.trim().is_empty() { "" } else { "a comment" };
    let mut text = lines.join("\n").trim().to_owned();
    if text.is_empty() {
        return (text, taken_for);
    }
    let is_list = text.starts_with('[') || text.contains("= [");
    if is_list {
        // Two are one in Nix.
        text = text.replace("''", "'");
    }
    let quoted = in_quotes(&text);
    // As GRUB_CMDLINE_LINUX= in a file for the shell.
    let is_assigned = text.contains("CMDLINE");
    let assigned = text.split_once('=').filter(|_| is_assigned);
    // As --args='…' of grubby.
    let is_argument = text.contains("='") && quoted.contains(PREFIX);
    let (mut text, mut what) = match assigned {
        _ if is_assigned && !quoted.is_empty() => (quoted, "what is assigned"),
        Some((_, value)) => (value.to_owned(), "what is assigned"),
        None if is_argument => (quoted, "what is in quotes"),
        None if is_list && !quoted.is_empty() => (quoted, "the strings of a list"),
        None if text.starts_with("options") => (text, "the options of a loader entry"),
        None => (text, ""),
    };
    // No item has a `=` in it; parameters may stand behind.
    let words = text.split_inclusive(char::is_whitespace);
    let end: usize =
        words.take_while(|word| !word.contains(PREFIX) && !word.contains('=')).map(str::len).sum();
    let (listed, rest) = text.split_at(end);
    let are_items = || items(listed).all(|item| item.parse::<Item>().is_ok());
    if rest.is_empty() || !listed.trim().is_empty() && !text.contains("vfio.devs") && are_items() {
        let mut list = String::from("vfio.devs=");
        for item in items(listed) {
            list += item.trim_matches(is_quote);
            list.push(',');
        }
        list.pop();
        if !rest.is_empty() {
            list = list + " " + rest;
        }
        if !list.ends_with(&text) {
            what = "items, which a command line has without blanks or in quotes";
        }
        text = list;
    }
    (text.trim_start().to_owned(), what)
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

/// All that stands in quotes, with blanks between; less comments, and backslashes that escape.
fn in_quotes(text: &str) -> String {
    let mut inside = String::new();
    let (mut quote, mut is_escaped, mut is_comment) = (None, false, false);
    for c in text.chars() {
        match quote {
            None => {
                is_comment = if is_comment { c != '\n' } else { c == '#' };
                if is_quote(c) && !is_comment {
                    quote = Some(c);
                    inside.push(' ');
                }
            }
            Some('"') if c == '\\' && !is_escaped => is_escaped = true,
            Some(end) if c == end && !is_escaped => quote = None,
            Some(_) => {
                inside.push(c);
                is_escaped = false;
            }
        }
    }
    inside
}

/// How many bytes the lists on a command line take.
fn lists(text: &[u8]) -> usize {
    let lists = parameters(text).filter(|(name, _)| *name == b"vfio.devs");
    let lengths = lists.map(|(name, value)| {
        let value = value.unwrap_or_default();
        let quotes = if value.iter().any(u8::is_ascii_whitespace) { 2 } else { 0 };
        // With `=` and the blank behind it.
        name.len() + 1 + value.len() + quotes + 1
    });
    lengths.sum()
}

/// How many bytes a command line has without the lists that it has now.
#[must_use]
pub fn length_without_lists(text: &[u8]) -> usize {
    text.len().saturating_sub(lists(text))
}

/// How many bytes the running command line would have with the lists of another one, or that has.
#[must_use]
pub fn length_with_lists(running: &[u8], text: &[u8]) -> usize {
    text.len().max(length_without_lists(running) + lists(text))
}

/// That a command line of so many bytes does not fit, and what to do.
#[must_use]
pub fn too_long(length: usize) -> Option<String> {
    (length > ROOM).then(|| {
        format!(
            "with your command line that is {length} bytes, and {ROOM} fit: a boot loader drops the \
             rest without a word; write 01:00.* for all of a slot, or pci:10de:1c03 for all of an id"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_read_as_meant() {
        let list = "items, which a command line has without blanks or in quotes";
        let grub = "what is assigned";
        let strings = "the strings of a list";
        for (text, expected, what) in [
            ("01:00.0", "vfio.devs=01:00.0", ""),
            ("10de:1c03@01:00.*,02:00.0 ", "vfio.devs=10de:1c03@01:00.*,02:00.0", ""),
            ("01:00.0, 01:00.1", "vfio.devs=01:00.0,01:00.1", list),
            ("01:00.0 01:00.1", "vfio.devs=01:00.0,01:00.1", list),
            (r#""01:00.0 01:00.1""#, "vfio.devs=01:00.0,01:00.1", list),
            ("'01:00.0,01:00.1'\n", "vfio.devs=01:00.0,01:00.1", list),
            ("vfio.devs=01:00.0 quiet", "vfio.devs=01:00.0 quiet", ""),
            ("01:00.0 vfio.strict", "vfio.devs=01:00.0 vfio.strict", ""),
            ("01:00.0, 01:00.1 vfio.wait=3", "vfio.devs=01:00.0,01:00.1 vfio.wait=3", list),
            ("quiet vfio.devs=01:00.0", "quiet vfio.devs=01:00.0", ""),
            ("quiet splash root=x", "quiet splash root=x", ""),
            ("", "", ""),
            ("# vfio.devs=01:00.0", "", "a comment"),
            ("#a vfio.devs=01:00.0\nquiet vfio.devs=02:00.0", "quiet vfio.devs=02:00.0", ""),
            (
                "GRUB_CMDLINE_LINUX=''\nGRUB_CMDLINE_LINUX_DEFAULT='quiet vfio.devs=01:00.0'",
                "quiet vfio.devs=01:00.0",
                grub,
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
                "",
            ),
            (r#"GRUB_CMDLINE_LINUX="quiet vfio.devs=01:00.0""#, "quiet vfio.devs=01:00.0", grub),
            (
                r#"GRUB_CMDLINE_LINUX_DEFAULT="vfio.devs=\"01:00.0 02:00.0\" \$x""#,
                r#"vfio.devs="01:00.0 02:00.0" $x"#,
                grub,
            ),
            (
                r#"GRUB_CMDLINE_LINUX='vfio.devs="01:00.0 02:00.0"'"#,
                r#"vfio.devs="01:00.0 02:00.0""#,
                grub,
            ),
            (r#"GRUB_CMDLINE_LINUX="vfio.devs=\\\"01:00.0\\\"""#, r#"vfio.devs=\"01:00.0\""#, grub),
            (r#"KERNEL_CMDLINE[default]+="quiet vfio.strict""#, "quiet vfio.strict", grub),
            (
                "GRUB_TIMEOUT=5\n#GRUB_CMDLINE_LINUX=\"a=b\"\nGRUB_CMDLINE_LINUX=\"c=d\"\n\
                 GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n",
                "c=d quiet",
                grub,
            ),
            (
                "options root=LABEL=r rw vfio.devs=01:00.0",
                "options root=LABEL=r rw vfio.devs=01:00.0",
                "the options of a loader entry",
            ),
            (
                r#"boot.kernelParams = [ "quiet" "vfio.devs=01:00.0,02:00.0" ];"#,
                "quiet vfio.devs=01:00.0,02:00.0",
                strings,
            ),
            (
                "kernelParams = [\n  # the card's\n  \"vfio.devs=\\\"01:00.0 02:00.0\\\"\"\n]",
                r#"vfio.devs="01:00.0 02:00.0""#,
                strings,
            ),
            ("GRUB_CMDLINE_LINUX=vfio.devs=01:00.0", "vfio.devs=01:00.0", grub),
            ("grubby --args='vfio.devs=01:00.0'", "vfio.devs=01:00.0", "what is in quotes"),
            (
                "kargs --append='vfio.devs=\"01:00.0\"'",
                r#"vfio.devs="01:00.0""#,
                "what is in quotes",
            ),
            ("x=it's vfio.devs=01:00.0", "x=it's vfio.devs=01:00.0", ""),
            ("x='a b' vfio.devs=01:00.0", "x='a b' vfio.devs=01:00.0", ""),
            ("kernelParams = [ ''vfio.devs=01:00.0'' ];", "vfio.devs=01:00.0", strings),
            ("[ 01:00.0", "vfio.devs=[,01:00.0", list),
            (r#"devices = [ "01:00.0" "02:00.*" ];"#, "vfio.devs=01:00.0,02:00.*", list),
            (r#"kargs = ["vfio.devs=01:00.0", "quiet"]"#, "vfio.devs=01:00.0 quiet", strings),
        ] {
            let (read, taken_for) = read(text);
            assert_eq!((read.as_str(), taken_for), (expected, what), "{text:?}");
        }
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
            ("quiet vfio.devs=05:00.0 rw", "vfio.devs=01:00.0 vfio.strict", 29),
            ("quiet vfio.devs=05:00.0 rw", "vfio.devs=01:00.0", 26),
            ("", "quiet vfio.devs=01:00.0", 23),
        ] {
            let length = length_with_lists(running.as_bytes(), text.as_bytes());
            assert_eq!(length, expected, "{running:?} {text:?}");
        }
        assert_eq!(too_long(2047), None);
        assert!(too_long(2048).is_some_and(|text| text.contains("2048 bytes, and 2047 fit")));
    }
}
