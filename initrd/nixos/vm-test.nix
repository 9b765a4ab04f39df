# Virtual machines on QEMU's q35 with an Intel IOMMU, an e1000e network card and an NVMe disk, with
# both kinds of initrd. Needs nixpkgs and, in practice, its cache; run by `nix flake check`.
{
  pkgs ? import <nixpkgs> { },
}:
let
  inherit (pkgs) lib;

  network = "0000:00:10.0";
  disk = "0000:00:11.0";

  machine =
    { systemd, settings }:
    {
      imports = [ ./module.nix ];

      boot.initrd.systemd.enable = systemd;
      boot.initrd.systemd.emergencyAccess = true;
      boot.initrd.vfio-early = {
        enable = true;
        iommu = "intel";
      }
      // settings;
      # The host's drivers, which must not get the devices.
      boot.kernelModules = [
        "e1000e"
        "nvme"
      ];

      virtualisation.qemu.options = [
        "-machine q35,kernel-irqchip=split"
        "-device intel-iommu,intremap=on"
        "-device e1000e,addr=10.0"
        "-blockdev driver=null-co,node-name=empty,size=1073741824"
        "-device nvme,serial=empty,drive=empty,addr=11.0"
      ];
    };

  driver = address: "readlink /sys/bus/pci/devices/${address}/driver";

  cases = {
    bound = {
      settings.devices = [
        "8086:10d3@00:10.0"
        "00:11.0"
      ];
      script = ''
        machine.wait_for_unit("multi-user.target")
        machine.wait_for_unit("vfio-early-finish.service")
        for address in ["${network}", "${disk}"]:
            machine.succeed(f"readlink /sys/bus/pci/devices/{address}/driver | grep -x '.*/vfio-pci'")
        machine.succeed("vfio-early status")
        machine.succeed("test -e /run/vfio-early/report.json")
      '';
    };
    absent = {
      settings.devices = [
        "00:10.0"
        "00:1e.0"
      ];
      script = ''
        machine.wait_for_unit("multi-user.target")
        machine.succeed("${driver network} | grep -x '.*/vfio-pci'")
        machine.succeed("${driver disk} | grep -x '.*/nvme'")
        machine.fail("vfio-early status")
        machine.succeed("systemctl is-failed vfio-early-finish.service")
      '';
    };
    strict = {
      settings = {
        devices = [
          "00:10.0"
          "00:1e.0"
        ];
        strict = true;
      };
      # The test driver's kernel parameters make of a boot that stops a panic, and a reboot.
      script = ''
        machine.start(allow_reboot=True)
        machine.wait_for_console_text("Failed to start .*Require All of vfio.devs=|vfio.strict is set, and not all devices")
        machine.wait_for_console_text("Kernel panic - not syncing|emergency mode|An error occurred in stage 1")
      '';
    };
  };

  test =
    { name, systemd }:
    pkgs.testers.runNixOSTest {
      name = "vfio-early-${name}-${if systemd then "systemd" else "scripted"}";
      nodes.machine = machine {
        inherit systemd;
        inherit (cases.${name}) settings;
      };
      testScript = cases.${name}.script;
    };
in
lib.listToAttrs (
  map
    (
      { name, systemd }@which:
      lib.nameValuePair "${name}-${if systemd then "systemd" else "scripted"}" (test which)
    )
    (
      lib.cartesianProduct {
        name = lib.attrNames cases;
        systemd = [
          true
          false
        ];
      }
    )
)
