# What the module sees of NixOS and of nixpkgs: options with the types that nixpkgs gives them
# (nixos/modules/system/boot/{kernel,modprobe,stage-1,systemd}.nix, systemd/initrd.nix), without
# what becomes of them; and the few functions of `pkgs` that it calls.
{ lib, store }:
let
  inherit (lib) mkOption types;

  option = type: default: mkOption { inherit type default; };
  texts = option (types.listOf types.str) [ ];

  derivation =
    name: extra:
    {
      type = "derivation";
      inherit name;
      outPath = "${store}/${name}";
    }
    // extra;

  # A list or a set of what is true, and read as a list.
  modules = mkOption {
    type = types.coercedTo (types.listOf types.str) (lib.flip lib.genAttrs (_: true)) (
      types.attrsOf types.bool
    );
    default = { };
    apply = chosen: lib.attrNames (lib.filterAttrs (_: isChosen: isChosen) chosen);
  };

  service = types.submodule {
    options = lib.genAttrs [ "after" "before" "requiredBy" "wantedBy" "wants" ] (_: texts);
  };
  systemd = {
    packages = option (types.listOf types.package) [ ];
    services = option (types.attrsOf service) { };
  };
in
{
  pkgs = {
    inherit lib;
    pkgsStatic.callPackage = _: _: {
      type = "derivation";
      name = "vfio-early";
      # With "/usr" the units are those of any distribution.
      outPath = if store == "/usr" then store else "${store}/vfio-early";
      meta.mainProgram = "vfio-early";
    };
    writeTextDir = path: text: derivation (baseNameOf path) { inherit path text; };
    kmod =
      let
        kmod =
          flags:
          derivation "kmod${lib.concatStrings flags}" {
            override =
              { withStatic }:
              assert withStatic;
              kmod flags;
            overrideAttrs = change: kmod (change { mesonFlags = flags; }).mesonFlags;
          };
      in
      kmod [ ];
    mkShell = shell: shell;
    rustPlatform = {
      buildRustPackage = package: package;
      bindgenHook = derivation "bindgen-hook" { };
    };
    xz = derivation "xz" { override = _: derivation "xz-static" { }; };
    pciutils = derivation "pciutils" { };
    stdenv.hostPlatform = {
      system = "x86_64-linux";
      isx86_64 = true;
    };
    testers.runNixOSTest = test: derivation test.name { inherit test; };
    nixfmt = derivation "nixfmt" { };
  };

  options = {
    assertions = option (types.listOf types.unspecified) [ ];
    warnings = texts;
    boot = {
      # As nixpkgs has it: no white space outside quotes.
      kernelParams = option (types.listOf (types.strMatching ''([^"[:space:]]|"[^"]*")+'')) [ ];
      blacklistedKernelModules = texts;
      extraModprobeConfig = option types.lines "";
      initrd = {
        availableKernelModules = modules;
        kernelModules = modules;
        preDeviceCommands = option types.lines "";
        extraUtilsCommands = option types.lines "";
        systemd = systemd // {
          enable = option types.bool true;
          storePaths = texts;
        };
      };
    };
    systemd = systemd // {
      # With "/usr" the units are those of any distribution.
      package = option types.package (
        derivation "systemd" (lib.optionalAttrs (store == "/usr") { outPath = store; })
      );
    };
    environment.systemPackages = option (types.listOf types.package) [ ];
  };

  # What the example sets besides.
  exampleOptions = {
    virtualisation.libvirtd = {
      enable = option types.bool false;
      qemu.swtpm.enable = option types.bool false;
    };
    programs.virt-manager.enable = option types.bool false;
  };

  # What the machines of vm-test.nix set besides.
  virtualMachineOptions = {
    boot.initrd.systemd.emergencyAccess = option types.bool false;
    boot.kernelModules = modules;
    virtualisation.qemu.options = texts;
  };

  # The host's part of microvm.nix.
  microvmOptions.microvm.host.enable = option types.bool true;
}
