//! Who is at work: every upload, copy and read, each with the epoch in which it began. The collector deletes nothing that one of them
//! may know. All of them end with the process, so that memory is the place to keep them; several appliances on one store would
//! keep them as rows with a time to live.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// All that is under way, and the epoch as this process knows it. Clones share it.
#[derive(Clone)]
pub(super) struct Activities(Arc<Mutex<Registry>>);

struct Registry {
    epoch: u64,
    /// How many began in each epoch.
    running: BTreeMap<u64, usize>,
}

impl Activities {
    /// Nothing under way, in the epoch that the metadata has.
    pub(super) fn new(epoch: u64) -> Self {
        Self(Arc::new(Mutex::new(Registry { epoch, running: BTreeMap::new() })))
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one: it is under way until the answer is dropped.
    pub(super) fn begin(&self) -> Activity {
        let mut registry = self.registry();
        let began = registry.epoch;
        *registry.running.entry(began).or_default() += 1;
        Activity { of: self.clone(), began }
    }

    /// The current epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.registry().epoch
    }

    /// Takes note of a new epoch. Its row is committed before: an activity may seem older than it is, and never younger.
    pub(super) fn advance(&self, epoch: u64) {
        let mut registry = self.registry();
        registry.epoch = registry.epoch.max(epoch);
    }

    /// The least epoch in which something began that is still under way; `epoch`, which is the current one, if there is nothing.
    pub(super) fn oldest_in(&self, epoch: u64) -> u64 {
        self.registry().running.keys().next().copied().unwrap_or(epoch)
    }

    /// How many began before the current epoch and are still under way.
    pub(super) fn held_over(&self) -> usize {
        let registry = self.registry();
        registry.running.range(..registry.epoch).map(|(_, count)| count).sum()
    }
}

/// Something under way.
#[must_use = "an activity is under way only as long as this lives"]
pub(super) struct Activity {
    of: Activities,
    began: u64,
}

impl Drop for Activity {
    fn drop(&mut self) {
        let mut registry = self.of.registry();
        if let Some(count) = registry.running.get_mut(&self.began) {
            *count -= 1;
            if *count == 0 {
                registry.running.remove(&self.began);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! The oldest activity holds the horizon back until it ends.
    use super::*;

    #[test]
    fn the_oldest_holds_the_horizon() {
        let activities = Activities::new(5);
        assert_eq!((activities.epoch(), activities.oldest_in(activities.epoch())), (5, 5));
        let (first, second) = (activities.begin(), activities.begin());
        activities.advance(6);
        let third = activities.begin();
        assert_eq!((activities.epoch(), activities.oldest_in(activities.epoch()), activities.held_over()), (6, 5, 2));
        drop(first);
        assert_eq!(activities.oldest_in(activities.epoch()), 5);
        drop(second);
        assert_eq!((activities.oldest_in(activities.epoch()), activities.held_over()), (6, 0));
        activities.advance(7);
        assert_eq!(activities.oldest_in(activities.epoch()), 6);
        drop(third);
        assert_eq!(activities.oldest_in(activities.epoch()), 7);
        // A row that was read late does not turn the epoch back.
        activities.advance(3);
        assert_eq!(activities.epoch(), 7);
    }
}
