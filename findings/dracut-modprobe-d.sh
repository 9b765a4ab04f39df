#!/bin/bash
# dracut 106 (Debian 13), /etc/modprobe.d
#
# Guessed: the options that an administrator sets for modules in /etc/modprobe.d hold in the initrd, too, as
# they do with initramfs-tools.
# Seen: that folder is taken in with hostonly alone, and Debian 13's dracut sets hostonly nowhere. A module
# that is loaded in the initrd has its defaults, and keeps them in the real root, where it is loaded already.
. "$(dirname "$0")/debian"
unpack trixie dracut=106-6 dracut-core=106-6

# What its module installs, by functions that say so.
taken() {
    (
        hostonly=$1 moddir=
        inst_multiple() { echo "$*"; }
        inst_simple() { :; }
        dracut_module_included() { true; }
        . "$(find "$work/root" -path '*kernel-modules/module-setup.sh')"
        # A machine may have no file there: then it names the pattern.
        [[ $(install) = */etc/modprobe.d/* ]] && echo taken || echo "not taken"
    )
}
expect "/etc/modprobe.d, with hostonly" "$(taken -h)" taken
expect "/etc/modprobe.d, without" "$(taken "")" "not taken"
expect "where dracut.conf sets hostonly" \
    "$(find "$work/root/etc" "$work/root/usr/lib/dracut" -maxdepth 2 -name '*.conf' -exec cat {} + | grep -c '^hostonly=')" 0
