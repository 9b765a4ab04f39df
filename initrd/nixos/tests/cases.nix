# Configurations, by name. What comes out of them is in expected.json: of `configurations` all of
# it, of `messages` the errors and warnings.
let
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
      wait = 10;
      driver = "xe-vfio-pci";
      strict = true;
      iommu = "intel";
    };
    amd.boot.initrd.vfio-early = one // {
      iommu = "amd";
    };
    scripted-hooks-of-others = {
      imports = [ scripted ];
      boot.initrd.vfio-early = one;
      boot.initrd.preDeviceCommands = "echo of another";
    };
    microvm.boot.initrd.vfio-early = one;

  };

  messages = {
    # Errors.
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
    vfio-pci-on-the-blacklist.boot = {
      initrd.vfio-early = one;
      blacklistedKernelModules = [ "vfio_pci" ];
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

    # Warnings.
    ids-on-the-command-line.boot = {
      initrd.vfio-early = one;
      kernelParams = [ "vfio-pci.ids=10DE:1C03:1462:3282,8086:10d3" ];
    };
    ids-in-modprobe.boot = {
      initrd.vfio-early = one;
      extraModprobeConfig = ''
        options snd_hda_intel ids=10de:1c03
        options vfio_pci disable_vga=1 ids=10de:1c03
      '';
    };
    ids-of-other-devices.boot = {
      initrd.vfio-early = one;
      kernelParams = [ "vfio_pci.ids=8086:10d3" ];
      extraModprobeConfig = "options snd_hda_intel ids=10de:1c03";
    };
    graphics-driver-before-us = {
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
    graphics-driver-of-systemd.boot.initrd = {
      vfio-early = one;
      kernelModules = [ "i915" ];
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
  };
}
