#!/bin/bash
# ukify 257.13 (Debian 13), --cmdline=@FILE
#
# Guessed: a command line from a file is put on one line, as that given as an argument is, and lines that
# begin with # are comments, as in kernel-install's /etc/kernel/cmdline.
# Seen: an argument's white space is folded; a file goes into the image as it is, with its newlines and its
# comment, whose words the kernel reads as parameters like all others.
. "$(dirname "$0")/debian"
unpack trixie systemd-ukify=257.13-1~deb13u1 systemd-boot-efi=257.13-1~deb13u1
python3 -m venv "$work/python"
"$work/python/bin/pip" --quiet install pefile==2024.8.26

printf '%s\n' 'quiet  loglevel=3' '# nosmt is for the other machine' 'intel_iommu=on' >"$work/cmdline"

section() {
    "$work/python/bin/python" "$work/root/usr/bin/ukify" build --cmdline="$1" \
        --os-release=ID=test --uname=6.12.0 \
        --stub="$work/root/usr/lib/systemd/boot/efi/linuxx64.efi.stub" --output="$work/out.efi" >/dev/null 2>"$work/log"
    "$work/python/bin/python" - "$work/out.efi" <<'END'
import pefile, sys
for section in pefile.PE(sys.argv[1]).sections:
    if section.Name.rstrip(b"\0") == b".cmdline":
        print(repr(section.get_data()[:section.Misc_VirtualSize].decode()))
END
}

expect "as an argument" "$(section 'quiet  loglevel=3')" "'quiet loglevel=3'"
expect "from a file" "$(section "@$work/cmdline")" \
    "'quiet  loglevel=3\\n# nosmt is for the other machine\\nintel_iommu=on\\n'"
