//! Finds `libkmod.a`, or says how to get one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

/// Names the folder that holds `libkmod.a`.
const FOLDER: &str = "LIBKMOD_STATIC_DIR";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={FOLDER}");
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
    println!("cargo:rustc-link-lib=static:-bundle=kmod");
    println!("cargo:rustc-link-lib=static:-bundle=lzma");
    if is_small_build() {
        let script = "/.cargo/no-unwind-tables.ld";
        println!("cargo:rerun-if-changed={}{script}", env!("CARGO_MANIFEST_DIR"));
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all,--no-eh-frame-hdr");
        // Strings that end another one are left out, and functions that look alike are side by
        // side, where a compressed initrd makes the most of it.
        println!("cargo:rustc-link-arg-bins=-Wl,-O2,--bp-compression-sort=function");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}{script}", env!("CARGO_MANIFEST_DIR"));
    }
}

/// The release build of a target for which Rust brings LLVM's linker; others may not know the
/// options.
fn is_small_build() -> bool {
    let is = |name, value: &str| env::var(name).is_ok_and(|found| found == value);
    is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
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
