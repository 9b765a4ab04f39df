#!/bin/bash
# kmod 30 (Debian 12), modprobe.blacklist= on the kernel command line
#
# Guessed: quotes on the kernel command line are the kernel's, and libkmod takes them away as the kernel
# does, wherever they stand.
# Seen: it knows that white space inside quotes does not separate, but keeps the quotes in the value. For a
# module's options that does no harm, since the kernel, which gets them, takes them away. A quoted
# modprobe.blacklist= names modules that nobody has: the first with a quote in front, the last with one behind.
if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || {
        echo "as root, for a mount namespace" >&2
        exit 1
    }
    exec unshare --mount --propagation private bash "$0" inside
fi
. "$(dirname "$0")/debian"
unpack bookworm kmod=30+20221128-1 libkmod2=30+20221128-1

config() {
    echo "$1" >"$work/cmdline"
    mount --bind "$work/cmdline" /proc/cmdline
    LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu "$work/modprobe" \
        --config "$work/none" --showconfig | grep -E '^(blacklist|options) ' | paste -sd';' || true
    umount /proc/cmdline
}
mkdir "$work/none"
ln -s root/bin/kmod "$work/modprobe"

while read -r line seen; do
    expect "$line" "$(config "$line")" "$seen"
done <<'END'
modprobe.blacklist=nouveau,radeon blacklist nouveau;blacklist radeon
modprobe.blacklist="nouveau,radeon" blacklist "nouveau;blacklist radeon"
vfio_pci.ids="10de:1c03,10de:10f1" options vfio_pci ids="10de:1c03,10de:10f1"
END
