//! The kernel's ELF image inside a bzImage.
//!
//! Layout: Documentation/arch/x86/boot.rst in the kernel's sources.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// Compressions that the kernel's build knows and Debian uses or has used: first bytes, program.
const COMPRESSIONS: [(&[u8], &str); 4] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x1f\x8b", "gzip"),
];

/// Writes the ELF image out of `bzimage` to `vmlinux`.
///
/// # Errors
/// When `bzimage` is none, or its payload cannot be unpacked.
pub fn unpack(bzimage: &Path, vmlinux: &Path) -> Result<()> {
    let image = fs::read(bzimage).with_context(|| format!("cannot read {}", bzimage.display()))?;
    unpack_image(&image, vmlinux)
        .with_context(|| format!("cannot unpack the kernel out of {}", bzimage.display()))
}

fn unpack_image(image: &[u8], vmlinux: &Path) -> Result<()> {
    let payload = payload(image)?;
    let Some((_, program)) = COMPRESSIONS.iter().find(|(magic, _)| payload.starts_with(magic))
    else {
        bail!("its compression is not known: first bytes {:02x?}", &payload[..payload.len().min(8)])
    };
    // The kernel's build appends the unpacked size (gzip has it in its own format).
    let (stream, size) = payload.split_at(payload.len().saturating_sub(4));
    let stream = if *program == "gzip" { payload } else { stream };
    let size = little_endian(size, 0)?;

    let mut unpacking = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(File::create(vmlinux)?)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}, which unpacks it"))?;
    let mut stdin = unpacking.stdin.take().context("no pipe to it")?;
    let ended = thread::scope(|scope| {
        // When the program gives up early, its own status says so.
        scope.spawn(move || stdin.write_all(stream));
        unpacking.wait_with_output()
    })?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{program} -dc failed ({}): {}", ended.status, said.trim());

    let unpacked = fs::metadata(vmlinux)?.len();
    ensure!(unpacked == u64::from(size), "{unpacked} bytes came out of it instead of {size}");
    let mut magic = [0; 4];
    File::open(vmlinux)?.read_exact(&mut magic)?;
    ensure!(magic == *b"\x7fELF", "what came out of it is no ELF file");
    Ok(())
}

/// The compressed kernel in a bzImage, with the four bytes of its unpacked size at the end.
fn payload(image: &[u8]) -> Result<&[u8]> {
    ensure!(image.get(0x202..0x206) == Some(b"HdrS".as_slice()), "it is no bzImage: no HdrS");
    let version = little_endian(image, 0x204)? >> 16;
    ensure!(version >= 0x208, "its boot protocol {version:#x} tells no payload");
    let setup_sectors = match image[0x1f1] {
        0 => 4, // as old boot loaders read it
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + little_endian(image, 0x248)? as usize;
    let end = start + little_endian(image, 0x24c)? as usize;
    image.get(start..end).context("it ends before its payload does")
}

fn little_endian(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("it is too short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage of boot protocol 2.15 with one setup sector and this payload 16 bytes behind it.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * 512 + 16];
        image[0x1f1] = 1;
        image[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
        image[0x248] = 16;
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend(payload);
        image.extend(b"what follows the payload");
        image
    }

    #[test]
    fn the_payload_is_found_by_the_setup_header() {
        assert_eq!(payload(&image(b"kernel")).unwrap(), b"kernel");
    }

    #[test]
    fn what_is_no_bzimage_is_an_error() {
        let whole = image(b"kernel");
        let mut old = whole.clone();
        old[0x206] = 7;
        let mut zboot = whole.clone();
        zboot[0x202] = b'X';
        for (bytes, expected) in [
            (&old[..], "boot protocol 0x207"),
            (&zboot, "HdrS"),
            (&whole[..1030], "ends before"),
            (&whole[..0x248], "too short"),
            (b"", "HdrS"),
        ] {
            let error = payload(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn every_compression_that_has_its_program_here_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let vmlinux = folder.path().join("vmlinux");
        let kernel = [b"\x7fELF".to_vec(), vec![7; 300_000]].concat();
        fs::write(folder.path().join("plain"), &kernel).unwrap();
        for (program, level) in [("xz", "-6"), ("zstd", "-3"), ("lz4", "-l"), ("gzip", "-6")] {
            let packing = Command::new(program)
                .args([level, "-c"])
                .stdin(File::open(folder.path().join("plain")).unwrap())
                .output();
            let Ok(packed) = packing else {
                eprintln!("{program} is not here");
                continue;
            };
            let mut payload = packed.stdout;
            if program != "gzip" {
                payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
            }
            unpack_image(&image(&payload), &vmlinux).expect(program);
            assert_eq!(fs::read(&vmlinux).unwrap(), kernel, "{program}");

            payload[20] ^= 1;
            unpack_image(&image(&payload), &vmlinux).expect_err(program);
        }
    }

    #[test]
    fn an_unknown_compression_is_named_by_its_first_bytes() {
        let error = unpack_image(&image(b"BZh91AY&SY"), Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("[42, 5a, 68"), "{error}");
    }
}
