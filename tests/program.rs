//! The program itself: arguments, exit status, and what goes where.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::fake::Fake;
use crate::machine::desktop;

/// With one of these, none of this machine's devices is written to.
const HARMLESS: [&str; 7] =
    ["--dry-run", "--root", "--help", "-h", "--version", "-V", "--no-such-argument"];

fn program(arguments: &[&OsStr]) -> Output {
    let is_harmless = |argument: &&OsStr| HARMLESS.iter().any(|text| *argument == *text);
    // Not even with a typing error in a test.
    assert!(arguments.iter().any(is_harmless), "{arguments:?} might bind devices");
    Command::new(env!("CARGO_BIN_EXE_vfio-early"))
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .output()
        .expect("the program starts")
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
    let output = program(&arguments);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn dry_run(fake: &Fake, arguments: &[&str]) -> (Option<i32>, String, String) {
    let root = fake.tree.root().to_str().expect("a name");
    run(&[&["--root", root, "--dry-run"], arguments].concat())
}

/// It tells which build it is: of a release the commit, too.
fn version() -> String {
    let target = concat!(env!("CARGO_PKG_VERSION"), " (", env!("VFIO_EARLY_BUILD"), ")\n");
    assert!(target.contains("-linux-") && target.contains(", "), "{target}");
    format!("vfio-early {target}")
}

#[test]
fn help_and_version_go_to_standard_output() {
    for argument in ["--help", "-h"] {
        let (status, stdout, stderr) = run(&[argument]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{argument}");
        for text in ["usage: vfio-early [bind]", "--cmdline", "--root", "--dry-run", "exit status"]
        {
            assert!(stdout.contains(text), "{argument}: {text:?} is not in\n{stdout}");
        }
    }
    for argument in ["--version", "-V"] {
        assert_eq!(run(&[argument]), (Some(0), version(), String::new()), "{argument}");
    }
}

#[test]
fn the_help_fits_on_a_screen() {
    let (_, help, _) = run(&["--help"]);
    // The last line is the shell's.
    assert!(help.lines().count() < 24, "{help}");
    for line in help.lines() {
        assert!(line.len() <= 80, "{line:?} has {} columns", line.len());
    }
}

#[test]
fn status_of_a_host_that_asks_for_nothing_is_json_too() {
    let fake = desktop().command_line("quiet").boot();
    let root = fake.tree.root().to_str().expect("a name");
    let (status, stdout, stderr) = run(&["--root", root, "status", "--json"]);
    let expected = "{\"version\":1,\"devices\":[],\"warnings\":[],\"exit_status\":0}\n";
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), expected, ""));
}

#[test]
fn wrong_arguments_end_with_status_2_and_say_which() {
    for (arguments, text) in [
        (&["--no-such-argument"][..], "--no-such-argument"),
        (&["--dry-run", "unbind"], "unbind"),
        (&["--dry-run", "bind", "bind"], "bind"),
        (&["--dry-run", "release", "00:14.0"], "--dry-run is for bind"),
        (&["release", "--root", "/nowhere", "00:14.0"], "release could write nothing"),
        (&["hotplug", "--root", "/nowhere", "00:14.0"], "hotplug and release could write"),
        (&["hotplug", "--no-such-argument"], "--no-such-argument"),
        (&["release", "--root", "/nowhere"], "name at least one device"),
        (&["release", "--root", "/nowhere", "00:14.0", "x"], "\"x\": not a PCI address"),
        (&["release", "--root", "/nowhere", "00:14.0", "--json"], "--json is for"),
        (&["--root", "/nowhere", "--dry-run=yes"], "yes"),
        (&["--dry-run", "--cmdline"], "--cmdline"),
        (&["--dry-run", "--root"], "--root"),
        (&["--dry-run", "-x"], "-x"),
        (&["--dry-run", "--json"], "--json is for list, check, status and verify"),
        (&["--dry-run", "--format", "qemu"], "--format is for list"),
        (&["--dry-run", "--open"], "--open, --user and --memory are for verify"),
        (&["verify", "--root", "/nowhere"], "leave --root out"),
        (&["--dry-run", "verify", "--memory", "8g"], "\"8g\" is no size of memory"),
        (&["--dry-run", "verify", "01:00"], "\"01:00\" is no filter"),
    ] {
        let (status, stdout, stderr) = run(arguments);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("vfio-early: ") && stderr.contains(text), "{stderr}");
        assert!(stderr.contains("vfio-early --help"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn standard_files_that_are_closed_are_no_obstacle() {
    let version = version();
    for (closed, expected) in
        [("<&-", version.as_str()), (">&-", ""), ("2>&-", &version), ("<&- >&- 2>&-", "")]
    {
        let line = format!("exec \"$0\" --version {closed}");
        let mut command = Command::new("sh");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_vfio-early")]);
        let output = command.output().expect("sh starts");
        assert_eq!(output.status.code(), Some(0), "{closed}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{closed}");
    }
}

#[test]
fn another_tree_is_not_written_to() {
    let mut fake = desktop().command_line("vfio.devs=00:14.0").boot();
    fake.load("vfio-pci");
    let before = fake.tree.everything();
    let root = fake.tree.root().to_str().expect("a name");
    for arguments in [&["--root", root][..], &["bind", "--root", root]] {
        let (status, stdout, stderr) = run(arguments);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains("--dry-run"), "{stderr}");
    }
    assert_eq!(fake.tree.everything(), before);
}

#[test]
fn a_dry_run_prints_the_plan_of_the_trees_command_line() {
    let mut fake = desktop().command_line("quiet vfio.devs=01:00.0,00:14.0 splash").boot();
    fake.load("nouveau");
    let before = fake.tree.everything();
    let (status, stdout, stderr) = dry_run(&fake, &[]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    for line in [
        "write vfio-pci to driver_override of 0000:01:00.0",
        "write vfio-pci to driver_override of 0000:00:14.0",
        "load vfio-pci with its dependencies",
        "unbind 0000:01:00.0 from nouveau",
        "write 0000:01:00.0 to drivers_probe",
    ] {
        assert!(stdout.lines().any(|other| other == line), "{line:?} is not in\n{stdout}");
    }
    assert_eq!(fake.tree.everything(), before);
}

#[test]
fn a_dry_run_has_the_exit_status_that_bind_would_have() {
    let fake = desktop().boot();
    for (text, status) in [
        ("", 0),
        ("quiet", 0),
        ("vfio.devs=00:14.0", 0),
        ("vfio.devs=00:14.0 vfio.strict", 0),
        ("vfio.devs=00:14.0,05:00.0", 1),
        ("vfio.devs=00:01.0", 1),
        ("vfio.devs=00:14.0,x", 1),
        ("vfio.devs=05:00.0 vfio.strict", 3),
        ("vfio.devs=x vfio.strict", 3),
        ("vfio.devs=05:00.0 vfio.strict vfio.off", 0),
    ] {
        let (found, _, stderr) = dry_run(&fake, &["--cmdline", text]);
        assert_eq!(found, Some(status), "{text}: {stderr}");
    }
}

#[test]
fn a_dry_run_of_what_is_named_is_about_that_alone() {
    let fake = desktop().command_line("vfio.devs=00:14.0,x vfio.off").boot();
    let (status, stdout, stderr) = dry_run(&fake, &["bind", "00:19.0"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("0000:00:19.0") && !stdout.contains("0000:00:14.0"), "{stdout}");
}

#[test]
fn a_command_line_given_as_an_argument_replaces_that_of_the_tree() {
    let fake = desktop().command_line("vfio.devs=00:14.0").boot();
    let (status, stdout, _) = dry_run(&fake, &["bind", "--cmdline", "vfio.devs=00:19.0"]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("0000:00:19.0") && !stdout.contains("0000:00:14.0"), "{stdout}");
    // Of bytes that are no text, too.
    let root = fake.tree.root().as_os_str();
    let text = OsStr::from_bytes(b"\xff\xfe vfio.devs=00:19.0,\xff");
    let [dry_run, root_is, cmdline] = ["--dry-run", "--root", "--cmdline"].map(OsStr::new);
    let output = program(&[dry_run, root_is, root, cmdline, text]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("0000:00:19.0"));
    assert!(String::from_utf8_lossy(&output.stderr).contains('\u{fffd}'));
}

#[test]
fn check_says_what_it_takes_its_words_for() {
    let fake = desktop().boot();
    let root = fake.tree.root().to_str().expect("a name");
    let items = "taken for items, which a command line has without blanks or in quotes: ";
    for (words, said) in [
        (&["00:14.0, 00:19.0"][..], [items, "vfio.devs=00:14.0,00:19.0"]),
        (&["00:14.0", "00:19.0"], [items, "vfio.devs=00:14.0,00:19.0"]),
        (&["\"00:14.0 00:19.0\""], [items, "vfio.devs=00:14.0,00:19.0"]),
        (
            &["GRUB_CMDLINE_LINUX=\"quiet vfio.devs=00:14.0,00:19.0\""],
            ["taken for what is assigned: ", "quiet vfio.devs=00:14.0,00:19.0"],
        ),
        (
            &["options quiet vfio.devs=00:14.0,00:19.0"],
            ["taken for the options of a loader entry: ", "quiet vfio.devs="],
        ),
        (
            &["kernelParams = [ \"vfio.devs=00:14.0\" \"vfio.devs=00:19.0\" ];"],
            ["taken for the strings of a list: ", "vfio.devs=00:14.0 vfio.devs=00:19.0"],
        ),
    ] {
        let (status, stdout, stderr) = run(&[&["--root", root, "check"], words].concat());
        assert!(stderr.contains(&said.concat()), "{words:?}: {stderr}");
        assert_eq!(stdout.matches("would be bound").count(), 2, "{words:?}: {stdout}");
        assert_eq!(status, Some(0), "{words:?}");
    }
    // With what is on the command line besides, what is too long is told.
    fake.tree.write("proc/cmdline", &format!("quiet vfio.devs=05:00.0 x={}\n", "y".repeat(1900)));
    let list = (0..16).map(|bus| format!("{bus:02x}:00.*")).collect::<Vec<_>>().join(",");
    for (words, expected) in [
        (&["--root", root, "check", "00:14.0"][..], ""),
        (&["--root", root, "check"], ""),
        (&["--root", root, "check", &list], ""),
        (
            &["--root", root, "check", &format!("{list},10:00.*")],
            "warning: with your command line that is 2054 bytes, and 2047 fit: a boot loader drops",
        ),
    ] {
        let (_, stdout, stderr) = run(words);
        let stdout = stdout.replace("\n    ", " ");
        let is_told = stdout.contains("bytes, and 2047 fit");
        assert_eq!(is_told, expected.starts_with("warning"), "{words:?}: {stdout}");
        assert!(!is_told || stdout.contains(expected), "{words:?}: {stdout} {stderr}");
    }
    let (_, stdout, _) = run(&["--root", root, "list", "00:14.0"]);
    assert!(stdout.contains("To paste") && !stdout.contains("2047 fit"), "{stdout}");
    // The plan alone is printed, and what is wrong is said besides; all of the line counts.
    let text = format!("vfio.devs={list} vfio.strict vfio.driver=vfio-pci");
    let (_, stdout, stderr) = run(&["--root", root, "--dry-run", "--cmdline", &text]);
    assert!(stderr.contains("bytes, and 2047 fit"), "{stderr}");
    assert!(!stdout.contains("2047"), "{stdout}");
    fake.tree.write("etc/modprobe.d/a.conf", "options vfio-pci ids=8086:a12f\n");
    let (_, _, stderr) = run(&["--root", root, "--dry-run", "--cmdline", "vfio.devs=00:19.0"]);
    assert!(stderr.contains("ids= of vfio-pci in /etc/modprobe.d/a.conf gives away"), "{stderr}");
    fake.tree.write("proc/cmdline", &format!("x={}\n", "y".repeat(2030)));
    let (_, stdout, _) = run(&["--root", root, "list", "00:14.0"]);
    assert!(stdout.replace("\n    ", " ").contains("bytes, and 2047 fit"), "{stdout}");
    fake.tree.write("proc/cmdline", "quiet\n");
    // What no boot will do is not said yes to.
    let pasted = ["--root", root, "check", "vfio.devs=00:14.0, 00:19.0"];
    let (_, stdout, stderr) = run(&pasted);
    assert_eq!(stdout.matches("would be bound").count(), 1, "{stdout}");
    assert!(stderr.contains("outside vfio.devs= and not read: 00:19.0; "), "{stderr}");
    let (status, _, stderr) = run(&[&["--cmdline", "quiet"], &pasted[..]].concat());
    assert_eq!(status, Some(2), "both are given: {stderr}");
}

#[test]
fn by_the_name_of_the_generator_nothing_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join(vfio_early::generator::NAME);
    symlink(env!("CARGO_BIN_EXE_vfio-early"), &link).expect("a link");
    // This machine's command line asks for nothing, and a wrong call is one all the same.
    for arguments in [&[][..], &["/nowhere", "/nowhere", "/nowhere"], &["--no-such-argument"]] {
        let output = Command::new(&link).args(arguments).current_dir(folder.path()).output();
        let output = output.expect("the program starts");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "{arguments:?}");
    }
}

#[test]
fn what_is_wrong_goes_to_standard_error_with_a_name_in_front() {
    let fake = desktop().boot();
    let (_, stdout, stderr) = dry_run(&fake, &["--cmdline", "vfio.devs=x,00:14.0 vfio.dev=1"]);
    assert!(!stdout.contains("\"x\""), "{stdout}");
    for text in ["vfio.dev is unknown; is vfio.devs meant?", "\"x\": not a PCI address"] {
        let has =
            stderr.lines().any(|line| line.starts_with("vfio-early: ") && line.contains(text));
        assert!(has, "{text:?} is not in\n{stderr}");
    }
}

#[test]
fn lines_have_their_level_in_front_where_standard_error_is_the_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stderr");
    let stderr = File::create(&path).expect("a file");
    let metadata = stderr.metadata().expect("it is there");
    let here = format!("{}:{}", metadata.dev(), metadata.ino());
    // Of a unit whose standard error goes elsewhere, or of a shell that a unit started.
    let elsewhere = "9:9";
    for (stream, expected) in [(here.as_str(), ["<4>", "<3>"]), (elsewhere, ["vfi", "vfi"])] {
        fs::write(&path, "").expect("it can be emptied");
        let mut program = Command::new(env!("CARGO_BIN_EXE_vfio-early"));
        let status = program
            .args(["--dry-run", "--root", "/nowhere", "--cmdline", "vfio.devs=00:14.0 vfio.dev=1"])
            .env("JOURNAL_STREAM", stream)
            .stderr(OpenOptions::new().append(true).open(&path).expect("it can be written"))
            .status();
        assert!(status.is_ok(), "{status:?}");
        let text = fs::read_to_string(&path).expect("text");
        let levels: Vec<_> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(levels, expected, "{stream}: {text}");
    }
}

#[test]
fn a_list_cannot_forge_a_line_of_the_log() {
    let fake = desktop().boot();
    let text = "vfio.devs=\"\u{1b}[2J\u{7}x\u{0b}y\"";
    let (_, _, stderr) = dry_run(&fake, &["--cmdline", text]);
    assert!(!stderr.chars().any(|c| c.is_control() && c != '\n'), "{stderr:?}");
}

#[test]
fn a_root_may_be_relative() {
    let fake = crate::list::hosts::desktop();
    let folder = fake.tree.root().parent().expect("it is in a folder");
    let name = fake.tree.root().file_name().expect("it has a name");
    for command in [
        &["list"][..],
        &["check", "00:17.0"],
        &["--dry-run", "--cmdline", "vfio.devs=group:00:1f.3"],
        &["status"],
    ] {
        let answers =
            [name.as_ref(), Path::new(".").join(name).as_path(), fake.tree.root()].map(|root| {
                let mut program = Command::new(env!("CARGO_BIN_EXE_vfio-early"));
                let output = program.args(command).arg("--root").arg(root).current_dir(folder);
                output.output().expect("the program starts")
            });
        assert!(answers.iter().all(|answer| *answer == answers[2]), "{command:?}: {answers:#?}");
    }
}

#[test]
fn a_tree_that_cannot_be_read_is_an_error_that_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let name = root.path().to_str().unwrap();
    let (status, stdout, stderr) = run(&["--root", name, "--dry-run"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("proc/cmdline") && stderr.contains("mount /proc"), "{stderr}");

    let asked = ["--root", name, "--dry-run", "--cmdline", "vfio.devs=00:14.0"];
    let (status, stdout, stderr) = run(&asked);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("sys/bus/pci") && stderr.contains("sysfs"), "{stderr}");

    // Root may read everything, but not this.
    fs::create_dir_all(root.path().join("sys/bus")).unwrap();
    symlink("pci", root.path().join("sys/bus/pci")).unwrap();
    let (status, stdout, stderr) = run(&asked);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("sys/bus/pci"), "{stderr}");
    let strict = ["--root", name, "--dry-run", "--cmdline", "vfio.devs=00:14.0 vfio.strict"];
    assert_eq!(run(&strict).0, Some(3));
}
