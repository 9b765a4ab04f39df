# What else in the configuration gives devices to vfio-pci, keeps it away, or is there for that: what a
# guide for another way has left behind.
{
  lib,
  config,
  options,
  # Whether the initrd is NixOS' own script, and not systemd's.
  isScripted,
}:
let
  inherit (lib)
    concatMap
    concatMapStringsSep
    concatStringsSep
    elem
    filter
    hasPrefix
    optional
    optionals
    ;
  inherit (import ./modprobe.nix { inherit lib; })
    contains
    lines
    parameter
    sameName
    ;

  hostDrivers = import ./host-drivers.nix { inherit lib; };

  inherit (config) boot;
  cfg = boot.initrd.vfio-early;

  # Of the files with a definition that has such an element, those whose name is known.
  definedIn =
    option: isMeant:
    let
      elements = value: if lib.isList value then value else lib.attrNames value;
      definitions = filter (definition: lib.any isMeant (elements definition.value)) (
        option.definitionsWithLocations
      );
      files = lib.unique (map (definition: toString definition.file) definitions);
    in
    lib.optionalString (
      files != [ ] && !elem "<unknown-file>" files
    ) " (in ${concatStringsSep ", " files})";

  parameters = map parameter boot.kernelParams;
  inParameters =
    isMeant: "boot.kernelParams" + definedIn options.boot.kernelParams (word: isMeant (parameter word));

  # The files of modprobe.d that can be read before anything is built.
  modprobeFiles = [
    {
      where = "boot.extraModprobeConfig";
      text = boot.extraModprobeConfig;
    }
  ]
  # That one has the above in it.
  ++ concatMap (
    name:
    let
      file = config.environment.etc.${name};
      text =
        if file.text != null then
          file.text
        else if lib.isPath file.source then
          lib.readFile file.source
        else
          "";
    in
    optional (hasPrefix "modprobe.d/" name && name != "modprobe.d/nixos.conf" && file.enable) {
      where = "environment.etc.\"${name}\"";
      inherit text;
    }
  ) (lib.attrNames config.environment.etc);
  modprobeLines = concatMap (
    file: map (line: line // { inherit (file) where; }) (lines file.text)
  ) modprobeFiles;

  # What is told of each source, once.
  sentences =
    separator: found:
    concatStringsSep separator (lib.unique (map (one: "${one.what} in ${one.where}") found));

  # Options that make a driver take every device of some ids.
  takers = [
    "vfio_pci"
    "pci_stub"
  ];
  idsOf = option: lib.splitString "," (lib.last (lib.splitString "=" option));
  isIdsParameter = given: given.value != null && elem given.name (map (name: "${name}.ids") takers);
  ids =
    map (given: {
      what = given.text;
      where = inParameters isIdsParameter;
      ids = idsOf given.value;
    }) (filter isIdsParameter parameters)
    ++ concatMap (
      line:
      let
        given = filter (argument: (parameter argument).name == "ids") line.arguments;
      in
      optional (line.command == "options" && elem line.module takers && given != [ ]) {
        what = line.text;
        inherit (line) where;
        ids = concatMap (argument: idsOf (parameter argument).value) given;
      }
    ) modprobeLines;
  items = map (id: "pci:${id}") (
    lib.unique (filter (id: id != "") (concatMap (found: found.ids) ids))
  );

  # Shell and rules that run at boot, as far as their text is in the configuration.
  hooks = [
    "extraUdevRulesCommands"
    "postDeviceCommands"
    "postMountCommands"
    "postResumeCommands"
    "preDeviceCommands"
    "preLVMCommands"
  ];
  textOf = value: lib.optionalString (lib.isString value) value;
  isStarted = service: service.wantedBy ++ service.requiredBy ++ (service.upheldBy or [ ]) != [ ];
  scriptsOf =
    prefix: services:
    concatMap (
      name:
      let
        service = services.${name};
        commands = filter (field: hasPrefix "Exec" field) (lib.attrNames service.serviceConfig);
      in
      optional (service.enable && isStarted service && !hasPrefix "vfio-early" name) {
        where = "${prefix}.${name}";
        text = concatStringsSep "\n" (
          map (field: textOf service.${field}) [
            "preStart"
            "script"
            "postStart"
          ]
          ++ concatMap (field: map textOf (lib.toList service.serviceConfig.${field})) commands
        );
      }
    ) (lib.attrNames services);
  text = where: value: {
    inherit where;
    text = textOf value;
  };
  scripts =
    optionals isScripted (map (name: text "boot.initrd.${name}" (boot.initrd.${name} or "")) hooks)
    ++ optionals (!isScripted) (
      scriptsOf "boot.initrd.systemd.services" boot.initrd.systemd.services
      ++ lib.mapAttrsToList (
        name: file: text "boot.initrd.systemd.contents.\"${name}\"" (file.text or null)
      ) (boot.initrd.systemd.contents or { })
    )
    ++ scriptsOf "systemd.services" config.systemd.services
    ++ [
      (text "boot.initrd.services.udev.rules" (boot.initrd.services.udev.rules or ""))
      (text "boot.postBootCommands" (boot.postBootCommands or ""))
      (text "services.udev.extraRules" (config.services.udev.extraRules or ""))
      (text "systemd.tmpfiles.rules" (concatStringsSep "\n" (config.systemd.tmpfiles.rules or [ ])))
    ]
    # `script` is all of them, as they are run.
    ++ lib.mapAttrsToList (
      name: script: text "system.activationScripts.${name}" (script.text or script)
    ) (removeAttrs (config.system.activationScripts or { }) [ "script" ]);
  writes =
    filter (found: found.what != null) (
      map (script: {
        inherit (script) where;
        what = lib.findFirst (word: contains word script.text) null [
          "driver_override"
          "/new_id"
          "vfio-pci/bind"
          "driverctl"
        ];
      }) scripts
    )
    ++ map (line: {
      what = line.text;
      inherit (line) where;
    }) (filter (line: line.command == "install" && line.module == "vfio_pci") modprobeLines);

  # What is needed from the kernel, and what would keep it out.
  ours = [
    "vfio"
    "vfio_iommu_type1"
    "vfio_pci"
    "vfio_pci_core"
  ]
  ++ optional (cfg.driver != null) (sameName cfg.driver);
  blacklists =
    map (name: {
      module = sameName name;
      what = name;
      where = "boot.blacklistedKernelModules";
    }) boot.blacklistedKernelModules
    ++ map (line: {
      inherit (line) module where;
      what = line.text;
    }) (filter (line: line.command == "blacklist") modprobeLines)
    ++
      concatMap
        (
          given:
          map (name: {
            module = sameName name;
            what = given.text;
            where = inParameters (other: other == given);
          }) (lib.splitString "," given.value)
        )
        (
          filter (
            given:
            given.value != null
            && elem given.name [
              "modprobe.blacklist"
              "module_blacklist"
            ]
          ) parameters
        );
  blacklisted = modules: filter (found: elem found.module modules) blacklists;
  oursBlacklisted = blacklisted ours;
  consoleBlacklisted = blacklisted (map sameName cfg.consoleModules);

  # What does no harm, and was there for a way that relied on the order of modules.
  loadedBefore =
    list: option:
    let
      isOurs =
        name:
        elem (sameName name) [
          "pci_stub"
          "vfio"
          "vfio_iommu_type1"
          "vfio_pci"
          "vfio_virqfd"
        ];
    in
    optional (lib.any isOurs option.value) {
      what = concatStringsSep " " (lib.naturalSort (filter isOurs option.value));
      where = list + definedIn option isOurs;
    };
  unneeded =
    loadedBefore "boot.initrd.kernelModules" options.boot.initrd.kernelModules
    ++ loadedBefore "boot.kernelModules" options.boot.kernelModules
    ++
      map
        (line: {
          what = line.text;
          inherit (line) where;
        })
        (
          filter (
            line: line.command == "softdep" && elem "vfio_pci" (map sameName line.arguments)
          ) modprobeLines
        );

  # What was to keep the host's driver and the console away. It has other uses, too.
  isHostDriver =
    module:
    hostDrivers {
      modules = [ module ];
      inherit (cfg) devices;
    } != [ ];
  isWithoutConsole =
    given:
    elem given.text [
      "initcall_blacklist=sysfb_init"
      "nofb"
      "nomodeset"
      "video=efifb:off"
      "video=simplefb:off"
      "video=vesafb:off"
    ];
  relics =
    filter (found: isHostDriver found.module) blacklists
    ++ map (given: {
      what = given.text;
      where = inParameters (other: other == given);
    }) (filter isWithoutConsole parameters);
in
{
  errors = optional (oursBlacklisted != [ ]) ''
    boot.initrd.vfio-early: ${sentences "; " oursBlacklisted}: devices are to be given to a module
    that shall not be loaded. Remove it there.
  '';

  warnings =
    optional (ids != [ ]) ''
      boot.initrd.vfio-early: ${sentences "; " ids}: that takes every device of such an id, a second
      card of the kind and the host's own as well, without a check and without a report. Remove it
      there. What is still meant becomes ${concatMapStringsSep " " (item: "\"${item}\"") items} in
      boot.initrd.vfio-early.devices, or better an address with the id in front, as
      "10de:1c03@01:00.0".
    ''
    ++ optional (writes != [ ]) ''
      boot.initrd.vfio-early: ${sentences "; " writes}: another way to give devices to a driver, which
      can undo this one. Remove it there: vfio-early does it before all drivers, and checks it.
    ''
    ++ optional (consoleBlacklisted != [ ]) ''
      boot.initrd.vfio-early.consoleModules: ${sentences "; " consoleBlacklisted}: the console cannot
      be moved to the display of a driver that shall not be loaded. Remove it from one of the two.
    ''
    ++ optional (unneeded != [ ]) ''
      boot.initrd.vfio-early: ${sentences "; " unneeded}: not needed any more, and no help where it
      was for the order of modules, which NixOS sorts by name since 25.11. Remove it: vfio-early
      loads what it needs, once no other driver can have the devices.
    ''
    ++ optional (ids ++ writes ++ unneeded != [ ] && relics != [ ]) ''
      boot.initrd.vfio-early: ${sentences "; " relics}: part of the same old way, and not needed by
      this one, with which the kernel gives the devices to no other driver, and the host keeps its
      console. Remove it, unless it is there for something else.
    '';
}
