//! The log: fixed messages with fields, on standard error, where a person or a journal reads them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Names the environment variable that says what is logged: `warn`, `info`, `bedplate::rack=debug,info`.
pub const FILTER_ENV: &str = "BEDPLATE_LOG";

/// Starts the log. [`FILTER_ENV`] wins over `default_filter`; `json` writes one JSON object a line. Only the first
/// call counts.
pub fn init(default_filter: &str, json: bool) {
    let filter = std::env::var(FILTER_ENV)
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default_filter));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // The error says that a log has been started before: it goes on.
    drop(if json { log.json().try_init() } else { log.with_target(false).try_init() });
}
