//! No file of the program or of the harness uses one that uses it, in however many steps, and the
//! harness's layers stand on each other in one order.
//!
//! What a file uses is read from its `use` lines and its paths, as rustfmt leaves them. In the program
//! the files of a folder are parts of the one beside it, whose private items they use: that is no
//! circle there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use qemu_tests::supplies::binary::workspace;

/// Modules of the harness, each of which uses only those before it.
const LAYERS: [&str; 6] = ["supplies", "machine", "check", "scenario", "checks", "commands"];

/// Lines that a file of the harness may have.
const LONGEST: usize = 500;

/// A module's name from the crate's root on, which has none.
type Name = Vec<String>;

/// Those of a crate that have a file, and which others each of them uses.
type Modules = BTreeMap<Name, BTreeSet<Name>>;

/// Every file below that folder of the workspace, from the workspace on.
fn below(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![workspace().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    files.sort();
    files
}

fn name_of(file: &Path, root: &Path) -> Name {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "lib").collect()
}

/// The paths of a `use`: `a::{b, c::d}` has `a::b` and `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let Some((start, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or(tree).trim().to_owned()];
    };
    let inner = &inner[..inner.rfind('}').unwrap_or(inner.len())];
    let mut depth = 0;
    let parts = inner.split(|character| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        character == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(leaves).map(|leaf| format!("{}{leaf}", start.trim())).collect()
}

/// Every path in a file's text, and whether it stands in a module within it, such as its tests.
fn paths(text: &str) -> Vec<(bool, Vec<String>)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let is_visibility =
        |it: &str| ["", "pub"].contains(&it) || it.starts_with("pub(") && it.ends_with(')');
    let (mut found, mut is_within, mut tree) = (Vec::new(), false, None);
    for line in text.lines() {
        let is_comment = line.trim_start().starts_with("//");
        let code = if is_comment { "" } else { line.split(" //").next().unwrap_or(line) };
        is_within = code != "}" && (is_within || code.starts_with("mod ") && code.ends_with('{'));
        let start = code.trim_start();
        let start = start.split_once("use ").filter(|(before, _)| is_visibility(before.trim_end()));
        tree = match (tree, start) {
            (None, Some((_, rest))) => Some(rest.to_owned()),
            (Some(tree), _) => Some(tree + code),
            (None, None) => None,
        };
        let mut add = |path: &str| {
            let parts = path.split("::").map(|part| part.trim().to_owned());
            found.push((is_within, parts.collect()));
        };
        match &tree {
            Some(whole) if whole.ends_with(';') => {
                for leaf in leaves(whole.trim_end_matches(';')) {
                    add(&leaf);
                }
                tree = None;
            }
            Some(_) => {}
            None => code.split(|c| !is_part(c)).filter(|it| it.contains("::")).for_each(add),
        }
    }
    found
}

/// The other module with a file that a path in the module of that name leads into.
fn target(names: &BTreeSet<Name>, name: &Name, is_within: bool, path: &[String]) -> Option<Name> {
    let of_own = |part: &String| names.contains(&[&name[..], std::slice::from_ref(part)].concat());
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (&[][..], &path[1..]),
        "self" if !is_within => (&name[..], &path[1..]),
        "super" => {
            let levels = path.iter().take_while(|part| *part == "super").count();
            let kept = (name.len() + usize::from(is_within)).checked_sub(levels)?;
            (&name[..kept], &path[levels..])
        }
        _ if of_own(&path[0]) => (&name[..], path),
        _ => return None,
    };
    let whole = [base, rest].concat();
    let mut modules = (0..=whole.len()).rev().map(|length| whole[..length].to_vec());
    modules.find(|module| names.contains(module)).filter(|module| module != name)
}

fn modules(root: &str) -> Modules {
    let folder = workspace().join(root);
    let mut files = below(root);
    files.retain(|file| {
        let is_program = file.ends_with("main.rs") || file.starts_with(folder.join("bin"));
        !is_program && file.extension().is_some_and(|end| end == "rs")
    });
    let texts =
        files.iter().map(|file| (name_of(file, &folder), fs::read_to_string(file).unwrap()));
    let texts: Vec<(Name, String)> = texts.collect();
    let names: BTreeSet<Name> = texts.iter().map(|(name, _)| name.clone()).collect();
    let uses = |(name, text): (Name, String)| {
        let targets = paths(&text)
            .into_iter()
            .filter_map(|(is_within, path)| target(&names, &name, is_within, &path));
        let targets = targets.collect();
        (name, targets)
    };
    texts.into_iter().map(uses).collect()
}

fn shown(name: &Name) -> String {
    if name.is_empty() { "lib.rs".to_owned() } else { name.join("/") + ".rs" }
}

/// One way from a module to itself.
fn circle(modules: &Modules, way: &mut Vec<Name>, done: &mut BTreeSet<Name>) -> Option<Vec<Name>> {
    let last = way.last()?.clone();
    for next in &modules[&last] {
        if let Some(start) = way.iter().position(|name| name == next) {
            return Some([&way[start..], std::slice::from_ref(next)].concat());
        }
        if !done.contains(next) {
            way.push(next.clone());
            if let Some(found) = circle(modules, way, done) {
                return Some(found);
            }
            way.pop();
        }
    }
    done.insert(last);
    None
}

fn assert_no_circle(root: &str, modules: &Modules) {
    let mut done = BTreeSet::new();
    for name in modules.keys() {
        if let Some(found) = circle(modules, &mut vec![name.clone()], &mut done) {
            let files: Vec<String> =
                found.iter().map(|name| format!("{root}/{}", shown(name))).collect();
            panic!("each uses the next one: {}", files.join(", "));
        }
    }
}

#[test]
fn no_file_of_the_program_uses_one_that_uses_it() {
    let mut modules = modules("src");
    for (name, uses) in &mut modules {
        uses.retain(|used| used.is_empty() || !name.starts_with(used));
    }
    assert_no_circle("src", &modules);
}

#[test]
fn no_file_of_the_harness_uses_one_that_uses_it() {
    assert_no_circle("qemu-tests/src", &modules("qemu-tests/src"));
}

#[test]
fn a_layer_of_the_harness_uses_only_those_below_it() {
    let layer = |name: &Name| {
        LAYERS.iter().position(|layer| Some(*layer) == name.first().map(String::as_str))
    };
    let file = |name: &Name| format!("qemu-tests/src/{}", shown(name));
    for (name, uses) in modules("qemu-tests/src").iter().filter(|(name, _)| !name.is_empty()) {
        let own = layer(name);
        assert!(own.is_some(), "{} is in no layer", file(name));
        for used in uses {
            let is_below = layer(used).is_some_and(|layer| Some(layer) <= own);
            assert!(is_below, "{} uses {}, of no layer below it", file(name), file(used));
        }
    }
}

#[test]
fn no_file_of_the_harness_is_long() {
    for file in below("qemu-tests") {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines, over {LONGEST}", file.display());
    }
}

#[test]
fn a_use_and_a_path_are_read_wherever_they_stand() {
    let text = "use crate::a::{b as x, c::{self, D}};\n\
                //! [`x`](crate::x)\n\
                pub(crate) use super::e;\n\
                use std::fmt; //of the standard library\n\
                pub fn say() -> &'static str { \"use it\" }\n\
                fn f() -> crate::g::H { part::i() } // crate::j::k\n\
                mod tests {\n    use super::*;\n}\n\
                use self::l;\n";
    let found: Vec<String> = paths(text)
        .iter()
        .map(|(is_within, path)| {
            format!("{}{}", if *is_within { "within " } else { "" }, path.join("::"))
        })
        .collect();
    let expected = [
        "crate::a::b",
        "crate::a::c::self",
        "crate::a::c::D",
        "super::e",
        "std::fmt",
        "crate::g::H",
        "part::i",
        "within super::*",
        "self::l",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_path_leads_into_the_nearest_module_with_a_file() {
    let name = |text: &str| -> Name { text.split_whitespace().map(str::to_owned).collect() };
    let names = ["", "a", "a b", "a b part", "c"].map(name).into();
    for (is_within, path, expected) in [
        (false, "crate c Item", Some("c")),
        (false, "super Item", Some("a")),
        (false, "super super c", Some("c")),
        (true, "super Item", None),
        (true, "super super Item", Some("a")),
        (false, "part item", Some("a b part")),
        (false, "std fs", None),
        (false, "crate Item", Some("")),
        (false, "self item", None),
    ] {
        let found = target(&names, &name("a b"), is_within, &name(path));
        assert_eq!(found, expected.map(name), "{path}");
    }
}
