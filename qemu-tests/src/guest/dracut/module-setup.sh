#!/bin/bash
# dracut's part of the harness: notes the moments before and after vfio-early in the initrd, and
# tells what became of a boot that ended in the emergency shell. It takes no part in any ordering.

check() {
    return 255
}

install() {
    inst_multiple cat dmesg grep ls mkdir sleep stat stty
    inst_multiple /usr/lib/harness/ask /usr/lib/harness/collect /usr/lib/harness/look
    if dracut_module_included systemd; then
        inst_simple /usr/lib/harness/user
        inst_simple "$systemdsystemunitdir/vfio-early-claim.service.d/harness.conf"
        inst_simple "$systemdsystemunitdir/vfio-early.service.d/harness.conf"
        inst_simple "$systemdsystemunitdir/harness-emergency.service"
        $SYSTEMCTL -q --root "$initdir" enable harness-emergency.service
    else
        # 00-before.sh, 00-vfio-early.sh, 01-claimed.sh; then rd.driver.pre=, as with dracut's module
        # kernel-modules, which is not here.
        inst_hook cmdline 00 "$moddir/before.sh"
        inst_hook cmdline 01 "$moddir/claimed.sh"
        inst_hook pre-mount 01 "$moddir/after.sh"
        inst_hook cmdline 01 "${moddir%/*}/90kernel-modules/parse-kernel.sh"
        inst_hook emergency 00 "$moddir/emergency.sh"
    fi
}
