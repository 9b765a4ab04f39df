# Configurations, by name. What comes out of them is in expected.json: of `configurations` all of
# it, of `messages` and `attributes` the errors and warnings. The last are those in which modules are
# attributes, as nixpkgs takes them since 25.11. `kernelWith` is a configuration with a kernel that has
# such options.
{ lib, kernelWith }:
let
  inherit (lib) mkAfter mkForce;

  one = {
    enable = true;
    devices = [ "10de:1c03@01:00.*" ];
  };
  scripted.boot.initrd.systemd.enable = false;
in
{
  configurations = {
    systemd.boot.initrd.vfio-early = one;
    scripted = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
    };
    not-enabled.boot.initrd.vfio-early = one // {
      enable = false;
    };
    no-devices.boot.initrd.vfio-early.enable = true;
    every-option.boot.initrd.vfio-early = {
      enable = true;
      devices = [
        "0000:03:00.0"
        "00:01.0/00.0"
        "pci:8086:10d3"
        "group:04:00.0"
      ];
      console = "release";
      consoleModules = [ "i915" ];
      keep = [
        "disk 144d:a808@00:1d.0/00.0  # nvme0n1p2 is mounted on /"
        "keyboard 8086:a36d@00:14.0"
      ];
      wait = 10;
      driver = "xe-vfio-pci";
      strict = true;
      iommu = "intel";
    };
    amd.boot.initrd.vfio-early = one // {
      iommu = "amd";
    };
    scripted-with-a-record = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one // {
        keep = [ "disk 144d:a808@00:1d.0/00.0" ];
      };
    };
    scripted-hooks-of-others = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
      boot.initrd.preDeviceCommands = "echo of another";
    };
    microvm.boot.initrd.vfio-early = one;
    modules-by-zstd = {
      imports = [ (kernelWith [ "MODULE_COMPRESS_ZSTD" ]) ];
      boot.initrd.vfio-early = one;
    };
    modules-by-zstd-that-the-kernel-unpacks = {
      imports = [
        (kernelWith [
          "MODULE_COMPRESS_ZSTD"
          "MODULE_DECOMPRESS"
        ])
      ];
      boot.initrd.vfio-early = one;
    };
    a-group-with-access.boot.initrd.vfio-early = one // {
      accessGroup = "kvm";
    };
  };

  messages = {
    # What the merged configuration lacks.
    forced-parameters.boot = {
      initrd.vfio-early = one // {
        strict = true;
      };
      kernelParams = mkForce [ "quiet" ];
    };
    forced-parameters-in-a-file = {
      _file = "/etc/nixos/quiet.nix";
      boot.initrd.vfio-early = one;
      boot.kernelParams = mkForce [
        "quiet"
        "vfio-pci.ids=10de:1c03"
      ];
    };
    added-parameters.boot = {
      initrd.vfio-early = one // {
        strict = true;
      };
      kernelParams = mkAfter [ "quiet" ];
    };
    forced-parameters-with-ours.boot = {
      initrd.vfio-early = one;
      kernelParams = mkForce [
        "quiet"
        "vfio.devs=10de:1c03@01:00.*"
      ];
    };
    forced-parameters-and-nothing-asked-for.boot = {
      initrd.vfio-early.enable = true;
      kernelParams = mkForce [ "quiet" ];
    };
    forced-modules.boot.initrd = {
      vfio-early = one // {
        consoleModules = [ "i915" ];
      };
      availableKernelModules = mkForce [
        "ahci"
        "vfio-pci"
      ];
    };
    forced-modules-with-ours.boot.initrd = {
      vfio-early = one;
      availableKernelModules = mkForce [
        "vfio-pci"
        "vfio-iommu-type1"
      ];
    };
    forced-commands = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
      boot.initrd.preDeviceCommands = mkForce "echo of another";
      boot.initrd.extraUtilsCommands = mkForce "copy_bin_and_libs /another";
    };
    added-commands = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
      boot.initrd.preDeviceCommands = mkAfter "echo of another";
    };
    forced-store-paths.boot.initrd = {
      vfio-early = one;
      systemd.storePaths = mkForce [ "/another" ];
    };
    forced-packages.boot.initrd = {
      vfio-early = one // {
        strict = true;
      };
      systemd.packages = mkForce [ ];
    };
    forced-contents.boot.initrd = {
      vfio-early = one;
      systemd.contents = mkForce { };
    };
    another-generator = {
      boot.initrd.vfio-early = one;
      systemd.generators.vfio-early-generator = mkForce "/dev/null";
    };
    a-unit-turned-off.boot.initrd = {
      vfio-early = one;
      systemd.services.vfio-early.enable = false;
    };
    the-strict-unit-suppressed.boot.initrd = {
      vfio-early = one // {
        strict = true;
      };
      systemd.suppressedUnits = [ "vfio-early-strict.service" ];
    };
    the-strict-unit-suppressed-and-not-asked-for.boot.initrd = {
      vfio-early = one;
      systemd.suppressedUnits = [ "vfio-early-strict.service" ];
    };
    no-initrd.boot.initrd = {
      vfio-early = one;
      enable = false;
    };
    a-container.boot = {
      initrd.vfio-early = one;
      initrd.enable = false;
      isContainer = true;
    };
    a-container-without-us.boot = {
      initrd.enable = false;
      isContainer = true;
    };

    # Devices.
    the-same-devices-twice.boot.initrd.vfio-early = {
      enable = true;
      devices = [
        "01:00.*"
        "pci:10DE:1c03"
        "af:1f.7"
        "pci:10de:1c03:0:0000"
        "0000:AF:1f.7"
        "8086:10d3@0:AF:1F.07"
        "group:01:00.0"
      ];
    };
    a-function-of-a-slot.boot.initrd.vfio-early = {
      enable = true;
      devices = [
        "10de:1c03@01:00.*"
        "144d:a808@00:1d.0/00.0"
        "01:00.1"
        "00:1d.0/00.*"
        "pci:10de:1c03"
        "pci:10de:1c03:1462:3282"
      ];
    };
    neighbours.boot.initrd.vfio-early = {
      enable = true;
      devices = [
        "01:00.0"
        "01:00.1"
        "01:01.*"
        "02:00.*"
        "1:01:00.*"
        "00:01.0/00.*"
        "00:01.1/00.*"
        "00:01.0/00.0/00.*"
        "pci:10de:1c03:1462:3282"
        "pci:10de:1c03:1462:3283"
        "pci:10de:1c02"
        "group:01:00.0"
      ];
    };

    # What keeps vfio-pci out.
    vfio-pci-on-the-blacklist.boot = {
      initrd.vfio-early = one;
      blacklistedKernelModules = [ "vfio_pci" ];
    };
    blacklists-everywhere.boot = {
      initrd.vfio-early = one;
      extraModprobeConfig = ''
        # blacklist vfio_iommu_type1
        blacklist \
          vfio-pci
      '';
      kernelParams = [
        "modprobe.blacklist=nouveau,vfio"
        "module_blacklist=vfio_pci_core"
      ];
    };
    blacklists-of-others.boot = {
      initrd.vfio-early = one;
      blacklistedKernelModules = [ "nouveau" ];
      extraModprobeConfig = "blacklist nvidiafb";
      kernelParams = [ "module_blacklist=nova_core" ];
    };
    the-console-on-the-blacklist.boot = {
      initrd.vfio-early = one // {
        consoleModules = [ "i915" ];
      };
      blacklistedKernelModules = [ "i915" ];
    };
    iommu-off.boot = {
      initrd.vfio-early = one;
      kernelParams = [ "iommu=off" ];
    };
    intel-iommu-off.boot = {
      initrd.vfio-early = one // {
        iommu = "intel";
      };
      kernelParams = [ "intel_iommu=off" ];
    };
    amd-iommu-off.boot = {
      initrd.vfio-early = one // {
        iommu = "amd";
      };
      kernelParams = [ "amd_iommu=off" ];
    };
    an-intel-processor.boot = {
      initrd.vfio-early = one;
      kernelModules = [ "kvm-intel" ];
    };
    an-intel-processor-by-option.boot = {
      initrd.vfio-early = one // {
        iommu = "intel";
      };
      kernelModules = [ "kvm-intel" ];
    };
    an-intel-processor-by-parameter.boot = {
      initrd.vfio-early = one;
      kernelModules = [ "kvm-intel" ];
      kernelParams = [ "intel_iommu=on,sm_on" ];
    };
    an-amd-processor.boot = {
      initrd.vfio-early = one;
      kernelModules = [ "kvm-amd" ];
    };

    # Kernels.
    modules-by-gzip = {
      imports = [ (kernelWith [ "MODULE_COMPRESS_GZIP" ]) ];
      boot.initrd.vfio-early = one;
    };
    modules-by-gzip-that-the-kernel-unpacks = {
      imports = [
        (kernelWith [
          "MODULE_COMPRESS_GZIP"
          "MODULE_DECOMPRESS"
        ])
      ];
      boot.initrd.vfio-early = one;
    };

    # Strict, where a panic follows.
    strict-and-panic.boot = {
      initrd.vfio-early = one // {
        strict = true;
      };
      kernelParams = [
        "panic=1"
        "boot.panic_on_fail"
      ];
    };
    strict-and-panic-of-old.boot = {
      initrd.vfio-early = one // {
        strict = true;
      };
      kernelParams = [ "stage1panic=1" ];
    };
    panic-alone.boot = {
      initrd.vfio-early = one;
      kernelParams = [ "boot.panic_on_fail" ];
    };
    strict-and-a-later-panic.boot = {
      initrd.vfio-early = one // {
        strict = true;
      };
      kernelParams = [ "panic=30" ];
    };

    # Others who give to vfio-pci.
    ids-on-the-command-line.boot = {
      initrd.vfio-early = one;
      kernelParams = [ "vfio-pci.ids=10DE:1C03:1462:3282,8086:10d3" ];
    };
    ids-with-quotes.boot = {
      initrd.vfio-early.enable = true;
      initrd.vfio-early.devices = [ "03:00.*" ];
      kernelParams = [
        "vfio_pci.ids=\"1002:744c,1002:ab30\""
        "pci-stub.ids=8086:10d3"
      ];
    };
    ids-in-modprobe.boot = {
      initrd.vfio-early = one;
      extraModprobeConfig = ''
        options snd_hda_intel ids=10de:1c03
        options vfio_pci disable_vga=1 ids=10de:1c03
      '';
    };
    ids-in-all-spellings.boot = {
      initrd.vfio-early = one;
      extraModprobeConfig = ''
        options	vfio-pci	ids="10de:1c03,10de:10f1"
        options vfio-pci \
          ids=1002:744c \
          disable_vga=1
        # options vfio-pci ids=8086:10d3
          options pci-stub ids=8086:10d3
      '';
    };
    ids-in-another-file = {
      boot.initrd.vfio-early = one;
      environment.etc."modprobe.d/vfio.conf".text = "options vfio-pci ids=10de:1c03";
      environment.etc."other.d/vfio.conf".text = "options vfio-pci ids=10de:1c04";
    };
    no-ids.boot = {
      initrd.vfio-early = one;
      kernelParams = [ "vfio-pci.disable_vga=1" ];
      extraModprobeConfig = "options vfio-pci disable_idle_d3=1";
    };
    loop-of-old = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
      boot.initrd.preDeviceCommands = ''
        for device in 0000:01:00.0; do
          echo vfio-pci > /sys/bus/pci/devices/$device/driver_override
        done
        modprobe -i vfio-pci
      '';
    };
    commands-of-others = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
      boot.initrd.preDeviceCommands = "modprobe dm_crypt";
      boot.postBootCommands = "echo 1 > /proc/sys/vm/drop_caches";
    };
    a-unit-of-the-initrd.boot.initrd = {
      vfio-early = one;
      systemd.services.passthrough = {
        wantedBy = [ "initrd.target" ];
        script = "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override";
      };
      systemd.services.off = {
        enable = false;
        script = "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override";
      };
    };
    scripts-of-the-host = {
      boot.initrd.vfio-early = one;
      boot.postBootCommands = "echo 10de 1c03 > /sys/bus/pci/drivers/vfio-pci/new_id";
      systemd.services.passthrough = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = [
          ""
          "/bin/driverctl --nosave set-override 0000:01:00.0 vfio-pci"
        ];
      };
      # To be started by hand.
      systemd.services.give-back.script = "echo > /sys/bus/pci/devices/0000:01:00.0/driver_override";
      system.activationScripts.passthrough = "echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind";
      services.udev.extraRules = ''
        ACTION=="add", KERNEL=="0000:01:00.0", ATTR{driver_override}="vfio-pci"
      '';
      systemd.tmpfiles.rules = [ "w /sys/bus/pci/devices/0000:01:00.0/driver_override - - - - vfio-pci" ];
    };
    rules-of-the-initrd.boot.initrd = {
      vfio-early = one;
      services.udev.rules = ''
        KERNEL=="0000:01:00.0", ATTR{driver_override}="vfio-pci"
      '';
    };
    a-command-of-modprobe.boot = {
      initrd.vfio-early = one;
      extraModprobeConfig = "install vfio-pci /run/override.sh";
    };

    # What was there for the order of modules.
    modules-of-old = {
      boot.initrd.vfio-early = one;
      boot.initrd.kernelModules = [
        "vfio_pci"
        "vfio"
        "vfio_iommu_type1"
        "dm_mod"
      ];
      boot.kernelModules = [ "vfio-pci" ];
    };
    softdeps-of-old.boot = {
      initrd.vfio-early = one;
      extraModprobeConfig = ''
        softdep nvidia pre: vfio-pci
        softdep snd_hda_intel pre: snd_hda_codec
      '';
    };

    # Host drivers before vfio-early.
    graphics-driver-before-us = {
      imports = [ scripted ];
      boot.initrd = {
        vfio-early = one;
        kernelModules = [
          "dm_mod"
          "nvidia-drm"
          "nvidia-uvm"
        ];
      };
    };
    other-drivers-before-us = {
      imports = [ scripted ];
      boot.initrd = {
        vfio-early.enable = true;
        vfio-early.devices = [
          "8086:10d3@03:00.0"
          "144d:a808@00:1d.0/00.0"
          "05:00.*"
        ];
        kernelModules = [
          "e1000e"
          "nvme"
          "snd_hda_intel"
        ];
      };
    };
    the-driver-of-another-card = {
      imports = [ scripted ];
      boot.initrd = {
        vfio-early = one;
        kernelModules = [
          "amdgpu"
          "e1000e"
          "i915"
          "nvme"
        ];
      };
    };
    a-guest-of-qemu = {
      imports = [ scripted ];
      boot.initrd = {
        vfio-early.enable = true;
        vfio-early.devices = [ "00:10.0" ];
        # As profiles/qemu-guest.nix has it in every guest.
        kernelModules = [
          "virtio_balloon"
          "virtio_console"
          "virtio_rng"
          "virtio_gpu"
        ];
      };
    };
    a-guest-of-qemu-with-such-a-device = {
      imports = [ scripted ];
      boot.initrd = {
        vfio-early.enable = true;
        vfio-early.devices = [ "pci:1af4:1050" ];
        kernelModules = [ "virtio_gpu" ];
      };
    };
    graphics-driver-of-systemd.boot.initrd = {
      vfio-early = one;
      kernelModules = [ "nouveau" ];
    };
  };

  attributes = {
    a-module-turned-off.boot.initrd = {
      vfio-early = one;
      availableKernelModules.vfio_pci = mkForce false;
    };
    a-module-moved.boot.initrd = {
      vfio-early = one;
      availableKernelModules.vfio_pci = mkForce false;
      kernelModules.vfio-pci = true;
    };
    a-driver-turned-off = {
      imports = [ scripted ];
      boot.initrd = {
        vfio-early = one;
        kernelModules = {
          dm_mod = true;
          nvidia-drm = true;
          nouveau = false;
        };
      };
    };
  };
}
