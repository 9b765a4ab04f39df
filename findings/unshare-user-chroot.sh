#!/bin/bash
# util-linux 2.41 (Debian 13), unshare --user
#
# Guessed: who may make a user namespace outside of a chroot may do so inside, and root may anyhow. So a test
# that takes one to be root without being it works wherever there are any.
# Seen: the kernel lets nobody make one in a chroot, root neither, also where the chroot's root is a mount, for
# which a new mount namespace can be had.
if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || {
        echo "as root, for a chroot" >&2
        exit 1
    }
    exec unshare --mount --propagation private bash "$0" inside
fi
. "$(dirname "$0")/debian"
unpack trixie util-linux=2.41.5-0+deb13u1 libc6=2.41-12+deb13u5 busybox-static=1:1.37.0-6+b9

result() {
    local status=0
    "$@" >"$work/log" 2>&1 || status=$?
    [ "$status" = 0 ] && echo works || cat "$work/log"
}
for name in bin lib lib64; do ln -s "usr/$name" "$work/root/$name"; done
mount --bind "$work/root" "$work/root"
trap 'umount "$work/root"; rm -rf "$work"' EXIT
unshare=$work/root/usr/bin/unshare
library=$work/root/usr/lib/x86_64-linux-gnu
expect "outside, --user" \
    "$(result "$library/ld-linux-x86-64.so.2" --library-path "$library" "$unshare" --user "$work/root/usr/bin/busybox" true)" works
for option in mount user; do
    expected=works
    [ "$option" = mount ] || expected="unshare: unshare failed: Operation not permitted"
    expect "in a chroot, --$option" "$(result chroot "$work/root" /usr/bin/unshare "--$option" /usr/bin/busybox true)" "$expected"
done
