{
  description = "Gives chosen PCI devices to vfio-pci in the initrd, before udev, and verifies it";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem =
        f: lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEachSystem (pkgs: rec {
        default = vfio-early;
        vfio-early = (import ./. { inherit pkgs; }).package;
      });

      nixosModules = rec {
        default = vfio-early;
        vfio-early = ./initrd/nixos/module.nix;
      };

      # The virtual machines need a Nix cache (or a day), and QEMU's q35 is x86.
      checks = forEachSystem (
        pkgs:
        {
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isx86_64 (
          import ./initrd/nixos/vm-test.nix { inherit pkgs; }
        )
      );

      formatter = forEachSystem (pkgs: pkgs.nixfmt);

      devShells = forEachSystem (pkgs: {
        default = import ./initrd/nixos/shell.nix { inherit pkgs; };
      });
    };
}
