# For `pkgs.pkgsStatic.callPackage`: the binary must need nothing from the initrd.
{
  kmod,
  lib,
  rustc,
  rustPlatform,
  xz,
  zstd,
  # For a kernel whose modules are compressed with zstd, and that does not unpack them itself. It makes
  # the binary larger by a tenth.
  withZstd ? false,
}:
let
  root = ../..;
  libkmod = import ./libkmod.nix {
    inherit
      kmod
      lib
      rustc
      withZstd
      ;
  };
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
  buildInputs = [ xz ] ++ lib.optional withZstd zstd;
  env = {
    LIBKMOD_STATIC_DIR = "${lib.getLib libkmod}/lib";
    LIBKMOD_STATIC_LIBS = "lzma" + lib.optionalString withZstd " zstd";
  };

  # The initrd's program, which the module puts in there as vfio-early.
  postInstall = ''
    mkdir -p $out/lib/vfio-early
    mv $out/bin/vfio-early-initrd $out/lib/vfio-early
  '';

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
