//! The pages for readers: no link leads nowhere, and each system's page has the same steps.

use std::fs;
use std::path::{Path, PathBuf};

use qemu_tests::supplies::binary::workspace;
use vfio_early::cmdline;
use vfio_early::host::paste;
use vfio_early::pci::{Choice, Item};

/// The steps, as headings in this order; a page may have others after them.
const STEPS: [&str; 8] = [
    "Install",
    "Add the devices",
    "Make the initrd",
    "Check before the reboot",
    "Reboot",
    "Verify",
    "Undo",
    "Troubleshoot",
];

const SYSTEMS: [&str; 4] =
    ["docs/debian.md", "docs/dracut.md", "docs/mkinitcpio.md", "docs/nixos.md"];

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// Lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']))
}

/// As a link names a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/measurements"].map(|folder| workspace().join(folder)) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            pages.extend(path.extension().is_some_and(|end| end == "md").then_some(path));
        }
    }
    pages
}

#[test]
fn no_link_leads_nowhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = read(&page);
        // A link may stand on two lines.
        let prose = prose(&text).collect::<Vec<_>>().join("\n");
        for link in prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a file lies in a folder").join(file)
            };
            let leads = target.exists()
                && (heading.is_empty()
                    || headings(&read(&target)).any(|found| anchor(found) == heading));
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_systems_page_has_the_same_steps() {
    for page in SYSTEMS {
        let text = read(&workspace().join(page));
        let found: Vec<&str> = headings(&text).filter(|found| STEPS.contains(found)).collect();
        assert_eq!(found, STEPS, "{page}");
    }
}

/// Examples are pasted: an address without a guard takes whatever is there on another machine.
#[test]
fn an_address_in_an_example_has_a_guard() {
    let others = ["README.md", "docs/coming-from.md", "docs/man/vfio-early.cmdline.7.scd"];
    let mut seen = 0;
    for page in SYSTEMS.iter().chain(&others) {
        let text = read(&workspace().join(page));
        let lists = text.split("vfio.devs=").skip(1);
        for list in lists.filter_map(|rest| rest.split([' ', '\n', '\'', '"', '`']).next()) {
            for item in list.split(',').filter_map(|word| word.parse::<Item>().ok()) {
                let is_place = matches!(item.choice, Choice::Place(_) | Choice::Group(_));
                assert!(!is_place || item.guard.is_some(), "{page}: vfio.devs={list}");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

/// What the page tells to write is what `check` reads.
#[test]
fn each_example_of_a_command_line_is_read_as_meant() {
    let text = read(&workspace().join("docs/command-line.md"));
    let examples = text.split("\n```").skip(1).step_by(2).filter_map(|it| it.split_once('\n'));
    let mut seen = 0;
    for (_, example) in examples.filter(|(_, example)| example.contains("vfio.devs=")) {
        let (line, taken_for) = paste::read(example);
        let request = cmdline::parse(line.as_bytes());
        let is_well = request.rejected.is_empty() && request.warnings.is_empty();
        assert!(
            is_well && !request.items.is_empty(),
            "{example}\n{taken_for}: {line}\n{request:?}"
        );
        let first = &request.items[0].text;
        assert_eq!(first, "10de:1c03@01:00.*", "{example}\n{taken_for}: {line}");
        seen += 1;
    }
    assert!(seen >= 13, "{seen}");
}

/// Who follows that blindly gives away what the host lives from.
#[test]
fn nobody_is_told_to_list_a_whole_group_without_an_if() {
    for page in pages() {
        for line in read(&page).lines().filter(|line| line.contains(", too")) {
            let is_advice = line.contains("list it, too") || line.contains("list them, too");
            let is_told = line.contains("can do without");
            assert!(!is_advice || is_told, "{}: {line}", page.display());
        }
    }
}

/// The lines of code on all pages that hold this.
fn code_with(wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    for page in pages() {
        let text = read(&page);
        let blocks = text.split("\n```").skip(1).step_by(2);
        found.extend(
            blocks.flat_map(str::lines).filter(|line| line.contains(wanted)).map(str::to_owned),
        );
    }
    found
}

/// `add-all` looks for images where Debian's kernels have none.
#[test]
fn kernel_install_is_called_as_in_the_tests() {
    let script = workspace().join("qemu-tests/src/guest/debian/make-images");
    let tried = "kernel-install add \"$release\" \"/boot/vmlinuz-$release\"";
    assert!(read(&script).contains(tried));
    let told = code_with("kernel-install");
    assert!(told.len() >= 2, "{told:?}");
    for line in told {
        assert_eq!(line, format!("sudo {}", tried.replace("$release", "$(uname -r)")));
    }
}

/// The rules of kernels say that it never exists: what is read there looks like nothing left.
#[test]
fn nobody_is_told_to_read_a_parameter_that_vfio_pci_does_not_show() {
    let told = code_with("parameters/ids");
    assert!(told.is_empty(), "{told:?}");
    let text = read(&workspace().join("docs/coming-from.md"));
    assert!(!text.contains("parameters/ids"), "docs/coming-from.md");
}

/// A fresh Debian sid, and Ubuntu since 25.10, have dracut in the place of initramfs-tools.
#[test]
fn the_page_for_debian_says_first_what_dracut_has_in_the_place_of_its_commands() {
    let text = read(&workspace().join("docs/debian.md"));
    let (start, rest) = text.split_once("\n## ").expect("it has headings");
    for (command, in_dracut) in
        [("lsinitramfs", "lsinitrd"), ("update-initramfs -u -k all", "dracut -f --regenerate-all")]
    {
        assert!(rest.contains(command), "{command} is told no more");
        assert!(start.contains(command) && start.contains(in_dracut), "{command}: {start}");
    }
}

#[test]
fn headings_are_no_comments_of_code() {
    let text = "# Page\n```sh\n# comment\n```\n## `vfio-pci.ids=` and softdeps\n";
    assert_eq!(headings(text).collect::<Vec<_>>(), ["Page", "`vfio-pci.ids=` and softdeps"]);
    assert_eq!(anchor("`vfio-pci.ids=` and softdeps"), "vfio-pciids-and-softdeps");
}
