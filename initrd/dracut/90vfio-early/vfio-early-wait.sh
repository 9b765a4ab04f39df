#!/bin/sh
# dracut's pre-mount hook, where there is no systemd; it is sourced, after vfio-early.sh. It waits for what
# that has begun, and it is here that vfio.strict stops the boot: before udev there is no keyboard for a
# shell.

vfio_early_must_stop() {
    case "$vfio_early_status" in
        0 | 1) return 1 ;;
        3) return 0 ;;
    esac
    # Killed: it could not say so itself.
    /usr/bin/vfio-early status
    [ $? -eq 3 ]
}

if [ "$vfio_early_status" -ne 0 ]; then
    /usr/bin/vfio-early wait
    vfio_early_status=$?
fi
while vfio_early_must_stop; do
    emergency_shell -n vfio-early \
        "vfio.strict is given, and not all of vfio.devs= is known to be bound; dmesg says what is" \
        "not, and why. When you leave the shell, it is tried again. To boot all the same, restart" \
        "without vfio.strict on the kernel command line, or with vfio.off."
    /usr/bin/vfio-early bind
    vfio_early_status=$?
done
