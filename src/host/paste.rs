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
    // No item has a `=` in it; parameters may stand behind.
    let words = text.split_inclusive(char::is_whitespace);
    let end: usize =
        words.take_while(|word| !word.contains(PREFIX) && !word.contains('=')).map(str::len).sum();
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

/// The command line within what stands around it.
fn inside(text: &str, depth: u8) -> Option<(String, &'static str)> {
    let characters = characters(text);
    let words = words(&characters);
    let entry = |text: String| Some((text, "the options of a loader entry"));
    if let Some(found) = assigned(&words) {
        return Some(found);
    }
    let options = text.lines().filter_map(|line| line.trim_start().strip_prefix("options"));
    let options = options.filter(|it| it.starts_with(char::is_whitespace)).map(str::trim);
    let options = options.collect::<Vec<_>>().join(" ");
    if !options.is_empty() {
        return entry(of_refind(&options).unwrap_or(options));
    }
    if let Some(options) = of_refind(text) {
        return entry(options);
    }
    let strings = strings(text);
    if !strings.is_empty() {
        return Some((strings, STRINGS));
    }
    let plain: Vec<_> = words.iter().map(|word| plain(word)).collect();
    let before = plain.iter().take_while(|word| *word != "--" && !word.starts_with(PREFIX));
    let is_command = before.into_iter().any(|word| word.starts_with('-') && word.len() > 1);
    if depth == 0 || !is_command && asks(text) {
        return None;
    }
    let given = given(&words, &plain, is_command, depth - 1);
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

/// A character, and whether it means nothing to a shell: in quotes, or behind a backslash.
type Character = (char, bool);

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

/// A shell's text without its comments.
fn characters(text: &str) -> Vec<Character> {
    let mut characters: Vec<Character> = Vec::new();
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let is_of_double = |c: &char| matches!(c, '"' | '\\' | '$' | '`');
        let is_start =
            || characters.last().is_none_or(|(c, is_plain)| !is_plain && c.is_whitespace());
        if quote == Some(c) || quote.is_none() && is_quote(c) {
            quote = if quote.is_none() { Some(c) } else { None };
            characters.push((c, false));
        } else if c == '\\'
            && (quote.is_none() || quote == Some('"') && rest.peek().is_some_and(is_of_double))
        {
            characters.extend(rest.next().map(|c| (c, true)));
        } else if quote.is_none() && c == '#' && is_start() {
            while rest.next_if(|c| *c != '\n').is_some() {}
        } else {
            characters.push((c, quote.is_some() && (c != '$' || quote == Some('\''))));
        }
    }
    characters
}

fn words(characters: &[Character]) -> Vec<&[Character]> {
    let words = characters.split(|(c, is_plain)| !is_plain && c.is_whitespace());
    words.filter(|word| !word.is_empty()).collect()
}

/// What a word is to whom a shell hands it.
fn plain(word: &[Character]) -> String {
    let is_part = |(c, is_plain): &&Character| *is_plain || !is_quote(*c);
    word.iter().filter(is_part).map(|(c, _)| c).collect()
}

/// What the variables that are command lines have in the end, in the order of their names, which is that of
/// GRUB's.
fn assigned(words: &[&[Character]]) -> Option<(String, &'static str)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for word in words {
        let Some(end) = word.iter().position(|it| *it == ('=', false)) else { continue };
        let (name, value) = word.split_at(end);
        let name: String = name.iter().map(|(c, _)| c).collect();
        let is_more = name.ends_with('+');
        let name = name.trim_end_matches('+');
        let is_one = ASSIGNED.iter().any(|it| name.contains(it));
        // Not in an option, in quotes or in what sed is told.
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:[]".contains(c));
        // That of Xen is another one.
        if !is_one || !is_name || name.contains("_XEN") {
            continue;
        }
        let mut text = String::new();
        let mut parts = value[1..].split(|it| *it == ('$', false));
        text += &plain(parts.next().unwrap_or_default());
        for part in parts {
            let part = plain(part);
            let is_end = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '{');
            let end = part.find(is_end).unwrap_or(part.len());
            let (variable, rest) = part.split_at(end);
            let known = variables.iter().find(|(name, _)| name == variable.trim_start_matches('{'));
            match known {
                Some((_, value)) => text = text + value + rest.trim_start_matches('}'),
                None => text = text + "$" + &part,
            }
        }
        let place =
            variables.iter().position(|(known, _)| &**known >= name).unwrap_or(variables.len());
        match variables.get_mut(place).filter(|(known, _)| known == name) {
            Some((_, value)) if is_more => *value += &text,
            Some((_, value)) => *value = text,
            None => variables.insert(place, (name.to_owned(), text)),
        }
    }
    let (name, _) = variables.first()?;
    let what = if name == DRACUTS {
        "dracut's kernel_cmdline=, which is the kernel's in images of dracut --uefi alone"
    } else {
        "what is assigned"
    };
    let values: Vec<_> = variables.iter().map(|(_, value)| value.trim()).collect();
    Some((values.join(" "), what))
}

/// A title and the options, or these alone, in quotes, where two quotes are one.
fn of_refind(text: &str) -> Option<String> {
    let line = text.lines().next().filter(|line| line.starts_with('"'))?;
    let characters = characters(&line.replace("\"\"", "\\\""));
    let words: Vec<_> = words(&characters).into_iter().map(plain).collect();
    match &words[..] {
        [options] if line.contains("\"\"") => Some(options.clone()),
        [title, options] if !title.contains(['=', ':']) => Some(options.clone()),
        _ => None,
    }
}

/// The strings between brackets, of Nix or of TOML.
fn strings(text: &str) -> String {
    // Two are one in Nix.
    let characters = characters(&text.replace("''", "'"));
    let (mut strings, mut depth, mut is_string) = (String::new(), 0, false);
    let mut before = '=';
    for (c, is_plain) in characters {
        match c {
            _ if is_plain || is_string && !is_quote(c) => {
                strings.extend((depth > 0).then_some(c));
            }
            '"' | '\'' => {
                is_string = !is_string;
                if is_string {
                    strings.push(' ');
                }
            }
            '[' if matches!(before, '=' | '+') || depth > 0 => depth += 1,
            ']' if depth > 0 => depth -= 1,
            _ => {}
        }
        if !c.is_whitespace() {
            before = c;
        }
    }
    strings.trim().to_owned()
}

/// The words that a command puts on the command line: the values of its options, and what stands in quotes.
fn given(words: &[&[Character]], plain: &[String], is_command: bool, depth: u8) -> String {
    let mut given = Vec::new();
    let mut is_left_out = false;
    for (word, text) in words.iter().zip(plain) {
        if NOT_ADDED.iter().any(|option| text.starts_with(option)) {
            is_left_out = !text.contains('=');
            continue;
        }
        let value = match text.split_once('=') {
            _ if is_left_out => "",
            Some((_, value)) if text.starts_with('-') => value,
            _ if is_command && text.starts_with(PREFIX)
                || word.first().is_some_and(|(c, _)| is_quote(*c)) =>
            {
                text
            }
            _ => "",
        };
        is_left_out = false;
        if value.contains(PREFIX) || value.contains("vfio") && value.contains('=') {
            given.push(meant(value, depth).0);
        }
    }
    given.join(" ")
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
