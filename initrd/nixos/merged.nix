# What the module has set and the merged configuration lacks: a definition of higher priority, as by
# lib.mkForce, hides all others of an option without a word.
{
  lib,
  config,
  options,
  isScripted,
  # The kernel parameters, the modules and the programs that have to be there.
  parameters,
  modules,
  program,
  initrdProgram,
}:
let
  inherit (lib)
    concatStringsSep
    elem
    filter
    optional
    ;
  inherit (import ./modprobe.nix { inherit lib; }) contains sameName;

  inherit (config.boot) initrd;
  cfg = initrd.vfio-early;

  # Who else has defined what is left of an option; the module system knows the files of most.
  hiddenBy =
    name:
    let
      option = lib.getAttrFromPath (lib.splitString "." name) options;
      files = filter (file: file != "<unknown-file>" && file != toString ./module.nix) (
        lib.unique (map (definition: toString definition.file) option.definitionsWithLocations)
      );
    in
    lib.optionalString (files != [ ]) ", in ${concatStringsSep ", " files}";

  lacks = name: what: ''
    boot.initrd.vfio-early: ${name} lacks ${concatStringsSep " " what}: another definition hides
    that${hiddenBy name}. Write it without lib.mkForce, or add to it what is lacking.
  '';
  check =
    name: wanted: found:
    optional (!found) (lacks name [ wanted ]);

  missing = wanted: found: filter (name: !elem (sameName name) (map sameName found)) wanted;
  noParameters = filter (word: !elem word config.boot.kernelParams) parameters;
  noModules = missing modules (initrd.availableKernelModules ++ initrd.kernelModules);

  units = [
    "vfio-early"
    "vfio-early-claim"
  ]
  ++ optional cfg.strict "vfio-early-strict";
  hasUnit =
    packages: name: lib.any (package: lib.hasSuffix "${name}.service" (package.name or "")) packages;
  # It starts the units.
  generator = "vfio-early-generator";
  is = program: file: (file.enable or true) && toString (file.source or file) == program;
  systemd =
    let
      inherit (initrd.systemd) contents services;
      place = "/etc/systemd/system-generators/${generator}";
      noUnits = filter (name: !hasUnit initrd.systemd.packages name) units;
      off = filter (name: !(services.${name}.enable or true)) units;
      suppressed = filter (name: elem "${name}.service" initrd.systemd.suppressedUnits) units;
      sources = map (path: toString (path.source or path)) initrd.systemd.storePaths;
    in
    optional (noUnits != [ ]) (lacks "boot.initrd.systemd.packages" noUnits)
    ++ check "boot.initrd.systemd.storePaths" initrdProgram (elem initrdProgram sources)
    ++ check "boot.initrd.systemd.contents" place (
      contents ? ${place} && is initrdProgram contents.${place}
    )
    ++ optional (off ++ suppressed != [ ]) ''
      boot.initrd.vfio-early: ${
        concatStringsSep ", " (lib.unique (off ++ suppressed))
      } would not run: boot.initrd.systemd.services, or suppressedUnits, turns it off. Set
      boot.initrd.vfio-early.enable to false if that is meant.
    '';

  host = check "systemd.generators" generator (
    config.systemd.generators ? ${generator} && is program config.systemd.generators.${generator}
  );

  scripted =
    check "boot.initrd.preDeviceCommands" "`vfio-early claim`" (
      contains "vfio-early claim" initrd.preDeviceCommands
    )
    ++ check "boot.initrd.postDeviceCommands" "`vfio-early wait`" (
      contains "vfio-early wait" initrd.postDeviceCommands
    )
    ++ check "boot.initrd.extraUtilsCommands" "`copy_bin_and_libs ${initrdProgram}`" (
      contains initrdProgram initrd.extraUtilsCommands
    );
in
if !initrd.enable || !(config.boot.kernel.enable or true) then
  [
    ''
      boot.initrd.vfio-early: this system has ${
        if initrd.enable then "no kernel (boot.kernel.enable)" else "no initrd (boot.initrd.enable)"
      }${
        lib.optionalString (config.boot.isContainer or false) ", since it is a container (boot.isContainer)"
      }: no device can be given away before the host's drivers are loaded. Set
      boot.initrd.vfio-early.enable to false.
    ''
  ]
else
  optional (noParameters != [ ]) (lacks "boot.kernelParams" noParameters)
  ++ optional (noModules != [ ]) (lacks "boot.initrd.availableKernelModules" noModules)
  ++ (if isScripted then scripted else systemd)
  ++ host
