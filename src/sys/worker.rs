//! Background work: everything that is started here is joined here, and cancelled by one token.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::double;

/// How long [`Workers::stop`] waits for work that does not heed its token.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The owner of background work; clones share it. Work that is to end early watches [`Workers::token`].
#[derive(Clone, Debug, Default)]
pub struct Workers {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Workers {
    /// An owner of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `work`, named for the log. A panic in it is logged as an error and ends only this work.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                let what = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                tracing::error!(worker = name, what, "a worker panicked");
            }
        });
    }

    /// Cancelled when the work is to end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Cancels the token and waits until all work has ended, at most half a minute.
    pub async fn stop(self) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(STOP_LIMIT, self.tracker.wait()).await.is_err() {
            tracing::error!(left = self.tracker.len(), "workers did not stop in time");
        }
    }
}

/// Does blocking work, or work that keeps a core busy, on a thread of its own. In a simulation it is done in place, after a
/// delay that lets other tasks go first.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let delay = double::placed().map(|double| double.delay());
    match delay {
        Some(delay) => {
            tokio::time::sleep(delay).await;
            Ok(work())
        }
        None => tokio::task::spawn_blocking(work).await,
    }
}

#[cfg(test)]
mod tests {
    //! Work is joined when its owner stops, and a panic in one worker leaves the others alone.
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn stop_joins_and_survives_a_panic() {
        let workers = Workers::new();
        let ended = Arc::new(AtomicU32::new(0));
        workers.spawn("panics", async { panic!("on purpose") });
        for _ in 0..3 {
            let (token, ended) = (workers.token(), ended.clone());
            workers.spawn("waits", async move {
                token.cancelled().await;
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        workers.stop().await;
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }
}
