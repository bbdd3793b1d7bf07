//! The only printer: data on standard output, for people or as JSON from one value; talk on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use comfy_table::{ContentArrangement, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::CliError;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document, for programs.
    Json,
}

/// The printer.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// A printer of `format`.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether programs read the output.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one value: as JSON, or as the text that `human` makes of it.
    pub fn value<T: Serialize + ?Sized>(&self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        let text = match self.format {
            Format::Human => human(value),
            Format::Json => serde_json::to_string_pretty(value)?,
        };
        self.data(&text)
    }

    /// Prints one line of a stream of values: compact JSON, or the text that `human` makes of it. Breaks when its reader has gone away,
    /// because a stream that nobody reads ends.
    pub fn line<T: Serialize + ?Sized>(
        &self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<ControlFlow<()>, CliError> {
        let text = match self.format {
            Format::Human => human(value),
            Format::Json => serde_json::to_string(value)?,
        };
        print(&text)
    }

    /// Prints text as it is, with a line end where it lacks one. A reader that has gone away is no failure.
    pub fn data(&self, text: &str) -> Result<(), CliError> {
        print(text).map(|_| ())
    }

    /// Prints bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| CliError::because("write to standard output", &error))
    }

    /// Talks to the person at the terminal: a line on standard error.
    pub fn say(&self, line: &str) {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(std::io::stderr().lock(), "{line}"));
    }

    /// Prints why a command failed.
    pub fn error(&self, error: &CliError) {
        self.say(&format!("error: {}", error.message));
        if let Some(hint) = &error.hint {
            self.say(&format!("hint: {hint}"));
        }
    }

    /// A bar for `bytes` of work, drawn on standard error when that is a terminal and people read the output.
    #[must_use]
    pub fn byte_bar(&self, bytes: u64, message: &'static str) -> ProgressBar {
        self.bar(bytes, message, "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    }

    /// The same for so many things.
    #[must_use]
    pub fn count_bar(&self, things: u64, message: &'static str) -> ProgressBar {
        self.bar(things, message, "{msg} [{bar:30}] {pos}/{len} {eta}")
    }

    fn bar(&self, length: u64, message: &'static str, template: &str) -> ProgressBar {
        let visible = !self.is_json() && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target).with_message(message);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar
    }
}

/// Prints text, with a line end where it lacks one; breaks when its reader has gone away.
fn print(text: &str) -> Result<ControlFlow<()>, CliError> {
    let mut out = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(CliError::because("write to standard output", &error)),
    }
}

/// A table for people: left-aligned columns, no frame.
#[must_use]
pub fn table<H: AsRef<str>>(header: &[H], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.as_ref().to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
