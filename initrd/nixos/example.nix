# A desktop with two graphics cards: the Intel one in the processor (00:02.0) stays with the host,
# and a GeForce GTX 1060 (01:00.0) with its audio (01:00.1), an NVMe disk and a USB controller go
# to a virtual machine.
#
# Before the reboot, ask what would happen on this machine, without any change:
#   sudo vfio-early --dry-run --cmdline \
#     'vfio.devs=10de:1c03@01:00.*,144d:a808@00:1d.0/00.0,8086:a36d@00:14.0'
# After it:
#   vfio-early status
{ pkgs, ... }:
{
  imports = [ ./module.nix ];

  boot.initrd.vfio-early = {
    enable = true;
    iommu = "intel";
    devices = [
      # The card and its audio, only while it is that card. The processor's own 00:02.0 is not
      # here: it drives the host's desktop.
      "10de:1c03@01:00.*"
      # The disk, by its path below the root port 00:1d.0: its bus number changes with every card
      # that is put in before it. The guard is what keeps the host's own disk safe.
      "144d:a808@00:1d.0/00.0"
      "8086:a36d@00:14.0"
    ];
    # The GeForce has the monitor at boot. The host's driver takes over the console first, so that
    # the screen goes on.
    consoleModules = [ "i915" ];
  };

  # No host driver needs to be in boot.blacklistedKernelModules: none can have the devices, since
  # the kernel asks for the driver that they were given to. Blacklist a driver only where it does
  # harm when loaded without a device, as the closed nvidia driver does: it then complains at every
  # boot. nouveau stays, for other cards.
  boot.blacklistedKernelModules = [ ];

  virtualisation.libvirtd = {
    enable = true;
    qemu.swtpm.enable = true;
  };
  programs.virt-manager.enable = true;
  # lspci, to look the ids up.
  environment.systemPackages = [ pkgs.pciutils ];
}
