//! What the program is for, on machines of all kinds.

use super::machines::desktop;
use crate::machine::topology::Iommu;
use crate::scenario::{ALL, EVERY, Scenario, USUAL_AND_NIXOS, scenario};
use crate::supplies::kernels::{BUILT, BUILT_IN, CDEV, NIXOS};

/// The main job.
pub(super) fn binding() -> Vec<Scenario> {
    let three = |name| {
        desktop(name)
            .cmdline("vfio.devs=00:03.0,00:04.0,00:05.0")
            .bound("00:03.0", "0000:00:03.0")
            .saying("8086:10d3@0000:00:03.0")
            .bound("00:04.0", "0000:00:04.0")
            .saying("1b36:0010@0000:00:04.0")
            .bound("00:05.0", "0000:00:05.0")
            .logs("0000:00:03.0 8086:10d3: bound to vfio-pci")
    };
    vec![
        three("three devices are bound and stay bound when their host drivers load").kernels(EVERY),
        three("three devices are bound with an AMD IOMMU")
            .only_with(Iommu::Amd, "it is the scenario before with the other IOMMU")
            .kernels(EVERY),
        three("a second bind finds everything bound and changes nothing")
            .kernels(USUAL_AND_NIXOS)
            .runs([&[], &["bind"]])
            .logs("bound to vfio-pci already"),
        desktop("a device whose host driver was loaded before is taken away from it")
            .loaded_before("e1000e")
            .cmdline("vfio.devs=8086:10d3@00:03.0")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .logs("(was e1000e)"),
        desktop("devices whose host drivers were loaded before are all taken away")
            .kernels(USUAL_AND_NIXOS)
            .loaded_before("e1000e")
            .loaded_before("nvme")
            .loaded_before("xhci_pci")
            .cmdline("vfio.devs=8086:10d3@00:03.0,1b36:0010@00:04.0,00:05.0")
            .bound("8086:10d3@00:03.0", "0000:00:03.0")
            .bound("1b36:0010@00:04.0", "0000:00:04.0")
            .bound("00:05.0", "0000:00:05.0")
            .logs("(was nvme)"),
        scenario("a device of a built-in driver is taken away from it")
            .device("pci-serial", "03.0")
            .device("pci-serial", "04.0")
            .cmdline("vfio.devs=00:03.0")
            .kernels(ALL)
            .bound("00:03.0", "0000:00:03.0")
            .logs("(was serial)"),
        scenario("a virtio device is taken from the built-in virtio-pci")
            .device("virtio-rng-pci", "03.0")
            .device("virtio-rng-pci", "04.0")
            .built_in("virtio_pci")
            .cmdline("vfio.devs=00:03.0")
            .kernels(&["6.12", "7.2", NIXOS])
            .only_on(
                &["6.12", "7.2", NIXOS, BUILT_IN, CDEV],
                "the other kernels have virtio-pci in a module",
            )
            .bound("00:03.0", "0000:00:03.0")
            .logs("(was virtio-pci)"),
        scenario("a disk controller is taken from the built-in ahci")
            .device("ich9-ahci", "03.0")
            .device("ich9-ahci", "04.0")
            .built_in("ahci")
            .cmdline("vfio.devs=8086:2922@00:03.0")
            .kernels(&[NIXOS])
            .only_on(&BUILT, "the other kernels have ahci in a module")
            .qemu_only("only kernels that are built here have ahci built in")
            .bound("8086:2922@00:03.0", "0000:00:03.0")
            .logs("(was ahci)"),
        whole_slots("no line of the log is lost with twenty-four devices", 3..6),
        whole_slots("from thirty-three devices on the log only says what is not bound", 3..8)
            .cmdline("vfio.devs=00:1e.0")
            .absent("00:1e.0")
            .logs("40 of 41"),
    ]
}

/// Every function of these slots, asked for with one wildcard a slot.
fn whole_slots(name: &'static str, slots: std::ops::Range<u8>) -> Scenario {
    let mut scenario = scenario(name);
    for slot in slots {
        let item = format!("00:{slot:02x}.*");
        for function in 0..8 {
            let place = format!("{slot:02x}.{function}");
            scenario = scenario.device("edu", &place).bound(&item, &format!("0000:00:{place}"));
        }
        scenario = scenario.cmdline(&format!("vfio.devs={item}"));
    }
    scenario
}
