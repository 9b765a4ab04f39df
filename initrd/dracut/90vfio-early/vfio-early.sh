#!/bin/sh
# dracut's hook of all the first, where there is no systemd. It is sourced.

/usr/bin/vfio-early bind
vfio_early_status=$?
case "$vfio_early_status" in
    0 | 1 | 3) ;; # it has said what is not bound
    *) warn "vfio-early ended with exit status $vfio_early_status" ;;
esac
