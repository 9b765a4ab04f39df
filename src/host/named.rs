//! What stands behind `bind` and `release`: items, and parameters as on the command line.

use crate::cmdline::{self, Console, Host, PREFIX, Request};
use crate::escape;

/// Items, and words such as `vfio.console=release`.
///
/// # Errors
/// When one of the items is none; the text says which, and why.
pub fn read(words: &[String]) -> Result<Request, String> {
    let (mut list, mut parameters) = (String::new(), String::new());
    for word in words {
        if word.starts_with(PREFIX) {
            parameters = parameters + " " + word;
        } else {
            list = list + "," + word;
        }
    }
    let request = cmdline::parse(format!("vfio.devs=\"{list}\"{parameters}").as_bytes());
    match request.rejected.first() {
        Some(bad) => Err(format!("{:?}: {}", escape::short(&bad.text), bad.reason)),
        None if request.items.is_empty() => Err("name at least one device".to_owned()),
        None => Ok(request),
    }
}

/// The devices that are named in the place of those of the command line, which counts for the rest.
/// Who names devices means them, also after `vfio.off`.
#[must_use]
pub fn instead(request: Request, named: Request) -> Request {
    let Request { items, rejected, console, host, driver, warnings, debug, .. } = named;
    Request {
        items,
        rejected,
        warnings,
        off: false,
        console: if console == Console::Release { console } else { request.console },
        host: if host == Host::Release { host } else { request.host },
        driver: driver.or(request.driver),
        debug: request.debug || debug,
        ..request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn words_are_items_and_parameters() {
        for (text, items, console) in [
            ("01:00.0", &["01:00.0"][..], Console::Keep),
            (
                "01:00.*,00:14.0 pci:10de:1c03",
                &["01:00.*", "00:14.0", "pci:10de:1c03"],
                Console::Keep,
            ),
            ("vfio.console=release 10de:1c03@01:00.0", &["10de:1c03@01:00.0"], Console::Release),
            ("vfs:03:00.0=4", &["vfs:03:00.0=4"], Console::Keep),
            ("vfio.devs=01:00.0 00:14.0", &["00:14.0", "01:00.0"], Console::Keep),
        ] {
            let request = read(&words(text)).unwrap();
            let found: Vec<_> = request.items.iter().map(|item| item.text.as_str()).collect();
            assert_eq!((&found[..], request.console), (items, console), "{text}");
        }
        for (text, why) in [
            ("01:00.0 x", "\"x\": "),
            ("vfio.console=release", "name at least one"),
            ("", "name at least one"),
        ] {
            let said = read(&words(text)).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn the_command_line_counts_for_the_rest() {
        let request = cmdline::parse(b"vfio.devs=02:00.0,y vfio.off vfio.host=release vfio.wait=3");
        let named = read(&words("01:00.0 vfio.driver=pci-stub")).unwrap();
        let both = instead(request, named.clone());
        assert_eq!(both.items, named.items);
        assert!(both.rejected.is_empty() && both.asks_for_devices());
        assert_eq!((both.host, both.wait), (Host::Release, 3));
        assert_eq!((both.console, both.driver.as_deref()), (Console::Keep, Some("pci-stub")));
    }
}
