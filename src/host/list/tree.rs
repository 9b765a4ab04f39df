//! The list as a person reads it: a tree of groups.

use super::{Availability, Entry, List, paste};
use crate::host::item::short;
use crate::host::page::{Look, Page, Style};
use crate::pci::Address;

/// Lines of the tree: in front of a member and of what follows it, then the same for the last one.
const DRAWN: [&str; 4] = ["├─ ", "│  ", "└─ ", "   "];
const ASCII: [&str; 4] = ["|- ", "|  ", "`- ", "   "];

/// Room for the address and the id, below which nothing of the name stands.
const NAME_COLUMN: usize = 18;

/// Draws it; with `paste`, what to write on the command line for what was chosen comes last, and
/// without, virtual functions that are alike are counted.
#[must_use]
pub fn tree(list: &List, look: Look, paste: bool) -> String {
    let mut page = Page::new(look);
    let mut rest = list.devices.as_slice();
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|entry| entry.group == first.group).count();
        let (members, others) = rest.split_at(count);
        heading(&mut page, list, first.group);
        for (index, entry) in members.iter().enumerate() {
            member(&mut page, list, entry, index + 1 == count);
        }
        rest = if paste { others } else { fold(&mut page, &members[0], others) };
    }
    if paste {
        paste::line(&mut page, list);
    }
    page.text
}

/// A line for the virtual functions that follow the first and are like it, and what comes after.
fn fold<'a>(page: &mut Page, first: &Entry, others: &'a [Entry]) -> &'a [Entry] {
    let (Some(of), Availability::Alone) = (first.physical_function, first.availability) else {
        return others;
    };
    let is_alike = |other: &&Entry| {
        other.physical_function == Some(of)
            && (other.id, &other.driver) == (first.id, &first.driver)
            && other.availability == Availability::Alone
            && other.in_use.is_none()
            && first.in_use.is_none()
    };
    let count = others.iter().take_while(is_alike).count();
    let (alike, after) = others.split_at(count);
    if let [next, .., last] = alike {
        let text = format!(
            "{count} more virtual functions of {} like this, each alone in its group: {} to {}; \
             --json lists them",
            short(of),
            short(next.address),
            short(last.address)
        );
        page.paragraph("", "", &[(Style::Plain, &text)]);
        return after;
    }
    others
}

fn heading(page: &mut Page, list: &List, group: Option<u32>) {
    match (group, &list.no_group) {
        (Some(number), _) => {
            page.paragraph("", "", &[(Style::Bold, &format!("IOMMU group {number}"))]);
        }
        (None, Some(why)) if list.iommu == "groups-at-probe" => {
            let text = format!("{}; {}", why.reason, why.remedy);
            page.paragraph("", "", &[(Style::Bold, "Not known yet:"), (Style::Plain, &text)]);
        }
        (None, Some(why)) => {
            page.paragraph(
                "",
                "",
                &[
                    (Style::Bold, "Not for a VM:"),
                    (Style::Red, &format!("{};", why.reason)),
                    (Style::Plain, &why.remedy),
                ],
            );
        }
        (None, None) => page.paragraph("", "", &[(Style::Bold, "No IOMMU group")]),
    }
}

fn member(page: &mut Page, list: &List, entry: &Entry, is_last: bool) {
    let lines = if page.look.unicode { DRAWN } else { ASCII };
    let (first, rest) = if is_last { (lines[2], lines[3]) } else { (lines[0], lines[1]) };
    let indented = format!("{rest}  ");
    let is_bridge = entry.availability == Availability::Bridge;
    let address = short(entry.address);
    let below_name = format!("{rest}{:1$}", "", NAME_COLUMN.max(address.len() + 11));
    let style = if is_bridge { Style::Dim } else { Style::Bold };
    let plain = if is_bridge { Style::Dim } else { Style::Plain };
    let id = entry.id.to_string();
    page.paragraph(
        first,
        &below_name,
        &[(style, &address), (Style::Dim, &id), (plain, &name(entry))],
    );
    facts(page, list, entry, &indented);
    if let Some(item) = &entry.item {
        let with = match entry.availability {
            Availability::Shared => format!("(goes {})", with(&entry.shared_with, "group")),
            Availability::Alone => "(alone in its group)".to_owned(),
            Availability::Bridge | Availability::NotYet | Availability::NoGroup => String::new(),
        };
        page.paragraph(&indented, &indented, &[(Style::Cyan, item), (Style::Plain, &with)]);
    }
}

/// "with" and the others, or how many they are.
fn with(others: &[Address], of: &str) -> String {
    if others.len() > 6 {
        return format!("with the {} others of its {of}", others.len());
    }
    let others: Vec<_> = others.iter().map(|other| short(*other)).collect();
    format!("with {}", others.join(", "))
}

/// Class, vendor and device, or what is known of them.
fn name(entry: &Entry) -> String {
    let class = entry.class_name.clone();
    let mut text = class.unwrap_or_else(|| format!("class {}", entry.class));
    for (index, name) in [&entry.vendor_name, &entry.device_name].into_iter().enumerate() {
        if let Some(name) = name {
            text.push_str(if index == 0 { ": " } else { " " });
            text.push_str(name);
        }
    }
    text
}

/// Driver, use, resets.
fn facts(page: &mut Page, list: &List, entry: &Entry, indented: &str) {
    let mut spans: Vec<(Style, String)> = Vec::new();
    match &entry.driver {
        Some(driver) => {
            let style = if entry.is_given() { Style::Green } else { Style::Plain };
            spans.push((style, format!("driver {driver}")));
        }
        None => spans.push((Style::Plain, "no driver".to_owned())),
    }
    if list.is_unasked(entry) {
        spans.push((Style::Yellow, "vfio.devs= does not ask for it".to_owned()));
    }
    if entry.boot_display {
        spans.push((Style::Yellow, "boot display".to_owned()));
    }
    if let Some(framebuffer) = &entry.framebuffer {
        spans.push((Style::Yellow, format!("framebuffer: {framebuffer}")));
    }
    if let Some(usage) = &entry.in_use {
        spans.push((Style::Yellow, usage.clone()));
    }
    if entry.keyboard && list.leaves_no_keyboard(&[entry]) {
        spans.push((Style::Yellow, "the only keyboard".to_owned()));
    }
    if !entry.inputs.is_empty() {
        spans.push((Style::Yellow, format!("input: {}", entry.inputs.join(", "))));
    }
    if let Some(of) = entry.physical_function {
        spans.push((Style::Plain, format!("virtual function of {}", short(of))));
    }
    if let Some(maker) = entry.made_by.filter(|_| entry.availability != Availability::Bridge) {
        spans.push((
            Style::Red,
            format!("behind {}: for a VM only as a part of that", short(maker)),
        ));
    }
    match (&entry.reset_methods, entry.availability) {
        (_, Availability::Bridge) => {
            spans.push((Style::Plain, "a bridge stays with the host".to_owned()));
        }
        (Some(methods), _) if !methods.is_empty() => {
            spans.push((Style::Plain, format!("reset: {}", methods.join(", "))));
        }
        (Some(_), _) if entry.resets_with.is_empty() => {
            spans.push((Style::Red, "no reset: the restart of a VM with it can fail".to_owned()));
        }
        (Some(_), _) => {
            spans.push((Style::Plain, format!("reset: only {}", with(&entry.resets_with, "bus"))));
        }
        (None, _) => spans.push((Style::Plain, "reset: supported".to_owned())),
    }
    let end = spans.len() - 1;
    let mut texts: Vec<(Style, &str)> = Vec::new();
    for (index, (style, text)) in spans.iter_mut().enumerate() {
        if index < end {
            text.push(';');
        }
        texts.push((*style, text));
    }
    page.paragraph(indented, indented, &texts);
}
