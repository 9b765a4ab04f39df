# Without flakes: `nix-build -A package`, and `imports = [ (import ./. { }).module ];`.
{
  pkgs ? import <nixpkgs> { },
}:
{
  package = pkgs.pkgsStatic.callPackage ./initrd/nixos/package.nix { };
  module = ./initrd/nixos/module.nix;
}
