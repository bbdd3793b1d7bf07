//! The log: fixed messages with fields, on standard error, where a person or a journal reads them.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, filter};

/// Names the environment variable that says what is logged: `warn`, `info`, `bedplate::rack=debug,info`.
pub const FILTER_ENV: &str = "BEDPLATE_LOG";

/// Starts the log. [`FILTER_ENV`] wins over `default_filter`; `json` writes one JSON object a line. Only the first
/// call counts. Whatever the filter says, nothing is logged of s3s: it prints requests and answers as they are, session
/// tokens and secret keys included.
pub fn init(default_filter: &str, json: bool) {
    let filter = std::env::var(FILTER_ENV)
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default_filter));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let lines = if json { lines.json().boxed() } else { lines.with_target(false).boxed() };
    let discreet = filter::filter_fn(|metadata| !metadata.target().starts_with("s3s"));
    let log = tracing_subscriber::registry().with(filter).with(discreet).with(lines);
    // The error says that a log has been started before: it goes on.
    drop(log.try_init());
}
