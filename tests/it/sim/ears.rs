//! Hears what the store logs: it stands in a failure's trace, and a worker's panic is a failure.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::world::World;

struct Ears(World);

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name} {value:?}"),
        };
    }
}

impl<S: Subscriber> Layer<S> for Ears {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("bedplate")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if line.0.contains("a worker panicked") {
            self.0.panicked(line.0.clone());
        }
        self.0.note(format!("    the store: {}", line.0));
    }
}

/// Listens on this thread as long as the guard lives.
pub(super) fn listen(world: &World) -> DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry().with(Ears(world.clone())))
}
