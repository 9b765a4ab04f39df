# For `pkgs.pkgsStatic.callPackage`: the binary must need nothing from the initrd.
{
  kmod,
  lib,
  rustc,
  rustPlatform,
  xz,
}:
let
  root = ../..;
  libkmod = import ./libkmod.nix { inherit kmod lib rustc; };
in
rustPlatform.buildRustPackage {
  pname = "vfio-early";
  version = (lib.importTOML (root + "/Cargo.toml")).workspace.package.version;

  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions (
      map (path: root + "/${path}") [
        ".cargo"
        "Cargo.lock"
        "Cargo.toml"
        "build.rs"
        "qemu-tests"
        "src"
        "tests"
      ]
    );
  };
  cargoLock.lockFile = root + "/Cargo.lock";
  cargoBuildFlags = [
    "--locked"
    "--package=vfio-early"
  ];

  nativeBuildInputs = [ rustPlatform.bindgenHook ];
  buildInputs = [ xz ];
  env.LIBKMOD_STATIC_DIR = "${lib.getLib libkmod}/lib";

  # They need root, QEMU and kernels: `cargo xtask test` runs them.
  doCheck = false;

  meta = {
    description = "Gives chosen PCI devices to vfio-pci in the initrd, before udev, and verifies it";
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "vfio-early";
    platforms = lib.platforms.linux;
  };
}
