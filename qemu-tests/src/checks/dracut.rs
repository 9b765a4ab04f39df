//! vfio-early in initrds that dracut makes without systemd; those with it are cases of
//! [`systemd`](crate::checks::systemd).

pub(crate) mod image;

use std::path::Path;

use self::image::{Image, Init};
use crate::check::Boot;
use crate::check::real_root::{
    self, DISK, NETWORK, Seen, USB, Wrong, bound, in_the_real_root, one_bound_one_absent,
    root_disk_kept, root_disk_released, untouched, without_udev,
};
use crate::machine::observed::HOST;
use crate::supplies::binary;
use crate::supplies::kernels::Kernel;

const ALL_BOUND: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0";
/// The driver of the device that is there is the first that dracut loads.
const ONE_ABSENT: &str = "rd.driver.pre=e1000e vfio.devs=8086:10d3@00:03.0,00:1e.0";
const ONE_ABSENT_STRICT: &str = "vfio.strict vfio.devs=8086:10d3@00:03.0,00:1e.0";

const LINES: [&str; 2] = ["6.1", "6.12"];

/// What is made once, with a look into it.
pub(crate) fn listings() -> Vec<Boot> {
    let listing = |kernel| Boot {
        name: "dracut: the initrd has the program, its modules, and drivers of displays that stay"
            .to_owned(),
        kernel,
        check: Box::new(|kernel, program, _| {
            image(kernel, program).and_then(|image| placed(&image)).into()
        }),
    };
    LINES.map(listing).into()
}

/// Every machine.
pub(crate) fn boots() -> Vec<Boot> {
    LINES.into_iter().flat_map(boots_on).collect()
}

fn boots_on(line: &'static str) -> Vec<Boot> {
    let boot = |name: &str, command_line: &'static str, check: fn(&Seen, &mut Wrong)| Boot {
        name: format!("dracut: {name}"),
        kernel: line,
        check: Box::new(move |kernel, program, _| {
            let boot = |image: Image| {
                let machine = real_root::machine(kernel, &image.initrd, &image.root, [])
                    .cmdline("root=/dev/vda rootfstype=ext4 rw")
                    .cmdline(command_line);
                real_root::boot(machine, check)
            };
            image(kernel, program).and_then(boot).into()
        }),
    };
    let mut boots = vec![
        boot(
            "vfio.strict with an absent device stops the boot in the emergency shell",
            ONE_ABSENT_STRICT,
            stopped,
        ),
        boot("without vfio.devs= the program says and does nothing", "vfio.strict", nothing),
        boot("without vfio.strict the boot goes on, and says so", ONE_ABSENT, going_on),
    ];
    if line == "6.1" {
        boots.extend([
            boot(
                "devices are bound before udev starts, and still after coldplug in the real root",
                ALL_BOUND,
                all_bound,
            ),
            boot(
                "a root disk that is listed by its address stays with the host",
                "vfio.devs=8086:10d3@00:03.0,00:02.0",
                root_disk_kept,
            ),
            boot(
                "a root disk that is listed by its id stays with the host",
                "vfio.devs=8086:10d3@00:03.0,pci:1af4:1001",
                root_disk_kept,
            ),
            boot(
                "a root disk that is listed by its group stays with the host",
                "vfio.devs=8086:10d3@00:03.0,group:00:02.0",
                root_disk_kept,
            ),
            boot(
                "a root disk that is listed goes with vfio.host=release",
                "vfio.devs=00:02.0 vfio.host=release rd.retry=5",
                root_disk_released,
            ),
        ]);
    }
    boots
}

fn image(kernel: &Kernel, program: &Path) -> Result<Image, String> {
    image::units(&binary::workspace().join("initrd/systemd"))
        .and_then(|units| image::set_up(kernel, program, &units, Init::Shell))
        .map_err(|error| format!("{error:#}"))
}

/// The driver of a display that stays, and neither that of another, of a 3D controller, one that is
/// blacklisted, nor any other.
fn placed(image: &Image) -> Result<(), String> {
    let mut wrong = Wrong::default();
    for (files, mode) in image.files.iter().zip(["--no-hostonly", "--hostonly"]) {
        for (file, is_wanted) in [
            ("/vfio-early", true),
            ("/vfio-pci.ko", true),
            ("/vfio_iommu_type1.ko", true),
            ("/cirrus.ko", true),
            ("/cirrusfb.ko", false),
            ("/bochs.ko", false),
            ("/nouveau.ko", false),
            ("/igb.ko", false),
        ] {
            let is_there = files.lines().any(|path| path.contains(file));
            wrong.unless(is_there == is_wanted, format!("{mode}: {file} is there: {is_there}"));
        }
    }
    if wrong.0.is_empty() { Ok(()) } else { Err(wrong.0.join("\n")) }
}

fn all_bound(seen: &Seen, wrong: &mut Wrong) {
    without_udev(seen, wrong);
    in_the_real_root(seen, wrong);
    bound(seen, wrong, &[NETWORK, DISK, USB], &[]);
}

fn going_on(seen: &Seen, wrong: &mut Wrong) {
    without_udev(seen, wrong);
    in_the_real_root(seen, wrong);
    bound(seen, wrong, &[NETWORK], &["absent"]);
    one_bound_one_absent(seen, wrong);
    let is_said = seen.first("vfio-early", "00:1e.0: absent").is_some();
    wrong.unless(is_said, "the log does not say that a device is absent");
}

fn nothing(seen: &Seen, wrong: &mut Wrong) {
    wrong.unless(seen.spoken().is_none(), "the program said something");
    untouched(seen, wrong);
}

/// In the shell, which comes after udev has brought up the keyboard: the network card that nobody
/// asks for has its driver.
fn stopped(seen: &Seen, wrong: &mut Wrong) {
    without_udev(seen, wrong);
    let is_root = |line: &str| line.starts_with("/dev/vda ");
    wrong.unless(!seen.mounts.is_empty(), "there are no mounts");
    wrong.unless(!seen.mounts.lines().any(is_root), "the real root is mounted");
    for text in
        ["Warning: vfio.strict is given, and not all of vfio.devs=", "Dropping to debug shell"]
    {
        let is_shown = seen.run.console.contains(text);
        wrong.unless(is_shown, format!("the console does not show: {text}"));
    }
    let other = seen.driver(HOST, real_root::OTHER_NETWORK);
    wrong.unless(other == Some("e1000e"), format!("the other network card is on {other:?}"));
    one_bound_one_absent(seen, wrong);
}
