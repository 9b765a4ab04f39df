#!/bin/bash
# fish 4.0.2 (Debian 13), complete -C
#
# Guessed: of what a command's completions offer, it names those that begin with what was typed, as fish 3
# does where there is one that does.
# Seen: it names besides what only has the typed letters somewhere in it: --d gives --cmdline.
. "$(dirname "$0")/debian"
unpack trixie fish=4.0.2-1 libc6=2.41-12+deb13u5 libgcc-s1=14.2.0-19 libpcre2-32-0=10.46-1~deb13u3 \
    libpcre2-8-0=10.46-1~deb13u3

cat >"$work/test.fish" <<'END'
complete -c tool -f -l dry-run
complete -c tool -f -l cmdline
complete -C "tool --d" | sort | string join " "
END
run usr/bin/fish --no-config "$work/test.fish"
expect "tool --d" "$(cat "$work/log")" "--cmdline --dry-run"
