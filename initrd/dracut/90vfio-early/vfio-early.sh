#!/bin/sh
# dracut's hook of all the first, where there is no systemd. It is sourced. udev, and the modules that
# dracut is told to load, wait until no other driver can have the devices; the rest goes on beside them, and
# vfio-early-wait.sh waits for it.

/usr/bin/vfio-early claim
vfio_early_status=$?
case "$vfio_early_status" in
    0 | 1 | 3) ;; # nothing is left to do, and it has said what is not bound
    5) /usr/bin/vfio-early wait </dev/null >/dev/null 2>&1 & ;;
    *) warn "vfio-early claim ended with exit status $vfio_early_status" ;;
esac
