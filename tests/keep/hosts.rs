//! Boards on which following a careless line costs the machine, as they run and as their next initrd
//! finds them.

use crate::fake::Fake;
use crate::list::hosts::{Row, bare_function, dress};
use crate::machine::Machine;

/// A board before power-on. No host driver is loaded, but for the ports'.
pub struct Board {
    machine: Machine,
    drivers: Vec<&'static str>,
    /// What the running host has besides its drivers.
    used: fn(&Fake),
}

impl Board {
    fn new(rows: &[Row], boot_display: &str, used: fn(&Fake)) -> Board {
        let mut drivers = Vec::new();
        let functions = rows.iter().map(|row| {
            let function = bare_function(row);
            match row.4 {
                "" => function,
                "pcieport" => function.built_in("pcieport"),
                driver => {
                    if !drivers.contains(&driver) {
                        drivers.push(driver);
                    }
                    function.host(driver)
                }
            }
        });
        let mut machine = Machine::new(functions.collect::<Vec<_>>());
        for function in &mut machine.functions {
            function.boot_vga = function.address == boot_display;
        }
        if !boot_display.is_empty() {
            machine = machine.firmware_on(boot_display);
        }
        Board { machine, drivers, used }
    }

    /// The host, with what it uses.
    pub fn running(&self) -> Fake {
        let mut fake = self.machine.boot();
        dress(&fake);
        self.drivers.iter().for_each(|driver| fake.load(driver));
        (self.used)(&fake);
        fake
    }

    /// The same board in its next initrd, which has this record; empty: none.
    pub fn in_initrd(&self, record: &str) -> Fake {
        in_initrd(&self.machine, record)
    }

    /// As [`Board::in_initrd`], where the buses got other numbers, because a card was added.
    pub fn renumbered(&self, record: &str, from: &str, to: &str) -> Fake {
        let mut machine = self.machine.clone();
        for function in &mut machine.functions {
            function.address = function.address.replace(from, to);
            function.above = function.above.replace(from, to);
        }
        in_initrd(&machine, record)
    }
}

fn in_initrd(machine: &Machine, record: &str) -> Fake {
    let fake = machine.boot();
    if !record.is_empty() {
        fake.tree.write("etc/vfio-early/keep", record);
    }
    fake
}

impl Fake {
    /// A keyboard as the kernel shows one.
    pub fn keyboard(&self, place: &str, path: &str, name: &str) {
        self.input(place, path, name);
        self.keys(&format!("sys/class/input/{}", path.rsplit('/').next().expect("a name")));
    }

    /// One on a PS/2 port.
    pub fn old_keyboard(&self) {
        let folder = "devices/platform/i8042/serio0/input/input0";
        self.tree.write(&format!("sys/{folder}/name"), "AT Translated Set 2 keyboard\n");
        self.tree.link_up("class/input/input0", folder);
        self.keys(&format!("sys/{folder}"));
    }

    fn keys(&self, folder: &str) {
        let keys = "10000 7 ff800000000007ff febeffdff3cfffff fffffffffffffffe\n";
        self.tree.write(&format!("{folder}/capabilities/key"), keys);
        self.tree.write(&format!("{folder}/capabilities/led"), "7\n");
    }

    /// A disk with one partition.
    pub fn partition(&self, place: &str, disk: &str, part: &str, number: &str) {
        let folder = self.below(place, "block", disk);
        self.tree.write(&format!("{folder}/dev"), "259:0\n");
        let folder = self.below(place, "block", &format!("{disk}/{part}"));
        self.tree.write(&format!("{folder}/dev"), &format!("{number}\n"));
        self.tree.folder(&format!("{folder}/holders"));
        let folder = folder.strip_prefix("sys/").expect("it is in sysfs");
        self.tree.link_up(&format!("dev/block/{number}"), folder);
    }

    /// A device of the device mapper on top of a partition or another one.
    pub fn mapped(&self, below: &str, name: &str, number: &str) {
        let folder = format!("devices/virtual/block/{name}");
        self.tree.write(&format!("sys/{folder}/dev"), &format!("{number}\n"));
        self.tree.folder(&format!("sys/{folder}/holders"));
        self.tree.folder(&format!("sys/{folder}/slaves/{below}"));
        self.tree.link_up(&format!("class/block/{name}"), &folder);
        self.tree.link_up(&format!("dev/block/{number}"), &folder);
        self.tree.folder(&format!("sys/class/block/{below}/holders/{name}"));
    }

    pub fn mounts(&self, lines: &[&str]) {
        self.tree.write("proc/self/mountinfo", &(lines.join("\n") + "\n"));
    }
}

/// The chipset of a B450 is one group: the root disk, the network, the keyboard, and the slot with the
/// card that a VM is to have.
pub fn b450() -> Board {
    Board::new(
        &[
            ("00:00.0", "1022:1450", 0x06_0000, 0, ""),
            ("00:01.3", "1022:1453", 0x06_0400, 2, "pcieport"),
            ("00:08.1", "1022:1454", 0x06_0400, 8, "pcieport"),
            ("00:01.3/02:00.0", "1022:43d5", 0x0c_0330, 14, "xhci_hcd"),
            ("00:01.3/02:00.1", "1022:43c8", 0x01_0601, 14, "ahci"),
            ("00:01.3/02:00.2", "1022:43c6", 0x06_0400, 14, "pcieport"),
            ("00:01.3/02:00.2/20:00.0", "1022:43c7", 0x06_0400, 14, "pcieport"),
            ("00:01.3/02:00.2/20:01.0", "1022:43c7", 0x06_0400, 14, "pcieport"),
            ("00:01.3/02:00.2/20:04.0", "1022:43c7", 0x06_0400, 14, "pcieport"),
            ("00:01.3/02:00.2/20:00.0/03:00.0", "144d:a808", 0x01_0802, 14, "nvme"),
            ("00:01.3/02:00.2/20:01.0/06:00.0", "10ec:8168", 0x02_0000, 14, "r8169"),
            ("00:01.3/02:00.2/20:04.0/07:00.0", "10de:1c03", 0x03_0000, 14, "nouveau"),
            ("00:01.3/02:00.2/20:04.0/07:00.1", "10de:10f1", 0x04_0300, 14, "snd_hda_intel"),
            ("00:08.1/0a:00.0", "1002:15d8", 0x03_0000, 20, "amdgpu"),
        ],
        "0000:0a:00.0",
        |fake| {
            let disk = "00:01.3/02:00.2/20:00.0/03:00.0";
            fake.partition(disk, "nvme/nvme0/nvme0n1", "nvme0n1p2", "259:2");
            fake.mounts(&["22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw"]);
            fake.link("00:01.3/02:00.2/20:01.0/06:00.0", "enp6s0");
            fake.keyboard("00:01.3/02:00.0", "usb1/1-2/1-2:1.0/input/input3", "Cherry Keyboard");
        },
    )
}

/// The processor's graphics share a slot with the host's USB controllers and the security processor.
pub fn apu() -> Board {
    Board::new(
        &[
            ("00:00.0", "1022:14d8", 0x06_0000, 0, ""),
            ("00:01.1", "1022:14db", 0x06_0400, 1, "pcieport"),
            ("00:02.1", "1022:14db", 0x06_0400, 2, "pcieport"),
            ("00:08.1", "1022:14dd", 0x06_0400, 3, "pcieport"),
            ("00:01.1/01:00.0", "1002:744c", 0x03_0000, 10, "amdgpu"),
            ("00:01.1/01:00.1", "1002:ab30", 0x04_0300, 11, "snd_hda_intel"),
            ("00:01.1/01:00.2", "1002:7446", 0x0c_0330, 12, "xhci_hcd"),
            ("00:01.1/01:00.3", "1002:7444", 0x0c_8000, 13, ""),
            ("00:02.1/02:00.0", "144d:a80c", 0x01_0802, 14, "nvme"),
            ("00:08.1/30:00.0", "1002:164e", 0x03_0000, 15, "amdgpu"),
            ("00:08.1/30:00.1", "1002:1640", 0x04_0300, 16, "snd_hda_intel"),
            ("00:08.1/30:00.2", "1022:1649", 0x10_8000, 17, "ccp"),
            ("00:08.1/30:00.3", "1022:15b6", 0x0c_0330, 18, "xhci_hcd"),
            ("00:08.1/30:00.4", "1022:15b7", 0x0c_0330, 19, "xhci_hcd"),
            ("00:08.1/30:00.6", "1022:15e3", 0x04_0300, 20, "snd_hda_intel"),
        ],
        "0000:01:00.0",
        |fake| {
            fake.partition("00:02.1/02:00.0", "nvme/nvme0/nvme0n1", "nvme0n1p2", "259:2");
            fake.mounts(&["22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw"]);
            fake.keyboard("00:08.1/30:00.3", "usb3/3-1/3-1:1.0/input/input5", "Cherry Keyboard");
            fake.input("00:08.1/30:00.4", "usb5/5-1/5-1:1.0/input/input7", "Gaming Mouse");
        },
    )
}

/// Two disks of one kind; the host runs from the first.
pub fn twin_disks() -> Board {
    Board::new(
        &[
            ("00:00.0", "8086:29c0", 0x06_0000, 0, ""),
            ("00:1c.0", "1b36:000c", 0x06_0400, 1, "pcieport"),
            ("00:1d.0", "1b36:000c", 0x06_0400, 2, "pcieport"),
            ("00:1c.0/01:00.0", "1b36:0010", 0x01_0802, 3, "nvme"),
            ("00:1d.0/02:00.0", "1b36:0010", 0x01_0802, 4, "nvme"),
        ],
        "",
        |fake| {
            fake.partition("00:1c.0/01:00.0", "nvme/nvme0/nvme0n1", "nvme0n1p2", "259:2");
            fake.partition("00:1d.0/02:00.0", "nvme/nvme1/nvme1n1", "nvme1n1p1", "259:4");
            fake.mounts(&["22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw"]);
        },
    )
}

/// LVM on LUKS; the passphrase is typed on a USB keyboard.
pub fn encrypted() -> Board {
    Board::new(
        &[
            ("00:00.0", "8086:3ec2", 0x06_0000, 0, ""),
            ("00:02.0", "8086:3e92", 0x03_0000, 1, "i915"),
            ("00:14.0", "8086:a36d", 0x0c_0330, 2, "xhci_hcd"),
            ("00:1d.0", "8086:a330", 0x06_0400, 3, "pcieport"),
            ("00:1d.0/02:00.0", "144d:a808", 0x01_0802, 4, "nvme"),
            ("00:1b.0", "8086:a340", 0x06_0400, 5, "pcieport"),
            ("00:1b.0/03:00.0", "1b21:2142", 0x0c_0330, 6, "xhci_hcd"),
        ],
        "0000:00:02.0",
        |fake| {
            fake.partition("00:1d.0/02:00.0", "nvme/nvme0/nvme0n1", "nvme0n1p3", "259:3");
            fake.mapped("nvme0n1p3", "dm-0", "253:0");
            fake.mapped("dm-0", "dm-1", "253:1");
            fake.mounts(&["22 1 253:1 / / rw - ext4 /dev/mapper/host-root rw"]);
            fake.keyboard("00:14.0", "usb1/1-2/1-2:1.0/input/input3", "Cherry Keyboard");
        },
    )
}

/// One graphics card, which has the host's desktop on it, and swap on a second disk.
pub fn single_gpu() -> Board {
    Board::new(
        &[
            ("00:00.0", "8086:3ec2", 0x06_0000, 0, ""),
            ("00:01.0", "8086:1901", 0x06_0400, 1, "pcieport"),
            ("00:01.0/01:00.0", "1002:67df", 0x03_0000, 1, "amdgpu"),
            ("00:01.0/01:00.1", "1002:aaf0", 0x04_0300, 1, "snd_hda_intel"),
            ("00:17.0", "8086:a352", 0x01_0601, 2, "ahci"),
            ("00:1d.0", "8086:a330", 0x06_0400, 3, "pcieport"),
            ("00:1d.0/02:00.0", "144d:a808", 0x01_0802, 4, "nvme"),
        ],
        "0000:01:00.0",
        |fake| {
            let disk = "ata1/host0/target0:0:0/0:0:0:0/block/sda";
            fake.partition("00:17.0", disk, "sda2", "8:2");
            fake.partition("00:1d.0/02:00.0", "nvme/nvme0/nvme0n1", "nvme0n1p1", "259:1");
            fake.mounts(&["22 1 8:2 / / rw - ext4 /dev/sda2 rw"]);
            fake.tree.write("proc/swaps", "Filename\n/dev/nvme0n1p1 partition 1 0 -2\n");
            fake.old_keyboard();
        },
    )
}

/// What is in use is not of the class that one would think of: an accelerator that is no display, and
/// the keyboard of a laptop on I2C.
pub fn odd_classes() -> Board {
    Board::new(
        &[
            ("00:00.0", "8086:4621", 0x06_0000, 0, ""),
            ("00:15.0", "8086:51e8", 0x0c_8000, 1, "intel-lpss"),
            ("00:1c.0", "8086:51b8", 0x06_0400, 2, "pcieport"),
            ("00:1c.0/01:00.0", "1002:74a0", 0x12_0000, 3, "amdgpu"),
        ],
        "",
        |fake| {
            let folder = "i2c_designware.0/i2c-0/i2c-ELAN/0018:04F3:0001.0001/input/input5";
            fake.keyboard("00:15.0", folder, "ELAN Keyboard");
            fake.mounts(&["22 1 0:31 / / rw - tmpfs tmpfs rw"]);
        },
    )
}
