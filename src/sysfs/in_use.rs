//! Who has a device open right now, or types on it: asked of a device that a driver of the host has,
//! right before it is taken.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{OFlag, readlinkat};

use super::usage::{Usage, User};
use super::{Sysfs, files};
use crate::escape;
use crate::pci::Address;

/// Of more processes only the number is told.
const MOST_NAMES: usize = 3;

impl Sysfs {
    /// What uses the device right now, of whatever class it is: an accelerator draws, too, and the
    /// keyboard of a laptop can hang on a serial bus.
    pub(super) fn use_now(&self, address: Address) -> Option<Usage> {
        self.open_nodes(address)
            .or_else(|| self.streams(address))
            .or_else(|| self.typed_on(address))
    }

    /// Processes that have a graphics device's files open, or a disk's, as a VM's that got it by its path.
    /// Sources: `/sys/class/drm`, `/sys/class/accel`, `/sys/class/graphics`, `/sys/class/block`,
    /// `/proc/driver/nvidia`, `/proc/PID/fd`.
    fn open_nodes(&self, address: Address) -> Option<Usage> {
        let text = address.to_string();
        let mut nodes = Vec::new();
        let mut by = User::Screen;
        for (class, folder) in
            [("drm", "dri/"), ("accel", "accel/"), ("graphics", ""), ("block", "")]
        {
            let names = self.below(class, &text).into_iter();
            // The others there are its outputs, as card0-HDMI-A-1.
            let names =
                names.filter_map(|name| name.into_string().ok()).filter(|it| !it.contains('-'));
            let before = nodes.len();
            nodes.extend(names.map(|name| format!("/dev/{folder}{}", name.replace('!', "/"))));
            if class == "block" && nodes.len() > before {
                by = User::Storage;
            }
        }
        // The closed driver's have a number of their own, and go with no device in sysfs.
        let nvidia = format!("proc/driver/nvidia/gpus/{text}/information");
        let nvidia = self.text(nvidia).unwrap_or_default();
        let minor = nvidia.lines().find_map(|line| line.strip_prefix("Device Minor:"));
        nodes.extend(minor.map(|minor| format!("/dev/nvidia{}", minor.trim())));
        if nodes.is_empty() {
            return None;
        }
        let (holders, node) = self.holders(&nodes)?;
        let more = holders.len().saturating_sub(MOST_NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = holders[..holders.len().min(MOST_NAMES)].join(", ");
        let verb = if holders.len() > 1 { "have" } else { "has" };
        Some(Usage { words: format!("{names}{more} {verb} {node} open"), by })
    }

    /// That who uses a device is hidden from who asks, in words: another user than root sees neither which
    /// files a process has open nor whether a disk is claimed.
    #[must_use]
    pub fn hidden_users(&self) -> Option<String> {
        let why = self.entries("proc/1/fd").err()?;
        (why.kind() != ErrorKind::NotFound).then(|| {
            format!(
                "what others use cannot be seen (/proc/1/fd: {why}), so that bind may refuse more than \
                 this tells: ask as root"
            )
        })
    }

    /// The processes that have one of these files open, and the first that one has. Those of udev, which
    /// have a look at each disk that comes, are through with it in no time.
    #[must_use]
    pub fn holders(&self, nodes: &[String]) -> Option<(Vec<String>, String)> {
        let (mut holders, mut first) = (Vec::new(), None);
        let mut processes: Vec<u32> = self
            .names(Path::new("proc"))
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        processes.sort_unstable();
        for process in processes {
            let files = self.targets(&Path::new("proc").join(process.to_string()).join("fd"));
            let mut open = nodes.iter().filter(|node| files.contains(node));
            if let Some(node) = open.next() {
                let process = self.process(process);
                if process.contains("udev") {
                    continue;
                }
                holders.push(process);
                first.get_or_insert_with(|| node.clone());
            }
        }
        Some((holders, first?))
    }

    /// Where the links in a folder lead.
    fn targets(&self, folder: &Path) -> Vec<String> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let Ok(opened) = self.open(folder, flags) else { return Vec::new() };
        let entries = fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let mut targets = Vec::new();
        for entry in entries.into_iter().flatten().map_while(Result::ok) {
            let name = entry.file_name();
            files::reading("link", &folder.join(&name));
            let target = readlinkat(&opened, name.as_os_str());
            targets.extend(target.ok().and_then(|target| target.into_string().ok()));
        }
        targets
    }

    /// A process' name and number, as `Xorg (812)`.
    #[must_use]
    pub fn process(&self, number: u32) -> String {
        let name = self.text(format!("proc/{number}/comm")).unwrap_or_default();
        format!("{} ({number})", escape::short(name.trim()))
    }

    /// Streams of sound that are open. Source: `/proc/asound/cardN/pcmDp/subN/status`.
    fn streams(&self, address: Address) -> Option<Usage> {
        let names = self.below("sound", &address.to_string()).into_iter();
        for name in names.filter_map(|name| name.into_string().ok()) {
            // As pcmC0D3p: card 0, device 3, playback.
            let Some((card, device)) = name.strip_prefix("pcmC").and_then(|it| it.split_once('D'))
            else {
                continue;
            };
            let folder = format!("proc/asound/card{card}/pcm{device}");
            for stream in self.names(Path::new(&folder)) {
                let status = Path::new(&folder).join(&stream).join("status");
                let status = self.text(status).unwrap_or_default();
                if !stream.to_string_lossy().starts_with("sub") || !status.starts_with("state:") {
                    continue;
                }
                let owner = status.lines().find_map(|line| line.strip_prefix("owner_pid"));
                let owner = owner.and_then(|text| text.trim_matches([' ', '\t', ':']).parse().ok());
                let by = owner.map_or(String::new(), |it| format!(" of {}", self.process(it)));
                let words = format!("a stream{by} runs on card {card}");
                return Some(Usage { words, by: User::Sound });
            }
        }
        None
    }

    /// A keyboard that hangs on the device. In an initrd nobody types yet, and whether a keyboard has
    /// been found by then is a matter of moments.
    fn typed_on(&self, address: Address) -> Option<Usage> {
        if self.below("input", &address.to_string()).is_empty() || self.is_initrd() {
            return None;
        }
        let keyboards = self.keyboards();
        let keyboard = keyboards.iter().find(|keyboard| keyboard.address == Some(address))?;
        let words = format!("the keyboard {:?} hangs on it", keyboard.name);
        Some(Usage { words, by: User::Keyboard })
    }
}
