//! What one of depmod's indexes has below a beginning of its keys: libkmod tells only what fits one
//! text, and not which key that was. As text, an initrd's aliases can have a megabyte.
//!
//! Source: `index_read()` in kmod's `libkmod/libkmod-index.c`. An index is a tree of keys by their
//! characters. Numbers are big-endian; a node's kind is in the highest bits of its offset.

use std::fs::File;
use std::os::unix::fs::FileExt;

const MAGIC: u32 = 0xb007_f457;
/// The upper half of the version; another one is another format.
const VERSION: u32 = 2;

/// Kinds of nodes: with characters that all keys below have, with nodes below, with values.
const PREFIX: u32 = 1 << 31;
const VALUES: u32 = 1 << 30;
const CHILDREN: u32 = 1 << 29;
const OFFSET: u32 = (1 << 28) - 1;

/// Mostly one read gets all of a node.
const USUAL: usize = 1 << 10;
/// No node is larger, no key longer and no part of an index has more nodes, unless something is wrong
/// with it.
const LARGEST: usize = 1 << 20;
const LONGEST: usize = 1 << 9;
const MOST: usize = 1 << 14;

#[derive(Default)]
struct Node {
    prefix: Vec<u8>,
    /// By their next character.
    children: Vec<(u8, u32)>,
    values: Vec<String>,
}

/// Keys that begin so, each with one of its values; none where the file is no index.
#[must_use]
pub fn below(file: &File, beginning: &str) -> Vec<(String, String)> {
    let (mut found, mut visited) = (Vec::new(), 0);
    let mut left = Vec::from_iter(root(file).map(|root| (Vec::new(), root)));
    while let Some((mut key, offset)) = left.pop() {
        visited += 1;
        let Some(node) = node(file, offset).filter(|_| visited <= MOST) else { continue };
        key.extend(node.prefix);
        let leads_there = key.iter().zip(beginning.as_bytes()).all(|(one, other)| one == other);
        if !leads_there || key.len() > LONGEST {
            continue;
        }
        if key.len() >= beginning.len() {
            let text = String::from_utf8_lossy(&key);
            found.extend(node.values.into_iter().map(|value| (text.clone().into_owned(), value)));
        }
        let wanted = beginning.as_bytes().get(key.len());
        for (byte, child) in node.children {
            if wanted.is_none_or(|wanted| *wanted == byte) {
                left.push(([key.as_slice(), &[byte]].concat(), child));
            }
        }
    }
    found
}

fn root(file: &File) -> Option<u32> {
    let mut header = [0; 12];
    file.read_exact_at(&mut header, 0).ok()?;
    let mut rest = &header[..];
    let (magic, version) = (number(&mut rest)?, number(&mut rest)?);
    (magic == MAGIC && version >> 16 == VERSION).then_some(number(&mut rest)?)
}

fn node(file: &File, offset: u32) -> Option<Node> {
    let mut buffer = vec![0; USUAL];
    loop {
        let length = file.read_at(&mut buffer, (offset & OFFSET).into()).ok()?;
        let node = parse(&buffer[..length], offset);
        // Where it ends behind what was read, the file may have more.
        if node.is_some() || length < buffer.len() || length >= LARGEST {
            return node;
        }
        buffer.resize(length * 32, 0);
    }
}

fn parse(mut rest: &[u8], kind: u32) -> Option<Node> {
    let mut node = Node::default();
    if kind & PREFIX != 0 {
        node.prefix.extend(text(&mut rest)?);
    }
    if kind & CHILDREN != 0 {
        let (&[first, last], after) = rest.split_first_chunk()?;
        rest = after;
        for byte in first..=last {
            let child = number(&mut rest)?;
            if child != 0 {
                node.children.push((byte, child));
            }
        }
    }
    if kind & VALUES != 0 {
        for _ in 0..number(&mut rest)? {
            let _priority = number(&mut rest)?;
            node.values.push(String::from_utf8_lossy(text(&mut rest)?).into_owned());
        }
    }
    Some(node)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*bytes))
}

/// Up to a NUL.
fn text<'t>(rest: &mut &'t [u8]) -> Option<&'t [u8]> {
    let length = rest.iter().position(|byte| *byte == 0)?;
    let (text, after) = rest.split_at(length);
    *rest = &after[1..];
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// A node behind what is there; its offset, with its kind.
    fn add(to: &mut Vec<u8>, prefix: &str, children: &[(u8, u32)], values: &[&str]) -> u32 {
        let mut kind = u32::try_from(to.len()).unwrap();
        if !prefix.is_empty() {
            kind |= PREFIX;
            to.extend(prefix.bytes().chain([0]));
        }
        if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
            kind |= CHILDREN;
            to.extend([*first, *last]);
            for byte in *first..=*last {
                let child = children.iter().find(|(at, _)| *at == byte).map_or(0, |(_, at)| *at);
                to.extend(child.to_be_bytes());
            }
        }
        if !values.is_empty() {
            kind |= VALUES;
            to.extend(u32::try_from(values.len()).unwrap().to_be_bytes());
            for value in values {
                to.extend(7_u32.to_be_bytes());
                to.extend(value.bytes().chain([0]));
            }
        }
        kind
    }

    fn with_root(mut bytes: Vec<u8>, root: u32) -> Vec<u8> {
        bytes[8..12].copy_from_slice(&root.to_be_bytes());
        bytes
    }

    fn header() -> Vec<u8> {
        [MAGIC, VERSION << 16 | 1, 0].map(u32::to_be_bytes).concat()
    }

    /// Of `vfio_pci:v1sv*`, `vfio_pci:v1sv2`, `vfio_pcx:v1` and `pci:v1`, with the values of the first.
    fn index(values: &[&str]) -> Vec<u8> {
        let mut bytes = header();
        let star = add(&mut bytes, "", &[], values);
        let two = add(&mut bytes, "", &[], &["two"]);
        let ours = add(&mut bytes, ":v1sv", &[(b'*', star), (b'2', two)], &[]);
        let other = add(&mut bytes, ":v1", &[], &["no"]);
        let vfio = add(&mut bytes, "fio_pc", &[(b'i', ours), (b'x', other)], &[]);
        let pci = add(&mut bytes, "ci:v1", &[], &["no"]);
        let root = add(&mut bytes, "", &[(b'p', pci), (b'v', vfio)], &[]);
        with_root(bytes, root)
    }

    fn found(bytes: &[u8], beginning: &str) -> Vec<String> {
        let found = below(&file(bytes), beginning).into_iter();
        let mut found: Vec<_> = found.map(|(key, value)| format!("{key} {value}")).collect();
        found.sort();
        found
    }

    #[test]
    fn all_that_begins_so_is_found_and_nothing_else() {
        let expected = ["vfio_pci:v1sv* one", "vfio_pci:v1sv2 two"];
        assert_eq!(found(&index(&["one"]), "vfio_pci:"), expected);
        assert_eq!(found(&index(&["one"]), "vfio_pci:v1sv2"), expected[1..]);
        assert_eq!(found(&index(&["one"]), "vfio_pci:v2"), [""; 0]);
        assert_eq!(found(&index(&["one"]), "").len(), 4);
        let many: Vec<_> = (0..2000).map(|number| format!("module{number:04}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(
            found(&index(&many), "vfio_pci:").len(),
            2001,
            "a node that one read does not get"
        );
    }

    #[test]
    fn what_is_no_index_has_nothing_and_an_end() {
        let whole = index(&["one"]);
        for length in 0..whole.len() {
            let part = found(&whole[..length], "vfio_pci:");
            assert!(part.len() <= 2, "{part:?}");
        }
        let mut other = whole.clone();
        other[4..8].copy_from_slice(&(3_u32 << 16).to_be_bytes());
        assert_eq!(found(&other, ""), [""; 0], "another version");
        // A node below itself, twice.
        let mut bytes = header();
        let itself = u32::try_from(bytes.len()).unwrap() | CHILDREN;
        add(&mut bytes, "", &[(b'a', itself), (b'b', itself)], &[]);
        assert_eq!(found(&with_root(bytes, itself), ""), [""; 0]);
    }
}
