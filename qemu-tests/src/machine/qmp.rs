//! QMP: orders to a running QEMU, such as plugging a device in.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection to QEMU's monitor socket.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Connects, and leaves the negotiation behind.
    ///
    /// # Errors
    /// When QEMU does not answer within ten seconds.
    pub fn connect(socket: &Path) -> Result<Self> {
        let writer = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to QEMU's monitor {}", socket.display()))?;
        writer.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut qmp = Self { reader: BufReader::new(writer.try_clone()?), writer };
        qmp.answer("QMP")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what QEMU answers.
    ///
    /// # Errors
    /// When QEMU refuses it, or does not answer.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments });
        writeln!(self.writer, "{order}")?;
        self.answer("return").with_context(|| format!("QEMU's monitor: {command} {arguments}"))
    }

    /// Reads past events up to the answer that has `key`.
    fn answer(&mut self, key: &str) -> Result<Value> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                bail!("QEMU closed the connection");
            }
            let mut value: Value = serde_json::from_str(&line)
                .with_context(|| format!("QEMU answered what is no JSON: {line}"))?;
            if let Some(error) = value.get("error") {
                bail!("QEMU refuses: {}", error["desc"].as_str().unwrap_or(&error.to_string()));
            }
            if let Some(found) = value.get_mut(key) {
                return Ok(found.take());
            }
        }
    }
}
