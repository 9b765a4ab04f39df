# What `cargo xtask nix` evaluates. `nixpkgsLib` is nixpkgs' lib alone, `store` stands for the Nix
# store.
{
  nixpkgsLib,
  store ? "/nix/store",
}:
let
  lib = import nixpkgsLib;
  stubs = import ./stubs.nix { inherit lib store; };
  item = import ../item.nix { inherit lib; };

  evaluateWith =
    options: modules:
    lib.evalModules {
      modules = modules ++ [
        { inherit options; }
        { _module.args.pkgs = stubs.pkgs; }
      ];
    };
  evaluate = evaluateWith stubs.options;
  evaluateModule = modules: evaluate ([ ../module.nix ] ++ modules);

  units =
    packages:
    lib.listToAttrs (map (package: lib.nameValuePair (baseNameOf package.path) package.text) packages);
  dropEmpty = lib.filterAttrsRecursive (_: value: value != [ ] && value != { } && value != "");

  outcome =
    { config, options, ... }:
    let
      isThere = name: options.boot.initrd ? ${name} && options.boot.initrd.${name}.visible or true;
      textOf = name: lib.optionalString (isThere name) config.boot.initrd.${name};
    in
    dropEmpty {
      errors = map (wrong: wrong.message) (lib.filter (check: !check.assertion) config.assertions);
      inherit (config) warnings;
      kernelParams = config.boot.kernelParams;
      initrd = {
        inherit (config.boot.initrd) availableKernelModules;
        preDeviceCommands = textOf "preDeviceCommands";
        postDeviceCommands = textOf "postDeviceCommands";
        extraUtilsCommands = textOf "extraUtilsCommands";
        inherit (config.boot.initrd.systemd) services storePaths;
        contents = lib.mapAttrs (
          _: file: if file.text == null then file.source else file.text
        ) config.boot.initrd.systemd.contents;
        extraFiles = lib.mapAttrs (_: file: file.source.text) (config.boot.initrd.extraFiles or { });
        units = lib.attrNames (units config.boot.initrd.systemd.packages);
      };
      host = {
        inherit (config.systemd) generators services;
        units = lib.attrNames (units config.systemd.packages);
        udevRules = config.services.udev.extraRules;
        packages = map (package: package.name) config.environment.systemPackages;
      };
    };

  cases = import ./cases.nix {
    inherit lib;
    kernelWith = names: {
      boot.kernelPackages.kernel.configfile.structuredConfig = lib.genAttrs names (_: {
        tristate = "y";
      });
    };
  };
  evaluateCase =
    name: configuration:
    outcome (
      evaluateModule (
        [
          configuration
          { options = stubs.optionsOfUsers; }
        ]
        ++ lib.optional (name == "microvm") { options = stubs.microvmOptions; }
      )
    );

  messagesOf =
    name: configuration:
    lib.intersectAttrs {
      errors = null;
      warnings = null;
    } (evaluateCase name (configuration.specialisation.passthrough.configuration or configuration));

  flake = (import ../../../flake.nix).outputs {
    self = flake;
    nixpkgs = {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: stubs.pkgs);
    };
  };
in
{
  configurations = lib.mapAttrs evaluateCase cases.configurations // {
    example = outcome (evaluate [
      ../example.nix
      { options = stubs.exampleOptions; }
    ]);
  };
  messages = lib.mapAttrs messagesOf cases.messages;
  attributes = lib.mapAttrs messagesOf cases.attributes;

  users = lib.mapAttrs (name: lib.mapAttrs (_: messagesOf name)) (import ./users.nix);

  # Where NixOS has no scripted initrd any more.
  afterwards = lib.genAttrs [ "afterwards" "removed" ] (
    kind:
    outcome (
      evaluateWith stubs.${kind} [
        ../module.nix
        cases.configurations.systemd
      ]
    )
  );

  # The units as the module has them, by name.
  units =
    let
      inherit
        (evaluateModule [
          {
            boot.initrd.vfio-early.enable = true;
          }
        ])
        config
        ;
    in
    units (config.boot.initrd.systemd.packages ++ config.systemd.packages);

  # The kernel parameters for a configuration of the devices; an error where one is no item.
  parametersOf =
    configuration:
    (evaluateModule [
      configuration
      { boot.initrd.vfio-early.enable = true; }
    ]).config.boot.kernelParams;

  # What the type of the list says of each.
  areItems = map item.type.check;

  optionsPage = import ../options-page.nix {
    inherit lib;
    inherit (evaluateModule [ ]) options;
  };

  # Of the package and the shell, what evaluates without a nixpkgs to build from.
  package =
    let
      package =
        withZstd:
        import ../package.nix {
          inherit withZstd;
          inherit (stubs.pkgs)
            kmod
            rustc
            rustPlatform
            xz
            zstd
            ;
          lib = lib // {
            # The names of what is there, instead of a copy of it.
            fileset = {
              unions = map (
                path:
                assert builtins.pathExists path;
                baseNameOf path
              );
              toSource = { fileset, ... }: fileset;
            };
          };
        };
      libraries = package: {
        inputs = map (input: input.name) package.buildInputs;
        inherit (package) env;
      };
      usual = package false;
    in
    {
      inherit (usual) cargoBuildFlags src version;
      inherit (usual.meta) mainProgram;
      libraries = libraries usual;
      libraries-with-zstd = libraries (package true);
      shell = (import ../shell.nix { inherit (stubs) pkgs; }).LIBKMOD_STATIC_DIR;
    };

  flake = {
    outputs = lib.attrNames flake;
    package = flake.packages.x86_64-linux.default.name;
    module = (evaluate [ flake.nixosModules.default ]).options ? boot.initrd.vfio-early;
    # Each with the kernel parameters of its machine.
    checks = lib.mapAttrs (
      _: check:
      builtins.deepSeq check.test.testScript
        (evaluate [
          check.test.nodes.machine
          { options = stubs.virtualMachineOptions; }
        ]).config.boot.kernelParams
    ) (lib.filterAttrs (_: check: check ? test) flake.checks.x86_64-linux);
  };
}
