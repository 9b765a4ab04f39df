#!/bin/sh
# Installs vfio-early from this folder, where there is no package of it, as root:
#
#   ./install.sh                          what the initrd generators of this machine need
#   ./install.sh --initrd dracut          for that one: initramfs-tools, dracut, mkinitcpio or none;
#                                         may be repeated
#   ./install.sh --prefix /opt/vfio-early the program, its pages and completions there, not in /usr
#   ./install.sh --destdir /tmp/tree      into a tree of a packager
#   ./install.sh --uninstall              removes what any of these has put there; with the same --prefix
set -eu

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
say() {
    echo "$0: $*" >&2
}

files=$(CDPATH='' cd "$(dirname "$0")" && pwd)/files
prefix=/usr
destdir=
generators=
uninstall=
while [ $# != 0 ]; do
    case $1 in
        --uninstall) uninstall=yes ;;
        --prefix | --destdir | --initrd)
            [ $# != 1 ] || usage
            case $1 in
                --prefix) prefix=${2%/} ;;
                --destdir) destdir=${2%/} ;;
                --initrd) generators="$generators $2" ;;
            esac
            shift
            ;;
        *) usage ;;
    esac
    shift
done
case $prefix in
    /*) ;;
    *)
        say "--prefix takes an absolute path, and not '$prefix'"
        exit 2
        ;;
esac
for generator in $generators; do
    [ "$generator" = none ] || [ -d "$files/$generator" ] || {
        say "'$generator' is no generator of initrds that there are files for"
        exit 2
    }
done

# place COMPONENT FILE: where that file goes. What another program reads lies where that program looks,
# whatever the prefix.
place() {
    case $1 in
        program | man | completions) echo "$prefix/${2#usr/}" ;;
        *) echo "/$2" ;;
    esac
}

# each COMMAND COMPONENT…: runs it with each file's component, and its path below there.
each() {
    command=$1
    shift
    for component; do
        (cd "$files/$component" && find . -type f -o -type l) | sort | while read -r file; do
            "$command" "$component" "${file#./}"
        done
    done
}

put() {
    source=$files/$1/$2
    to=$destdir$(place "$1" "$2")
    mkdir -p "${to%/*}"
    if [ -L "$source" ]; then
        # The generator of units is the program, by another name.
        rm -f "$to"
        ln -s "../../../..$prefix/bin/vfio-early" "$to"
        return
    fi
    rm -f "$to.new"
    case $1 in
        program | man | completions) cat "$source" >"$to.new" ;;
        # They name the programs' places.
        *) sed "s|/usr/bin/vfio-early|$prefix/bin/vfio-early|g; s|/usr/lib/vfio-early/|$prefix/lib/vfio-early/|g" "$source" >"$to.new" ;;
    esac
    if [ -x "$source" ]; then chmod 755 "$to.new"; else chmod 644 "$to.new"; fi
    # In one step: a boot may come at any time.
    mv "$to.new" "$to"
}

take_away() {
    rm -f "$destdir$(place "$1" "$2")"
}

if [ -n "$uninstall" ]; then
    each take_away program man completions systemd initramfs-tools dracut mkinitcpio
    # The folders that are ours alone.
    for ours in /usr/lib/dracut/modules.d/90vfio-early "$prefix/lib/vfio-early"; do
        [ ! -d "$destdir$ours" ] || rmdir "$destdir$ours"
    done
    echo "vfio-early is removed; make the initrds anew, so that it is not in them, either"
    exit 0
fi

if [ -z "$destdir" ] && ! "$files/program/usr/bin/vfio-early" --version >/dev/null 2>&1; then
    say "the program does not run here: is this archive for a machine of this kind ($(uname -m))?"
    exit 1
fi
if [ -z "$destdir$generators" ]; then
    ! command -v mkinitramfs >/dev/null || generators="$generators initramfs-tools"
    ! command -v dracut >/dev/null || generators="$generators dracut"
    ! command -v mkinitcpio >/dev/null || generators="$generators mkinitcpio"
    [ -n "$generators" ] || {
        say "neither initramfs-tools nor dracut nor mkinitcpio is here; with --initrd none, what any" \
            "initrd with systemd needs is installed"
        exit 1
    }
fi
[ -n "$generators" ] || generators="initramfs-tools dracut mkinitcpio"

each put program man completions systemd
for generator in $generators; do
    [ "$generator" = none ] || each put "$generator"
done
echo "vfio-early is installed; nothing changes at boot until it is in the initrd, and vfio.devs= on the"
echo "kernel command line. To make the initrd anew:"
for generator in $generators; do
    case $generator in
        initramfs-tools) echo "    update-initramfs -u" ;;
        dracut) echo "    dracut -f --regenerate-all" ;;
        mkinitcpio) echo "    mkinitcpio -P      (with vfio-early in HOOKS of /etc/mkinitcpio.conf)" ;;
        none) echo "    with the program, the units, and the link to it in system-generators" ;;
    esac
done
