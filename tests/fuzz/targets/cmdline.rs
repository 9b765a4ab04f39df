//! The kernel command line: `parameters` and `parse`.

use serde_json::json;
use vfio_early::cmdline::{Console, Foreign, Host, KEYS, Request, parameters, parse};
use vfio_early::escape;

use super::{assert_harmless, assert_json};

/// Room for what is said of one item, of two bytes with its comma.
const A_BYTE: usize = 400;

/// The input is a command line.
pub fn check(text: &[u8]) {
    check_parameters(text);
    let request = parse(text);
    check_items(text, &request);
    check_rest(text, &request);
    check_printed(&request);
    let value = assert_json(&request, 16_384 + A_BYTE * text.len());
    let items: Vec<_> = request.items.iter().map(|item| &item.text).collect();
    assert_eq!(value["items"], json!(items));
    check_escaped(&String::from_utf8_lossy(text));
}

/// A name and a value that mean the same when they are written like this; `None` where the kernel's
/// rules, which know no escapes, have no way to write them.
fn print((name, value): (&[u8], Option<&[u8]>)) -> Option<Vec<u8>> {
    let value = value.map(|value| [b"=", value].concat());
    let text = [name, &value.unwrap_or_default()].concat();
    let is_quoted = text.contains(&b'"');
    (!is_quoted).then(|| [b"\"", text.as_slice(), b"\""].concat())
}

fn check_parameters(text: &[u8]) {
    let found: Vec<_> = parameters(text).collect();
    let bytes: usize =
        found.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
    assert!(bytes <= text.len());
    for pair in &found {
        let Some(printed) = print(*pair) else { continue };
        assert_eq!(parameters(&printed).collect::<Vec<_>>(), [*pair], "{printed:?}");
    }
    // With all quotes closed, what follows is read as if it stood alone.
    let is_closed = text.split(|byte| *byte == b'"').count() % 2 == 1;
    let longer = [text, b" a=1"].concat();
    let added = (&b"a"[..], Some(&b"1"[..]));
    let all: Vec<_> = parameters(&longer).collect();
    let has_end = text.windows(2).any(|part| part == b"--");
    assert!(!is_closed || has_end || all == [found.as_slice(), &[added]].concat());
    assert!(all.starts_with(&found) || !is_closed);
}

/// Every word of every list is an item or is rejected, letter by letter and in their order.
fn check_items(text: &[u8], request: &Request) {
    let lists: Vec<_> = parameters(text)
        .filter(|(name, _)| *name == b"vfio.devs")
        .filter_map(|(_, value)| Some(String::from_utf8_lossy(value?)))
        .collect();
    let words = lists.iter().flat_map(|list| list.split(|c: char| c == ',' || c.is_whitespace()));
    let mut items = request.items.iter().peekable();
    let mut rejected = request.rejected.iter().peekable();
    for word in words.filter(|word| !word.is_empty()) {
        if items.next_if(|item| item.text == word).is_some() {
            continue;
        }
        let bad = rejected.next().expect("every word is an item or rejected");
        assert_eq!(bad.text, word);
        assert!(!bad.reason.is_empty() && bad.reason.len() < 1024, "{}", bad.reason);
        assert_harmless(&escape::line(&bad.reason));
    }
    assert!(items.next().is_none() && rejected.next().is_none(), "more than was asked for");
    let asked = request.items.len() + request.rejected.len();
    assert_eq!(request.asks_for_devices(), asked > 0 && !request.off);
}

fn check_rest(text: &[u8], request: &Request) {
    assert!(request.wait <= 60);
    if let Some(driver) = &request.driver {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(!driver.is_empty() && driver.chars().all(is_plain), "{driver:?}");
    }
    assert!(request.warnings.len() <= 65);
    for warning in &request.warnings {
        assert!(warning.contains("vfio.") && warning.len() < 1024, "{warning}");
    }
    // What is not ours is nothing to us but a warning, where it looks like ours.
    let ours = parameters(text).any(|(name, _)| name.starts_with(b"vfio."));
    let (foreign, warnings) = (request.foreign.clone(), request.warnings.clone());
    let plain = Request { foreign, warnings, ..Request::default() };
    assert!(ours || *request == plain, "{request:?}");
    let named = parameters(text).filter(|(name, value)| {
        let key = String::from_utf8_lossy(name).replace('-', "_");
        let ours = key.strip_prefix("vfio.").is_some_and(|key| KEYS.contains(&key));
        name.starts_with(b"vfio.") && !ours && value.is_none_or(|value| !value.is_empty())
    });
    let known = ["enable_unsafe_noiommu_mode", "dyndbg", "async_probe"];
    let unknown = named.filter(|(name, _)| {
        let key = String::from_utf8_lossy(&name[b"vfio.".len()..]).replace('-', "_");
        !known.contains(&key.as_str())
    });
    assert!(unknown.count() == 0 || !request.warnings.is_empty(), "an unknown parameter is told");
}

/// A request that is written anew is read as the same.
fn check_printed(request: &Request) {
    let number = |flag: bool| u8::from(flag);
    let items: Vec<_> = request.items.iter().map(|item| item.text.as_str()).collect();
    let console = if request.console == Console::Keep { "keep" } else { "release" };
    let host = if request.host == Host::Keep { "keep" } else { "release" };
    let driver = request.driver.as_ref().map(|name| format!("vfio.driver={name}"));
    let printed = format!(
        "vfio.devs=\"{}\" vfio.off={} vfio.strict={} vfio.debug={} vfio.wait={} \
         vfio.console={console} vfio.host={host} {}",
        items.join(","),
        number(request.off),
        number(request.strict),
        number(request.debug),
        request.wait,
        driver.unwrap_or_default(),
    );
    let expected = Request {
        rejected: Vec::new(),
        warnings: Vec::new(),
        foreign: Foreign::default(),
        ..request.clone()
    };
    assert_eq!(parse(printed.as_bytes()), expected, "{printed}");
}

fn check_escaped(text: &str) {
    let line = escape::line(text);
    assert_harmless(&line);
    assert!(!line.contains('\n') && line.len() <= 10 * text.len());
    assert_eq!(escape::line(&line), line, "what is escaped stays so");
    let short = escape::short(text);
    assert!(short.len() <= 160 && text.starts_with(short.split("... (").next().unwrap_or("")));
    assert_json(&text, 2 + 6 * text.len());
}
