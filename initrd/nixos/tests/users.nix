# Configurations as people publish them, each after another guide: what they wrote (`before`), and what
# docs/nixos.md makes of it (`after`). The ids and addresses are invented. With vfio-early added to it,
# `before` is told of each leftover; `after` is told of nothing.
let
  scripted.boot.initrd.systemd.enable = false;
  # What a person adds first, without a look at what is there.
  given = devices: {
    enable = true;
    inherit devices;
  };
  libvirt = {
    virtualisation.libvirtd.enable = true;
    programs.virt-manager.enable = true;
  };
in
builtins.mapAttrs
  (
    _:
    {
      devices,
      before,
      after,
    }:
    {
      before =
        if devices == [ ] then
          before
        else
          {
            imports = [ before ];
            boot.initrd.vfio-early = given devices;
          };
      inherit after;
    }
  )
  {
    # The loop of the wiki before systemd came into the initrd.
    pre-device-commands = {
      devices = [ "0000:01:00.0" ];
      before = {
        imports = [ scripted ];
        boot.initrd.availableKernelModules = [
          "nvidia"
          "vfio-pci"
        ];
        boot.initrd.preDeviceCommands = ''
          DEVS="0000:01:00.0"
          for DEV in $DEVS; do
            echo "vfio-pci" > /sys/bus/pci/devices/$DEV/driver_override
          done
          modprobe -i vfio-pci
        '';
        boot.kernelParams = [
          "intel_iommu=on"
          "pcie_aspm=off"
        ];
        boot.kernelModules = [ "kvm-intel" ];
      };
      after = {
        boot.initrd.vfio-early = {
          enable = true;
          iommu = "intel";
          devices = [ "10de:2f04@01:00.0" ];
        };
        boot.kernelParams = [ "pcie_aspm=off" ];
        boot.kernelModules = [ "kvm-intel" ];
      };
    };

    # The same loop, and the ids that "are probably not necessary any more".
    loop-and-ids = {
      devices = [ "28:00.*" ];
      before = {
        imports = [ scripted ];
        boot.initrd.availableKernelModules = [ "vfio-pci" ];
        boot.kernelModules = [ "kvm-amd" ];
        boot.kernelParams = [
          "amd_iommu=on"
          "iommu=1"
          "kvm.ignore_msrs=1"
          "vfio-pci.ids=10de:2e89,10de:20f8,10de:2ad8,10de:2ad9"
        ];
        boot.initrd.preDeviceCommands = ''
          DEVS="0000:28:00.0 0000:28:00.1 0000:28:00.2 0000:28:00.3"
          for DEV in $DEVS; do
            echo "vfio-pci" > /sys/bus/pci/devices/$DEV/driver_override
          done
          modprobe -i vfio-pci
        '';
      };
      after = {
        imports = [ scripted ];
        boot.initrd.vfio-early = {
          enable = true;
          iommu = "amd";
          devices = [ "10de:2e89@28:00.*" ];
        };
        boot.kernelModules = [ "kvm-amd" ];
        boot.kernelParams = [
          "iommu=1"
          "kvm.ignore_msrs=1"
        ];
      };
    };

    # Ids on the command line, with the host's driver on the blacklist.
    ids-and-blacklist = {
      devices = [ "10de:2380@02:00.0" ];
      before.boot = {
        blacklistedKernelModules = [ "nouveau" ];
        kernelModules = [ "vfio-pci" ];
        kernelParams = [ "vfio-pci.ids=10de:2380,10de:2fbc" ];
      };
      after.boot.initrd.vfio-early = {
        enable = true;
        devices = [
          "10de:2380@02:00.0"
          "10de:2fbc@02:00.1"
        ];
      };
    };

    # Softdeps and ids in modprobe.d, for a card with a FireWire bridge of two chips.
    softdeps = {
      devices = [ "03:00.*" ];
      before = {
        boot.kernelParams = [
          "intel_iommu=on"
          "iommu=pt"
          "pci=routeirq"
        ];
        boot.initrd.kernelModules = [
          "vfio_pci"
          "vfio"
          "vfio_iommu_type1"
        ];
        boot.extraModprobeConfig = ''
          softdep nvidia pre: vfio-pci
          softdep firewire_ohci pre: vfio-pci
          options vfio_iommu_type1 allow_unsafe_interrupts=1
          options vfio-pci ids=10de:2c31,10de:20f1,104c:9024,1b21:2080
        '';
      };
      after = {
        boot.initrd.vfio-early = {
          enable = true;
          iommu = "intel";
          devices = [
            "10de:2c31@03:00.*"
            "104c:9024@05:00.0"
          ];
        };
        boot.kernelParams = [
          "iommu=pt"
          "pci=routeirq"
        ];
        boot.extraModprobeConfig = "options vfio_iommu_type1 allow_unsafe_interrupts=1";
      };
    };

    # The recipe of the wiki: vfio's modules before the host's, by their order.
    order-of-modules = {
      devices = [ "01:00.*" ];
      before = {
        imports = [ libvirt ];
        boot.initrd.kernelModules = [
          "vfio_pci"
          "vfio"
          "vfio_iommu_type1"
          "i915"
        ];
        boot.kernelParams = [
          "intel_iommu=on"
          "vfio-pci.ids=1002:77b0,1002:8ac8"
        ];
        boot.kernelModules = [ "kvm-intel" ];
      };
      after = {
        imports = [ libvirt ];
        boot.initrd.vfio-early = {
          enable = true;
          iommu = "intel";
          devices = [ "1002:77b0@01:00.*" ];
        };
        boot.initrd.kernelModules = [ "i915" ];
        boot.kernelModules = [ "kvm-intel" ];
      };
    };

    # A boot entry with passthrough beside one without.
    specialisation = {
      devices = [ ];
      before.specialisation.passthrough.configuration = {
        system.nixos.tags = [ "passthrough" ];
        boot.initrd.vfio-early = given [ "01:00.*" ];
        boot.initrd.kernelModules = [
          "vfio_pci"
          "vfio"
          "vfio_iommu_type1"
        ];
        boot.kernelParams = [ "vfio-pci.ids=10de:28e0,10de:22be" ];
      };
      after.specialisation.passthrough.configuration = {
        system.nixos.tags = [ "passthrough" ];
        boot.initrd.vfio-early = {
          enable = true;
          devices = [ "10de:28e0@01:00.*" ];
        };
      };
    };

    # The loop in stage 2, with the bridge above the card in it.
    post-boot-commands = {
      devices = [
        "0000:01:00.0"
        "0000:01:00.1"
      ];
      before.boot = {
        kernelParams = [ "intel_iommu=on" ];
        kernelModules = [
          "vfio_virqfd"
          "vfio_pci"
          "vfio_iommu_type1"
          "vfio"
        ];
        postBootCommands = ''
          DEVS="0000:00:01.0 0000:01:00.0 0000:01:00.1"
          for DEV in $DEVS; do
            echo "vfio-pci" > /sys/bus/pci/devices/$DEV/driver_override
          done
          modprobe -i vfio-pci
        '';
      };
      # The bridge stays with the host.
      after.boot.initrd.vfio-early = {
        enable = true;
        iommu = "intel";
        devices = [ "10de:2484@01:00.*" ];
      };
    };

    # The loop as a unit of a systemd initrd.
    unit-of-the-initrd = {
      devices = [ "0b:00.*" ];
      before.boot.initrd = {
        systemd.enable = true;
        availableKernelModules = [ "vfio_pci" ];
        systemd.services.vfio-override = {
          description = "Give the second card to vfio-pci";
          wantedBy = [ "sysinit.target" ];
          before = [
            "systemd-modules-load.service"
            "systemd-udevd.service"
          ];
          unitConfig.DefaultDependencies = false;
          serviceConfig.Type = "oneshot";
          script = ''
            for dev in 0000:0b:00.0 0000:0b:00.1; do
              echo vfio-pci > /sys/bus/pci/devices/$dev/driver_override
            done
            modprobe vfio-pci
          '';
        };
      };
      after.boot.initrd = {
        systemd.enable = true;
        vfio-early = {
          enable = true;
          devices = [ "1002:844c@0b:00.*" ];
        };
      };
    };

    # microvm.nix takes its devices itself, when the machine starts: a graphics card is the host's until then.
    microvm = {
      devices = [ "10de:2b85@41:00.*" ];
      before = {
        microvm.host.enable = true;
        boot.kernelParams = [ "vfio-pci.ids=10de:2b85,10de:22e8" ];
      };
      after = {
        microvm.host.enable = true;
        boot.initrd.vfio-early = {
          enable = true;
          devices = [ "10de:2b85@41:00.*" ];
        };
      };
    };

    # What the module of j-brn/nixos-vfio defines for `virtualisation.vfio = { devices = …; }`.
    nixos-vfio = {
      devices = [ "10de:2e81@0a:00.*" ];
      before = {
        services.udev.extraRules = ''
          SUBSYSTEM=="vfio", OWNER="root", GROUP="kvm"
        '';
        boot.kernelParams = [
          "amd_iommu=on"
          "vfio-pci.ids=10de:2e81,10de:20f8"
          "video=efifb:off"
        ];
        boot.initrd.kernelModules = [
          "vfio_pci"
          "vfio_iommu_type1"
          "vfio"
        ];
        boot.blacklistedKernelModules = [
          "nvidia"
          "nouveau"
        ];
      };
      after = {
        boot.initrd.vfio-early = {
          enable = true;
          iommu = "amd";
          devices = [ "10de:2e81@0a:00.*" ];
          accessGroup = "kvm";
        };
      };
    };

    # A script of modprobe for two cards of one id.
    install-line = {
      devices = [ "05:00.*" ];
      before = {
        environment.etc."modprobe.d/vfio.conf".text = ''
          install vfio-pci /etc/vfio-pci-override.sh
          options vfio-pci ids=1002:899e,1002:8af8
          softdep amdgpu pre: vfio vfio_pci
        '';
      };
      after.boot.initrd.vfio-early = {
        enable = true;
        devices = [ "1002:899e@05:00.*" ];
      };
    };

    # A single card, which libvirt's hooks give away and take back: nothing of it belongs into the initrd.
    single-card = {
      devices = [ ];
      before = {
        imports = [ libvirt ];
        systemd.services.detach-card = {
          description = "For the hook of the virtual machine";
          script = "echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind";
        };
        boot.kernelModules = [ "vfio-pci" ];
      };
      after = {
        imports = [ libvirt ];
        boot.initrd.vfio-early = {
          enable = true;
          devices = [ "8086:1533@02:00.0" ];
        };
      };
    };
  }
