//! What the code under test logs, test by test.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Told of each read before it is done.
type Listener = Rc<dyn Fn(&str)>;

thread_local! {
    // Each test has a thread of its own.
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

struct Journal;

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target().starts_with("vfio_early")
    }

    fn log(&self, record: &Record) {
        if record.level() == Level::Trace {
            // Not borrowed while it runs: it may unwind.
            if let Some(listener) = LISTENER.with_borrow(Option::clone) {
                listener(&record.args().to_string());
            }
        } else if record.level() <= Level::Info && self.enabled(record.metadata()) {
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

fn set_up() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Journal).expect("this is the only logger");
        log::set_max_level(LevelFilter::Trace);
    });
}

/// From here on this thread's lines are kept.
pub fn start() {
    set_up();
    take();
}

/// From here on it is told of this thread's reads.
pub fn listen(listener: Option<Listener>) {
    set_up();
    LISTENER.set(listener);
}

/// All of this thread's lines since the last call.
pub fn take() -> Vec<(Level, String)> {
    LINES.take()
}
