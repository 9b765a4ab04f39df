# A static libkmod, for the package and for the shell.
{
  kmod,
  lib,
  rustc,
  withZstd ? false,
}:
let
  oldest = (lib.importTOML ../../Cargo.toml).workspace.package.rust-version;
in
# Asked here, before anything is built: an older nixpkgs has another build of kmod, too.
lib.throwIf (lib.versionOlder rustc.version oldest)
  "vfio-early needs Rust ${oldest}, and this nixpkgs has ${rustc.version}: NixOS 25.11 is the first that has it"
  (
    kmod.overrideAttrs (old: {
      # NixOS compresses modules with xz.
      mesonFlags = old.mesonFlags ++ [
        (lib.mesonEnable "zstd" withZstd)
        "-Dzlib=disabled"
        # Some of them need the above.
        "-Dbuild-tests=false"
      ];
      doCheck = false;
    })
  )
