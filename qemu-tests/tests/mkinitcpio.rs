//! The hooks for mkinitcpio, which no Debian has: they run under scripts that play its documented
//! interface (`man mkinitcpio`, "About install hooks" and "About runtime hooks").

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const BINARY: &str = "/usr/bin/vfio-early";

/// Where the boot goes on to.
const END: &str = "the real root is next";

/// The hooks, where they can be run: what they name by an absolute path lies in this folder.
struct Hooks(TempDir);

impl Hooks {
    fn new() -> Self {
        let hooks = Self(tempfile::tempdir().unwrap());
        hooks.copy("install", "/sys/bus", hooks.path("sys/bus").to_str().unwrap());
        hooks.keeping("exit 1")
    }

    /// The program that makes the record.
    fn keeping(self, program: &str) -> Self {
        let (hook, place) = (self.path("install/vfio-early"), self.path("keep"));
        fs::write(&place, program).unwrap();
        let text = fs::read_to_string(&hook).unwrap();
        // A file that was just written may still be open in another test's process.
        let runs = format!("sh {} keep", place.display());
        fs::write(&hook, text.replace(&format!("{BINARY} keep"), &runs)).unwrap();
        self
    }

    /// As the installer does where something lies elsewhere.
    fn copy(&self, kind: &str, place: &str, other: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../initrd/mkinitcpio").join(kind);
        let text = fs::read_to_string(source.join("vfio-early")).unwrap();
        assert!(text.contains(place), "{kind} does not name {place}");
        fs::create_dir(self.path(kind)).unwrap();
        fs::write(self.path(kind).join("vfio-early"), text.replace(place, other)).unwrap();
    }

    fn path(&self, of: &str) -> PathBuf {
        self.0.path().join(of)
    }

    /// A PCI device of this machine.
    fn device(self, address: &str, class: &str, driver: Option<&str>, modalias: &str) -> Self {
        let folder = self.path("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("class"), format!("{class}\n")).unwrap();
        fs::write(folder.join("modalias"), format!("{modalias}\n")).unwrap();
        if let Some(driver) = driver {
            symlink(Path::new("../../drivers").join(driver), folder.join("driver")).unwrap();
        }
        self
    }

    /// What the install hook adds, a call a line; whether mkinitcpio counts an error.
    fn install(&self, hooks: &str) -> (Vec<String>, bool) {
        let mut bash = Command::new("bash");
        let output =
            play(bash.arg(script("install")).arg(self.path("install/vfio-early")).arg(hooks));
        (lines(&output), output.status.success())
    }

    /// What the runtime hook does with a program that ends so, one run after the other.
    fn run(&self, statuses: &str) -> Vec<String> {
        self.run_program(&format!("program {statuses} --"))
    }

    fn run_program(&self, program: &str) -> Vec<String> {
        self.copy("hooks", BINARY, program);
        let mut ash = Command::new("busybox");
        ash.arg("ash").arg(script("run")).arg(self.path("hooks/vfio-early"));
        let output = play(&mut ash);
        assert!(output.status.success(), "{output:?}");
        lines(&output)
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mkinitcpio").join(name)
}

fn play(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `cargo xtask setup` installs what the tests need")
    })
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Drivers for these are, by `tests/mkinitcpio/install`, bochs, and radeon and amdgpu.
const VGA: &str = "pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00";
const RADEON: &str = "pci:v00001002d00006810sv00001DA2sd0000E271bc03sc80i00";

#[test]
fn without_systemd_a_runtime_hook_is_added_with_the_program_and_its_modules() {
    let (added, succeeds) = Hooks::new().install("base vfio-early udev modconf");
    assert_eq!(
        added,
        [
            "add_runscript vfio-early",
            "add_binary /usr/lib/vfio-early/vfio-early-initrd /usr/bin/vfio-early",
            "add_module vfio-pci",
            "add_module vfio_iommu_type1",
        ]
    );
    assert!(succeeds);
}

#[test]
fn the_record_is_in_the_image_where_the_program_can_make_it() {
    let line = "disk 144d:a808@00:1d.0/00.0  # nvme0n1p2 is mounted on /";
    let hooks = Hooks::new().keeping(&format!("[ \"$1\" = keep ] && echo '{line}'"));
    let (added, succeeds) = hooks.install("vfio-early");
    assert_eq!(added.last(), Some(&format!("record: {line}")));
    assert!(succeeds);
    // What it had begun to print is none.
    let (added, succeeds) = Hooks::new().keeping("echo disk; exit 1").install("vfio-early");
    assert!(!added.iter().any(|line| line.starts_with("record")), "{added:?}");
    assert!(succeeds);
}

#[test]
fn with_systemd_the_units_and_the_generator_are_added_and_no_runtime_hook() {
    let (added, succeeds) = Hooks::new().install("base systemd vfio-early modconf");
    assert_eq!(
        added,
        [
            "add_systemd_unit vfio-early.service",
            "add_systemd_unit vfio-early-claim.service",
            "add_systemd_unit vfio-early-strict.service",
            "add_symlink /usr/lib/systemd/system-generators/vfio-early-generator \
             /usr/bin/vfio-early",
            "add_binary /usr/lib/vfio-early/vfio-early-initrd /usr/bin/vfio-early",
            "add_module vfio-pci",
            "add_module vfio_iommu_type1",
        ]
    );
    assert!(succeeds);
}

#[test]
fn a_wrong_place_in_hooks_is_an_error_and_adds_nothing() {
    for (hooks, expected) in [
        (
            "base udev vfio-early",
            "error: vfio-early is not in this image: it has to stand before udev in HOOKS=",
        ),
        (
            "base vfio-early systemd",
            "error: vfio-early is not in this image: it has to stand after systemd in HOOKS=",
        ),
    ] {
        let (added, succeeds) = Hooks::new().install(hooks);
        assert_eq!(added, [expected], "{hooks}");
        assert!(!succeeds, "{hooks}");
    }
}

#[test]
fn drivers_of_displays_that_stay_are_added_and_of_nothing_else() {
    let nouveau = "pci:v000010DEd00001E84sv00001AF4sd00001100bc03sc02i00";
    let e1000e = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00";
    let others = Hooks::new().device("0000:00:03.0", "0x030200", None, nouveau).device(
        "0000:00:04.0",
        "0x020000",
        Some("e1000e"),
        e1000e,
    );
    let one = others.device("0000:00:01.0", "0x030000", Some("bochs-drm"), VGA);
    let (added, succeeds) = one.install("vfio-early");
    assert_eq!(added[4..], [""; 0], "one alone");
    assert!(succeeds);

    let two = one.device("0000:00:02.0", "0x038000", None, RADEON);
    let (added, succeeds) = two.install("vfio-early");
    let modules = ["drm", "bochs", "radeon", "amdgpu"].map(|module| format!("add_module {module}"));
    assert_eq!(added[4..], modules);
    assert!(succeeds);

    let three = two.device("0000:00:05.0", "0x030000", Some("vfio-pci"), VGA);
    let (added, _) = three.install("vfio-early");
    assert_eq!(added[4..], modules, "one more, given away");
}

const UDEV: &str = "udev starts";
const ROOT: &str = "the root is mounted";

#[test]
fn the_boot_goes_on_whether_all_is_bound_or_not() {
    let seen = Hooks::new().run("0");
    assert_eq!(seen, ["program claim", UDEV, ROOT, END], "nothing is asked for, or all is bound");
    for status in ["0", "1"] {
        let seen = Hooks::new().run(&format!("1 {status}"));
        assert_eq!(seen, ["program claim", UDEV, "program wait", ROOT, END], "{status}");
    }
}

#[test]
fn what_is_claimed_is_bound_beside_udev_and_waited_for() {
    for status in ["0", "1"] {
        // What is in the background prints nothing, and its shell counts its run.
        let seen = Hooks::new().run(&format!("5 {status}"));
        assert_eq!(seen, ["program claim", UDEV, "program wait", ROOT, END], "{status}");
    }
}

#[test]
fn strict_stops_after_udev_in_the_emergency_shell_until_all_is_bound() {
    let seen = Hooks::new().run("3 3 3 0").join("\n");
    let parts: Vec<&str> = seen.split_inclusive("launch_interactive_shell\n").collect();
    let [first, second, last] = parts[..] else { panic!("{seen}") };
    let start = format!("program claim\n{UDEV}\nprogram wait\n{ROOT}\n");
    assert_eq!(first, second.replacen("program bind\n", &start, 1));
    for part in [
        "run_hookfunctions run_emergencyhook emergency hook splash keyboard\n",
        "ERROR: vfio.strict is given, and not all of vfio.devs=",
    ] {
        assert_eq!(first.matches(part).count(), 1, "{part}: {first}");
    }
    assert_eq!(last, format!("program bind\n{END}"));
}

/// Whether the boot is strict the program itself says, asked again.
#[test]
fn a_program_that_was_killed_stops_a_strict_boot_and_no_other() {
    // Killed, twice; 3 is for a strict boot alone.
    for (statuses, stops) in
        [("137 137 0", false), ("137 137 1", false), ("137 137 3 0", true), ("137 137 137", false)]
    {
        let seen = Hooks::new().run(statuses);
        let killed = "ERROR: vfio-early claim ended with exit status 137";
        let start = ["program claim", killed, UDEV, "program wait", ROOT, "program status"];
        assert_eq!(seen[..6], start, "{statuses}");
        let shells = seen.iter().filter(|line| *line == "launch_interactive_shell").count();
        assert_eq!(shells, usize::from(stops), "{statuses}: {seen:?}");
        assert_eq!(seen.last().unwrap(), END, "{statuses}");
    }
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let seen = Hooks::new().run_program("/nowhere/vfio-early");
    let told = "ERROR: vfio-early claim ended with exit status 127";
    assert_eq!(seen, [told, UDEV, ROOT, END]);
}
