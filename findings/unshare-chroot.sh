#!/bin/bash
# util-linux 2.38.1 (Debian 12), unshare --mount
#
# Guessed: with --propagation=private, its default, what is mounted in the new namespace is private to it,
# and that works wherever a new namespace can be had.
# Seen: in a chroot whose root is a plain folder it fails, before it runs anything. The root is what is made
# private, and only a mount can be. With --propagation=unchanged it works, and mounts are shared as before.
[ "$(id -u)" = 0 ] || {
    echo "as root, for a chroot" >&2
    exit 1
}
. "$(dirname "$0")/debian"
unpack bookworm util-linux=2.38.1-5+deb12u3 busybox-static=1:1.35.0-4+deb12u1+b1 libc6=2.36-9+deb12u14

inside() {
    local result=works
    chroot "$work/root" /usr/bin/unshare --mount "$@" /bin/busybox true >"$work/log" 2>&1 ||
        result=$(cat "$work/log")
    expect "$*" "$result" "$expected"
}
expected="unshare: cannot change root filesystem propagation: Invalid argument"
inside --propagation=private
expected=works
inside --propagation=unchanged
