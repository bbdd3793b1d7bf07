//! How fast the collector works: flat out when somebody waits for it, beside the doors otherwise.

use std::time::Duration;

use tokio::time::Instant;

/// Work that is done before there is a rest.
const STINT: Duration = Duration::from_millis(20);

/// Rests between pieces of work.
pub(super) struct Pace {
    /// How many times as long as the work the rest is.
    rest: u32,
    since: Instant,
}

impl Pace {
    /// Without rests, or `gentle`: at most a third of the time is work.
    pub(super) fn new(gentle: bool) -> Self {
        Self { rest: if gentle { 2 } else { 0 }, since: Instant::now() }
    }

    /// Rests, when it is time to.
    pub(super) async fn rest(&mut self) {
        let worked = self.since.elapsed();
        if worked < STINT {
            return;
        }
        if self.rest > 0 {
            tokio::time::sleep(worked * self.rest).await;
        }
        self.since = Instant::now();
    }
}
