//! Profiles: which parts of a program with counters were run in a guest.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::supplies::step;

/// Environment variable that names the folder for them; see [`keep`].
pub(crate) const VARIABLE: &str = "VFIO_EARLY_GUEST_PROFILES";

/// Keeps the profiles that a guest sent, where they are asked for: a tar archive, compressed, as
/// text.
///
/// # Errors
/// When it is none.
pub(crate) fn keep(text: &str) -> Result<()> {
    let Some(folder) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let place = tempfile::Builder::new().prefix("boot-").tempdir_in(&folder)?;
    let file = place.path().join("profiles");
    fs::write(&file, text)?;
    let unpack = "base64 -d profiles | tar -xz";
    step::run(Command::new("sh").args(["-c", unpack]).current_dir(place.path()))?;
    for profile in fs::read_dir(place.path())? {
        let profile = profile?.path();
        if let (Some(name), Some(boot)) = (profile.file_name(), place.path().file_name())
            && profile.extension().is_some_and(|extension| extension == "profraw")
        {
            let name = format!("{}-{}", boot.display(), name.display());
            fs::copy(&profile, Path::new(&folder).join(name))?;
        }
    }
    Ok(())
}
