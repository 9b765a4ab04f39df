//! What the code under test logs, test by test.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    // Each test has a thread of its own.
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

struct Journal;

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target().starts_with("vfio_early")
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

/// From here on this thread's lines are kept.
pub fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Journal).expect("this is the only logger");
        log::set_max_level(LevelFilter::Info);
    });
    take();
}

/// All of this thread's lines since the last call.
pub fn take() -> Vec<(Level, String)> {
    LINES.take()
}
