//! What is in use right now is not taken from under its user.

use super::hosts;
use crate::fake::Fake;
use crate::outcome::{assert_says, obstacles, outcomes, words};

/// A process that has these files open.
fn process(fake: &Fake, number: u32, name: &str, open: &[&str]) {
    fake.tree.write(&format!("proc/{number}/comm"), &format!("{name}\n"));
    fake.tree.folder(&format!("proc/{number}/fd"));
    for (at, file) in ["/dev/null", "socket:[1234]"].iter().chain(open).enumerate() {
        fake.tree.link(&format!("proc/{number}/fd/{at}"), file);
    }
}

/// The files of a graphics card.
fn nodes(fake: &Fake, place: &str, names: &[&str]) {
    for name in names {
        fake.below(place, "drm", &format!("drm/{name}"));
    }
}

const CARD: &str = "00:01.1/01:00.0";

/// The APU's host with a desktop on both cards; the discrete one is to be given away.
fn desktop() -> Fake {
    let fake = hosts::apu().running();
    nodes(&fake, CARD, &["card0", "card0-HDMI-A-1", "renderD128"]);
    nodes(&fake, "00:08.1/30:00.0", &["card1", "renderD129"]);
    process(&fake, 1, "systemd", &["/dev/kmsg"]);
    process(&fake, 640, "pipewire", &["/dev/snd/controlC0"]);
    fake
}

const LISTED: &str = "vfio.devs=1002:744c@01:00.0";

/// That the card is left alone, in these words.
fn assert_kept(mut fake: Fake, said: &[&str]) {
    let before = fake.tree.everything();
    let report = fake.bind(LISTED);
    assert_eq!(outcomes(&report), ["0000:01:00.0 refused"], "{said:?}");
    assert_says(&words(&report, "0000:01:00.0"), said);
    assert_eq!(fake.tree.everything(), before, "{said:?}");
}

#[test]
fn a_card_that_a_process_has_open_is_kept_until_the_process_ends() {
    for file in ["/dev/dri/card0", "/dev/dri/renderD128"] {
        let fake = desktop();
        process(&fake, 812, "Xorg", &[file]);
        assert_kept(fake, &["Xorg (812) has ", file, "systemctl stop display-manager"]);
    }
    let fake = desktop();
    for number in 900..905 {
        process(&fake, number, "firefox", &["/dev/dri/renderD128"]);
    }
    let said =
        "firefox (900), firefox (901), firefox (902) and 2 more have /dev/dri/renderD128 open";
    assert_kept(fake, &[said]);
    // Others have the other card, or files that are called alike; or nobody has any.
    for file in
        ["/dev/dri/card1", "/dev/dri/card01", "/tmp/dev/dri/card0", "/dev/dri/card0-HDMI-A-1"]
    {
        let mut fake = desktop();
        process(&fake, 812, "Xorg", &[file]);
        assert_eq!(outcomes(&fake.bind(LISTED)), ["0000:01:00.0 bound"], "{file}");
    }
}

/// By its class an accelerator is no display, and what runs on it ends with it all the same.
#[test]
fn an_accelerator_that_a_process_has_open_is_kept() {
    let item = "vfio.devs=1002:74a0@00:1c.0/00.0";
    for (class, name, file, is_its) in [
        ("drm", "renderD130", "/dev/dri/renderD130", true),
        ("accel", "accel0", "/dev/accel/accel0", true),
        ("accel", "accel0", "/dev/accel/accel1", false),
        ("accel", "accel0", "/dev/accel0", false),
    ] {
        let mut fake = hosts::odd_classes().running();
        fake.below("00:1c.0/01:00.0", class, &format!("{class}/{name}"));
        process(&fake, 812, "python3", &[file]);
        let report = fake.bind(item);
        let expected = if is_its { "refused" } else { "bound" };
        assert_eq!(outcomes(&report), [format!("0000:01:00.0 {expected}")], "{file}");
        if is_its {
            let said = format!("python3 (812) has {file} open");
            assert_says(&words(&report, "0000:01:00.0"), &[&said]);
        }
    }
}

#[test]
fn a_framebuffer_that_a_process_has_open_keeps_its_card() {
    for (framebuffer, is_its) in [("fb0", true), ("fb1", false)] {
        let mut fake = desktop();
        let link = format!("sys/class/graphics/{framebuffer}/device");
        let is_on_card = std::fs::canonicalize(fake.tree.root().join(link))
            .is_ok_and(|path| path.ends_with("0000:01:00.0"));
        assert_eq!(is_on_card, is_its, "{framebuffer}");
        process(&fake, 300, "fbterm", &[&format!("/dev/{framebuffer}")]);
        if is_its {
            assert_kept(fake, &["fbterm (300) has /dev/fb0 open"]);
        } else {
            assert_eq!(outcomes(&fake.bind(LISTED)), ["0000:01:00.0 bound"]);
        }
    }
}

/// The closed driver's files are no node of the device in sysfs.
#[test]
fn nvidias_files_keep_their_card() {
    let fake = desktop();
    let gpu = "proc/driver/nvidia/gpus/0000:01:00.0/information";
    fake.tree.write(gpu, "Model: \t\t NVIDIA GeForce\nDevice Minor: \t 3\nGPU Excluded:\t No\n");
    process(&fake, 700, "nvidia-persiste", &["/dev/nvidia3", "/dev/nvidiactl"]);
    assert_kept(fake, &["nvidia-persiste (700) has /dev/nvidia3 open"]);
    let mut fake = desktop();
    fake.tree.write(gpu, "Device Minor: \t 3\n");
    process(&fake, 700, "cuda", &["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
    assert_eq!(outcomes(&fake.bind(LISTED)), ["0000:01:00.0 bound"]);
}

/// A VM that got it by its path has no mount of it, and claims nothing.
#[test]
fn a_disk_that_a_process_has_open_is_kept() {
    for (name, file, is_kept) in [
        ("qemu-system-x86", "/dev/nvme1n1", true),
        ("dd", "/dev/nvme1n1p1", true),
        ("dd", "/dev/nvme0n1", false),
        ("dd", "/dev/nvme1n1p2", false),
        // It has a look, and comes back when the disk goes.
        ("(udev-worker)", "/dev/nvme1n1", false),
        ("systemd-udevd", "/dev/nvme1n1p1", false),
    ] {
        let mut fake = hosts::twin_disks().running();
        process(&fake, 812, name, &[file]);
        let report = fake.bind("vfio.devs=1b36:0010@02:00.0");
        let expected = if is_kept { "refused" } else { "bound" };
        assert_eq!(outcomes(&report), [format!("0000:02:00.0 {expected}")], "{name} {file}");
        if is_kept {
            let said = format!("the host uses it: {name} (812) has {file} open; stop that first");
            assert_says(&words(&report, "0000:02:00.0"), &[&said]);
        }
    }
}

/// Even if the screen may go dark: it would go dark under somebody's hands.
#[test]
fn neither_console_nor_host_release_what_a_process_has_open() {
    let mut fake = desktop();
    process(&fake, 812, "Xorg", &["/dev/dri/card0"]);
    let report = fake.bind(&format!("{LISTED} vfio.console=release vfio.host=release"));
    assert_eq!(outcomes(&report), ["0000:01:00.0 refused"]);
}

#[test]
fn a_sound_card_is_kept_while_a_stream_runs() {
    let closed = ("sub0", "closed\n");
    let running = ("sub1", "state: RUNNING\nowner_pid   : 640\ntrigger_time: 1.2\n");
    for (streams, said) in [
        (&[closed, running][..], Some("a stream of pipewire (640) runs on card 1")),
        (&[closed, ("sub1", "state: PAUSED\n")], Some("a stream runs on card 1")),
        (&[closed], None),
        // A file beside the streams.
        (&[("info", "state: RUNNING\n")], None),
        (&[], None),
    ] {
        let mut fake = desktop();
        for name in ["card1", "controlC1", "pcmC1D3p"] {
            fake.below("00:01.1/01:00.1", "sound", &format!("sound/card1/{name}"));
        }
        for (stream, status) in streams {
            fake.tree.write(&format!("proc/asound/card1/pcm3p/{stream}/status"), status);
        }
        let report = fake.bind("vfio.devs=1002:ab30@01:00.1");
        let expected = if said.is_some() { "refused" } else { "bound" };
        assert_eq!(outcomes(&report), [format!("0000:01:00.1 {expected}")], "{streams:?}");
        if let Some(said) = said {
            let words = words(&report, "0000:01:00.1");
            assert_says(&words, &[said, "stop what plays or records"]);
        }
    }
}

#[test]
fn a_keyboard_that_somebody_may_type_on_stays_on_a_running_host_alone() {
    let item = "vfio.devs=1022:15b6@30:00.3";
    let mut fake = desktop();
    let report = fake.bind(item);
    assert_eq!(outcomes(&report), ["0000:30:00.3 refused"]);
    let said = "the keyboard \"Cherry Keyboard\" hangs on it; plug that in elsewhere, or boot with the device listed";
    assert_says(&words(&report, "0000:30:00.3"), &[said]);
    let report = fake.bind(&format!("vfio.host=release {item}"));
    assert_eq!(outcomes(&report), ["0000:30:00.3 bound"]);
    // A mouse is none.
    assert_eq!(outcomes(&desktop().bind("vfio.devs=30:00.4")), ["0000:30:00.4 bound"]);
    // In an initrd whose kernel has the drivers built in the keyboard may be there, or not yet.
    let mut fake = desktop();
    fake.mounts(&["1 1 0:2 / / rw - rootfs rootfs rw"]);
    assert_eq!(outcomes(&fake.bind(item)), ["0000:30:00.3 bound"]);
}

/// That of a laptop hangs on no USB controller.
#[test]
fn a_keyboard_on_i2c_stays_like_any_other() {
    let board = hosts::odd_classes();
    for (release, expected) in [("", "refused"), ("vfio.host=release ", "bound")] {
        let report = board.running().bind(&format!("{release}vfio.devs=8086:51e8@00:15.0"));
        assert_eq!(outcomes(&report), [format!("0000:00:15.0 {expected}")]);
    }
    let record = super::record(&board.running());
    assert!(record.contains("keyboard 8086:51e8@00:15.0  # ELAN Keyboard\n"), "{record}");
}

/// The process comes after the next boot's initrd.
#[test]
fn a_neighbour_that_is_only_in_use_now_may_be_listed_for_the_next_boot() {
    let board = hosts::single_gpu();
    let fake = &mut board.running();
    nodes(fake, "00:01.0/01:00.0", &["card0"]);
    process(fake, 812, "Xorg", &["/dev/dri/card0"]);
    let report = fake.bind("vfio.devs=1002:aaf0@01:00.1");
    assert_says(
        &obstacles(&report, "0000:01:00.1"),
        &["amdgpu has 0000:01:00.0 1002:67df", "list it, too"],
    );
}
