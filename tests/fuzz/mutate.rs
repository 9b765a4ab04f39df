//! Inputs made of others at random.

use std::ops::Range;

use qemu_tests::checks::soak::random::Random;

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).expect("it is below 256")
}

/// A part of something of that length, more often a short one.
fn part(random: &mut Random, length: usize) -> Range<usize> {
    let longest = *random.of(&[4, 32, length + 1]);
    let start = random.below(length + 1);
    start..(start + random.below(longest)).min(length)
}

/// An input grows no longer by a change.
const LONGEST: usize = 16_384;

/// The words of a dictionary as libFuzzer reads it: one a line in quotes, `\xNN` for a byte.
pub fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let lines = dictionary.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    lines.map(word).collect()
}

fn word(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (number, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(number, 16).expect("\\x has two hex digits"));
        bytes.extend(rest.as_bytes());
    }
    bytes
}

/// Some whole line, or all from one heading (`== `) to the next, whichever comes out.
fn lines(random: &mut Random, input: &[u8]) -> Range<usize> {
    let end: &[u8] = if random.below(2) == 0 { b"\n" } else { b"\n== " };
    let at = random.below(input.len() + 1);
    let find = |text: &[u8]| text.windows(end.len()).position(|part| part == end);
    let start = input[..at].windows(end.len()).rposition(|part| part == end);
    let start = start.map_or(0, |start| start + 1);
    start..find(&input[at..]).map_or(input.len(), |found| at + found + 1)
}

/// The input of that number.
pub fn input(number: u64, seeds: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let random = &mut Random::new(number);
    if random.below(32) == 0 {
        return (0..random.below(300)).map(|_| byte(random)).collect();
    }
    let mut input = random.of(seeds).clone();
    for _ in 0..=random.below(8) {
        change(random, &mut input, seeds, words);
    }
    input.truncate(LONGEST);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    match random.below(10) {
        0 => {
            let byte = byte(random);
            input.splice(at..(at + 1).min(input.len()), [byte]);
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => drop(input.drain(part(random, input.len()))),
        3 => {
            let copy = input[part(random, input.len())].to_vec();
            input.splice(at..at, copy);
        }
        4 => {
            let copy = input[part(random, input.len())].to_vec();
            let times = random.below(20);
            input.splice(at..at, copy.repeat(times));
        }
        5 => drop(input.splice(at..at, random.of(words).clone())),
        6 => drop(input.splice(part(random, input.len()), random.of(words).clone())),
        7 => drop(input.drain(lines(random, input))),
        8 => {
            let copy = input[lines(random, input)].to_vec();
            let to = lines(random, input).start;
            input.splice(to..to, copy);
        }
        _ => {
            let other = random.of(seeds);
            let part =
                if random.below(2) == 0 { lines(random, other) } else { part(random, other.len()) };
            let to = lines(random, input).start;
            input.splice(to..to, other[part].to_vec());
        }
    }
}
