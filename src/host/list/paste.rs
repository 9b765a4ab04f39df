//! The parameter to paste for what `list` has chosen.

use super::{Entry, List};
use crate::host::item::short;
use crate::host::page::{Page, Style};
use crate::host::paste::too_long;

/// The line for the chosen devices and what shares their groups; none where that would take from the
/// host what it uses. Of several displays that of the boot is left to the host, and so are keyboards
/// where no other one would be left, and virtual functions.
pub(super) fn line(page: &mut Page, list: &List) {
    let is_virtual = |entry: &Entry| entry.physical_function.is_some();
    let is_display = |entry: &&Entry| entry.class.is_display() && !is_virtual(entry);
    let displays = list.devices.iter().filter(|entry| entry.chosen).filter(is_display);
    let has_choice = displays.count() > 1;
    let is_screen = |entry: &Entry| has_choice && entry.boot_display;
    let is_part = |entry: &Entry| is_virtual(entry) || entry.made_by.is_some();
    let all = with_groups(list, &|entry| is_screen(entry) || is_part(entry));
    let given: Vec<&Entry> = all.into_iter().filter(|entry| !is_screen(entry)).collect();
    if list.leaves_no_display(&given) {
        nothing(
            page,
            "the host would have no display left, and a boot refuses its only one; if that is meant, \
             list the items above with vfio.console=release",
        );
        return;
    }
    let no_keyboard = list.leaves_no_keyboard(&given);
    let is_keyboard = |entry: &Entry| no_keyboard && entry.keyboard;
    let stays = |entry: &Entry| is_screen(entry) || is_keyboard(entry) || is_part(entry);
    let mut items = Vec::new();
    let mut without = Vec::new();
    let mut has_virtual = false;
    for entry in with_groups(list, &stays) {
        let address = short(entry.address);
        if is_virtual(entry) {
            has_virtual = true;
        } else if let Some(usage) = entry.in_use.as_ref().filter(|_| entry.lives_from) {
            let mut text = format!("the host uses {address}: {usage}");
            if !entry.chosen {
                text += "; that is in the same IOMMU group, so that this slot cannot be given away \
                         on this board";
            }
            nothing(page, &text);
            return;
        } else if is_screen(entry) {
            without.push(format!("the boot display {address}"));
        } else if is_keyboard(entry) {
            without.push(format!("the only keyboard, on {address}"));
        } else {
            items.extend(entry.item.as_deref());
        }
    }
    if has_virtual {
        without.push("virtual functions (not there yet in the initrd)".to_owned());
    }
    if !items.is_empty() {
        let heading = match without.as_slice() {
            [] => "To paste:".to_owned(),
            without => format!("To paste, without {}:", without.join(" and ")),
        };
        let parameter = format!("vfio.devs={}", items.join(","));
        page.paragraph("", "", &[(Style::Bold, &heading), (Style::Cyan, &parameter)]);
        if let Some(why) = too_long(list.command_line + 1 + parameter.len()) {
            page.paragraph("", "    ", &[(Style::Yellow, "warning:"), (Style::Plain, &why)]);
        }
    } else if has_virtual {
        nothing(page, "virtual functions are not there yet in the initrd");
    } else if no_keyboard {
        nothing(page, "the host would have no keyboard left; if that is meant, the item is above");
    } else if list.devices.iter().any(|entry| entry.chosen && entry.made_by.is_some()) {
        nothing(page, "what is behind another device goes with that");
    }
}

fn nothing(page: &mut Page, why: &str) {
    page.paragraph("", "", &[(Style::Bold, "Nothing to paste:"), (Style::Plain, why)]);
}

/// What is chosen, and what shares a group with what of it does not stay.
fn with_groups<'l>(list: &'l List, stays: &dyn Fn(&Entry) -> bool) -> Vec<&'l Entry> {
    let is_in = |entry: &&Entry| {
        let has = |other: &Entry| {
            other.chosen && !stays(other) && other.shared_with.contains(&entry.address)
        };
        entry.chosen || list.devices.iter().any(has)
    };
    list.devices.iter().filter(is_in).collect()
}
