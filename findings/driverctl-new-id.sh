#!/bin/bash
# driverctl 0.115 (Debian 13), set-override DEVICE vfio-pci
#
# Guessed: it writes driver_override of that one device, and drivers_probe.
# Seen: it writes the device's vendor and device id into vfio-pci's new_id besides, by which every other
# device of that id is vfio-pci's, too, as long as no driver has it.
#
# It runs in a mount namespace of its own, over a /sys of plain files: what it writes is read afterwards.
if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || {
        echo "as root, for a mount namespace" >&2
        exit 1
    }
    exec unshare --mount --propagation private bash "$0" inside
fi
. "$(dirname "$0")/debian"
unpack trixie driverctl=0.115-2

mount -t tmpfs none /sys
mount --bind /bin/true "$(realpath /sbin/modprobe)"
device=/sys/devices/pci0000:00/0000:00:03.0
driver=/sys/bus/pci/drivers/vfio-pci
mkdir -p "$device" "$driver" /sys/bus/pci/devices /sys/module/vfio_pci/drivers
ln -s "../../../devices/pci0000:00/0000:00:03.0" /sys/bus/pci/devices/
ln -s ../../../bus/pci/drivers/vfio-pci "$device/driver"
ln -s ../../../bus/pci/drivers/vfio-pci /sys/module/vfio_pci/drivers/pci:vfio-pci
echo 0x8086 >"$device/vendor"
echo 0x10d3 >"$device/device"
echo "(null)" >"$device/driver_override"
touch "$driver/unbind" "$driver/new_id" /sys/bus/pci/drivers_probe

bash "$work/root/usr/sbin/driverctl" --nosave set-override 0000:00:03.0 vfio-pci

expect "driver_override" "$(cat "$device/driver_override")" vfio-pci
expect "drivers_probe" "$(cat /sys/bus/pci/drivers_probe)" 0000:00:03.0
expect "vfio-pci's new_id" "$(cat "$driver/new_id")" "0x8086 0x10d3"
