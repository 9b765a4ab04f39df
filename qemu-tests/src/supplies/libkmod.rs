//! A static libkmod for this machine's own C library, which no Debian package has: what the tests are
//! linked with. That of the program itself is [`musl`](crate::supplies::musl)'s.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::supplies::source::{Source, key};
use crate::supplies::{cache, packages};

/// kmod's own version.
pub const VERSION: &str = SOURCE.version;

/// The variable by which `build.rs` finds the folder.
pub const VARIABLE: &str = "LIBKMOD_STATIC_DIR";

/// The variable that tells `build.rs` what `libkmod.a` itself asks for.
pub(crate) const LIBRARIES: &str = "LIBKMOD_STATIC_LIBS";

/// SHA-256 of kmod's source archive of [`VERSION`].
const SOURCE_SHA256: &str = SOURCE.sha256;

/// What is linked into the binary.
pub const ARCHIVE: &str = "libkmod.a";

/// Where it comes from.
pub(crate) const SOURCE: Source = Source {
    package: "kmod",
    version: "34.2",
    sha256: "012d16e2099115486d8aa9f2c2a23d058d3d0cad83113a60512647d25d3869e8",
    told_in: "qemu-tests/src/supplies/libkmod.rs",
    script: include_str!("../../../packaging/static-libkmod"),
};

/// The source's archive, beside `libkmod.a`: who links with it can pass it on, and build it again.
pub(crate) const SOURCE_FILE: &str = "kmod.orig.tar.xz";

/// The folder that holds `libkmod.a`, built when it is not in the cache.
///
/// # Errors
/// When the source cannot be fetched, is not the expected one, or does not build.
pub fn set_up() -> Result<PathBuf> {
    let name = format!("libkmod/{}", version_and_key());
    let is_whole =
        |entry: &Path| [ARCHIVE, SOURCE_FILE].iter().all(|file| entry.join(file).exists());
    cache::entry(&name, is_whole, |entry| {
        packages::ensure(packages::BUILD)?;
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(entry)?;
        SOURCE.fetch(&entry.join(SOURCE_FILE), work.path())?;
        SOURCE.build(&entry.join(SOURCE_FILE), &[], work.path(), entry)
    })
}

/// Another one for each way to build it.
pub(crate) fn version_and_key() -> String {
    format!("{VERSION}-{:08x}", key(&[SOURCE.script, SOURCE_SHA256]))
}

/// Builds `libkmod.a` once more, from the source in the cache, with those variables of the build. `work`
/// is a folder for what is not kept.
///
/// # Errors
/// As [`set_up`].
pub(crate) fn build_again(variables: &[(&str, &str)], work: &Path, folder: &Path) -> Result<()> {
    let source = set_up()?.join(SOURCE_FILE);
    SOURCE.check(&source)?;
    SOURCE.build(&source, variables, work, folder)
}
