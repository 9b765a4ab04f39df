#!/bin/bash
# dracut's part of the harness: notes the moments before and after vfio-early in the initrd, and
# tells what became of a boot that ended in the emergency shell. It takes no part in any ordering.

check() {
    return 255
}

depends() {
    echo systemd
}

install() {
    inst_multiple cat dmesg grep ls mkdir stat stty
    inst_simple /usr/lib/harness/look
    inst_simple /usr/lib/harness/collect
    inst_simple "$systemdsystemunitdir/vfio-early.service.d/harness.conf"
    inst_simple "$systemdsystemunitdir/harness-emergency.service"
    $SYSTEMCTL -q --root "$initdir" enable harness-emergency.service
}
