//! What a running host is using right now, and a root disk that a hook's record keeps; those of real
//! initrds are cases of [`debian`](crate::checks::debian) and [`dracut`](crate::checks::dracut).

use crate::check::Boot;
use crate::check::trial::{self, Check, Trial};
use crate::machine::topology::Device;
use crate::machine::vm::Vm;

/// All of them.
pub(crate) fn boots() -> Vec<Boot> {
    trial::boots(&all())
}

fn all() -> Vec<Trial> {
    let trial = |name, machine, expect| Trial::new(name, &["6.1"], machine, expect);
    vec![
        trial(
            "in use: a card, a sound device and a keyboard stay with the host until nobody has them",
            in_use,
            in_use_expected,
        ),
        trial(
            "mkinitcpio: a root disk that is listed in any way stays, and with vfio.host=release goes",
            by_hook,
            by_hook_expected,
        ),
    ]
}

const CARD: &str = "0000:00:03.0";
const USB: &str = "0000:00:05.0";
const SOUND: &str = "0000:00:06.0";
const IN_USE: &str = "vfio.devs=1234:1111@00:03.0,00:05.0,00:06.0";

/// A host with two displays, of which the first is to be given away.
fn in_use(machine: Vm) -> Vm {
    // Its root is no initrd's.
    let bind = |more: &str| {
        let items = format!("{IN_USE}{more}");
        ["chroot", "/host", "/bin/vfio-early", "bind", "--cmdline", &items].map(str::to_owned)
    };
    machine
        .device("secondary-vga", "03.0")
        .device("secondary-vga", "04.0")
        .arguments(["-device", "qemu-xhci,id=usb,addr=05.0", "-device", "usb-kbd,bus=usb.0"])
        .arguments(["-audiodev", "none,id=quiet", "-device", "intel-hda,id=hda,addr=06.0"])
        .arguments(["-device", "hda-output,bus=hda.0,audiodev=quiet"])
        .load(["bochs", "xhci_pci", "usbhid", "hid_generic"])
        .load(["snd_hda_intel", "snd_hda_codec_generic"])
        .shell(
            "mkdir /host && mount -t tmpfs host /host && cd /host && mkdir bin && \
             cp /bin/vfio-early bin && for folder in dev lib proc run sys; do mkdir $folder && \
             mount --bind /$folder $folder; done; \
             until [ -e /dev/dri/card0 ] && [ -e /dev/snd/pcmC0D0p ] && \
             grep -q 'USB Keyboard' /sys/class/input/*/name; do sleep 0.1; done; \
             ls -l /sys/class/drm/card0",
        )
        .shell(
            "sleep 1000 </dev/dri/card0 & echo $! >/tmp/drawing; \
             sleep 1001 >/dev/snd/pcmC0D0p & echo $! >/tmp/playing; \
             for holder in drawing playing; do until grep '(sleep) S' /proc/$(cat /tmp/$holder)/stat; \
             do sleep 0.1; done; done",
        )
        .run_by(bind(""))
        .shell("cat /tmp/drawing /tmp/playing; kill $(cat /tmp/drawing); sleep 0.2")
        .run_by(bind(""))
        .shell("kill $(cat /tmp/playing); sleep 0.2")
        .run_by(bind(" vfio.host=release"))
}

fn in_use_expected(check: &mut Check<'_>) {
    let first = check.shell(1);
    check.is(first.contains("/0000:00:03.0/drm/card0"), format!("card0 is {first:?}"));
    let (started, holders) = (check.shell(2), check.shell(3));
    check.is(started.matches("(sleep) S").count() == 2, format!("nobody holds them: {started:?}"));
    let holders: Vec<&str> = holders.lines().collect();
    let [drawing, playing] = holders[..] else {
        return check.complain(format!("the holders are {holders:?}"));
    };
    let drawing = format!("sleep ({drawing}) has /dev/dri/card0 open");
    let playing = format!("a stream of sleep ({playing}) runs on card 0");
    let keyboard = "the keyboard \"QEMU QEMU USB Keyboard\" hangs on it";
    check
        .of_run(1)
        .exits(1)
        .device(CARD, "refused", &[&drawing, "systemctl stop display-manager"])
        .device(SOUND, "refused", &[&playing])
        .device(USB, "refused", &[keyboard, "boot with the device listed"])
        .driver(CARD, Some("bochs-drm"))
        .driver(SOUND, Some("snd_hda_intel"))
        .driver(USB, Some("xhci_hcd"))
        .override_of(CARD, None);
    check
        .of_run(2)
        .exits(1)
        .device(CARD, "bound", &[])
        .device(SOUND, "refused", &[&playing])
        .device(USB, "refused", &[keyboard]);
    check.of_run(3).exits(0).device(CARD, "bound", &[]).device(SOUND, "bound", &[]).device(
        USB,
        "bound",
        &[],
    );
}

const DISK: &str = "0000:00:04.0";
const TWIN: &str = "0000:00:05.0";
/// As mkinitcpio's install hook puts it there; the tests beside `tests/mkinitcpio` hold that it does.
const RECORD: &str = "disk 1b36:0010@00:04.0  # nvme0n1 is mounted on /\n";

/// Each way to list the root disk, and how the disk and its twin come out.
const WAYS: [(&str, &str, &str); 4] = [
    ("00:04.0", "refused", ""),
    ("pci:1b36:0010", "refused", "bound"),
    ("group:1b36:0010@00:04.0", "refused", ""),
    ("00:04.0 vfio.host=release", "bound", ""),
];

/// The twin alone, the second time by who wants no record.
const WITHOUT_RECORD: [&str; 2] = ["1b36:0010@00:05.0", "1b36:0010@00:05.0 vfio.host=release"];

/// mkinitcpio's runtime hook, sourced by busybox' ash; then the driver of the disk comes, and its file
/// system is mounted.
fn by_hook(machine: Vm) -> Vm {
    let twin = || Device::new("nvme", "05.0").option("drive=twin");
    let mut machine = machine
        .with(Device::new("nvme", "04.0").option("drive=data"))
        .disk("data")
        .with(twin())
        .disk("twin")
        .file("/etc/vfio-early/keep", RECORD)
        .file("/hooks/vfio-early", include_str!("../../../initrd/mkinitcpio/hooks/vfio-early"))
        .modules(["nvme"])
        .load(["crc32c_generic", "ext4", "nvme"])
        .shell(
            "mkdir -p /usr/bin /new_root; ln -s /bin/vfio-early /usr/bin/vfio-early; \
             until [ -e /dev/nvme0n1 ]; do sleep 0.1; done; mke2fs -F /dev/nvme0n1 >/dev/null && \
             mount -t ext4 /dev/nvme0n1 /new_root && echo the root is here >/new_root/file && \
             umount /new_root && rmmod nvme && echo ready",
        );
    for (items, ..) in WAYS {
        machine = machine
            .shell(&format!(
                "umount /proc/cmdline 2>/dev/null; echo vfio.devs={items} >/tmp/cmdline; \
                 mount --bind /tmp/cmdline /proc/cmdline && cat /proc/cmdline"
            ))
            .run_by(["sh", "-c", ". /hooks/vfio-early; run_earlyhook; run_hook; exit $vfio_early_status"])
            .shell(
                "modprobe nvme; for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/nvme0n1 ] || sleep 0.1; \
                 done; mount -t ext4 /dev/nvme0n1 /new_root && cat /new_root/file; umount /new_root; \
                 rmmod nvme; cat /run/vfio-early/keep",
            );
    }
    // Of an initrd that was made before there were records.
    for items in WITHOUT_RECORD {
        machine = machine
            .shell(&format!(
                "rm -f /etc/vfio-early/keep; umount /proc/cmdline; echo vfio.devs={items} >/tmp/cmdline; \
                 mount --bind /tmp/cmdline /proc/cmdline"
            ))
            .run_by(["sh", "-c", ". /hooks/vfio-early; run_earlyhook; run_hook; exit $vfio_early_status"]);
    }
    machine
}

fn by_hook_expected(check: &mut Check<'_>) {
    let said = check.shell(1);
    check.is(said == "ready\n", format!("the disk is not made: {said:?}"));
    for (number, (items, of_disk, of_twin)) in (1..).zip(WAYS) {
        let said = check.shell(2 * number);
        check.is(said == format!("vfio.devs={items}\n"), format!("the command line is {said:?}"));
        let is_kept = of_disk == "refused";
        let texts: &[&str] = if is_kept {
            &["the host lives from this disk", "nvme0n1 is mounted on /", "vfio.host=release"]
        } else {
            &[]
        };
        let run = check.of_run(number).exits(i32::from(is_kept)).device(DISK, of_disk, texts);
        if of_twin.is_empty() {
            run
        } else {
            run.device(TWIN, of_twin, &[])
        };
        let said = check.shell(2 * number + 1);
        check.is(
            said.contains("the root is here\n") == is_kept,
            format!("{items}: the root file system is mounted: {said:?}"),
        );
        check.is(said.ends_with(RECORD), format!("the record is not in /run: {said:?}"));
    }
    let said = "this initrd has no record of what the host lives from";
    check.of_run(WAYS.len() + 1).exits(0).says(&[said, "make the initrd anew"]);
    check.of_run(WAYS.len() + 2).exits(0).says_nothing_of(said);
}
