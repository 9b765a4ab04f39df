#!/bin/bash
# dracut's module: the program, the record of what this host lives from, what starts the program, and
# the modules that it loads. Where the program lies elsewhere, the installer replaces the path, as in the units.
#
# To try it:
#   dracut --force /tmp/initrd && lsinitrd /tmp/initrd | grep vfio

check() {
    require_binaries /usr/bin/vfio-early /usr/lib/vfio-early/vfio-early-initrd
}

# Not on systemd: what is in the initrd decides how the program is started.
depends() {
    return 0
}

installkernel() {
    local class device displays=()

    # Not only what this host has loaded: which devices are asked for stands on the command line of
    # a later boot.
    hostonly='' instmods vfio-pci vfio_iommu_type1
    # Without the driver of a virtio-iommu no device has an IOMMU group.
    [[ ! -e /sys/module/virtio_iommu ]] || hostonly='' instmods virtio_iommu

    # When the firmware's display is given away, the console moves to another before udev starts.
    # The driver of that is only placed: the program loads it if it needs it. One that a vfio driver
    # has is none that stays, and with one alone there is nothing to move to.
    for class in /sys/bus/pci/devices/*/class; do
        [[ -e $class ]] || continue
        # 0302 is a 3D controller, which has no outputs.
        [[ $(<"$class") == 0x03* && $(<"$class") != 0x0302* ]] || continue
        displays+=("${class%/class}")
    done
    ((${#displays[@]} > 1)) || return 0
    for device in "${displays[@]}"; do
        [[ $(readlink "$device/driver") != *vfio* ]] || continue
        # What it would load, less what is blacklisted.
        # shellcheck disable=SC2154 # kernel is dracut's
        modprobe --quiet --set-version "$kernel" --show-depends "$(<"$device/modalias")" |
            sed -n 's|^insmod [^ ]*/\([^ /]*\)\.ko.*|\1|p' | hostonly='' instmods
    done
}

install() {
    # The initrd's program: the host's can do more, and every boot would unpack that.
    inst_binary /usr/lib/vfio-early/vfio-early-initrd /usr/bin/vfio-early
    # With --sysroot this host is not the one that boots.
    # shellcheck disable=SC2154 # variables of dracut
    if [[ ${dracutsysrootdir-} ]]; then
        inst_multiple -o /etc/vfio-early/keep
    else
        # Where it cannot make the record, it says why, and at boot no disk is refused by it.
        mkdir -p "$initdir/etc/vfio-early"
        /usr/bin/vfio-early keep >"$initdir/etc/vfio-early/keep" ||
            rm -f "$initdir/etc/vfio-early/keep"
    fi
    if ! dracut_module_included systemd; then
        # Not among the hooks pre-udev: some of cmdline load modules, those of force_drivers= and
        # rd.driver.pre= as 01-parse-kernel.sh.
        # shellcheck disable=SC2154 # moddir is dracut's
        inst_hook cmdline 00 "$moddir/vfio-early.sh"
        inst_hook pre-mount 00 "$moddir/vfio-early-wait.sh"
        return
    fi
    # shellcheck disable=SC2154 # systemdsystemunitdir and systemdutildir are dracut's
    inst_multiple "$systemdsystemunitdir"/vfio-early{,-claim,-strict}.service
    # It starts them, where the command line asks for devices.
    # shellcheck disable=SC2154
    ln_r /usr/bin/vfio-early "$systemdutildir/system-generators/vfio-early-generator"
}
