//! A root on an encrypted disk: the passphrase is asked for in the initrd, on the display that stays.

use anyhow::Result;

use super::image::{self, Image, PASSPHRASE, PROFILES};
use super::system::DEBIAN_13;
use crate::check::real_root::{
    self, NETWORK, Seen, Wrong, bound, entries, in_the_real_root_on, without_udev,
};
use crate::machine::run::Run;
use crate::machine::screen::{Font, Screenshot};
use crate::machine::topology::Device;
use crate::machine::vm::Vm;
use crate::supplies::kernels;

/// The graphics card that the firmware draws on, and the one that stays with the host.
const BOOT_SCREEN: &str = "boot";
const OTHER_SCREEN: &str = "other";
/// The pictures of all characters, of the question, and after a wrong answer.
const CHARACTERS: &str = "characters";
const QUESTION: &str = "question";
const AGAIN: &str = "again";

/// Two graphics cards; the one with the firmware's screen is given away, and a network card.
pub(super) fn locked(image: &Image) -> Vm {
    let card = |place, name| Device::new("VGA", place).named(name);
    let cards = [card("01.0", BOOT_SCREEN), card("07.0", OTHER_SCREEN)];
    real_root::machine(&image.kernel, &image.initrd_encrypted, &image.encrypted, cards)
        .memory(1024)
        .cmdline(PROFILES)
        .cmdline("root=/dev/mapper/host-root rootfstype=ext4 rw console=tty0")
        .cmdline("vfio.strict vfio.devs=00:01.0,8086:10d3@00:03.0")
        .cmdline(&format!("harness.passphrase={PASSPHRASE}"))
        .uefi()
        .display(BOOT_SCREEN)
        .display(OTHER_SCREEN)
        .asks()
}

pub(super) fn unlocked(seen: &Seen, wrong: &mut Wrong) {
    in_the_real_root_on("/dev/mapper/host-root", seen, wrong);
    without_udev(seen, wrong);
    bound(seen, wrong, &["0000:00:01.0", NETWORK], &[]);
    let disk = "disk 1af4:1001@00:02.0  # vda is part of dm-0, and dm-0 is part of dm-1, and dm-1 is mounted on /\n";
    wrong.unless(
        entries(seen.lives_from) == disk,
        format!("`vfio-early keep` says {:?}", seen.lives_from),
    );
    if let Err(error) = question(seen.run, wrong) {
        wrong.0.push(format!("{error:#}"));
    }
}

/// The question on the display that stays, in Debian 13.
///
/// # Errors
/// When something cannot be set up, or the machine does not come to its end.
pub(crate) fn picture() -> Result<Screenshot> {
    let kernel = kernels::set_up(DEBIAN_13.kernel)?;
    let image = image::set_up(&DEBIAN_13, &kernel)?;
    Screenshot::read(&locked(&image).boot()?.picture(QUESTION, OTHER_SCREEN))
}

/// The question, and what follows, can be read on the display that stays.
fn question(run: &Run, wrong: &mut Wrong) -> Result<()> {
    let picture = |name| Screenshot::read(&run.picture(name, OTHER_SCREEN));
    let font = Font::learn(&picture(CHARACTERS)?)?;
    for (name, wanted) in
        [(QUESTION, "Please unlock disk root"), (AGAIN, "cryptsetup failed, bad password")]
    {
        let text = font.text(&picture(name)?);
        wrong.unless(
            text.contains(wanted),
            format!("the display that stays shows, and not {wanted:?}:\n{}", text.trim_end()),
        );
    }
    Ok(())
}
