//! A bound on what is read in a second, so that care does not take the disk from those who wait for it.

use std::time::Duration;

use tokio::time::Instant;

/// Counts bytes, and waits where they came too fast.
pub(in crate::store) struct Pace {
    /// Bytes a second; none, no bound.
    rate: Option<u64>,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// So many bytes a second; zero and none are no bound.
    pub(in crate::store) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), since: Instant::now(), bytes: 0 }
    }

    /// Takes note of bytes that were read, and waits until so many may have been.
    pub(super) async fn spend(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
        let elapsed = self.since.elapsed();
        if due > elapsed {
            tokio::time::sleep(due - elapsed).await;
        } else {
            // Time in which nothing was read is not made up for.
            (self.since, self.bytes) = (Instant::now(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    //! The pace is kept, and none is none.
    use super::*;

    #[tokio::test]
    async fn keeps_the_pace() {
        let started = Instant::now();
        let mut pace = Pace::new(Some(1_000_000));
        for _ in 0..5 {
            pace.spend(20_000).await;
        }
        assert!(started.elapsed() >= Duration::from_millis(99));
        let started = Instant::now();
        Pace::new(Some(0)).spend(u64::MAX).await;
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}
