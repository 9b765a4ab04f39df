# Completion of vfio-early for fish.

function __vfio_early_addresses
    for device in /sys/bus/pci/devices/*
        path basename $device
    end
end

set -l commands bind claim wait release list check status finish verify keep

complete -c vfio-early -f
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a bind -d 'What runs in the initrd'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a claim -d 'What has to come before udev'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a wait -d 'Until a bind that is at work is over'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a release -d 'Give a device back to the host'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a list -d 'The devices by IOMMU group'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a check -d 'What bind would do here'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a status -d 'The last report against now'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a finish -d 'What the initrd had to leave'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a verify -d 'Try what a virtual machine does when it starts'
complete -c vfio-early -n "not __fish_seen_subcommand_from $commands" -a keep -d 'What this host lives from'

complete -c vfio-early -n "__fish_seen_subcommand_from list verify" -a 'gpu usb net storage' -d 'All of that kind'
complete -c vfio-early -n "__fish_seen_subcommand_from bind release list check verify" -a '(__vfio_early_addresses)' -d 'PCI device'
complete -c vfio-early -n "__fish_seen_subcommand_from list" -l format -x -a 'libvirt qemu nix kubevirt proxmox incus cloud-hypervisor crosvm' -d 'Print the devices for another program'
complete -c vfio-early -n "__fish_seen_subcommand_from list check status verify" -l json -d 'Print JSON'
complete -c vfio-early -n "not __fish_seen_subcommand_from list keep" -l cmdline -x -d 'Read TEXT instead of /proc/cmdline'
complete -c vfio-early -n "not __fish_seen_subcommand_from claim wait release list check status finish verify keep" -l dry-run -d 'Print the plan, write nothing'
complete -c vfio-early -n "__fish_seen_subcommand_from verify" -l open -d 'Go on to the devices, which resets them'
complete -c vfio-early -n "__fish_seen_subcommand_from verify" -l user -x -a '(__fish_complete_users)' -d 'Whether this user could start the virtual machine'
complete -c vfio-early -n "__fish_seen_subcommand_from verify" -l memory -x -d 'The size of that virtual machine'
complete -c vfio-early -n "not __fish_seen_subcommand_from claim wait" -l root -r -F -d 'Read DIR/proc and DIR/sys'
complete -c vfio-early -s h -l help -d 'Print a summary'
complete -c vfio-early -s V -l version -d 'Print the version'
