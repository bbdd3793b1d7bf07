//! What a person at the machine reads: one line an event, on every console that the kernel has, with the seconds
//! since power-on and the phase.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, OnceLock, PoisonError};

static CONSOLE: OnceLock<Console> = OnceLock::new();

struct Console {
    screens: Mutex<Vec<File>>,
}

/// Sends all later lines to every console of the kernel. For the first process only: others write to stderr.
pub fn open_all() {
    let names = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let open = |name: &str| {
        let flags = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        OpenOptions::new().write(true).custom_flags(flags).open(format!("/dev/{name}")).ok()
    };
    let mut screens: Vec<File> = names.split_whitespace().filter_map(open).collect();
    if screens.is_empty() {
        screens.extend(open("console"));
    }
    // Set once by the first process; a second call would only repeat it.
    drop(CONSOLE.set(Console { screens: Mutex::new(screens) }));
}

/// One line: the phase in one word, and what happens.
pub fn say(phase: &str, text: impl std::fmt::Display) {
    write_line(&format!("[{:8.2}] bedplate {phase:<8} {text}\n", uptime()));
}

/// A block that cannot be overlooked, for the end of an installation.
pub fn banner(lines: &[&str]) {
    let rule = "=".repeat(78);
    write_line(&format!("\n{rule}\n"));
    for line in lines {
        write_line(&format!("  {line}\n"));
    }
    write_line(&format!("{rule}\n\n"));
}

/// Prints a command's result to stdout, as JSON.
pub fn print_json<T: serde::Serialize>(value: &T) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::other)?;
    writeln!(std::io::stdout(), "{text}")
}

fn write_line(line: &str) {
    // A console that cannot be written to has no one reading it: there is nobody to tell.
    match CONSOLE.get() {
        Some(console) => {
            for screen in &mut *console.screens.lock().unwrap_or_else(PoisonError::into_inner) {
                // A screen needs the carriage return where its line discipline adds none.
                drop(screen.write_all(line.as_bytes()));
            }
        }
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// A writer for `tracing`, so that what lower layers log reaches the same consoles.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        write_line(&String::from_utf8_lossy(buf));
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends warnings and news of lower layers to the console; `BEDPLATE_LOG` sets the level.
pub fn log_to_console() {
    let level = std::env::var("BEDPLATE_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or(tracing::Level::INFO);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(|| LogWriter)
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .finish();
    // Set once at the start; where a test has set one before, that one stays.
    drop(tracing::subscriber::set_global_default(subscriber));
}
