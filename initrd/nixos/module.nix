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
    mkIf
    mkOption
    optional
    types
    ;

  cfg = config.boot.initrd.vfio-early;
  initrd = config.boot.initrd;
  items = import ./item.nix { inherit lib; };
  inherit (import ./modprobe.nix { inherit lib; }) oneLine parameter sameName;
  program = lib.getExe cfg.package;
  initrdProgram = "${cfg.package}/lib/vfio-early/vfio-early-initrd";

  # NixOS' own script instead of systemd. It goes in 26.11, and its options with it: what defines them
  # unasked does not evaluate then. Removed ones can still be declared, to say so.
  hasScripted =
    options.boot.initrd ? preDeviceCommands
    && (options.boot.initrd.preDeviceCommands.visible or true) != false;
  isScripted = hasScripted && !initrd.systemd.enable;

  # The units are those of every systemd initrd; only the paths of the programs are ours.
  unit =
    program: name:
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
        (withoutComments (lib.readFile (../systemd + "/${name}.service")))
    );
  withoutComments =
    text:
    lib.removePrefix "\n" (
      concatStringsSep "\n" (lib.filter (line: !lib.hasPrefix "#" line) (lib.splitString "\n" text))
    );

  parameters =
    optional (cfg.devices != [ ]) "vfio.devs=${concatStringsSep "," cfg.devices}"
    ++ optional (cfg.console != "keep") "vfio.console=${cfg.console}"
    ++ optional (cfg.wait != 0) "vfio.wait=${toString cfg.wait}"
    ++ optional (cfg.driver != null) "vfio.driver=${cfg.driver}"
    ++ optional cfg.strict "vfio.strict"
    ++ optional (cfg.iommu == "intel") "intel_iommu=on";
  # Placed in the initrd with what they need, and not loaded: that is vfio-early's to do. Nothing
  # depends on vfio_iommu_type1, so it has to be named.
  modules = [
    "vfio_pci"
    "vfio_iommu_type1"
  ]
  ++ optional (cfg.driver != null && sameName cfg.driver != "vfio_pci") (sameName cfg.driver)
  ++ cfg.consoleModules;

  merged = import ./merged.nix {
    inherit
      config
      initrdProgram
      isScripted
      lib
      modules
      options
      parameters
      program
      ;
  };
  leftovers = import ./leftovers.nix {
    inherit
      config
      isScripted
      lib
      options
      ;
  };

  record = lib.concatLines cfg.keep;

  # Items that choose the same devices.
  repeated = lib.filter (same: lib.length same > 1) (
    lib.foldl' (
      groups: item:
      let
        with' = lib.partition (lib.any (items.overlap item)) groups;
      in
      with'.wrong ++ [ (lib.concatLists with'.right ++ [ item ]) ]
    ) [ ] cfg.devices
  );

  hostDrivers = import ./host-drivers.nix { inherit lib; } {
    modules = initrd.kernelModules;
    inherit (cfg) devices;
  };

  # How the kernel's modules are compressed, where its configuration is known before it is built.
  modulesOf =
    let
      inherit (config.boot.kernelPackages) kernel;
      isYes =
        name:
        (kernel.configfile.structuredConfig.${name}.tristate or null) == "y"
        || (kernel.config."CONFIG_${name}" or null) == "y";
      need = name: isYes name && !isYes "MODULE_DECOMPRESS";
    in
    {
      withZstd = need "MODULE_COMPRESS_ZSTD";
      withGzip = need "MODULE_COMPRESS_GZIP";
    };

  words = map parameter config.boot.kernelParams;
  isGiven = name: value: lib.any (word: word.name == name && word.value == value) words;
  panics =
    isGiven "boot.panic_on_fail" null || isGiven "stage1panic" null || isGiven "stage1panic" "1";
  iommuOff = lib.filter (
    text:
    lib.elem text (
      [ "iommu=off" ]
      ++ optional (cfg.iommu == "intel") "intel_iommu=off"
      ++ optional (cfg.iommu == "amd") "amd_iommu=off"
    )
  ) config.boot.kernelParams;
  isIntel = lib.any (name: sameName name == "kvm_intel") (
    config.boot.kernelModules ++ initrd.kernelModules
  );
  intelIommu = lib.filter (word: word.name == "intel_iommu") words;
in
{
  options.boot.initrd.vfio-early = {
    enable = lib.mkEnableOption "giving chosen PCI devices to vfio-pci in the initrd, before any other driver can have them";

    package = mkOption {
      type = types.package;
      default = pkgs.pkgsStatic.callPackage ./package.nix { inherit (modulesOf) withZstd; };
      defaultText = lib.literalMD "vfio-early of this source, built by `pkgs.pkgsStatic`";
      description = ''
        The vfio-early to use. It has to be linked statically. It unpacks modules that are compressed
        with xz, as NixOS has them, and those that the kernel unpacks itself; for a kernel with others,
        as far as its configuration tells, the default has zstd as well (`withZstd`).
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
        - `vfs:03:00.0`: the virtual functions (SR-IOV) of that device, which stays with the host,
          when somebody makes them; `vfs:03:00.0=4` has four made, where there are none;
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

    keep = mkOption {
      type = types.listOf (types.strMatching "(disk|keyboard|network)[ \t]+[^ \t\n#]+[ \t]*(#[^\n]*)?");
      default = [ ];
      example = [ "disk 144d:a808@00:1d.0/00.0  # nvme0n1p2 is mounted on /" ];
      description = ''
        What the host lives from, one device each: `disk`, `keyboard` or `network`, an item with its
        guard, and behind a `#` why. At boot such a disk is not given away, however it is listed, unless
        `vfio.host=release` is in {option}`boot.kernelParams`; of the others there is a warning. An
        initrd of NixOS is made where nobody can see that: {command}`vfio-early list --format nix` on
        the running host prints it.
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

    accessGroup = mkOption {
      type = types.nullOr (types.strMatching "[A-Za-z_][A-Za-z0-9_-]*");
      default = null;
      example = "kvm";
      description = ''
        The group that may open the devices of vfio below {file}`/dev`. With `null` only root may,
        which is enough for libvirt and for microvm.nix: they let their QEMU in themselves. With
        `"kvm"` every user of that group can run QEMU with a chosen device; how much memory the
        machine may have is then that user's limit `memlock`.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions =
      map
        (message: {
          assertion = false;
          message = oneLine message;
        })
        (
          merged
          ++ leftovers.errors
          ++ optional (repeated != [ ]) ''
            boot.initrd.vfio-early.devices: the same devices are chosen twice: ${
              concatMapStringsSep "; " (concatStringsSep " and ") repeated
            }. Remove one of them.
          ''
          ++ optional (iommuOff != [ ]) ''
            boot.initrd.vfio-early: boot.kernelParams has ${concatStringsSep " " iommuOff}, and
            without an IOMMU no device can be given to vfio-pci. Remove it there.
          ''
          ++ optional modulesOf.withGzip ''
            boot.initrd.vfio-early: this kernel's modules are compressed with gzip, which vfio-early does
            not unpack. Give the kernel MODULE_DECOMPRESS, or MODULE_COMPRESS_XZ or _ZSTD.
          ''
        );

    warnings = map oneLine (
      leftovers.warnings
      ++ optional (isScripted && hostDrivers != [ ]) ''
        boot.initrd.vfio-early: boot.initrd.kernelModules has ${
          concatMapStringsSep "; " (
            found: "${found.module}, which can have ${concatStringsSep " " found.items}"
          ) hostDrivers
        }: it is loaded before vfio-early runs, because this initrd is not systemd's. Move it to
        boot.initrd.availableKernelModules, or, the driver of the display that stays, to
        boot.initrd.vfio-early.consoleModules: from there it is loaded when the chosen devices are
        safe. Where it is another device's driver, a guard says so, as "10de:1c03@01:00.0".
      ''
      ++ optional (cfg.strict && panics) ''
        boot.initrd.vfio-early.strict: boot.kernelParams has boot.panic_on_fail (or stage1panic), with
        which the kernel panics where strict stops the boot: with panic= as well the machine boots
        again and again, without end. Leave out one of the two.
      ''
      ++ optional (cfg.iommu == null && cfg.devices != [ ] && isIntel && intelIommu == [ ]) ''
        boot.initrd.vfio-early: boot.kernelModules has kvm-intel, so this seems to be an Intel
        processor, whose IOMMU the kernel leaves off by itself; then no device can be given away. Set
        boot.initrd.vfio-early.iommu to "intel".
      ''
    );

    boot = {
      kernelParams = parameters;

      initrd = {
        availableKernelModules = modules;

        systemd = mkIf (!isScripted) {
          packages = map (unit initrdProgram) [
            "vfio-early"
            "vfio-early-claim"
            "vfio-early-strict"
          ];
          # A unit's ExecStart= brings nothing into the initrd.
          storePaths = [ initrdProgram ];
          contents = {
            # It starts them, where the kernel command line asks for devices.
            "/etc/systemd/system-generators/vfio-early-generator".source = initrdProgram;
            "/etc/vfio-early/keep" = mkIf (cfg.keep != [ ]) { text = record; };
          };
        };
      }
      // lib.optionalAttrs hasScripted {
        extraFiles = mkIf (isScripted && cfg.keep != [ ]) {
          "/etc/vfio-early/keep".source = pkgs.writeText "keep" record;
        };
        extraUtilsCommands = mkIf isScripted ''
          copy_bin_and_libs ${initrdProgram}
          mv $out/bin/vfio-early-initrd $out/bin/vfio-early
        '';
        # After the mounts and boot.initrd.kernelModules, before udev: that waits until no other driver
        # can have the devices, and the rest goes on beside it.
        preDeviceCommands = mkIf isScripted (
          lib.mkBefore ''
            vfio-early claim
            vfioEarly=$?
            if [ $vfioEarly -eq 5 ]; then
                vfio-early wait </dev/null >/dev/null 2>&1 &
            fi
          ''
        );
        # Before a resume and the root.
        postDeviceCommands = mkIf isScripted (
          lib.mkBefore ''
            if [ $vfioEarly -ne 0 ]; then
                vfio-early wait
                vfioEarly=$?
            fi
            if [ $vfioEarly -eq 3 ]; then
                echo "vfio-early: vfio.strict is set, and not all devices are with their vfio driver"
                fail
            fi
          ''
        );
      };
    };

    systemd = {
      packages = [ (unit program "vfio-early-finish") ];
      generators.vfio-early-generator = program;
      services = {
        vfio-early-finish = {
          # Every update changes its PATH: without this, a switch to it would take devices from the
          # running host.
          restartIfChanged = false;
        };
      }
      # microvm.nix starts each machine by an instance of the one, and takes its devices by the other.
      // lib.optionalAttrs (options ? microvm && options.microvm ? host) {
        "microvm@" = mkIf config.microvm.host.enable { after = [ "vfio-early-finish.service" ]; };
        "microvm-pci-devices@" = mkIf config.microvm.host.enable {
          after = [ "vfio-early-finish.service" ];
        };
      };
    };

    services.udev.extraRules = mkIf (cfg.accessGroup != null) ''
      SUBSYSTEM=="vfio", GROUP="${cfg.accessGroup}", MODE="0660"
      SUBSYSTEM=="vfio-dev", GROUP="${cfg.accessGroup}", MODE="0660"
      KERNEL=="iommu", SUBSYSTEM=="misc", GROUP="${cfg.accessGroup}", MODE="0660"
    '';

    environment.systemPackages = [ cfg.package ];
  };
}
