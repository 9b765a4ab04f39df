//! Finds `libkmod.a`, or says how to get one.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Names the folder that holds `libkmod.a`.
const FOLDER: &str = "LIBKMOD_STATIC_DIR";

/// Names what `libkmod.a` itself asks for, where that is more than what [`USUAL`] says.
const LIBRARIES: &str = "LIBKMOD_STATIC_LIBS";

/// Modules compressed by xz are unpacked by the program.
const USUAL: &str = "lzma";

/// Names the commit that is built.
const COMMIT: &str = "VFIO_EARLY_COMMIT";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for variable in [FOLDER, LIBRARIES] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    tell_the_build();
    let folder = match env::var_os(FOLDER) {
        Some(folder) => has_archive(Path::new(&folder)),
        None => from_pkg_config(),
    };
    let Some(folder) = folder else {
        println!(
            "cargo:error=no static libkmod.a: run `cargo xtask build`, which makes one, or set \
             {FOLDER} to a folder that has it"
        );
        exit(1);
    };
    println!("cargo:rustc-link-search=native={}", folder.display());
    // kmod-sys asks for libkmod itself; this one is what libkmod asks for, and has to follow it.
    let libraries = env::var(LIBRARIES).unwrap_or_else(|_| USUAL.to_owned());
    for library in ["kmod"].into_iter().chain(libraries.split_whitespace()) {
        println!("cargo:rustc-link-lib=static:-bundle={library}");
    }
    link_small();
}

/// What `--version` says besides: the target, and the commit where whoever builds a release names it.
fn tell_the_build() {
    println!("cargo:rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT).unwrap_or_default();
    let origin =
        if commit.is_empty() { "from source".to_owned() } else { format!("commit {commit}") };
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo:rustc-env=VFIO_EARLY_BUILD={target}, {origin}");
}

/// Makes the release build smaller, where the linker can: that of LLVM, which rustup's Rust brings and
/// some distributions' does not.
fn link_small() {
    let is = |name, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_concerned = is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux");
    if !is_concerned {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.cargo/no-unwind-tables.ld");
    println!("cargo:rerun-if-changed={script}");
    let mut arguments: Vec<String> = [
        "-Wl,--icf=all,--no-eh-frame-hdr",
        // Strings that end another one are left out, and functions that look alike are side by
        // side, where a compressed initrd makes the most of it.
        "-Wl,-O2,--bp-compression-sort=function",
        &format!("-Wl,-T,{script}"),
    ]
    .map(str::to_owned)
    .into();
    if is("CARGO_CFG_TARGET_ENV", "musl") {
        // For the GNU C library Rust takes it by itself.
        arguments.extend(lld().into_iter().chain(["-fuse-ld=lld".to_owned()]));
    }
    if can_link(&arguments) {
        for argument in arguments {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    } else {
        println!(
            "cargo:warning=this Rust does not link with LLVM's lld (20 or newer): the program works \
             as well, and is larger by a tenth"
        );
    }
}

/// Where the C compiler finds Rust's own lld; elsewhere it may find another.
fn lld() -> Option<String> {
    let mut compiler = Command::new(env::var_os("RUSTC")?);
    let sysroot = compiler.args(["--print", "sysroot"]).output().ok()?.stdout;
    let sysroot = String::from_utf8(sysroot).ok()?;
    let host = env::var("HOST").ok()?;
    Some(format!("-B{}/lib/rustlib/{host}/bin/gcc-ld", sysroot.trim_end()))
}

/// Whether the compiler makes a program with these arguments for the linker.
fn can_link(arguments: &[String]) -> bool {
    let place = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let source = place.join("empty.rs");
    if fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let mut compiler = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compiler.arg("--target").arg(env::var_os("TARGET").unwrap_or_default());
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    compiler.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        compiler.arg("-C").arg([OsStr::new("linker="), &linker].join(OsStr::new("")));
    }
    compiler.args(arguments.iter().map(|argument| format!("-Clink-arg={argument}")));
    compiler.arg(source).arg("-o").arg(place.join("empty"));
    compiler.output().is_ok_and(|output| output.status.success())
}

fn has_archive(folder: &Path) -> Option<PathBuf> {
    folder.join("libkmod.a").is_file().then(|| folder.to_owned())
}

/// The folder that the static answer of pkg-config names; distributions whose libkmod is only
/// shared have a folder, but no archive in it.
fn from_pkg_config() -> Option<PathBuf> {
    let mut query = pkg_config::Config::new();
    let library = query.statik(true).cargo_metadata(false).probe("libkmod").ok()?;
    let default = pkg_config::get_variable("libkmod", "libdir").ok().map(PathBuf::from);
    library.link_paths.iter().cloned().chain(default).find_map(|folder| has_archive(&folder))
}
