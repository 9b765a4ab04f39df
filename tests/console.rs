//! The host's console: a host that had one keeps one, whatever is given away.

use vfio_early::kernel::Write;

use crate::check;
use crate::fake::{Fake, Fault};
use crate::journal;
use crate::machine::{Function, Line, Machine};
use crate::outcome::{assert_says, outcomes, words};

const BOOT: &str = "0000:00:02.0";
const SECOND: &str = "0000:01:00.0";
pub const VGA: u32 = 0x03_0000;
pub const OTHER: u32 = 0x03_8000;

/// A desktop with the firmware's framebuffer on its first graphics device.
pub fn two_displays(boot_class: u32, second_class: u32) -> Machine {
    let port = Function::new("0000:00:01.0", "8086:1901", 0x06_0400).built_in("pcieport");
    let second = Function::new(SECOND, "10de:1c03", second_class).below(&port).group(16);
    Machine::new([
        Function::new(BOOT, "8086:5912", boot_class).boot_vga().host("i915"),
        second.host("nouveau"),
        port,
        Function::new("0000:00:14.0", "8086:a12f", 0x0c_0330),
    ])
    .firmware_on(BOOT)
}

/// The console is drawn on a display that the host still has.
fn assert_alive(fake: &Fake, which: &str) {
    let on = fake.screen.console().unwrap_or_else(|| panic!("{which}: the screen is dark"));
    let driver = fake.driver(on);
    assert_ne!(driver.as_deref(), Some("vfio-pci"), "{which}: the console is on {on}");
}

#[test]
fn the_second_display_is_bound_and_the_console_goes_on() {
    for line in Line::ALL {
        for class in [VGA, OTHER] {
            let mut fake = two_displays(VGA, class).line(line).boot();
            let report = fake.bind("vfio.devs=01:00.0,00:14.0");
            assert_eq!(outcomes(&report), ["0000:00:14.0 bound", "0000:01:00.0 bound"]);
            assert_alive(&fake, &format!("{class:x} on {line:?}"));
        }
    }
}

#[test]
fn with_release_the_end_of_the_screen_is_announced_before_anything_can_bind() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).line(line).boot();
        let report = fake.bind("vfio.devs=00:02.0,01:00.0 vfio.console=release");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound", "0000:01:00.0 bound"], "{line:?}");
        let lines = fake.take_lines();
        let at = |text: &str| lines.iter().position(|line| line.contains(text));
        let announced = at("announce 0000:00:02.0 is given away with the screen");
        assert!(announced.is_some() && announced < at("load "), "{line:?}: {lines:#?}");
    }
}

/// On a root bus 6.1 takes the framebuffer for any VGA device with a shadowed ROM.
fn second_endangers(line: Line) -> Machine {
    let second = Function::new("0000:00:05.0", "1234:1111", VGA).rom_shadow().host("bochs-drm");
    let boot = Function::new(BOOT, "1234:1112", VGA).boot_vga().host("bochs2");
    Machine::new([boot, second]).firmware_on(BOOT).line(line)
}

#[test]
fn where_the_second_display_would_take_the_console_the_hosts_driver_comes_first() {
    for line in Line::ALL {
        let mut fake = second_endangers(line).boot();
        let report = fake.bind("vfio.devs=00:05.0");
        assert_eq!(outcomes(&report), ["0000:00:05.0 bound"], "{line:?}");
        assert_alive(&fake, &format!("{line:?}"));
        let lines = fake.take_lines();
        let at = |text: &str| lines.iter().position(|line| line.contains(text));
        assert_eq!(at("load bochs2").is_some(), line == Line::V6_1, "{lines:#?}");
        assert!(at("load bochs2") < at("load vfio"), "{lines:#?}");
    }
}

#[test]
fn where_the_hosts_driver_is_not_there_the_second_display_is_reserved_and_finished_later() {
    for line in Line::ALL {
        let mut fake = second_endangers(line).left_out("bochs2").boot();
        let report = fake.bind("vfio.devs=00:05.0");
        let expected = if line == Line::V6_1 { "reserved" } else { "bound" };
        assert_eq!(outcomes(&report), [format!("0000:00:05.0 {expected}")], "{line:?}");
        assert_alive(&fake, &format!("{line:?}"));
        if expected == "bound" {
            continue;
        }
        assert_says(&words(&report, "0000:00:05.0"), &["console", BOOT, "vfio-early bind"]);
        assert_eq!(report.exit_status, 1);
        fake.load("bochs-drm");
        assert_eq!(fake.driver("0000:00:05.0"), None, "the host's drivers leave it alone");
        // udev has loaded the driver of the other one from the real root.
        fake.provide("bochs2");
        let report = fake.bind("vfio.devs=00:05.0");
        assert_eq!(outcomes(&report), ["0000:00:05.0 bound"]);
        assert_alive(&fake, "later");
    }
}

#[test]
fn the_boot_display_is_given_away_when_the_other_one_can_have_the_console() {
    for line in Line::ALL {
        for class in [VGA, OTHER] {
            for slow in [false, true] {
                let which = format!("{class:x} on {line:?}, slow: {slow}");
                let mut fake = two_displays(class, VGA).line(line).boot();
                if slow {
                    fake.fault(Fault::SlowDisplays);
                }
                let report = fake.bind("vfio.devs=00:02.0");
                assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{which}");
                assert_alive(&fake, &which);
                assert_eq!(fake.screen.console(), Some(SECOND), "{which}");
                assert!(!fake.screen.keeps_memory_of(BOOT), "{which}: no VM can have it");
                assert_eq!(report.warnings, [""; 0], "{which}");
            }
        }
    }
}

#[test]
fn the_console_moves_before_any_vfio_module_is_loaded() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).line(line).boot();
        fake.bind("vfio.devs=00:02.0");
        let lines = fake.take_lines();
        let at = |text: &str| lines.iter().position(|line| line.contains(text));
        // Until then not even a driver that is there already can have it.
        assert_eq!(at("driver_override vfio-early-reserved"), Some(0), "{lines:#?}");
        assert_eq!(at("load nouveau"), Some(1), "{lines:#?}");
        assert_eq!(at("map consoles"), Some(2), "{lines:#?}");
        assert_eq!(at("driver_override vfio-pci"), Some(3), "{lines:#?}");
        assert_eq!(at("load vfio"), Some(4), "{lines:#?}");
    }
}

#[test]
fn the_boot_display_is_reserved_when_the_other_one_has_no_driver_yet() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).left_out("nouveau").line(line).boot();
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 reserved"], "{line:?}");
        assert_alive(&fake, &format!("{line:?}"));
        fake.load("i915");
        assert_eq!(fake.driver(BOOT), None, "reserved, so the host's driver leaves it alone");
        fake.provide("nouveau");
        fake.load("nouveau");
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{line:?}");
        assert_alive(&fake, &format!("{line:?}, later"));
    }
}

#[test]
fn a_driver_that_is_blacklisted_is_not_loaded_for_the_console() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).blacklisted("nouveau").line(line).boot();
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 reserved"], "{line:?}");
        let said =
            ["0000:01:00.0 10de:1c03, is blacklisted (nouveau)", "take it off the blacklist"];
        assert_says(&words(&report, BOOT), &said);
        assert!(!fake.take_lines().iter().any(|line| line.contains("nouveau")), "{line:?}");
        // As an administrator may, by hand.
        fake.load("nouveau");
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{line:?}");
        assert_alive(&fake, &format!("{line:?}, later"));
    }
}

#[test]
fn the_boot_display_is_reserved_when_the_other_ones_driver_makes_no_framebuffer() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).line(line).boot();
        fake.fault(Fault::NoFramebuffers);
        let report = fake.bind("vfio.devs=00:02.0,00:14.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 reserved", "0000:00:14.0 bound"], "{line:?}");
        assert_says(&words(&report, BOOT), &["framebuffer"]);
        assert_alive(&fake, &format!("{line:?}"));
    }
}

#[test]
fn without_a_monitor_on_the_other_display_that_is_said() {
    let connected = [("HDMI-A-1", "connected\n")];
    let none = [("HDMI-A-1", "disconnected\n"), ("DP-1", "disconnected\n")];
    for (outputs, is_said) in
        [(&none[..], true), (&none[..1], true), (&connected, false), (&[], false)]
    {
        let mut fake = two_displays(VGA, VGA).boot();
        fake.fault(Fault::NoFramebuffers);
        fake.load("nouveau");
        for (output, status) in outputs {
            let folder = format!("sys/bus/pci/devices/{SECOND}/drm/card0/card0-{output}");
            fake.tree.write(&format!("{folder}/status"), status);
        }
        let foreseen = check::words(&mut fake, "vfio.devs=00:02.0").join(" ");
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 reserved"], "{outputs:?}");
        let said = words(&report, BOOT);
        for text in [&foreseen, &said] {
            let has = text.contains("without a monitor the driver of 0000:01:00.0 makes none");
            assert_eq!(has, is_said, "{outputs:?}: {text}");
            assert_eq!(text.contains("vfio.console=release"), is_said, "{outputs:?}: {text}");
        }
        assert_alive(&fake, &format!("{outputs:?}"));
    }
}

#[test]
fn check_foresees_that_no_other_display_has_a_framebuffer() {
    for (driver, outcome, start) in [
        ("nouveau", "reserved", "0000:00:02.0 8086:5912: would be reserved: "),
        // It draws nothing, whatever it is told.
        ("pci-stub", "refused", "0000:00:02.0 8086:5912: would be refused: the host's console"),
    ] {
        let boot = Function::new(BOOT, "8086:5912", VGA).boot_vga().host("i915");
        let second = Function::new(SECOND, "10de:1c03", VGA).host(driver);
        let mut fake = Machine::new([boot, second]).firmware_on(BOOT).boot();
        fake.fault(Fault::NoFramebuffers);
        fake.load(driver);
        let lines = check::words(&mut fake, "vfio.devs=00:02.0");
        assert!(lines[0].starts_with(start), "{lines:#?}");
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), [format!("0000:00:02.0 {outcome}")]);
    }
}

#[test]
fn a_driver_that_udev_is_loading_is_waited_for() {
    let mut fake = two_displays(VGA, VGA).boot();
    fake.fault(Fault::SlowDisplays);
    fake.load("nouveau");
    fake.tree.write("sys/module/nouveau/initstate", "coming\n");
    fake.fault(Fault::Coming { module: "nouveau".into() });
    let report = fake.bind("vfio.devs=00:02.0");
    assert_eq!(outcomes(&report), ["0000:00:02.0 bound"]);
    assert_alive(&fake, "nouveau came up");
}

#[test]
fn the_only_display_is_refused_and_released_on_request() {
    for line in Line::ALL {
        let machine = || {
            let boot = Function::new(BOOT, "8086:5912", VGA).boot_vga().host("i915");
            Machine::new([boot]).firmware_on(BOOT).line(line)
        };
        let mut fake = machine().boot();
        let before = fake.tree.everything();
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 refused"], "{line:?}");
        assert_says(&words(&report, BOOT), &["console", "vfio.console=release"]);
        assert_eq!(fake.tree.everything(), before, "{line:?}");

        let report = fake.bind("vfio.devs=00:02.0 vfio.console=release");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{line:?}");
        let lines = fake.take_lines();
        let at = |text: &str| lines.iter().position(|line| line.contains(text));
        assert!(at("announce").is_some() && at("announce") < at("load "), "{lines:#?}");
        assert!(!fake.screen.keeps_memory_of(BOOT), "{line:?}: no VM can have it");
    }
}

#[test]
fn a_display_that_the_hosts_driver_has_is_taken_when_another_can_have_the_console() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).line(line).boot();
        fake.load("i915");
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{line:?}");
        assert_eq!(fake.screen.console(), Some(SECOND), "{line:?}");

        let mut fake = two_displays(VGA, VGA).line(line).boot();
        fake.load("i915");
        fake.load("nouveau");
        let report = fake.bind("vfio.devs=01:00.0");
        assert_eq!(outcomes(&report), ["0000:01:00.0 bound"], "{line:?}");
        assert_eq!(fake.screen.console(), Some(BOOT), "{line:?}");
    }
}

#[test]
fn a_display_that_the_hosts_driver_took_and_gave_up_has_no_console_to_keep() {
    for line in Line::ALL {
        let boot = Function::new(BOOT, "8086:5912", VGA).boot_vga().host("i915");
        let mut fake = Machine::new([boot]).firmware_on(BOOT).line(line).boot();
        fake.load("i915");
        let unbind = Write::Store {
            attribute: "bus/pci/drivers/i915/unbind".to_owned(),
            value: BOOT.to_owned(),
        };
        fake.answer(&unbind).expect("it has it");
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{line:?}");
    }
}

#[test]
fn of_two_listed_displays_the_one_with_the_console_stays_and_the_log_names_it() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).line(line).boot();
        let report = fake.bind("vfio.devs=00:02.0,01:00.0,00:14.0");
        assert_eq!(
            outcomes(&report),
            ["0000:00:02.0 refused", "0000:00:14.0 bound", "0000:01:00.0 bound"],
            "{line:?}"
        );
        assert_says(&words(&report, BOOT), &["take it off the list"]);
        assert_alive(&fake, &format!("{line:?}"));
    }
}

#[test]
fn a_machine_without_a_screen_gives_its_displays_away_at_once() {
    for line in Line::ALL {
        let mut machine = two_displays(VGA, VGA).line(line);
        machine.firmware_on = None;
        let mut fake = machine.boot();
        journal::start();
        let report = fake.bind("vfio.devs=00:02.0,01:00.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound", "0000:01:00.0 bound"], "{line:?}");
        assert!(fake.take_lines().iter().all(|line| !line.contains("load i915")));
        assert_eq!(journal::take(), []);
    }
}

#[test]
fn a_second_bind_after_the_hand_over_changes_nothing() {
    for line in Line::ALL {
        let mut fake = two_displays(VGA, VGA).line(line).boot();
        fake.bind("vfio.devs=00:02.0");
        let before = fake.tree.everything();
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{line:?}");
        assert_eq!(fake.tree.everything(), before, "{line:?}");
        assert_eq!(fake.screen.console(), Some(SECOND), "{line:?}");
    }
}

#[test]
fn a_display_that_is_given_away_already_is_bound_and_not_refused() {
    // 5.10 leaves the firmware's framebuffer on it; a run that was killed did not take it away.
    let boot = Function::new(BOOT, "8086:5912", VGA).boot_vga().host("i915");
    let mut fake = Machine::new([boot]).firmware_on(BOOT).line(Line::V5_10).boot();
    fake.load("vfio-pci");
    assert!(fake.bind_until_killed("vfio.devs=00:02.0 vfio.console=release", 4));
    assert_eq!(fake.driver(BOOT).as_deref(), Some("vfio-pci"));
    assert!(fake.screen.keeps_memory_of(BOOT));
    let report = fake.bind("vfio.devs=00:02.0");
    assert_eq!(outcomes(&report), ["0000:00:02.0 bound"]);
    assert_eq!(fake.driver(BOOT).as_deref(), Some("vfio-pci"));
}

#[test]
fn a_listed_display_that_stays_all_the_same_can_have_the_console_of_another() {
    let mut fake = second_endangers(Line::V6_1).boot();
    let report = fake.bind("vfio.devs=00:02.0,00:05.0");
    assert_eq!(outcomes(&report), ["0000:00:02.0 refused", "0000:00:05.0 bound"]);
    assert_alive(&fake, "6.1");
}

#[test]
fn a_framebuffer_of_a_device_tree_is_as_good_as_any() {
    for line in Line::ALL {
        for class in [VGA, OTHER] {
            let which = format!("{class:x} on {line:?}");
            let mut fake = two_displays(class, VGA).by_device_tree().line(line).boot();
            let foreseen = check::words(&mut fake, "vfio.devs=00:02.0").join(" ");
            assert_says(&foreseen, &["the console would be kept, on 0000:01:00.0 (load nouveau)"]);
            let report = fake.bind("vfio.devs=00:02.0");
            assert_eq!(outcomes(&report), ["0000:00:02.0 bound"], "{which}");
            assert_eq!(fake.screen.console(), Some(SECOND), "{which}");
            assert!(!fake.screen.keeps_memory_of(BOOT), "{which}: no VM can have it");
            assert_eq!(report.warnings, [""; 0], "{which}");

            let mut fake = two_displays(VGA, class).by_device_tree().line(line).boot();
            let report = fake.bind("vfio.devs=01:00.0");
            assert_eq!(outcomes(&report), ["0000:01:00.0 bound"], "{which}");
            assert_eq!(fake.screen.console(), Some(BOOT), "{which}");
            assert!(!fake.take_lines().iter().any(|line| line.contains("load i915")), "{which}");
        }
    }
}

#[test]
fn the_only_display_is_refused_with_a_framebuffer_of_a_device_tree_too() {
    for line in Line::ALL {
        let boot = Function::new(BOOT, "1234:1111", VGA).host("bochs-drm");
        let mut fake = Machine::new([boot]).firmware_on(BOOT).by_device_tree().line(line).boot();
        let report = fake.bind("vfio.devs=00:02.0");
        assert_eq!(outcomes(&report), ["0000:00:02.0 refused"], "{line:?}");
        assert_says(&words(&report, BOOT), &["the host's console is on it"]);
    }
}

#[test]
fn a_framebuffer_in_ram_keeps_no_display_but_what_the_kernel_evicts_it_for() {
    for line in Line::ALL {
        for by_tree in [false, true] {
            for (class, is_evicted) in
                [(OTHER, false), (0x03_0200, false), (VGA, line >= Line::V6_12 && !by_tree)]
            {
                let which = format!("{class:x} on {line:?}, of a device tree: {by_tree}");
                let card = Function::new(SECOND, "1234:1111", class);
                let mut machine = Machine::new([card]).firmware_on("RAM").line(line);
                if by_tree {
                    machine = machine.by_device_tree();
                }
                let mut fake = machine.boot();
                let report = fake.bind("vfio.devs=01:00.0");
                let expected = if is_evicted { "refused" } else { "bound" };
                assert_eq!(outcomes(&report), [format!("0000:01:00.0 {expected}")], "{which}");
                assert_eq!(fake.screen.console(), Some("RAM"), "{which}");
                assert_eq!(report.warnings, [""; 0], "{which}");
                if is_evicted {
                    assert_says(&words(&report, SECOND), &["would end the host's console"]);
                }
            }
        }
    }
}
