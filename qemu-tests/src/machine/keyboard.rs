//! Keys, pressed on a running machine's keyboard.

use anyhow::{Context, Result};
use serde_json::json;

use crate::machine::qmp::Qmp;

/// Types that text on a US keyboard; `\n` is Enter.
///
/// # Errors
/// When the text has a character that is none of the few that tests type, or QEMU refuses a key.
pub(crate) fn type_text(monitor: &mut Qmp, text: &str) -> Result<()> {
    for character in text.chars() {
        let keys: Vec<_> = keys(character)
            .with_context(|| format!("no key is known for {character:?}"))?
            .iter()
            .map(|key| json!({ "type": "qcode", "data": key }))
            .collect();
        // QEMU queues them: the next key waits until this one is released, after milliseconds.
        monitor.execute("send-key", &json!({ "keys": keys, "hold-time": 30 }))?;
    }
    Ok(())
}

/// QEMU's names of the keys that are pressed together.
fn keys(character: char) -> Option<Vec<String>> {
    let key = match character {
        'a'..='z' | '0'..='9' => return Some(vec![character.to_string()]),
        ' ' => "spc",
        '\n' => "ret",
        '/' => "slash",
        '.' => "dot",
        '-' => "minus",
        '_' => return Some(vec!["shift".to_owned(), "minus".to_owned()]),
        '>' => return Some(vec!["shift".to_owned(), "dot".to_owned()]),
        _ => return None,
    };
    Some(vec![key.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_the_keys_that_make_it() {
        for (character, expected) in [
            ('a', Some(vec!["a"])),
            ('7', Some(vec!["7"])),
            ('>', Some(vec!["shift", "dot"])),
            ('\n', Some(vec!["ret"])),
            ('ä', None),
        ] {
            let expected: Option<Vec<String>> =
                expected.map(|keys| keys.into_iter().map(str::to_owned).collect());
            assert_eq!(keys(character), expected, "{character:?}");
        }
    }
}
