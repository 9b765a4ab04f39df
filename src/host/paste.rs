//! What people paste after `check`: words, lists, files of boot loaders, commands, Nix; to the kernel
//! command line that is meant. And whether it fits. Pure.

use crate::cmdline::{self, PREFIX, Parameter, parameters};
use crate::pci::{Item, items};

/// `COMMAND_LINE_SIZE` of x86 and of arm64, less the byte at its end.
const ROOM: usize = 2047;

/// In the names of variables and properties that are kernel command lines.
const ASSIGNED: [&str; 3] = ["CMDLINE", DRACUTS, "commandline"];
const DRACUTS: &str = "kernel_cmdline";

/// What lists of Nix and of TOML are taken for.
const STRINGS: &str = "the strings of a list";

/// Options whose values are not put on the command line.
const NOT_ADDED: [&str; 3] = ["--remove", "--delete", "--output"];

/// The command line, and what the text was taken for: `""` where it is one, or a list as it would stand
/// on one.
#[must_use]
pub fn read(text: &str) -> (String, &'static str) {
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let lines: Vec<_> = text.trim().lines().filter(|line| !is_comment(line)).collect();
    let taken_for = if text.trim().is_empty() { "" } else { "a comment" };
    let text = lines.join("\n").replace("\\\n", "");
    if text.trim().is_empty() { (String::new(), taken_for) } else { meant(text.trim(), 2) }
}

/// `depth` is how many commands may stand around it.
fn meant(text: &str, depth: u8) -> (String, &'static str) {
    let (mut text, mut what) = inside(text, depth).unwrap_or_else(|| (text.to_owned(), ""));
    // No other item has a `=` in it; parameters may stand behind.
    let mut signs = text.match_indices('=').map(|(at, _)| at);
    let sign = signs.find(|at| !is_of_functions(&text[..*at]));
    let first = [sign, text.find(PREFIX)].into_iter().flatten().min();
    let end =
        first.map_or(text.len(), |first| text[..first].rfind(is_blank).map_or(0, |it| it + 1));
    let (listed, rest) = text.split_at(end);
    let are_items = || items(listed).all(|item| item.parse::<Item>().is_ok());
    let are_meant = match what {
        "" => rest.is_empty() || are_items(),
        // As of the module of NixOS.
        STRINGS => are_items(),
        _ => false,
    };
    if are_meant && !listed.trim().is_empty() && !text.contains("vfio.devs") {
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
    } else if what.is_empty() && text.contains('\n') {
        what = "several lines, of which Proxmox VE reads the first alone";
    }
    (text.trim_start().to_owned(), what)
}

/// Whether a text ends in an item for virtual functions, behind which their number may stand.
fn is_of_functions(text: &str) -> bool {
    let is_end = |c: char| c == ',' || is_blank(c) || is_quote(c);
    text.rsplit(is_end).next().is_some_and(|word| word.starts_with("vfs:"))
}

/// The command line within what stands around it.
fn inside(text: &str, depth: u8) -> Option<(String, &'static str)> {
    let lexed = lexed(text);
    if let Some(found) = assigned(&lexed) {
        return Some(found);
    }
    let mut options = String::new();
    for line in text.lines() {
        let rest = line.trim_start().strip_prefix("options");
        if let Some(rest) = rest.filter(|rest| rest.starts_with(is_blank)) {
            options = options + " " + rest.trim();
        }
    }
    let options = options.trim_start();
    let of_entry = of_refind(if options.is_empty() { text } else { options });
    let of_entry = of_entry.unwrap_or_else(|| options.to_owned());
    if !of_entry.is_empty() {
        return Some((of_entry, "the options of a loader entry"));
    }
    let strings = strings(text);
    if !strings.is_empty() {
        return Some((strings, STRINGS));
    }
    let mut before = words(&lexed).take_while(|word| *word != "--" && !word.starts_with(PREFIX));
    let is_command = before.any(|word| word.starts_with('-') && word.len() > 1);
    if depth == 0 || !is_command && asks(text) {
        return None;
    }
    let given = given(&lexed, is_command, depth - 1);
    if is_command && !given.is_empty() {
        Some((given, "what a command is given"))
    } else if asks(&given) {
        Some((given, "what is in quotes"))
    } else {
        None
    }
}

fn asks(text: &str) -> bool {
    cmdline::parse(text.as_bytes()).asks_for_devices()
}

// What means something to a shell, in a text that it has read: all else is there as it is.
const BLANK: char = '\u{1}';
const QUOTE: char = '\u{2}';
const DOLLAR: char = '\u{3}';

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

/// A shell's text without its comments.
fn lexed(text: &str) -> String {
    let mut lexed = String::new();
    let (mut quote, mut is_escaped, mut is_comment) = (None, false, false);
    for c in text.chars() {
        let is_start = c == '#' && quote.is_none() && !is_escaped;
        is_comment = if is_comment {
            c != '\n'
        } else {
            is_start && (lexed.is_empty() || lexed.ends_with(BLANK))
        };
        if is_comment {
            continue;
        }
        if is_escaped {
            // In double quotes, others are none.
            if quote.is_some() && !matches!(c, '"' | '\\' | '$' | '`') {
                lexed.push('\\');
            }
            is_escaped = false;
            lexed.push(c);
        } else if c == '\\' && quote != Some('\'') {
            is_escaped = true;
        } else if quote == Some(c) || quote.is_none() && is_quote(c) {
            quote = if quote.is_none() { Some(c) } else { None };
            lexed.push(QUOTE);
        } else if c == '$' && quote != Some('\'') {
            lexed.push(DOLLAR);
        } else {
            lexed.push(if quote.is_none() && is_blank(c) { BLANK } else { c });
        }
    }
    lexed
}

fn words(lexed: &str) -> impl Iterator<Item = &str> {
    lexed.split(BLANK).filter(|word| !word.is_empty())
}

/// What a word is to whom a shell hands it.
fn plain(word: &str) -> String {
    word.replace(QUOTE, "").replace(DOLLAR, "$")
}

/// What the variables that are command lines have in the end, in the order of their names, which is that of
/// GRUB's.
fn assigned(lexed: &str) -> Option<(String, &'static str)> {
    let mut variables: Vec<(&str, String)> = Vec::new();
    for (name, value) in words(lexed).filter_map(|word| word.split_once('=')) {
        let added = name.strip_suffix('+');
        let name = added.unwrap_or(name);
        // Not in an option, in quotes or in what sed is told.
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:[]".contains(c));
        // That of Xen is another one.
        if !is_name || name.contains("_XEN") || !ASSIGNED.iter().any(|it| name.contains(it)) {
            continue;
        }
        let mut parts = value.split(DOLLAR);
        let mut text = plain(parts.next().unwrap_or_default());
        for part in parts {
            let part = plain(part);
            // From the last one on, in whose name others are.
            let known = variables.iter().rev().find_map(|(name, value)| {
                let rest = part.trim_start_matches('{').strip_prefix(name)?;
                Some(value.clone() + rest.trim_start_matches('}'))
            });
            text += &known.unwrap_or_else(|| String::from("$") + &part);
        }
        let place = variables.iter().position(|(known, _)| *known >= name);
        let place = place.unwrap_or(variables.len());
        match variables.get_mut(place).filter(|(known, _)| *known == name) {
            Some((_, value)) if added.is_some() => *value += &text,
            Some((_, value)) => *value = text,
            None => variables.insert(place, (name, text)),
        }
    }
    let what = if variables.first()?.0 == DRACUTS {
        "dracut's kernel_cmdline=, which is the kernel's in images of dracut --uefi alone"
    } else {
        "what is assigned"
    };
    let all = variables.iter().fold(String::new(), |all, (_, value)| all + " " + value.trim());
    Some((all.trim_start().to_owned(), what))
}

/// A title and the options, or these alone, in quotes, where two quotes are one.
fn of_refind(text: &str) -> Option<String> {
    let line = text.lines().next().filter(|line| line.starts_with('"'))?;
    let lexed = lexed(&line.replace("\"\"", "\\\""));
    let mut parts = lexed.split(QUOTE).skip(1).step_by(2);
    let options = match (parts.next()?, parts.next()) {
        (options, None) if line.contains("\"\"") => options,
        (title, Some(options)) if !title.contains(['=', ':']) => options,
        _ => return None,
    };
    Some(options.to_owned())
}

/// The strings between brackets, of Nix, TOML or JSON.
fn strings(text: &str) -> String {
    // Two are one in Nix.
    let lexed = lexed(&text.replace("''", "'"));
    let (mut strings, mut is_list, mut is_string) = (String::new(), false, true);
    for part in lexed.split(QUOTE) {
        is_string = !is_string;
        if is_string {
            if is_list {
                strings = strings + " " + part;
            }
        } else if let Some(place) = part.rfind(['[', ']']) {
            let before = part[..place].trim_end_matches(BLANK);
            let is_start = before.is_empty() || before.ends_with(['=', '+', ':', '[', '(']);
            is_list = part[place..].starts_with('[') && (is_list || is_start);
        }
    }
    plain(strings.trim_start())
}

/// The words that a command puts on the command line: the values of its options, and what stands in quotes.
fn given(lexed: &str, is_command: bool, depth: u8) -> String {
    let mut given = String::new();
    let mut is_left_out = false;
    for word in words(lexed) {
        if NOT_ADDED.iter().any(|option| word.starts_with(option)) {
            is_left_out = !word.contains('=');
            continue;
        }
        let value = match word.split_once('=') {
            _ if is_left_out => "",
            Some((_, value)) if word.starts_with('-') => value,
            _ if word.starts_with(QUOTE) || is_command && word.starts_with(PREFIX) => word,
            _ => "",
        };
        is_left_out = false;
        if value.contains(PREFIX) || value.contains("vfio") && value.contains('=') {
            given = given + " " + &meant(&plain(value), depth).0;
        }
    }
    given.trim_start().to_owned()
}

/// How many bytes those parameters of a command line take.
fn lengths(text: &[u8], is_one: &dyn Fn(Parameter) -> bool) -> usize {
    let lengths = parameters(text).filter(|parameter| is_one(*parameter)).map(|(name, value)| {
        let value = value.map_or(0, |value| {
            let quotes = if value.iter().any(u8::is_ascii_whitespace) { 2 } else { 0 };
            1 + value.len() + quotes
        });
        // With the blank behind it.
        name.len() + value + 1
    });
    lengths.sum()
}

/// How many bytes a command line has without the lists that it has now.
#[must_use]
pub fn length_without_lists(text: &[u8]) -> usize {
    text.len().saturating_sub(lengths(text, &|(name, _)| name == b"vfio.devs"))
}

/// How many bytes the command line would have: of one that is whole its own, else with what the running one
/// has besides.
#[must_use]
pub fn length_with_the_rest(running: &[u8], text: &[u8]) -> usize {
    if parameters(text).any(|(name, _)| name == b"root") {
        return text.len();
    }
    let is_rest = |(name, value): Parameter| {
        let is_ours = name.starts_with(PREFIX.as_bytes());
        !parameters(text).any(|(known, other)| known == name && (is_ours || other == value))
    };
    text.len() + lengths(running, &is_rest)
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
