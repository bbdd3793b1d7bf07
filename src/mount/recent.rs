//! Recipes that were read of late, of all files, within a bound of memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::stretch::Stretch;

/// Memory for recipes, in bytes.
const LIMIT: usize = 48 * 1024 * 1024;
/// What an entry takes besides its recipe and its name, in bytes, about.
const OVERHEAD: usize = 200;

/// Which stretch of which object: its key, and the stretch's number.
type Name = (Arc<str>, u64);

/// Recipes by object and stretch; those that were used longest ago go first.
pub(super) struct Recent {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Default)]
struct State {
    entries: HashMap<Name, (Arc<Stretch>, u64)>,
    /// Names by when they were used.
    by_use: BTreeMap<u64, Name>,
    clock: u64,
    weight: usize,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), limit: LIMIT }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Arc<str>, number: u64) -> Option<Arc<Stretch>> {
        let mut state = self.lock();
        let name = (key.clone(), number);
        let (stretch, used) = state.entries.get(&name).map(|(stretch, used)| (stretch.clone(), *used))?;
        state.by_use.remove(&used);
        state.used(name, stretch.clone());
        Some(stretch)
    }

    pub(super) fn put(&self, key: &Arc<str>, number: u64, stretch: Arc<Stretch>) {
        let mut state = self.lock();
        state.remove(&(key.clone(), number));
        state.weight += weight(key, &stretch);
        state.used((key.clone(), number), stretch);
        while state.weight > self.limit && state.entries.len() > 1 {
            let Some((_, oldest)) = state.by_use.first_key_value() else { return };
            let oldest = oldest.clone();
            state.remove(&oldest);
        }
    }
}

impl State {
    fn used(&mut self, name: Name, stretch: Arc<Stretch>) {
        self.clock += 1;
        self.by_use.insert(self.clock, name.clone());
        self.entries.insert(name, (stretch, self.clock));
    }

    fn remove(&mut self, name: &Name) {
        if let Some((stretch, used)) = self.entries.remove(name) {
            self.by_use.remove(&used);
            self.weight -= weight(&name.0, &stretch);
        }
    }
}

fn weight(key: &str, stretch: &Stretch) -> usize {
    OVERHEAD + 2 * key.len() + stretch.weight()
}

#[cfg(test)]
mod tests {
    //! What was used last stays, and the weight is what is there.
    use bytes::Bytes;

    use super::super::stretch::Content;
    use super::*;

    #[test]
    fn the_oldest_go() {
        let recipes = Recent { state: Mutex::default(), limit: 10_000 };
        let stretch = |size: usize| {
            let content = Content::Inline(Bytes::from(vec![0; size]));
            Arc::new(Stretch { size: size as u64, modified: 0, etag: String::new(), content })
        };
        let key = |n: u64| Arc::from(format!("key {n}"));
        for n in 0..100 {
            recipes.put(&key(n), n % 2, stretch(1_000));
            // Used all the time, and so it stays.
            assert!(recipes.get(&key(0), 0).is_some());
        }
        let kept: Vec<u64> = (0..100).filter(|n| recipes.get(&key(*n), n % 2).is_some()).collect();
        assert!((5..10).contains(&kept.len()) && kept[0] == 0 && kept[1] > 90, "{kept:?}");
        recipes.put(&key(99), 1, stretch(2_000));
        recipes.lock().remove(&(key(0), 0));
        assert!(recipes.get(&key(0), 0).is_none());
        let state = recipes.lock();
        let sum: usize = state.entries.iter().map(|((key, _), (stretch, _))| weight(key, stretch)).sum();
        assert_eq!((sum, state.by_use.len()), (state.weight, state.entries.len()));
        assert!(sum <= 10_000);
    }
}
