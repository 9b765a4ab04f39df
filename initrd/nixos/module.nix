# The NixOS module `boot.initrd.vfio-early`.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib)
    concatMapStringsSep
    concatStringsSep
    hasInfix
    mkIf
    mkOption
    optional
    optionals
    types
    ;

  cfg = config.boot.initrd.vfio-early;
  initrd = config.boot.initrd;
  items = import ./item.nix { inherit lib; };
  program = lib.getExe cfg.package;
  # Module names are the same with `-` and with `_`.
  sameName = lib.replaceStrings [ "-" ] [ "_" ];
  named = name: lib.any (other: sameName other == sameName name);

  # The units are those of every systemd initrd; only the paths of the programs are ours.
  unit =
    name:
    pkgs.writeTextDir "lib/systemd/system/${name}.service" (
      lib.replaceStrings
        [
          "/usr/bin/vfio-early"
          "/usr/bin/systemctl"
        ]
        [
          program
          "${config.systemd.package}/bin/systemctl"
        ]
        (lib.readFile (../systemd + "/${name}.service"))
    );

  # Items that choose the same devices.
  repeated = lib.filter (same: lib.length same > 1) (
    lib.attrValues (lib.groupBy items.key cfg.devices)
  );

  # The ids that vfio-pci is told to take, on the kernel command line and by modprobe.d.
  idsIn =
    prefix: word:
    let
      ids = builtins.match "${prefix}ids=(.*)" word;
    in
    if ids == null then [ ] else lib.filter (id: id != "") (lib.splitString "," (lib.head ids));
  vfioOptions =
    line:
    let
      given = builtins.match "[ \t]*options[ \t]+vfio[-_]pci[ \t]+(.*)" line;
    in
    if given == null then [ ] else lib.splitString " " (lib.head given);
  givenIds =
    lib.concatMap (idsIn "vfio[-_]pci\\.") (
      lib.concatMap (lib.splitString " ") config.boot.kernelParams
    )
    ++ lib.concatMap (idsIn "") (
      lib.concatMap vfioOptions (lib.splitString "\n" config.boot.extraModprobeConfig)
    );
  wantedIds = lib.filter (id: id != null) (map items.vendorAndDevice cfg.devices);
  idsTwice = lib.filter (id: lib.elem (items.vendorAndDeviceOf id) wantedIds) givenIds;

  graphicsDrivers = [
    "amdgpu"
    "ast"
    "bochs"
    "cirrus"
    "gma500_gfx"
    "hibmc_drm"
    "i915"
    "mgag200"
    "nouveau"
    "nova_drm"
    "nvidia"
    "nvidia_drm"
    "nvidia_modeset"
    "qxl"
    "radeon"
    "virtio_gpu"
    "vmwgfx"
    "xe"
  ];
  earlyGraphics = lib.filter (name: named name graphicsDrivers) initrd.kernelModules;

  iommuOff = lib.filter (
    parameter:
    lib.elem parameter (
      [ "iommu=off" ]
      ++ optional (cfg.iommu == "intel") "intel_iommu=off"
      ++ optional (cfg.iommu == "amd") "amd_iommu=off"
    )
  ) config.boot.kernelParams;
in
{
  options.boot.initrd.vfio-early = {
    enable = lib.mkEnableOption "giving chosen PCI devices to vfio-pci in the initrd, before any other driver can have them";

    package = mkOption {
      type = types.package;
      default = pkgs.pkgsStatic.callPackage ./package.nix { };
      defaultText = lib.literalMD "vfio-early of this source, built by `pkgs.pkgsStatic`";
      description = ''
        The vfio-early to use. It has to be linked statically.
      '';
    };

    devices = mkOption {
      type = types.listOf items.type;
      default = [ ];
      example = [
        "10de:1c03@01:00.*"
        "144d:a808@00:1d.0/00.0"
      ];
      description = ''
        The PCI devices to give to vfio-pci; {command}`lspci -Dnn` shows addresses and ids:

        - `0000:01:00.0` or `01:00.0`: one function;
        - `01:00.*`: all functions of that slot, such as a graphics card and its audio;
        - `00:01.0/00.0`: a path, in which each `/` is one hop below the bridge before; it
          survives other bus numbers, which a new card or firmware can bring;
        - `pci:10de:1c03` or `pci:10de:1c03:1462:3282`: every device of that id, where `0` stands
          for any;
        - `group:01:00.0`: all but PCI bridges in the IOMMU group of that device;
        - `10de:1c03@01:00.0`: a guard, in front of an address, slot or path (also in a group, as
          `group:10de:1c03@01:00.0`): only if that device has that id. Disks and network cards
          should have one.

        They become the kernel parameter `vfio.devs=`. Further ones can be typed in the boot menu,
        and `vfio.off` there leaves all devices to the host.
      '';
    };

    console = mkOption {
      type = types.enum [
        "keep"
        "release"
      ];
      default = "keep";
      description = ''
        What may become of the host's console. With `keep`, a host that had a console keeps one:
        a graphics card that would take it along is given away only when the console can be moved
        to another display first, for which {option}`boot.initrd.vfio-early.consoleModules` has to
        name that display's driver. With `release` the screen may go dark.
      '';
    };

    consoleModules = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "i915" ];
      description = ''
        The kernel modules of the display that stays with the host. They are put into the initrd,
        and loaded by vfio-early only when it has to move the console. Without them a boot display
        is not given away in the initrd, but later, by `vfio-early-finish.service`.
      '';
    };

    wait = mkOption {
      type = types.ints.between 0 60;
      default = 0;
      example = 10;
      description = ''
        For how many seconds to wait at most for devices that are not there yet.
      '';
    };

    driver = mkOption {
      type = types.nullOr (types.strMatching "[0-9A-Za-z_-]{1,63}");
      default = null;
      example = "vfio-pci";
      description = ''
        The driver for all devices. With `null` it is vfio-pci, or for each device the best
        variant of it in the initrd; put the modules of those, such as `mlx5_vfio_pci`, into
        {option}`boot.initrd.availableKernelModules`.
      '';
    };

    strict = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the boot must stop when a device is not with its vfio driver: in the emergency
        mode of a systemd initrd, or at the prompt of a scripted one. Otherwise the boot goes on,
        with a failed `vfio-early-finish.service`.
      '';
    };

    iommu = mkOption {
      type = types.nullOr (
        types.enum [
          "intel"
          "amd"
        ]
      );
      default = null;
      example = "intel";
      description = ''
        The machine's IOMMU, which also has to be on in the firmware. `"intel"` sets
        `intel_iommu=on`. `"amd"` sets nothing, because the kernel uses an AMD IOMMU by default.
        With either it is an error to turn it off in {option}`boot.kernelParams`.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = repeated == [ ];
        message = ''
          boot.initrd.vfio-early.devices: the same devices are chosen twice: ${
            concatMapStringsSep "; " (concatStringsSep " and ") repeated
          }. Remove one of them.
        '';
      }
      {
        assertion = !named "vfio-pci" config.boot.blacklistedKernelModules;
        message = ''
          boot.initrd.vfio-early: vfio-pci is in boot.blacklistedKernelModules, and no device
          can be given to it. Remove it there.
        '';
      }
      {
        assertion = iommuOff == [ ];
        message = ''
          boot.initrd.vfio-early: boot.kernelParams has ${concatStringsSep " " iommuOff}, and
          without an IOMMU no device can be given to vfio-pci. Remove it there.
        '';
      }
    ];

    warnings =
      optional (idsTwice != [ ]) ''
        boot.initrd.vfio-early: vfio-pci is also told to take ${concatStringsSep "," idsTwice} by
        its option ids=, in boot.kernelParams or boot.extraModprobeConfig. That takes every device
        with such an id, without a check and without a report. Remove it there.
      ''
      ++ optional (!initrd.systemd.enable && earlyGraphics != [ ]) ''
        boot.initrd.vfio-early: ${concatStringsSep " " earlyGraphics} in boot.initrd.kernelModules
        is loaded before vfio-early runs, because this initrd is not systemd's, and takes every
        graphics card that it knows. Move it to boot.initrd.vfio-early.consoleModules, where it is
        loaded after the chosen devices are safe.
      ''
      ++ optional (!initrd.systemd.enable && hasInfix "driver_override" initrd.preDeviceCommands) ''
        boot.initrd.vfio-early: boot.initrd.preDeviceCommands also writes driver_override. Remove
        that: vfio-early does it, and checks it.
      '';

    boot = {
      kernelParams =
        optional (cfg.devices != [ ]) "vfio.devs=${concatStringsSep "," cfg.devices}"
        ++ optional (cfg.console != "keep") "vfio.console=${cfg.console}"
        ++ optional (cfg.wait != 0) "vfio.wait=${toString cfg.wait}"
        ++ optional (cfg.driver != null) "vfio.driver=${cfg.driver}"
        ++ optional cfg.strict "vfio.strict"
        ++ optional (cfg.iommu == "intel") "intel_iommu=on";

      initrd = {
        # Placed in the initrd with what they need, and not loaded: that is vfio-early's to do.
        # Nothing depends on vfio_iommu_type1, so it has to be named.
        availableKernelModules = [
          "vfio_pci"
          "vfio_iommu_type1"
        ]
        ++ optionals (cfg.driver != null && sameName cfg.driver != "vfio_pci") [ (sameName cfg.driver) ]
        ++ cfg.consoleModules;

        systemd = mkIf initrd.systemd.enable {
          packages = map unit [
            "vfio-early"
            "vfio-early-strict"
          ];
          services.vfio-early.wantedBy = [ "sysinit.target" ];
          services.vfio-early-strict.requiredBy = [ "initrd-root-fs.target" ];
          # A unit's ExecStart= brings nothing into the initrd.
          storePaths = [ program ];
        };

        extraUtilsCommands = mkIf (!initrd.systemd.enable) ''
          copy_bin_and_libs ${program}
        '';
        # After the mounts and boot.initrd.kernelModules, before udev.
        preDeviceCommands = mkIf (!initrd.systemd.enable) (
          lib.mkBefore ''
            vfio-early bind
            if [ $? -eq 3 ]; then
                echo "vfio-early: vfio.strict is set, and not all devices are with their vfio driver"
                fail
            fi
          ''
        );
      };
    };

    systemd = {
      packages = [ (unit "vfio-early-finish") ];
      services = {
        vfio-early-finish.wantedBy = [ "multi-user.target" ];
      }
      # microvm.nix starts each machine by an instance of this template.
      // lib.optionalAttrs (options ? microvm && options.microvm ? host) {
        "microvm@".after = [ "vfio-early-finish.service" ];
      };
    };

    environment.systemPackages = [ cfg.package ];
  };
}
