//! What the library logs.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

#[derive(Clone, Copy, Debug)]
struct Log;

fn lines() -> &'static Mutex<Vec<u8>> {
    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    &LINES
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = lines().lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what the library logs as a warning, from the first call on.
pub(crate) fn keep_log() {
    static KEPT: OnceLock<()> = OnceLock::new();
    KEPT.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(|| Log)
            .init();
    });
}

/// The logged lines that contain a text.
pub(crate) fn logged_about(text: &str) -> String {
    let lines = lines().lock().unwrap_or_else(PoisonError::into_inner);
    let lines = String::from_utf8_lossy(&lines);
    let about = lines.lines().filter(|line| line.contains(text));
    about.collect::<Vec<_>>().join("\n")
}
