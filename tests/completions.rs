//! The completions, asked by their shells.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::list::hosts;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/completions").join(name)
}

/// What the shell prints of that script.
fn run(shell: &str, arguments: &[&str], script: &str, words: &[&str]) -> String {
    let output = Command::new(shell)
        .args(arguments)
        .args(["-c", script])
        .args(words)
        .output()
        .unwrap_or_else(|why| panic!("{shell}, which cargo xtask setup installs: {why}"));
    assert!(output.status.success(), "{shell} (from cargo xtask setup): {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Calls the function as readline does, which ends words at colons, too.
const BASH: &str = r#"
source "$0"
for COMP_LINE; do
    COMP_POINT=${#COMP_LINE}
    read -r -a COMP_WORDS <<<"${COMP_LINE//:/ : }"
    [[ $COMP_LINE == *[[:space:]:] ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    $(complete -p vfio-early | sed 's/.*-F \([^ ]*\).*/\1/')
    echo "${COMPREPLY[*]}"
done
"#;

fn bash(lines: &[&str]) -> Vec<String> {
    let mut words = vec![file("vfio-early.bash").to_str().expect("a name").to_owned()];
    words.extend(lines.iter().map(|&line| line.to_owned()));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let text = run("bash", &["--norc", "--noprofile"], BASH, &words);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_addresses() {
    let laptop = hosts::laptop();
    let root = laptop.tree.root().to_str().expect("a name");
    for (line, expected) in [
        ("vfio-early l", "list"),
        (
            "vfio-early ",
            "bind claim wait release list check status finish verify keep --cmdline --dry-run --root --help --version",
        ),
        (
            "vfio-early list --format ",
            "libvirt qemu nix kubevirt proxmox incus cloud-hypervisor crosvm",
        ),
        ("vfio-early list --format q", "qemu"),
        ("vfio-early list --js", "--json"),
        ("vfio-early list gpu st", "storage"),
        ("vfio-early finish -", "--cmdline --help"),
        ("vfio-early release --", "--cmdline --help"),
        ("vfio-early --root ROOT bind 0000:00:1f", "1f.0 1f.3"),
        ("vfio-early keep ", "--root --help"),
        ("vfio-early verify --", "--json --open --user --memory --cmdline --help"),
        ("vfio-early verify --memory ", ""),
        ("vfio-early verify --user roo", "root"),
        ("vfio-early verify gp", "gpu"),
        ("vfio-early status -", "--json --cmdline --root --help"),
        ("vfio-early bind --d", "--dry-run"),
        ("vfio-early check --d", ""),
        ("vfio-early --root ROOT list 1", "10000:e0:06.0 10000:e1:00.0"),
        // readline puts what it is given behind the last colon.
        ("vfio-early --root ROOT list 10000:e", "e0:06.0 e1:00.0"),
        ("vfio-early --root ROOT check 0000:00:1f", "1f.0 1f.3"),
        ("vfio-early --root ROOT status 0", ""),
    ] {
        let found = bash(&[&line.replace("ROOT", root)]);
        assert_eq!(found, [expected], "{line:?}");
    }
}

#[test]
fn bash_neither_uses_nor_leaves_variables() {
    let laptop = hosts::laptop();
    let root = laptop.tree.root().to_str().expect("a name");
    let other_root = format!("vfio-early --root {root} list 10000:");
    let completed = |before: &str, after: &str| {
        let name = file("vfio-early.bash");
        let words =
            [name.to_str().expect("a name"), "vfio-early list ", &other_root, "vfio-early check "];
        let script = format!("{before}\n{BASH}\n{after}");
        run("bash", &["--norc", "--noprofile"], &script, &words)
    };
    let expected = completed("", "");
    assert_eq!(expected.lines().nth(1), Some("e0:06.0 e1:00.0"), "{expected}");
    assert_eq!(
        completed(&format!("root={root} command=status"), "echo $root $command"),
        format!("{expected}{root} status\n")
    );
    // Those of the caller above aside.
    let names = "compgen -v | grep -v -e ^COMP -e ^PIPESTATUS$";
    let before = format!("before=; before=$({names})");
    let after = format!("diff <(echo \"$before\") <({names}) && echo the same");
    assert_eq!(completed(&before, &after), expected + "the same\n");
}

/// The shell completes each line as if it were typed, and a stand-in for the program prints what
/// became of it.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; fpath=($0 \$fpath); autoload -Uz compinit && compinit -u -D
vfio-early() { print -r -- G\"OT<\$*>\" }"
for line; do
    zpty -w -n shell "vfio-early $line"$'\t\n'
    zpty -r shell text '*GOT<*>*'
    print -r -- "${${text##*GOT<}%%>*}"
done
zpty -d shell
"#;

#[test]
fn zsh_completes_commands_and_options() {
    let folder = file("");
    let lines = [
        "l",
        "list --format l",
        "list --js",
        "list gp",
        "status --j",
        "bind --d",
        "rel",
        "--vers",
        "verify --o",
        "verify gp",
    ];
    let words = [&[folder.to_str().expect("a name")], &lines[..]].concat();
    // It waits for what the inner shell prints, which may never come.
    let found = run("timeout", &["60", "zsh", "-f"], ZSH, &words);
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            "list",
            "list --format libvirt",
            "list --json",
            "list gpu",
            "status --json",
            "bind --dry-run",
            "release",
            "--version",
            "verify --open",
            "verify gpu",
        ]
    );
}

#[test]
fn fish_completes_commands_and_options() {
    let script = format!(
        "source {}; for line in $argv; complete -C $line | cut -f1 | sort | string join ' '; or true; end",
        file("vfio-early.fish").display()
    );
    for (line, expected) in [
        ("vfio-early l", "list"),
        ("vfio-early ", "bind check claim finish keep list release status verify wait"),
        (
            "vfio-early list --format ",
            "cloud-hypervisor crosvm incus kubevirt libvirt nix proxmox qemu",
        ),
        ("vfio-early list --js", "--json"),
        ("vfio-early list gp", "gpu"),
        ("vfio-early bind --d", "--dry-run"),
        ("vfio-early list --d", ""),
        ("vfio-early check --d", ""),
        ("vfio-early verify --d", ""),
        ("vfio-early verify --o", "--open"),
        ("vfio-early verify gp", "gpu"),
    ] {
        let found = run("fish", &["--no-config"], &script, &[line]);
        // fish 4 also names what has the typed letters anywhere: that is none of the file's doing.
        let (_, typed) = line.rsplit_once(' ').expect("words");
        let begins: Vec<_> = found.split_whitespace().filter(|w| w.starts_with(typed)).collect();
        assert_eq!(begins.join(" "), expected, "{line:?}");
    }
}
