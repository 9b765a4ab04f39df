#!/bin/bash
# systemd 252.39 (Debian 12), systemd-analyze verify
#
# Guessed: it exits with another status than 0 where units are ordered in a circle.
# Seen: where systemd can break the circle by leaving a unit out, it says which one, and exits with 0. That
# unit is the one that does not run at boot; who calls it from a script has to read what it says.
. "$(dirname "$0")/debian"
unpack bookworm systemd=252.39-1~deb12u2

mkdir "$work/units"
cp "$work/root/lib/systemd/system/"*.target "$work/units/"
printf '%s\n' '[Unit]' 'Wants=other.service' 'After=other.service' '[Service]' 'ExecStart=/bin/true' \
    >"$work/units/one.service"
printf '%s\n' '[Unit]' 'After=one.service' '[Service]' 'ExecStart=/bin/true' >"$work/units/other.service"
status=0
SYSTEMD_UNIT_PATH=$work/units LD_LIBRARY_PATH=$work/root/lib/systemd \
    "$work/root/usr/bin/systemd-analyze" verify --man=no "$work/units/one.service" >"$work/log" 2>&1 || status=$?
# Where in the circle it begins differs from run to run.
expect "what it says" "$(grep -o 'other.service/start deleted to break ordering cycle' "$work/log")" \
    "other.service/start deleted to break ordering cycle"
expect "exit status" "$status" 0
