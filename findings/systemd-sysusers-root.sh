#!/bin/bash
# systemd-sysusers 257.13 (Debian 13), the user root
#
# Guessed: where there is no password file, as in an initrd that is being made, root comes out as it is
# anywhere without a password: * in the second field, or nothing.
# Seen: "!unprovisioned". A tool that makes an initrd and runs it there, as dracut 106 does, so makes one whose
# root is locked, and sulogin lets nobody in: "Cannot open access to console, the root account is locked".
. "$(dirname "$0")/debian"
unpack trixie systemd-standalone-sysusers=257.13-1~deb13u1 libc6=2.41-12+deb13u5 libcap2=1:2.75-10+deb13u1+b3 \
    libcrypt1=1:4.4.38-1 libselinux1=3.8.1-1 libpcre2-8-0=10.46-1~deb13u3

mkdir -p "$work/tree/etc" "$work/tree/usr/lib/sysusers.d"
# As systemd has it there.
echo 'u root 0 - /root /bin/bash' >"$work/tree/usr/lib/sysusers.d/basic.conf"
run usr/bin/systemd-sysusers --root="$work/tree"
expect "root's password" "$(cut -d : -f 2 "$work/tree/etc/shadow")" "!unprovisioned"
