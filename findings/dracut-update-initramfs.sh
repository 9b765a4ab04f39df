#!/bin/bash
# dracut 106 (Debian 13), update-initramfs
#
# Guessed: Debian's packages ask for a new initrd by the trigger update-initramfs, and dracut answers to it.
# So the program of that name, which installers and administrators call, is there with dracut, too.
# Seen: it is not, and dracut conflicts with the package that has it. Its own message names it all the same:
# "update-initramfs: deferring update". What calls the program fails where what activates the trigger works.
. "$(dirname "$0")/debian"
unpack trixie dracut=106-6 dracut-core=106-6

dpkg-deb -e "$work"/dracut_*.deb "$work/control"
expect "the trigger" "$(grep -v '^$' "$work/control/triggers")" "interest-await update-initramfs"
expect "what its script says" "$(grep -o 'update-initramfs: deferring update' "$work/control/postinst")" \
    "update-initramfs: deferring update"
expect "programs of that name" "$(find "$work/root" -name 'update-initramfs*' | wc -l)" 0
expect "in conflict with who has it" \
    "$(dpkg-deb -f "$work"/dracut_*.deb Conflicts | grep -ow 'initramfs-tools')" "initramfs-tools"
