//! Texts of others in our lines: items, names of drivers, mount points, a report. Pure.

use std::fmt::Write;

use serde::Serialize;

/// What is longer is no item and no name; messages have its beginning.
const LONGEST: usize = 120;

/// What cannot be seen, or changes how the rest is seen: control characters (C0, C1, delete), and
/// Unicode's line ends, invisible characters and those that turn the direction of writing.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// One line that forges no other one and does nothing to a terminal.
#[must_use]
pub fn line(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The beginning of a text that is absurdly long, and how long it is.
#[must_use]
pub fn short(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{}... ({} bytes)", &text[..text.floor_char_boundary(LONGEST)], text.len())
}

/// JSON in which what is hidden is escaped, which JSON itself asks of C0 alone.
///
/// # Errors
/// When the value cannot be JSON, as a map with keys that are no texts.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    // Of what is ASCII, JSON lets the delete character through alone.
    if json.is_ascii() && !json.as_bytes().contains(&0x7f) {
        return Ok(json);
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            // Such a character is inside a string, wherever it is.
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a String does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: &str = "a\n<0>b\u{1b}[2J\u{9b}2J\u{7f}\u{202e}c\u{2028}\u{e0041}";

    #[test]
    fn what_is_hidden_is_seen() {
        let expected = "a\\n<0>b\\u{1b}[2J\\u{9b}2J\\u{7f}\\u{202e}c\\u{2028}\\u{e0041}";
        assert_eq!(line(HIDDEN), expected);
        assert_eq!(line("plain ü €"), "plain ü €");
    }

    #[test]
    fn json_says_the_same_with_and_without_what_is_hidden() {
        let text = json(&HIDDEN).unwrap();
        assert!(!text.contains(is_hidden), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), HIDDEN);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(short("01:00.0"), "01:00.0");
        let text = "a".to_owned() + &"ü".repeat(1000);
        let cut = short(&text);
        assert!(cut.len() < 150 && cut.ends_with("ü... (2001 bytes)"), "{cut}");
    }
}
