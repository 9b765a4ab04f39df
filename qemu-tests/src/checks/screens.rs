//! What is given away and what the user sees meanwhile: machines with displays, and pictures of
//! them.
//!
//! A display is alive when the text that the guest prints can be read in its picture, and frozen
//! when not a pixel changes. Each machine runs the binary twice: in the initrd, and after the host
//! has loaded its graphics driver, as a later `vfio-early bind` does.

mod case;
mod ram;
mod swap;

pub(crate) use case::{BOOT, OTHER};

use case::{Case, Start, card, case};

use crate::check::Boot;
use crate::machine::topology::Device;
use crate::supplies::arch::Arch;
use crate::supplies::kernels::{NAMES, NIXOS, arch_of};

/// Two cards on the root bus, the firmware's first.
fn two_cards() -> [Device; 2] {
    [card("VGA", "01.0", BOOT), card("VGA", "05.0", OTHER)]
}

/// Every case on every kernel for x86, whose firmware draws on its cards, and what Arm's has besides.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |kernel, case: Case| Boot {
        name: format!("screens: {}", case.name),
        kernel,
        check: Box::new(move |kernel, program, _answers| case.check(kernel, program).into()),
    };
    let on = |kernel| all(kernel).into_iter().map(move |case| boot(kernel, case));
    let cases = NAMES.into_iter().filter(|kernel| arch_of(kernel) == Arch::Amd64).flat_map(on);
    let swaps = swap::KERNELS.into_iter().flat_map(|kernel| {
        swap::ALL.map(|swap| Boot {
            name: format!("screens: {}", swap.name),
            kernel,
            check: Box::new(move |kernel, program, _answers| swap.check(kernel, program).into()),
        })
    });
    cases.chain(swaps).chain(ram::boots()).collect()
}

fn all(line: &str) -> Vec<Case> {
    [other_card(line), boot_card(line), only_card(), text_mode(line), whole_machines()].concat()
}

/// The card that is given away is not the one that the console is on.
fn other_card(line: &str) -> Vec<Case> {
    // Linux 6.1 takes the console with any card on the root bus.
    let takes_it = line == "6.1";
    let mut cases = vec![
        case("the second card is given away, the host's driver in the initrd", two_cards())
            .asks("vfio.devs=00:05.0")
            .driver_in_initrd()
            .outcome("0000:00:05.0", "bound")
            .alive(BOOT)
            .maps("0000:00:05.0")
            .when(takes_it, |case| case.logs("the console goes on at 0000:00:01.0")),
        case("the second card is given away, the host's driver comes later", two_cards())
            .asks("vfio.devs=00:05.0")
            .outcome("0000:00:05.0", if takes_it { "reserved" } else { "bound" })
            .later("0000:00:05.0", "bound")
            .alive(BOOT)
            .maps("0000:00:05.0")
            .when(takes_it, |case| {
                case.logs("driver of the other display, 0000:00:01.0 1234:1111, is not in this")
            }),
        case(
            "a second card of class 0380 is given away",
            [card("VGA", "01.0", BOOT), card("secondary-vga", "05.0", OTHER)],
        )
        .asks("vfio.devs=00:05.0")
        .outcome("0000:00:05.0", "bound")
        .alive(BOOT)
        .maps("0000:00:05.0"),
    ];
    if takes_it {
        cases.extend([
            case("a kernel takes the console unexpectedly, and the log says so", two_cards())
                .claims("#1 SMP Debian 5.10.223-1 (2024-08-10)")
                .asks("vfio.devs=00:05.0")
                .outcome("0000:00:05.0", "bound")
                .later_alive(BOOT)
                .maps("0000:00:05.0")
                .logs("the console is lost: a graphics driver of the host brings it back"),
            case("the boot card stays and the second card waits for its driver", two_cards())
                .asks("vfio.devs=00:01.0,00:05.0")
                .outcome("0000:00:01.0", "refused")
                .outcome("0000:00:05.0", "reserved")
                .later("0000:00:05.0", "bound")
                .alive(BOOT)
                .maps("0000:00:05.0"),
        ]);
    }
    cases
}

/// The card that is given away is the one that the console is on, and there is another.
fn boot_card(line: &str) -> Vec<Case> {
    // There loading the other card's driver takes the firmware's framebuffer and the console.
    let driver_takes_it = line == "6.1";
    let boot_card = |name| case(name, two_cards()).asks("vfio.devs=00:01.0");
    vec![
        boot_card("the boot card is given away, the other card's driver in the initrd")
            .driver_in_initrd()
            .outcome("0000:00:01.0", "bound")
            .alive(OTHER)
            .maps("0000:00:01.0")
            .logs("the console goes on at 0000:00:05.0"),
        boot_card("the boot card is given away while udev loads the other card's driver")
            .beside_udev()
            .outcome("0000:00:01.0", "bound")
            .alive(OTHER)
            .maps("0000:00:01.0"),
        boot_card("the boot card is given away, the other card's driver comes later")
            .outcome("0000:00:01.0", "reserved")
            .later("0000:00:01.0", "bound")
            .alive(BOOT)
            .later_alive(OTHER)
            .maps("0000:00:01.0")
            .logs("driver of the other display, 0000:00:05.0 1234:1111, is not in this initrd")
            .when(!driver_takes_it, |case| case.logs("the console goes on at 0000:00:05.0")),
        boot_card("the boot card is given away, the other card's driver is blacklisted")
            .asks("vfio.devs=00:01.0 modprobe.blacklist=bochs,bochs_drm")
            .driver_in_initrd()
            .outcome("0000:00:01.0", "reserved")
            .later("0000:00:01.0", "bound")
            .alive(BOOT)
            .later_alive(OTHER)
            .maps("0000:00:01.0")
            .logs("driver of the other display, 0000:00:05.0 1234:1111, is blacklisted (bochs")
            .when(!driver_takes_it, |case| case.logs("the console goes on at 0000:00:05.0")),
        boot_card("the boot card is given away, no monitor is at the other card")
            .asks("vfio.devs=00:01.0 video=Virtual-1:d")
            .driver_in_initrd()
            .outcome("0000:00:01.0", "reserved")
            .unforeseen()
            // The other card's driver takes the firmware's framebuffer there, and makes none.
            .when(!driver_takes_it, |case| case.alive(BOOT))
            .when(driver_takes_it, |case| case.later("0000:00:01.0", "bound"))
            .logs("without a monitor the driver of 0000:00:05.0 makes none"),
        case(
            "a boot card of class 0380 is given away, the other card's driver in the initrd",
            [card("secondary-vga", "01.0", BOOT), card("VGA", "05.0", OTHER)],
        )
        .asks("vfio.devs=00:01.0")
        .driver_in_initrd()
        .outcome("0000:00:01.0", "bound")
        .alive(OTHER)
        .when(line != NIXOS, |case| case.maps("0000:00:01.0"))
        // simpledrm's memory stays set apart for as long as nothing evicts it.
        .when(line == NIXOS, |case| {
            case.logs("the firmware's framebuffer keeps its memory: the start of a VM will fail")
        }),
    ]
}

/// The card that is given away is the only one.
fn only_card() -> Vec<Case> {
    let only_card = |name| case(name, [card("VGA", "01.0", BOOT)]);
    vec![
        only_card("the only card stays with the host")
            .asks("vfio.devs=00:01.0")
            .outcome("0000:00:01.0", "refused")
            .alive(BOOT)
            .logs("add vfio.console=release to give it away"),
        only_card("the only card is given away by vfio.console=release")
            .asks("vfio.devs=00:01.0 vfio.console=release")
            .outcome("0000:00:01.0", "bound")
            .maps("0000:00:01.0")
            .shows("this picture stops here, and the boot goes on"),
        only_card("with a serial console alone every card can be given away")
            .starts(Start::Serial)
            .asks("vfio.devs=00:01.0")
            .outcome("0000:00:01.0", "bound")
            .maps("0000:00:01.0"),
    ]
}

/// BIOS firmware and no framebuffer: the console is in VGA's text mode.
fn text_mode(line: &str) -> Vec<Case> {
    // Only the firmware's own card needs its option ROM, which sets the mode.
    let boot = || card("VGA", "01.0", BOOT).option("romfile=vgabios-stdvga.bin");
    // Two VGA cards of QEMU on one bus would both answer at VGA's fixed addresses.
    let port = || card("pcie-root-port", "02.0", "port");
    let other = || card("VGA", "00.0", OTHER).below("port");
    let only_card = |name| case(name, [boot()]).starts(Start::TextMode);
    let two_cards = |name| case(name, [boot(), port(), other()]).starts(Start::TextMode);
    vec![
        two_cards("in text mode the second card is given away")
            .asks("vfio.devs=01:00.0")
            .outcome("0000:01:00.0", "bound")
            .alive(BOOT)
            .maps("0000:01:00.0"),
        two_cards("in text mode the boot card is given away, the other's driver in the initrd")
            .asks("vfio.devs=00:01.0")
            .driver_in_initrd()
            .outcome("0000:00:01.0", "bound")
            .alive(OTHER)
            .maps("0000:00:01.0")
            .logs("the console goes on at 0000:01:00.0"),
        only_card("in text mode the only card stays with the host")
            .asks("vfio.devs=00:01.0")
            .outcome("0000:00:01.0", "refused")
            .alive(BOOT),
        only_card("in text mode the only card is given away by vfio.console=release")
            .asks("vfio.devs=00:01.0 vfio.console=release")
            .outcome("0000:00:01.0", "bound")
            .maps("0000:00:01.0")
            .shows("is given away with the screen (vfio.console=release)")
            // There nothing takes the text mode away, and vgacon cannot be unbound.
            .when(line == "5.10", |case| case.alive(BOOT)),
    ]
}

/// A whole desktop.
fn whole_machines() -> Vec<Case> {
    let desktop = [
        card("VGA", "01.0", BOOT),
        card("pcie-root-port", "02.0", "port"),
        card("VGA", "00.0", OTHER).below("port"),
        card("ich9-intel-hda", "00.1", "audio").below("port"),
        card("e1000e", "03.0", "network"),
        card("qemu-xhci", "04.0", "usb"),
    ];
    vec![
        case("the desktop's own graphics device is on the list with all the others", desktop)
            .asks("vfio.devs=00:01.0,01:00.*,00:03.0,00:04.0")
            .outcome("0000:00:01.0", "refused")
            .outcome("0000:01:00.0", "bound")
            .outcome("0000:01:00.1", "bound")
            .outcome("0000:00:03.0", "bound")
            .outcome("0000:00:04.0", "bound")
            .alive(BOOT)
            .maps("0000:01:00.0")
            .logs("0000:00:01.0 1234:1111: refused: the host's console is on it")
            .logs("take it off the list"),
    ]
}
