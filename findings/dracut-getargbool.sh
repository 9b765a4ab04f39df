#!/bin/bash
# dracut 106 (Debian 13), getargbool
#
# Guessed: a flag of the kernel command line is off with what the kernel's own flags take for off: 0, n, N,
# no, off (kstrtobool).
# Seen: it is off with 0, no and off alone. n and N, which the kernel takes, too, are on for dracut, and so
# is every word that nobody means.
. "$(dirname "$0")/debian"
unpack trixie dracut-core=106-6

library=$(find "$work/root" -name dracut-lib.sh)
# In an initrd the program has this name.
mkdir "$work/bin"
ln -s "$work/root/usr/lib/dracut/dracut-util" "$work/bin/dracut-getarg"
flag() {
    local answer=off
    # The library reads the command line by a function of its own, here with ours.
    PATH=$work/bin:$PATH bash -c '. "$0" >/dev/null 2>&1; CMDLINE=$1; getcmdline() { echo "$CMDLINE"; }; getargbool 0 a.flag' \
        "$library" "$1" && answer=on
    expect "$1" "$answer" "$2"
}
flag "quiet" off
flag "a.flag" on
flag "a.flag=1" on
flag "a.flag=0" off
flag "a.flag=no" off
flag "a.flag=off" off
flag "a.flag=n" on
flag "a.flag=N" on
flag "a.flag=false" on
