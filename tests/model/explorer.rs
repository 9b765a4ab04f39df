//! Every order, depth first: one run for each order that can make a difference.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::case::Case;
use super::properties;
use super::rival::Act;
use super::world::{End, Known, Schedule, Segment, World, run};

/// What was explored, and what was found.
#[derive(Debug)]
pub struct Explorer {
    case: Rc<Case>,
    depth: usize,
    /// Positions from which all is explored, by how many acts came before.
    known: Vec<Known>,
    /// States of the machine from which `bind` has been run again.
    ends: HashSet<u64>,
    /// Runs, also those that were cut off where all was known.
    pub runs: usize,
    /// Those that went to their end: no other was like them.
    pub finished: usize,
    /// As many orders as there are, if each point is one: those that begin in known positions aside.
    pub orders: usize,
    /// What the undisturbed run reads.
    pub reads: usize,
    /// Each with the first order that had it.
    pub complaints: BTreeMap<String, String>,
}

impl Explorer {
    /// Of all orders with at most so many acts of others.
    pub fn explore(case: Case, depth: usize) -> Self {
        let mut explorer = Explorer {
            case: Rc::new(case),
            depth,
            known: (0..=depth).map(|_| Rc::default()).collect(),
            ends: HashSet::new(),
            runs: 0,
            finished: 0,
            orders: 1,
            reads: 0,
            complaints: BTreeMap::new(),
        };
        explorer.from(&Schedule::new());
        explorer
    }

    fn run(&mut self, schedule: &Schedule, stop: bool) -> (World, End) {
        self.runs += 1;
        let known = if stop { &[] } else { &self.known[..=schedule.len()] };
        run(&self.case, schedule, stop, known)
    }

    /// Explores all that begins so; the reads that the last act made a difference to.
    fn from(&mut self, schedule: &Schedule) -> Vec<usize> {
        let (mut world, end) = self.run(schedule, false);
        let segments = std::mem::take(&mut world.segments);
        let dependent = std::mem::take(&mut world.dependent);
        if schedule.is_empty() {
            self.reads = world.reads();
        }
        if let End::Finished(report) = end {
            self.finished += 1;
            let case = Rc::clone(&self.case);
            world.watch.finish(&case, &report, &world.fake, schedule.is_empty());
            let mut complaints: Vec<_> = world.watch.complaints.iter().cloned().collect();
            if self.ends.insert(world.state()) {
                complaints.extend(properties::after_the_others(&mut world));
            }
            for complaint in complaints {
                let order = || describe(schedule, &world);
                self.complaints.entry(complaint).or_insert_with(order);
            }
        }
        drop(world);
        if schedule.len() < self.depth {
            let count = segments.len();
            for (index, segment) in segments.into_iter().enumerate() {
                self.orders += (segment.last + 1 - segment.start) * segment.possible.len();
                // Nothing is asked for at the end, and what comes from a known place is known.
                let is_last = index + 1 == count;
                self.in_segment(schedule, &segment, is_last);
            }
        }
        dependent
    }

    /// Explores all that begins with an act in that segment.
    fn in_segment(&mut self, schedule: &Schedule, segment: &Segment, is_last: bool) {
        for act in &segment.possible {
            let with = |at| {
                let mut longer = schedule.clone();
                longer.push((at, act.clone()));
                longer
            };
            let dependent = if is_last {
                let (mut world, _) = self.run(&with(segment.last), true);
                std::mem::take(&mut world.dependent)
            } else {
                self.from(&with(segment.last))
            };
            for at in dependent.into_iter().filter(|at| *at >= segment.start) {
                self.from(&with(at));
            }
        }
    }
}

fn describe(schedule: &[(usize, Act)], world: &World) -> String {
    let acts: Vec<_> =
        schedule.iter().map(|(at, act)| format!("{act} before {}", world.op(*at))).collect();
    if acts.is_empty() { "undisturbed".to_owned() } else { acts.join(", then ") }
}
