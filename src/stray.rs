//! What looks like ours on a command line and stands where nobody reads it: items outside
//! `vfio.devs=`, and parameters that are one slip away from ours. Pure.

use crate::escape;
use crate::pci::{self, Item, items};

/// What all our parameters begin with.
pub const PREFIX: &str = "vfio.";

/// Our parameters, all behind `vfio.`.
pub const KEYS: [&str; 8] = ["devs", "off", "console", "host", "wait", "driver", "strict", "debug"];

const LIST: &[u8] = b"vfio.devs=";

/// The words that read as items, or as what is meant for one.
#[derive(Debug, Default)]
pub struct Strays {
    /// With commas between them.
    words: String,
    /// Whether the word before was a list, or belongs to one.
    pub is_behind_a_list: bool,
}

/// That a parameter is none, and which of ours it may be.
#[must_use]
pub fn is_unknown(name: &str, key: &str) -> String {
    let key = key.to_ascii_lowercase();
    // What is near to none asks for devices, as others do with `ids=` or `pci=`.
    let nearest = KEYS.iter().filter(|ours| slips(&key, ours) <= 2);
    let nearest = nearest.min_by_key(|ours| slips(&key, ours)).unwrap_or(&KEYS[0]);
    [&escape::short(name), " is unknown; is vfio.", nearest, " meant?"].concat()
}

/// Without the marks that a list in another place, or one quote too many, leaves around it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '*')
}

impl Strays {
    /// A parameter that is none of ours: nearly all of them are the kernel's or somebody else's.
    pub fn look_at(&mut self, name: &[u8], value: Option<&[u8]>, warnings: &mut Vec<String>) {
        let Ok(name) = str::from_utf8(name) else { return };
        let word = bare(name);
        let is_meant = self.is_behind_a_list && is_like_an_item(word);
        self.is_behind_a_list = value.is_none() && (is_meant || has_item(word));
        if self.is_behind_a_list {
            // What is longer is told in short.
            if self.words.len() < 256 {
                self.words += ",";
                self.words += word;
            }
        } else if let Some(key) = meant(word, value) {
            warnings.push(is_unknown(name, key));
        } else if let Some(ours) = value.and_then(inside) {
            let name = escape::short(name);
            warnings.push(
                [PREFIX, ours, " is inside of ", &name, "= and not read: a quote too many?"]
                    .concat(),
            );
        }
    }

    /// The warning where there are any; the last item is that of the list that is read.
    #[must_use]
    pub fn warning(&self, before: Option<&Item>) -> Option<String> {
        let words = self.words.get(1..)?;
        let mut form = before.map_or(String::new(), |item| item.text.clone() + ",");
        for item in items(words) {
            form += if pci::is_id(item) { "pci:" } else { "" };
            form += item;
            form.push(',');
        }
        form.pop();
        Some(format!(
            "outside vfio.devs= and not read: {}; a list without quotes has no blanks, as in \
             vfio.devs={}",
            escape::short(words),
            escape::short(&form)
        ))
    }
}

/// Which of our keys is in a value, where a quote too many, or one that is not closed, puts all of the
/// rest.
fn inside(value: &[u8]) -> Option<&'static str> {
    if value.windows(LIST.len()).any(|part| part == LIST) {
        return Some("devs=");
    }
    let words = value.split(u8::is_ascii_whitespace).skip(1);
    let names = words.filter_map(|word| word.split(|byte| *byte == b'=').next());
    let mut keys = names.filter_map(|name| name.strip_prefix(PREFIX.as_bytes()));
    keys.find_map(|key| KEYS.into_iter().find(|ours| ours.as_bytes() == key))
}

/// Whether a list has an item in it, or an id without its `pci:`.
fn has_item(list: &str) -> bool {
    list.contains(':')
        && items(list).map(bare).any(|part| part.parse::<Item>().is_ok() || pci::is_id(part))
}

/// Whether somebody meant an item who made a mistake in it: no word of others that stands alone has these
/// characters.
fn is_like_an_item(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_hexdigit() || ":.,*/@".contains(c);
    word.contains([':', '.']) && word.chars().all(is_part)
        || word.starts_with("pci:")
        || word.starts_with("group:")
}

/// Which of our keys a name is meant to be.
fn meant(name: &str, value: Option<&[u8]>) -> Option<&'static str> {
    let name = name.replace('-', "_").to_ascii_lowercase();
    let is_between = |c: char| !c.is_ascii_alphanumeric();
    let (first, last) = name.rsplit_once(is_between).unwrap_or(("", &name));
    // Other modules have `vfio` in their names as well, but none of them has a parameter that is
    // called as one of ours.
    let is_vfio = name.contains("vfio") || slips(first, "vfio") <= 1;
    let key = KEYS.into_iter().find(|key| {
        let is_as_long = name.len().abs_diff(PREFIX.len() + key.len()) <= 1;
        is_as_long && slips(&name, &[PREFIX, key].concat()) <= 1
            || is_vfio && !first.is_empty() && {
                let slips = slips(last, key);
                slips == 0 || slips == 1 && key.len() > 3
            }
    });
    key.or_else(|| {
        // `devs=` or `vfio=` alone.
        let is_alone = is_vfio && !name.contains('.') || name == KEYS[0];
        let value = str::from_utf8(value?).ok()?;
        (is_alone && has_item(value)).then_some(KEYS[0])
    })
}

/// How far one is from the other: the letters of the longer one between those that both begin and end
/// with, where two that have changed places count as one.
fn slips(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let [short, long] = if one.len() < other.len() { [one, other] } else { [other, one] };
    let same = |(a, b): &(&u8, &u8)| a == b;
    let front = short.iter().zip(long).take_while(same).count();
    let back = short[front..].iter().rev().zip(long.iter().rev()).take_while(same).count();
    match (&short[front..short.len() - back], &long[front..long.len() - back]) {
        ([a, b], [c, d]) if (a, b) == (d, c) => 1,
        (_, long) => long.len(),
    }
}
