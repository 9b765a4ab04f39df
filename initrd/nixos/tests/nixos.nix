# The same over a whole nixpkgs: NixOS' own modules instead of stubs.nix, and what is to be built of it.
# Nothing is built.
{ nixpkgs }:
let
  lib = import (nixpkgs + "/lib");
  cases = import ./cases.nix {
    inherit lib;
    kernelWith = names: {
      boot.kernelPatches = [
        {
          name = "modules";
          patch = null;
          extraStructuredConfig = {
            MODULE_COMPRESS_XZ = lib.mkForce lib.kernel.no;
          }
          // lib.genAttrs names (_: lib.kernel.yes);
        }
      ];
    };
  };
  users = import ./users.nix;
  inherit (lib.trivial) release;

  # Stand-ins, where a tree has no Haskell packages, or is older than what package.nix asks for: only
  # the names of what would be built change with it.
  overlay =
    _: previous:
    let
      noHaskell = previous.hello // {
        compiler = previous.hello;
      };
    in
    {
      shellcheck = noHaskell;
      shellcheck-minimal = noHaskell;
    }
    // lib.optionalAttrs (lib.versionOlder release "25.11") {
      rustc = previous.rustc // {
        version = (lib.importTOML ../../../Cargo.toml).workspace.package.rust-version;
      };
      kmod = previous.kmod.overrideAttrs { mesonFlags = [ ]; };
      nixfmt = noHaskell;
    };
  packagesFor =
    system:
    import nixpkgs {
      inherit system;
      overlays = [ overlay ];
      config = { };
    };
  pkgs = packagesFor "x86_64-linux";
  packageOf = packages: packages.pkgsStatic.callPackage ../package.nix { };
  package = packageOf pkgs;

  machine = {
    nixpkgs.pkgs = pkgs;
    boot.loader.grub.devices = [ "/dev/vda" ];
    fileSystems."/" = {
      device = "/dev/vda";
      fsType = "ext4";
    };
    boot.initrd.systemd.enable = lib.mkDefault true;
    system.stateVersion = release;
  };
  evaluate =
    modules:
    import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        ../module.nix
        machine
      ]
      ++ modules;
    };

  isOurs = lib.hasPrefix "boot.initrd.vfio-early";
  # As the stubs have it: what is evaluated here is in no file of a user's.
  asOverStubs =
    lib.replaceStrings
      [
        "${package}"
        " (in ${toString ./nixos.nix})"
        ", in ${toString ./nixos.nix}"
      ]
      [
        "/nix/store/vfio-early"
        ""
        ""
      ];
  messagesOfConfig =
    config:
    lib.mapAttrs (_: map asOverStubs) (
      lib.filterAttrs (_: messages: messages != [ ]) {
        errors = lib.filter isOurs (
          map (wrong: wrong.message) (lib.filter (check: !check.assertion) config.assertions)
        );
        warnings = lib.filter isOurs config.warnings;
      }
    );
  messagesOf =
    name: configuration:
    let
      inherit
        (evaluate (
          [ configuration ]
          ++ lib.optional (name == "microvm") {
            options.microvm.host.enable = lib.mkEnableOption "the host's part of microvm.nix";
          }
        ))
        config
        ;
      # It has a warning of its own where it is made to turn up.
      inner = config.specialisation.passthrough.configuration or config;
    in
    messagesOfConfig inner;

  # An option's type, as the manual names it, and what it is where nobody defines it.
  shape =
    option:
    {
      type = option.type.description;
    }
    # A package, and a kernel with all that is built for it, is what it is called.
    //
      lib.optionalAttrs (option ? default && option.type.name != "raw" && option.type.name != "package")
        {
          default = lib.generators.toPretty { } option.default;
        };
  stubs = import ./stubs.nix {
    inherit lib;
    store = "/nix/store";
  };
  shapesOf =
    options:
    lib.listToAttrs (
      map (option: lib.nameValuePair (lib.showOption option.loc) (shape option)) (
        lib.collect lib.isOption options
      )
    );
  stubOptions = (lib.evalModules { modules = [ { inherit (stubs) options; } ]; }).options;
  realOptions = (evaluate [ ]).options;

  # The machine of qemu-tests/src/checks/real_root.rs, and what is asked for on it.
  bootableMachine = {
    boot.loader.grub.enable = false;
    boot.initrd.includeDefaultModules = false;
    boot.initrd.availableKernelModules = [
      "e1000e"
      "ext4"
      "nvme"
      "virtio_blk"
      "virtio_pci"
      "xhci_pci"
    ];
    boot.initrd.vfio-early.enable = true;
  };
  requests = {
    bound = {
      strict = true;
      devices = [
        "8086:10d3@00:03.0"
        "1b36:0010@00:04.0"
        "00:05.0"
      ];
    };
    absent.devices = [
      "8086:10d3@00:03.0"
      "00:1e.0"
    ];
    strict = {
      strict = true;
      devices = [
        "8086:10d3@00:03.0"
        "00:1e.0"
      ];
    };
  };

  built = {
    systemd = evaluate [ cases.configurations.systemd ];
    scripted = evaluate [ cases.configurations.scripted ];
  };
in
{
  messages = lib.mapAttrs messagesOf cases.messages;
  attributes = lib.optionalAttrs (lib.versionAtLeast release "25.11") (
    lib.mapAttrs messagesOf cases.attributes
  );
  users = lib.mapAttrs (name: lib.mapAttrs (_: messagesOf name)) users;

  # Each stub that is not as the option that it stands for in the nixpkgs of today.
  stubs =
    let
      stubbed = shapesOf (removeAttrs stubOptions [ "_module" ]);
      real = lib.mapAttrs (
        name: _:
        let
          path = lib.splitString "." name;
        in
        if lib.hasAttrByPath path realOptions then shape (lib.getAttrFromPath path realOptions) else null
      ) stubbed;
      changed =
        lib.optionals (lib.versionOlder release "25.11") [
          "boot.initrd.availableKernelModules"
          "boot.initrd.kernelModules"
          "boot.kernelModules"
        ]
        ++ lib.optional (lib.versionOlder release "26.05") "boot.initrd.systemd.enable";
    in
    lib.filterAttrs (name: _: stubbed.${name} != real.${name} && !lib.elem name changed) (
      lib.mapAttrs (name: stub: {
        inherit stub;
        real = real.${name};
      }) stubbed
    );

  # The program for kernels whose modules are compressed otherwise; the default of an option, which no
  # error tells of.
  zstd =
    let
      packageFor =
        name: (evaluate [ cases.configurations.${name} ]).config.boot.initrd.vfio-early.package;
    in
    lib.mapAttrs (_: name: (packageFor name).LIBKMOD_STATIC_LIBS) {
      xz = "systemd";
      zstd = "modules-by-zstd";
      unpacked = "modules-by-zstd-that-the-kernel-unpacks";
    };

  # What would be built, by the file that says how; all of it has been evaluated then.
  derivations = lib.mapAttrs (_: derivation: baseNameOf derivation.drvPath) (
    lib.concatMapAttrs (kind: system: {
      "the system, ${kind}" = system.config.system.build.toplevel;
      "the initrd, ${kind}" = system.config.system.build.initialRamdisk;
    }) built
    // {
      "the package" = package;
      "the package for aarch64" = packageOf (packagesFor "aarch64-linux");
      "the shell" = import ../shell.nix { inherit pkgs; };
      "the options" =
        (pkgs.nixosOptionsDoc {
          options.boot.initrd.vfio-early = realOptions.boot.initrd.vfio-early;
          warningsAreErrors = true;
        }).optionsJSON;
    }
    // lib.mapAttrs' (name: lib.nameValuePair "the test ${name}") (
      import ../vm-test.nix { inherit pkgs; }
    )
  );

  # What a machine boots with in a systemd initrd.
  initrd =
    let
      bootable =
        modules:
        (evaluate (
          modules
          ++ [
            { boot.initrd.systemd.enable = true; }
            bootableMachine
          ]
        )).config;
      config = bootable [ ];
      inherit (config.boot.initrd) systemd;
      link = source: target: "link ${source} ${target}";
      parts =
        lib.mapAttrsToList (_: file: link file.source file.target) (
          lib.filterAttrs (_: file: file.enable) systemd.contents
        )
        ++ map (path: "path ${path.source or path}") systemd.storePaths;
      finish = "vfio-early-finish.service";
    in
    {
      # A list of the initrd's parts, and of our unit on the host; all of them have to be built for it.
      parts = builtins.derivation {
        name = "initrd-parts";
        inherit (pkgs) system;
        builder = "/bin/sh";
        args = [
          "-c"
          "printf '%s\\n' \"$parts\" >$out"
        ];
        parts = lib.concatStringsSep "\n" (
          parts
          ++ map (package: "host-unit ${package}/lib/systemd/system/${finish} ${finish}") (
            lib.filter (package: lib.hasSuffix finish (package.name or "")) config.systemd.packages
          )
          ++ [ "host-dropin ${config.systemd.units.${finish}.unit}/${finish} ${finish}" ]
          ++ lib.mapAttrsToList (name: path: "host-generator ${path} ${name}") config.systemd.generators
        );
      };
      # The command lines, but for what finds the real root's init.
      parameters = lib.mapAttrs (
        _: settings:
        lib.concatStringsSep " " (bootable [ { boot.initrd.vfio-early = settings; } ]).boot.kernelParams
      ) requests;
    };
}
