//! VM harness
