# Completion of vfio-early for bash; with or without the package bash-completion.

_vfio_early() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local wordbreaks=${COMP_WORDBREAKS//[^:]/} command= index root= words=

    # readline ends words at colons, which addresses and ids are full of.
    if [[ -n $wordbreaks ]]; then
        local line=${COMP_LINE:0:COMP_POINT}
        word=${line##*[[:space:]]}
        line=${line%"$word"}
        read -r -a words <<<"$line"
        before=${words[-1]-}
    else
        words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    fi
    for ((index = 1; index < ${#words[@]}; index++)); do
        case ${words[index]} in
        --root) root=${words[++index]-} ;;
        bind | claim | wait | release | list | check | status | finish | verify | keep) command=${command:-${words[index]}} ;;
        esac
    done

    local candidates=''
    case $before in
    --format)
        candidates='libvirt qemu nix kubevirt proxmox incus cloud-hypervisor crosvm'
        ;;
    --root)
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        return
        ;;
    --user)
        mapfile -t COMPREPLY < <(compgen -u -- "$word")
        return
        ;;
    --cmdline | --memory)
        return
        ;;
    *)
        case $command in
        '') candidates='bind claim wait release list check status finish verify keep --cmdline --dry-run --root --help --version' ;;
        bind)
            candidates='--cmdline --dry-run --root --help'
            candidates+=" $(_vfio_early_addresses "$root")"
            ;;
        claim | wait) candidates='--cmdline --help' ;;
        release)
            candidates='--cmdline --help'
            candidates+=" $(_vfio_early_addresses)"
            ;;
        list)
            candidates='--json --format --root --help gpu usb net storage'
            candidates+=" $(_vfio_early_addresses "$root")"
            ;;
        check)
            candidates='--json --cmdline --root --help'
            candidates+=" $(_vfio_early_addresses "$root")"
            ;;
        status) candidates='--json --cmdline --root --help' ;;
        finish) candidates='--cmdline --help' ;;
        verify)
            candidates='--json --open --user --memory --cmdline --help gpu usb net storage'
            candidates+=" $(_vfio_early_addresses)"
            ;;
        keep) candidates='--root --help' ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$word")
    # readline keeps what stands before the last colon.
    if [[ -n $wordbreaks && $word == *:* ]]; then
        local kept=${word%"${word##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    fi
}

# Of the machine, or of the tree that --root names.
_vfio_early_addresses() {
    local device
    for device in "$1"/sys/bus/pci/devices/*; do
        [[ -e $device ]] && printf '%s ' "${device##*/}"
    done
}

complete -F _vfio_early vfio-early
