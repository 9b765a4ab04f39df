#!/bin/bash
# Puts vfio-early into an initrd with systemd: the program, its units, and the modules that it
# loads. No hook: the units order themselves before udev.

check() {
    require_binaries vfio-early || return 1
    return 0
}

depends() {
    echo systemd
}

installkernel() {
    # Not only what this host has loaded: which devices are asked for stands on the command line of
    # a later boot.
    hostonly='' instmods vfio-pci vfio_iommu_type1
}

install() {
    local unit
    inst_binary vfio-early
    for unit in vfio-early.service vfio-early-strict.service; do
        inst_simple "$systemdsystemunitdir/$unit"
        # Where it is started from stands in its [Install] section.
        $SYSTEMCTL -q --root "$initdir" enable "$unit"
    done
}
