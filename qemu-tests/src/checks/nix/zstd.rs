//! Modules compressed with zstd, as custom kernels of `NixOS` can have them.

use std::path::Path;

use anyhow::Result;

use crate::machine::initrd::Compression;
use crate::machine::vm::vm;
use crate::supplies::kernels::Kernel;

/// Boots a kernel that does not unpack modules itself: with the program that is built for such a kernel
/// its device is bound; with the usual one it is not, and the report says why.
///
/// # Errors
/// When a machine does not come to its end.
pub(super) fn problems(kernel: &Kernel, with_zstd: &Path, usual: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (program, driver, why) in
        [(with_zstd, Some("vfio-pci"), None), (usual, None, Some("neither this kernel nor"))]
    {
        let run = vm(kernel)
            .device("e1000e", "03.0")
            .program(program)
            .cmdline("vfio.devs=00:03.0")
            .modules(["e1000e"])
            .compressed_modules(Compression::Zstd)
            .run(["bind"])
            .boot()?;
        let found = run.after_bind().driver("0000:00:03.0");
        let reason = run.report()["devices"][0]["reason"].as_str().unwrap_or_default();
        if found != driver || why.is_some_and(|why| !reason.contains(why)) {
            problems.push(format!(
                "{}: 0000:00:03.0 is on {found:?}, not {driver:?}; {reason}\n{}",
                program.display(),
                run.details()
            ));
        }
    }
    Ok(problems)
}
