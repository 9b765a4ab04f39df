# What a build and the checks of the source need. `cargo xtask`, which boots kernels, installs
# Debian packages and is for Debian.
{ pkgs }:
let
  inherit (pkgs) lib;
  # The usual target has glibc and is linked statically, see .cargo/config.toml.
  libkmod = import ./libkmod.nix {
    inherit (pkgs) rustc;
    inherit lib;
    kmod = pkgs.kmod.override { withStatic = true; };
  };
in
pkgs.mkShell {
  nativeBuildInputs = [
    pkgs.cargo
    pkgs.clippy
    pkgs.deadnix
    pkgs.nixfmt
    pkgs.rustPlatform.bindgenHook
    pkgs.rustc
    pkgs.rustfmt
  ];
  buildInputs = [
    pkgs.glibc.static
    (pkgs.xz.override { enableStatic = true; })
  ];
  LIBKMOD_STATIC_DIR = "${lib.getLib libkmod}/lib";
}
