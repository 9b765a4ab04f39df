#!/bin/bash
# systemd 252.39 (Debian 12), ConditionKernelCommandLine=
#
# Guessed: it sees the words that the kernel sees. The kernel separates them at white space, knows the
# quote " alone, and stops at a bare "--".
# Seen: it splits the line as a shell does. An apostrophe or a backslash anywhere before a word hides the
# word; one behind it does not. Words behind "--" count. With "!", one word that fits is enough to fail,
# also where the same parameter follows with another value and wins everywhere else.
. "$(dirname "$0")/debian"
unpack bookworm systemd=252.39-1~deb12u2

condition() {
    local result=true
    SYSTEMD_PROC_CMDLINE=$1 LD_LIBRARY_PATH=$work/root/lib/systemd \
        "$work/root/usr/bin/systemd-analyze" condition "ConditionKernelCommandLine=$2" >"$work/log" 2>&1 ||
        result=false
    grep -q "^Conditions" "$work/log" || {
        cat "$work/log" >&2
        exit 1
    }
    expect "$1  |  $2" "$result" "$3"
}

condition 'label=its quiet' quiet true
condition "label=it's quiet" quiet false
condition "quiet label=it's" quiet true
condition 'path=C:\ quiet' quiet false
condition 'init=/bin/sh -- quiet' quiet true
condition 'quiet=0 quiet' '!quiet=0' false
