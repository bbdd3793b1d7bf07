//! The plain model: each key is a register, and every call on it takes effect at one instant between its begin and its
//! end. The history of a key keeps all states in which the key can be, and says when there is none left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

/// One version of an object: what one write wrote.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The write, as the object's own headers name it.
    pub write: u64,
    pub etag: String,
    pub content: Rc<Bytes>,
    pub parts: Option<u32>,
}

/// What tells versions apart.
pub(super) type VersionId = (u64, String);

impl Version {
    pub(super) fn id(&self) -> VersionId {
        (self.write, self.etag.clone())
    }
}

/// What a write asks of the version that is there.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    None,
    Absent,
    Present,
    Etag(String),
}

/// What a call does to its key.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Read,
    /// Writes one of these versions.
    Write(Vec<VersionId>, Condition),
    Delete,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// It saw this version, or none.
    Saw(Option<VersionId>),
    Wrote(VersionId),
    /// The condition did not hold.
    Refused,
    /// The condition asked for a version and there was none.
    RefusedAbsent,
    /// It deleted something, or there was nothing.
    Deleted(bool),
}

/// A call that has begun.
pub(super) type CallId = u64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<VersionId>,
    /// Calls that have taken effect and have not ended yet, with the end that they must have.
    done: BTreeMap<CallId, End>,
}

/// The history of one key.
#[derive(Debug)]
pub(super) struct History {
    states: BTreeSet<State>,
    open: BTreeMap<CallId, Call>,
}

impl Default for History {
    fn default() -> Self {
        Self { states: BTreeSet::from([State { value: None, done: BTreeMap::new() }]), open: BTreeMap::new() }
    }
}

/// The call cannot have ended so.
#[derive(Debug)]
pub(super) struct Impossible {
    call: Option<Call>,
    end: String,
    possible: Vec<Option<VersionId>>,
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, end, possible } = self;
        write!(f, "no order of calls explains it: {call:?} ended as {end}; possible were {possible:?}")
    }
}

impl History {
    pub(super) fn begin(&mut self, id: CallId, call: Call) {
        self.open.insert(id, call);
    }

    /// An open write may write this version too; false when that is known.
    pub(super) fn widen(&mut self, id: CallId, version: VersionId) -> bool {
        match self.open.get_mut(&id) {
            Some(Call::Write(versions, _)) if !versions.contains(&version) => {
                versions.push(version);
                true
            }
            _ => false,
        }
    }

    /// The call ended: only states in which it can have ended so remain.
    pub(super) fn end(&mut self, id: CallId, end: &End) -> Result<(), Impossible> {
        let states = self.closure();
        let possible = || states.iter().map(|state| state.value.clone()).collect::<BTreeSet<_>>();
        let mut left: BTreeSet<State> =
            states.iter().filter(|state| state.done.get(&id) == Some(end)).cloned().collect();
        if left.is_empty() {
            let possible = possible().into_iter().collect();
            return Err(Impossible { call: self.open.remove(&id), end: format!("{end:?}"), possible });
        }
        left = left
            .into_iter()
            .map(|mut state| {
                state.done.remove(&id);
                state
            })
            .collect();
        self.states = left;
        self.open.remove(&id);
        Ok(())
    }

    /// The call ended and had no effect; nor did it see anything.
    pub(super) fn nothing_happened(&mut self, id: CallId) -> Result<(), Impossible> {
        let call = self.open.remove(&id);
        let left: BTreeSet<State> = self.states.iter().filter(|state| !state.done.contains_key(&id)).cloned().collect();
        if left.is_empty() {
            let possible = self.states.iter().map(|state| state.value.clone()).collect();
            return Err(Impossible { call, end: "without any effect".to_owned(), possible });
        }
        self.states = left;
        Ok(())
    }

    /// A read has taken effect, whenever its end tells what it saw. Answers all that it can have seen.
    pub(super) fn happened(&mut self, id: CallId) -> BTreeSet<Option<VersionId>> {
        self.states = self.closure().into_iter().filter(|state| state.done.contains_key(&id)).collect();
        let ends = self.states.iter().filter_map(|state| state.done.get(&id));
        ends.filter_map(|end| if let End::Saw(seen) = end { Some(seen.clone()) } else { None }).collect()
    }

    /// Nobody will hear what a read saw.
    pub(super) fn forget(&mut self, id: CallId) {
        self.open.remove(&id);
        let states = std::mem::take(&mut self.states).into_iter();
        self.states = states
            .map(|mut state| {
                state.done.remove(&id);
                state
            })
            .collect();
    }

    /// Nothing is under way any more: calls that did not end have had their effect by now, or never will.
    pub(super) fn settle(&mut self) {
        let states = self.closure();
        self.states = states.into_iter().map(|state| State { value: state.value, done: BTreeMap::new() }).collect();
        self.open.clear();
    }

    /// The versions that the key can have at this moment.
    pub(super) fn possible(&self) -> Vec<Option<VersionId>> {
        let values: BTreeSet<_> = self.closure().into_iter().map(|state| state.value).collect();
        values.into_iter().collect()
    }

    /// All states that the open calls can have led to.
    fn closure(&self) -> BTreeSet<State> {
        let mut found = self.states.clone();
        let mut fresh: Vec<State> = found.iter().cloned().collect();
        while let Some(state) = fresh.pop() {
            for (id, call) in self.open.iter().filter(|(id, _)| !state.done.contains_key(id)) {
                for (value, end) in effects(call, state.value.as_ref()) {
                    let mut done = state.done.clone();
                    done.insert(*id, end);
                    let next = State { value, done };
                    if found.insert(next.clone()) {
                        fresh.push(next);
                    }
                }
            }
        }
        found
    }
}

/// What a call can do to a key of this value.
fn effects(call: &Call, value: Option<&VersionId>) -> Vec<(Option<VersionId>, End)> {
    match call {
        Call::Read => vec![(value.cloned(), End::Saw(value.cloned()))],
        Call::Delete => vec![(None, End::Deleted(value.is_some()))],
        Call::Write(versions, condition) => {
            let refused = match (condition, value) {
                (Condition::None, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => None,
                (Condition::Absent, Some(_)) => Some(End::Refused),
                (Condition::Present | Condition::Etag(_), None) => Some(End::RefusedAbsent),
                (Condition::Etag(etag), Some((_, found))) => (etag != found).then_some(End::Refused),
            };
            match refused {
                Some(end) => vec![(value.cloned(), end)],
                None => versions.iter().map(|id| (Some(id.clone()), End::Wrote(id.clone()))).collect(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! The model itself: orders that can be are accepted, orders that cannot be are not.
    use super::*;

    fn id(write: u64) -> VersionId {
        (write, format!("etag-{write}"))
    }

    fn write(number: u64) -> Call {
        Call::Write(vec![id(number)], Condition::None)
    }

    #[test]
    fn a_read_during_a_write_sees_either_and_then_stays() {
        let mut history = History::default();
        history.begin(1, write(1));
        history.end(1, &End::Wrote(id(1))).unwrap();
        history.begin(2, write(2));
        for (call, seen, fine) in [(3, 1, true), (4, 2, true), (5, 1, false)] {
            history.begin(call, Call::Read);
            assert_eq!(history.end(call, &End::Saw(Some(id(seen)))).is_ok(), fine, "read {call}");
        }
    }

    #[test]
    fn what_did_not_end_may_have_happened_and_what_failed_may_not() {
        let mut history = History::default();
        history.begin(1, write(1));
        history.begin(2, Call::Delete);
        history.nothing_happened(2).unwrap();
        history.settle();
        assert_eq!(history.possible(), [None, Some(id(1))]);
        history.begin(3, Call::Read);
        history.end(3, &End::Saw(None)).unwrap();
        history.begin(4, Call::Read);
        assert!(history.end(4, &End::Saw(Some(id(1)))).is_err());
    }

    #[test]
    fn a_read_that_has_happened_sees_nothing_that_comes_later() {
        let mut history = History::default();
        history.begin(1, write(1));
        history.begin(2, Call::Read);
        assert_eq!(history.happened(2), BTreeSet::from([None, Some(id(1))]));
        history.begin(3, write(3));
        history.end(3, &End::Wrote(id(3))).unwrap();
        assert!(history.end(2, &End::Saw(Some(id(3)))).is_err());
    }

    #[test]
    fn a_read_that_is_forgotten_binds_nobody() {
        let mut history = History::default();
        history.begin(1, Call::Read);
        history.happened(1);
        history.forget(1);
        history.begin(2, write(2));
        history.end(2, &End::Wrote(id(2))).unwrap();
        assert_eq!(history.possible(), [Some(id(2))]);
    }

    #[test]
    fn of_two_that_want_absence_one_wins() {
        let mut history = History::default();
        for call in [1, 2] {
            history.begin(call, Call::Write(vec![id(call)], Condition::Absent));
        }
        history.end(2, &End::Refused).unwrap();
        assert!(history.end(1, &End::Refused).is_err());
    }
}
