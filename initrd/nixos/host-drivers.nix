# Which of some host drivers can have the chosen devices, as far as their ids tell.
{ lib }:
let
  inherit (import ./modprobe.nix { inherit lib; }) sameName;
  items = import ./item.nix { inherit lib; };

  # By module, the vendors whose devices it drives.
  vendors =
    let
      of = vendor: names: lib.genAttrs names (_: [ vendor ]);
    in
    of "1002" [
      "amdgpu"
      "radeon"
    ]
    // of "10de" [
      "nouveau"
      "nova_core"
      "nova_drm"
      "nvidia"
      "nvidia_drm"
      "nvidia_modeset"
      "nvidia_uvm"
    ]
    // of "8086" [
      "e1000e"
      "gma500_gfx"
      "i40e"
      "i915"
      "ice"
      "igb"
      "igc"
      "ixgbe"
      "xe"
    ]
    // of "102b" [ "mgag200" ]
    // of "10ec" [ "r8169" ]
    // of "14e4" [
      "bnxt_en"
      "tg3"
    ]
    // of "15b3" [ "mlx5_core" ]
    // of "19e5" [ "hibmc_drm" ]
    // of "1a03" [ "ast" ]
    // {
      ahci = [
        "1002"
        "1022"
        "197b"
        "1b21"
        "1b4b"
        "8086"
      ];
      snd_hda_intel = [
        "1002"
        "1022"
        "10de"
        "1106"
        "8086"
      ];
      xhci_pci = [
        "1002"
        "1022"
        "10de"
        "1106"
        "1912"
        "1b21"
        "1b73"
        "8086"
      ];
    };

  # Devices of virtual machines: these drivers are loaded in every guest, and matter only to who names
  # such a device.
  virtual = {
    bochs = "1234";
    cirrus = "1013";
    qxl = "1b36";
    virtio_gpu = "1af4";
    vmwgfx = "15ad";
  };

  canHave =
    module: item:
    let
      vendor = items.vendor item;
    in
    if virtual ? ${module} then
      vendor == virtual.${module}
    else if module == "nvme" then
      # Everybody makes disks but those who make graphics cards.
      !lib.elem vendor [
        "1002"
        "10de"
      ]
    else
      vendors ? ${module} && (vendor == null || lib.elem vendor vendors.${module});
in
# For each of those modules, the items that choose a device of it, or may do so.
{ modules, devices }:
lib.filter (found: found.items != [ ]) (
  map (module: {
    inherit module;
    items = lib.filter (canHave (sameName module)) devices;
  }) modules
)
