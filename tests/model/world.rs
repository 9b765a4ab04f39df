//! The fake kernel while `bind` runs on it, with somebody else who acts at chosen points.
//!
//! A point is before each read, each write and each question to the kernel. Reads tell of
//! themselves at the log's trace level.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use vfio_early::Claim;
use vfio_early::cmdline::{self, Request};
use vfio_early::kernel::{Kernel, Write};
use vfio_early::modules::Needed;
use vfio_early::report::Report;
use vfio_early::sysfs::{HostModule, Sysfs};
use vfio_early::variant::Variants;

use super::case::Case;
use super::mutant::Mutant;
use super::properties::{Watch, devices};
use super::rival::{self, Act};
use crate::fake::{Fake, failed_before};
use crate::journal;
use crate::machine::Function;

/// Something that `bind` does.
#[derive(Clone, Debug)]
enum Op {
    /// How, what, and what it finds.
    Read(String, String, u64),
    /// A write or a question to the kernel.
    Other(String),
}

/// Points between which the state does not change, so that an act is as good at one as at another,
/// but for the reads that it makes a difference to.
#[derive(Debug)]
pub struct Segment {
    pub start: usize,
    /// The point before what ends it: a write, a question, or the end of the run.
    pub last: usize,
    /// What others can do in it.
    pub possible: Vec<Act>,
}

/// Who acts when: before the operation of that number.
pub type Schedule = Vec<(usize, Act)>;

/// Positions from which all is explored.
pub type Known = Rc<RefCell<HashSet<u64>>>;

/// How a run ended.
#[derive(Debug)]
pub enum End {
    Finished(Box<Report>),
    /// From here on all is as in a run that is known.
    Merged,
    /// Right after the last act of the schedule, as asked.
    Stopped,
}

/// What a run that does not go to its end unwinds with.
struct Unwound(End);

#[derive(Debug)]
pub struct World {
    pub case: Rc<Case>,
    pub fake: Fake,
    /// Functions that can be plugged in, and after how many slow operations they were pulled.
    pub away: Vec<(Function, Option<usize>)>,
    /// So many operations that can take long are done: modules, unbinding, probing, waiting.
    pub slow: usize,
    /// Addresses of controllers whose disk is mounted.
    pub mounted: BTreeSet<String>,
    /// Not yet heard of.
    pub uevents: usize,
    /// Whether udev has started.
    pub claimed: bool,
    pub watch: Watch,
    pub segments: Vec<Segment>,
    /// The reads before the last act, in its segment, that it makes a difference to.
    pub dependent: Vec<usize>,
    schedule: Schedule,
    acted: usize,
    stop: bool,
    ops: Vec<Op>,
    segment_start: usize,
    /// All that `bind` has found so far: it does nothing but by that.
    history: DefaultHasher,
    /// Of the kernel; `None` once that has changed.
    state: Option<u64>,
    known: Vec<Known>,
    over: bool,
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Whatever a read of that kind can find there.
fn look(root: &str, how: &str, path: &str) -> u64 {
    let path = &Path::new(root).join(path.trim_start_matches('/'));
    match how {
        "link" => hash(&fs::read_link(path).ok()),
        "resolve" => {
            let target = fs::canonicalize(path).ok();
            hash(&target.as_ref().and_then(|target| target.strip_prefix(root).ok()))
        }
        "open" => match fs::read(path) {
            Ok(text) => hash(&text),
            Err(why) if why.kind() == io::ErrorKind::IsADirectory => {
                let entries = fs::read_dir(path).into_iter().flatten().flatten();
                hash(&entries.map(|entry| entry.file_name()).collect::<BTreeSet<_>>())
            }
            Err(why) => hash(&why.raw_os_error()),
        },
        _ => panic!("there is no {how} of {}", path.display()),
    }
}

impl World {
    fn new(case: &Rc<Case>) -> Self {
        let mut fake = case.machine.boot();
        fake.nothing_comes_by_itself();
        for module in case.loaded {
            fake.load(module);
        }
        fake.tree.write("proc/self/mountinfo", "1 1 0:2 / / rw - rootfs rootfs rw\n");
        fake.tree.folder("sys/class/block");
        World {
            fake,
            case: Rc::clone(case),
            away: case.machine.hot_added.iter().map(|function| (function.clone(), None)).collect(),
            slow: 0,
            mounted: BTreeSet::new(),
            uevents: 0,
            claimed: false,
            watch: Watch::default(),
            segments: Vec::new(),
            dependent: Vec::new(),
            schedule: Schedule::new(),
            acted: 0,
            stop: false,
            ops: Vec::new(),
            segment_start: 0,
            history: DefaultHasher::new(),
            state: None,
            known: Vec::new(),
            over: false,
        }
    }

    fn root(&self) -> String {
        self.fake.tree.root().display().to_string()
    }

    pub fn mount(&mut self, address: &str) {
        let machine = &self.case.machine;
        let mut functions = machine.functions.iter().chain(&machine.hot_added);
        let function = functions.find(|f| f.address == address).expect("it is there");
        let folder = format!("devices/{}/disk0", function.folder());
        self.fake.tree.write(&format!("sys/{folder}/dev"), "259:0\n");
        self.fake.tree.folder(&format!("sys/{folder}/holders"));
        self.fake.tree.link_up("class/block/disk0", &folder);
        let text = "22 1 259:0 / /home rw,relatime shared:1 - ext4 /dev/disk0 rw\n";
        self.fake.tree.write("proc/self/mountinfo", text);
        self.mounted.insert(address.to_owned());
    }

    /// All of the kernel that can make a difference to what comes.
    pub fn state(&mut self) -> u64 {
        if let Some(state) = self.state {
            return state;
        }
        let mut hasher = DefaultHasher::new();
        self.fake.devices().for_each(|device| device.hash(&mut hasher));
        // In no order: here no two drivers match the same device.
        self.fake.drivers().collect::<BTreeSet<_>>().hash(&mut hasher);
        self.fake.loaded().for_each(|module| module.hash(&mut hasher));
        self.fake.screen.state().hash(&mut hasher);
        self.mounted.hash(&mut hasher);
        for (function, pulled) in &self.away {
            let is_late = pulled.is_none_or(|pulled| pulled < self.slow);
            (&function.address, function.id, is_late).hash(&mut hasher);
        }
        self.uevents.hash(&mut hasher);
        let state = hasher.finish();
        self.state = Some(state);
        state
    }

    /// Others may act; then comes the operation.
    fn point(&mut self, op: Op) {
        if self.over {
            return;
        }
        let here = self.ops.len();
        while self.schedule.get(self.acted).is_some_and(|(at, _)| *at == here) {
            self.act();
        }
        if self.acted == self.schedule.len() {
            self.is_known();
            if self.segments.last().is_none_or(|segment| segment.start != self.segment_start) {
                let possible = rival::possible(&self.case, self);
                let start = self.segment_start;
                self.segments.push(Segment { start, last: here, possible });
            }
            if let Some(segment) = self.segments.last_mut() {
                segment.last = here;
            }
        }
        let op = match op {
            Op::Read(how, path, _) => {
                let found = look(&self.root(), &how, &path);
                (&how, &path, found).hash(&mut self.history);
                self.watch.read(&how, &path, &self.fake);
                Op::Read(how, path, found)
            }
            Op::Other(what) => {
                self.segment_start = here + 1;
                Op::Other(what)
            }
        };
        self.ops.push(op);
    }

    /// Ends the run where all that can follow is known.
    fn is_known(&mut self) {
        let key = hash(&(self.state(), self.history.finish(), self.claimed, &self.watch));
        let Some((own, others)) = self.known.split_last() else { return };
        // Where fewer acts came before, more is explored.
        let others = others.iter().any(|known| known.borrow().contains(&key));
        if others || !own.borrow_mut().insert(key) {
            self.unwind(End::Merged);
        }
    }

    fn unwind(&mut self, end: End) {
        self.over = true;
        // Past the panic hook: nothing is wrong.
        panic::resume_unwind(Box::new(Unwound(end)));
    }

    fn act(&mut self) {
        let (_, act) = self.schedule[self.acted].clone();
        self.acted += 1;
        let before = devices(&self.fake);
        rival::perform(&act, self);
        self.state = None;
        self.watch.after_act(&act, &before, &self.fake);
        let root = self.root();
        let is_other = |op: &Op| match op {
            Op::Read(how, path, found) => look(&root, how, path) != *found,
            Op::Other(_) => false,
        };
        let start = self.segment_start;
        let reads = self.ops.iter().enumerate().skip(start);
        self.dependent = reads.filter(|(_, op)| is_other(op)).map(|(index, _)| index).collect();
        self.segment_start = self.ops.len();
        if self.stop && self.acted == self.schedule.len() {
            self.unwind(End::Stopped);
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), Errno> {
        let before = devices(&self.fake);
        let result = self.fake.answer(write);
        self.state = None;
        let attribute = |name: &str| matches!(write, Write::Store { attribute, .. } if attribute.ends_with(name));
        if !attribute("/driver_override") {
            self.slow += 1;
        }
        self.watch.after_write(write, result, &before, &self.fake, &self.mounted);
        result
    }

    /// `claim` is over, and udev starts; whether all was done by it.
    fn claimed(&mut self, done: bool) {
        self.point(Op::Other("udev".to_owned()));
        self.claimed = true;
        let case = Rc::clone(&self.case);
        self.watch.at_claimed(&case, &self.fake, done);
    }

    /// How many reads there were.
    pub fn reads(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Read(..))).count()
    }

    /// The operation of that number, in words.
    pub fn op(&self, number: usize) -> String {
        match self.ops.get(number) {
            None => format!("{number}"),
            Some(Op::Read(how, path, _)) => format!("{number} ({how} {path})"),
            Some(Op::Other(what)) => format!("{number} ({what})"),
        }
    }

    fn found(&mut self, what: &impl std::fmt::Debug) {
        format!("{what:?}").hash(&mut self.history);
    }
}

fn text(write: &Write) -> String {
    match write {
        Write::Store { attribute, value } => format!("{value} > {attribute}"),
        Write::Insert { module, .. } => format!("load {module}"),
        other => format!("{other:?}"),
    }
}

/// Reads and writes of one run come here.
#[derive(Clone)]
struct Shared(Rc<RefCell<World>>, Mutant);

impl Shared {
    fn ask<T: std::fmt::Debug>(&mut self, what: String, ask: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.0.borrow_mut();
        world.point(Op::Other(what));
        let answer = ask(&mut world);
        world.watch.other();
        world.found(&answer);
        answer
    }
}

impl Kernel for Shared {
    fn perform(&mut self, writes: &[Write]) -> Vec<Result<(), Errno>> {
        let mut results = Vec::new();
        for write in writes {
            let needed = failed_before(&writes[..results.len()], &results, write);
            let mut mutant = std::mem::take(&mut self.1);
            let result = self.ask(text(write), |world| match needed {
                Some(errno) => Err(errno),
                None => mutant.write(write, |write| world.write(write)),
            });
            self.1 = mutant;
            results.push(result);
        }
        results
    }

    fn modules_for(&mut self, module: &str) -> Option<Vec<Needed>> {
        self.ask(format!("the modules for {module}"), |world| world.fake.modules_for(module))
    }

    fn modules_for_alias(&mut self, modalias: &str) -> Vec<HostModule> {
        self.ask(format!("the modules for {modalias}"), |world| {
            world.fake.modules_for_alias(modalias)
        })
    }

    fn variants(&mut self) -> Variants {
        // They are files of the initrd, which nobody changes.
        self.0.borrow_mut().fake.variants()
    }

    fn options_of(&mut self, module: &str) -> String {
        self.0.borrow_mut().fake.options_of(module)
    }

    fn group_viable(&mut self, group: u32) -> Option<bool> {
        self.ask(format!("the status of group {group}"), |world| world.fake.group_viable(group))
    }

    fn listen(&mut self) -> io::Result<()> {
        self.0.borrow_mut().uevents = 0;
        Ok(())
    }

    fn wait_for_uevent(&mut self, _at_most: Duration) -> bool {
        self.ask("the wait".to_owned(), |world| {
            world.state = None;
            world.slow += 1;
            std::mem::take(&mut world.uevents) > 0
        })
    }
}

/// What `claim` and `bind` do, or `bind` alone.
fn in_moments(case: &Case, request: Request, sysfs: Sysfs, kernel: &mut Shared) -> Report {
    const BUS: &str = "the bus is there";
    if !case.two_moments {
        return vfio_early::bind(request, &sysfs, kernel).expect(BUS);
    }
    let claim = vfio_early::claim(request.clone(), &sysfs, kernel).expect(BUS);
    kernel.0.borrow_mut().claimed(matches!(claim, Claim::Done(_)));
    match claim {
        Claim::Done(report) => *report,
        Claim::Claimed(claimed) => {
            let sysfs = sysfs.knowing(claimed.devices);
            vfio_early::bind(request, &sysfs, kernel).expect(BUS)
        }
    }
}

/// One run of `bind`, from power-on to its report; the world as it is then, and how it ended.
pub fn run(case: &Rc<Case>, schedule: &Schedule, stop: bool, known: &[Known]) -> (World, End) {
    let mut world = World::new(case);
    world.schedule.clone_from(schedule);
    world.stop = stop;
    world.known = known.to_vec();
    let sysfs = world.fake.sysfs();
    let root = world.root();
    let shared = Rc::new(RefCell::new(world));
    let listener = Rc::clone(&shared);
    journal::listen(Some(Rc::new(move |text: &str| {
        let Some((how @ ("link" | "open" | "resolve"), path)) = text.split_once(' ') else {
            return;
        };
        // Without the root, whose name is made up anew in each run.
        let path = match path.strip_prefix(&root) {
            Some(path) => path.to_owned(),
            None => format!("/sys/{path}"),
        };
        listener.borrow_mut().point(Op::Read(how.to_owned(), path, 0));
    })));
    let run = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut kernel = Shared(Rc::clone(&shared), case.mutant.clone());
        let request = cmdline::parse(case.text.as_bytes());
        let report = in_moments(case, request, sysfs, &mut kernel);
        let report = kernel.1.report(report);
        let mut world = shared.borrow_mut();
        world.point(Op::Other("the end".to_owned()));
        report
    }));
    journal::listen(None);
    let end = match run {
        Ok(report) => End::Finished(Box::new(report)),
        Err(why) => match why.downcast::<Unwound>() {
            Ok(unwound) => unwound.0,
            Err(why) => panic::resume_unwind(why),
        },
    };
    let world = Rc::try_unwrap(shared).expect("the run is over").into_inner();
    (world, end)
}
