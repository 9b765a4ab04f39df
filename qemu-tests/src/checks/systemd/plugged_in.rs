//! What is plugged into root ports while the host runs.

use crate::check::real_root::{Seen, Wrong};

/// The host's driver of those of the first kind is loaded, for the card that nobody asks for.
pub(super) const MODELS: [&str; 10] =
    ["e1000e", "nvme", "e1000e", "nvme", "e1000e", "nvme", "e1000e", "nvme", "e1000e", "e1000e"];

/// Each that is listed is bound, whether its driver was loaded or not, also when all come at once; what is
/// another device than the guard wants is the host's; one that goes at once spoils nothing, and comes to
/// vfio-pci when it comes again.
pub(super) fn holds(seen: &Seen, wrong: &mut Wrong) {
    let last = MODELS.len() - 1;
    for moment in ["plugged in", "came again", "came once more"] {
        let prefix = format!("{moment}: ");
        let told = seen.given_back.lines().filter_map(|line| line.strip_prefix(&*prefix));
        let told: Vec<&str> = told.collect();
        for (number, model) in MODELS.iter().enumerate() {
            let port = format!("0000:00:{:02x}.0", 8 + number);
            let driver = if number == last { "e1000e" } else { "vfio-pci" };
            let goes = moment == "came again" && number == 0;
            let is_so = told.contains(&&*format!("{port}: {driver}"));
            wrong
                .unless(is_so != goes, format!("{moment}: {model} in {port}: {}", seen.given_back));
        }
    }
}
