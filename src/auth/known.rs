//! Keys that were read from their rows, kept for the next request, and forgotten before their rows change.
//!
//! A reader may have read a row just before it changes and come to keep it just after. So what is read is kept only
//! where no key began or ended a change meanwhile, and a key that is changing is not kept at all. A change whose caller
//! went away may still reach the database at any time: its key is never kept again.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// The keys, by access key.
pub(super) struct Known<K>(RwLock<State<K>>);

struct State<K> {
    keys: HashMap<String, K>,
    /// Changes under way, for each key that has any.
    changing: HashMap<String, u64>,
    /// Counts beginnings and ends of changes.
    turn: u64,
}

/// When a key was looked for; it is kept only if nothing changed since.
#[derive(Clone, Copy)]
pub(super) struct Turn(u64);

/// A key is changing.
pub(super) struct Change<'a, K> {
    known: &'a Known<K>,
    access_key: String,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self(RwLock::new(State { keys: HashMap::new(), changing: HashMap::new(), turn: 0 }))
    }
}

impl<K: Clone> Known<K> {
    /// The key, or when it was asked for.
    pub(super) fn get(&self, access_key: &str) -> Result<K, Turn> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.keys.get(access_key).cloned().ok_or(Turn(state.turn))
    }

    /// Keeps what was read since `turn`.
    pub(super) fn keep(&self, access_key: &str, key: K, turn: Turn) {
        let mut state = self.write();
        if state.turn == turn.0 && !state.changing.contains_key(access_key) {
            state.keys.insert(access_key.to_owned(), key);
        }
    }

    /// Forgets the key; until [`Change::done`] it is not kept.
    pub(super) fn change(&self, access_key: &str) -> Change<'_, K> {
        let mut state = self.write();
        state.turn += 1;
        state.keys.remove(access_key);
        *state.changing.entry(access_key.to_owned()).or_default() += 1;
        Change { known: self, access_key: access_key.to_owned() }
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone> Change<'_, K> {
    /// The database has answered.
    pub(super) fn done(self) {
        let mut state = self.known.write();
        state.turn += 1;
        if let Some(under_way) = state.changing.get_mut(&self.access_key) {
            *under_way -= 1;
            if *under_way == 0 {
                state.changing.remove(&self.access_key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! What was read before or during a change is not kept, however the two meet.
    use super::*;

    fn turn(known: &Known<u8>) -> Turn {
        known.get("none").unwrap_err()
    }

    #[test]
    fn keeps_nothing_across_a_change() {
        let known = Known::default();
        known.keep("a", 1, turn(&known));
        assert_eq!(known.get("a").ok(), Some(1));
        let before = turn(&known);
        let change = known.change("a");
        assert!(known.get("a").is_err());
        known.keep("a", 1, before);
        known.keep("a", 1, turn(&known));
        let during = turn(&known);
        assert!(known.get("a").is_err());
        change.done();
        known.keep("a", 1, during);
        assert!(known.get("a").is_err());
        known.keep("a", 2, turn(&known));
        assert_eq!(known.get("a").ok(), Some(2));
    }

    #[test]
    fn an_abandoned_change_is_never_over() {
        let known = Known::default();
        drop(known.change("a"));
        known.change("a").done();
        known.keep("a", 1, turn(&known));
        assert!(known.get("a").is_err());
        known.keep("b", 1, turn(&known));
        assert_eq!(known.get("b").ok(), Some(1));
    }
}
