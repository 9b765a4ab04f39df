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
    options =
      lib.genAttrs [ "after" "before" "requiredBy" "wantedBy" "wants" ] (_: texts)
      // lib.genAttrs [ "preStart" "script" "postStart" ] (_: option types.lines "")
      // {
        enable = option types.bool true;
        restartIfChanged = option types.bool true;
        description = option types.str "";
        serviceConfig = option (types.attrsOf types.unspecified) { };
        unitConfig = option (types.attrsOf types.unspecified) { };
      };
  };
  systemd = {
    packages = option (types.listOf types.package) [ ];
    services = option (types.attrsOf service) { };
  };
  file = types.submodule {
    options = {
      enable = option types.bool true;
      text = option (types.nullOr types.lines) null;
      source = mkOption { type = types.path; };
    };
  };

  always = {
    assertions = option (types.listOf types.unspecified) [ ];
    warnings = texts;
    boot = {
      # As nixpkgs has it: no white space outside quotes.
      kernelParams = option (types.listOf (
        types.strMatching ''([^"[:space:]]|"[^"]*")+''
        // {
          description = "string, with spaces inside double quotes";
        }
      )) [ ];
      blacklistedKernelModules = texts;
      extraModprobeConfig = option types.lines "";
      isContainer = option types.bool false;
      kernel.enable = option types.bool true;
      kernelPackages = option types.raw { kernel = { }; };
      kernelModules = modules;
      postBootCommands = option types.lines "";
      initrd = {
        enable = option types.bool true;
        availableKernelModules = modules;
        kernelModules = modules;
        services.udev.rules = option types.lines "";
        systemd = systemd // {
          contents = option (types.attrsOf file) { };
          storePaths = option (types.listOf (types.either types.singleLineStr types.package)) [ ];
          suppressedUnits = texts;
        };
      };
    };
    systemd = systemd // {
      # With "/usr" the units are those of any distribution.
      package = option types.package (
        derivation "systemd" (lib.optionalAttrs (store == "/usr") { outPath = store; })
      );
      generators = option (types.attrsOf types.path) { };
      tmpfiles.rules = texts;
    };
    system.activationScripts = option (types.attrsOf (
      types.either types.str (types.submodule { options.text = option types.lines ""; })
    )) { };
    services.udev.extraRules = option types.lines "";
    environment = {
      etc = option (types.attrsOf file) { };
      systemPackages = option (types.listOf types.package) [ ];
    };
  };

  # Without the scripted initrd: its options are gone, or are there to say so.
  afterwards = lib.recursiveUpdate always { boot.initrd.systemd.enable = option types.bool true; };
  removed = lib.recursiveUpdate afterwards {
    boot.initrd = lib.genAttrs [ "extraUtilsCommands" "postDeviceCommands" "preDeviceCommands" ] (
      name:
      mkOption {
        visible = false;
        apply = _: throw "boot.initrd.${name} is no more";
      }
    );
  };
in
{
  pkgs = {
    inherit lib;
    pkgsStatic.callPackage = _: arguments: {
      type = "derivation";
      name = "vfio-early${lib.optionalString (arguments.withZstd or false) "-with-zstd"}";
      # With "/usr" the units are those of any distribution.
      outPath = if store == "/usr" then store else "${store}/vfio-early";
      meta.mainProgram = "vfio-early";
    };
    writeText = name: text: derivation name { inherit text; };
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
    rustc.version = "9999";
    rustPlatform = {
      buildRustPackage = package: package;
      bindgenHook = derivation "bindgen-hook" { };
    };
    zstd = derivation "zstd" { };
    xz = derivation "xz" { override = _: derivation "xz-static" { }; };
    pciutils = derivation "pciutils" { };
    stdenv.hostPlatform = {
      system = "x86_64-linux";
      isx86_64 = true;
    };
    testers.runNixOSTest = test: derivation test.name { inherit test; };
    nixfmt = derivation "nixfmt" { };
  };

  options = lib.recursiveUpdate always {
    boot.initrd =
      lib.genAttrs [
        "extraUdevRulesCommands"
        "extraUtilsCommands"
        "postDeviceCommands"
        "postMountCommands"
        "postResumeCommands"
        "preDeviceCommands"
        "preLVMCommands"
      ] (_: option types.lines "")
      // {
        extraFiles = option (types.attrsOf (
          types.submodule { options.source = mkOption { type = types.package; }; }
        )) { };
        systemd.enable = option types.bool true;
      };
  };

  inherit afterwards removed;

  # What the example sets besides.
  exampleOptions = {
    virtualisation.libvirtd = {
      enable = option types.bool false;
      qemu.swtpm.enable = option types.bool false;
    };
    programs.virt-manager.enable = option types.bool false;
  };

  # What the configurations of users set besides.
  optionsOfUsers = {
    virtualisation.libvirtd.enable = option types.bool false;
    programs.virt-manager.enable = option types.bool false;
    system.nixos.tags = texts;
  };

  # What the machines of vm-test.nix set besides.
  virtualMachineOptions = {
    boot.initrd.systemd.emergencyAccess = option types.bool false;
    virtualisation.qemu.options = texts;
  };

  # The host's part of microvm.nix.
  microvmOptions.microvm.host.enable = option types.bool true;
}
