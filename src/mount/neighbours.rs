//! Names near those that were looked up in a snapshot. Who opens many files of one folder, in any order, is answered out of pages of its
//! list; who opens a few is asked for by name.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::listing::Entry;
use super::tree::Facts;

/// Names of one folder that are asked for one by one before a page of its list is.
const ALONE: u32 = 2;
/// Names that are remembered, at most about.
const NAMES: usize = 64 * 1024;

/// Stretches of folders' lists. A snapshot's never change.
#[derive(Default)]
pub(super) struct Neighbours {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the folder's key.
    folders: HashMap<Box<str>, Folder>,
    /// Folders in the order in which their stretches came: those that came first go first.
    order: VecDeque<Box<str>>,
    names: usize,
}

#[derive(Default)]
struct Folder {
    missed: u32,
    stretches: Vec<Stretch>,
}

/// A stretch of a folder's list: all that is in it from one name to another.
struct Stretch {
    from: Box<str>,
    /// The last key in it, counted from the folder; none where it goes to the list's end.
    to: Option<Box<str>>,
    names: HashMap<Box<str>, Facts>,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// What it is, or that there is no such name.
    Is(Option<Facts>),
    /// Nothing; and whether a page of the list is worth asking for.
    Nothing { wants_page: bool },
}

impl Stretch {
    fn covers(&self, key: &str) -> bool {
        *self.from <= *key && self.to.as_ref().is_none_or(|to| *key <= **to)
    }

    /// What a name is here. A folder's keys come after those of a file of the same name, which hides it.
    fn find(&self, name: &str) -> Option<Option<Facts>> {
        if !self.covers(name) {
            return None;
        }
        match self.names.get(name) {
            Some(facts) => Some(Some(*facts)),
            None => self.covers(&format!("{name}/")).then_some(None),
        }
    }
}

impl Neighbours {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a name in a folder is.
    pub(super) fn find(&self, folder: &str, name: &str) -> Known {
        let mut state = self.lock();
        let State { folders, order, .. } = &mut *state;
        let known = match folders.get_mut(folder) {
            Some(known) => known,
            None => {
                order.push_back(folder.into());
                folders.entry(folder.into()).or_default()
            }
        };
        if let Some(found) = known.stretches.iter().find_map(|stretch| stretch.find(name)) {
            return Known::Is(found);
        }
        known.missed += 1;
        let wants_page = known.missed > ALONE;
        state.shrink(folder);
        Known::Nothing { wants_page }
    }

    /// Learns a page of a folder's list: all from a name on, to the last key, or to the end.
    pub(super) fn learn(&self, folder: &str, from: &str, to: Option<&str>, entries: Vec<Entry>) {
        let mut state = self.lock();
        state.names += 1 + entries.len();
        let names = entries.into_iter().map(|entry| (entry.name, entry.facts)).collect();
        let stretch = Stretch { from: from.into(), to: to.map(Into::into), names };
        let State { folders, order, names, .. } = &mut *state;
        let known = folders.entry(folder.into()).or_insert_with(|| {
            order.push_back(folder.into());
            Folder::default()
        });
        // What the new one holds whole is not needed any more.
        known.stretches.retain(|old| {
            let within = stretch.covers(&old.from)
                && match (&old.to, &stretch.to) {
                    (_, None) => true,
                    (None, Some(_)) => false,
                    (Some(old), Some(new)) => old <= new,
                };
            *names -= if within { 1 + old.names.len() } else { 0 };
            !within
        });
        known.stretches.push(stretch);
        state.shrink(folder);
    }
}

impl State {
    /// Forgets the oldest folders, but not this one, where there is too much.
    fn shrink(&mut self, but: &str) {
        while self.names + self.order.len() > NAMES && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { return };
            if *oldest == *but {
                self.order.push_back(oldest);
                continue;
            }
            if let Some(folder) = self.folders.remove(&oldest) {
                self.names -= folder.stretches.iter().map(|stretch| 1 + stretch.names.len()).sum::<usize>();
            }
        }
        // A folder so long that it is too much by itself keeps its latest page.
        if self.names > NAMES
            && let Some(folder) = self.folders.get_mut(but)
            && let Some(last) = folder.stretches.pop()
        {
            self.names = 1 + last.names.len();
            folder.stretches = vec![last];
        }
    }
}

#[cfg(test)]
mod tests {
    //! What was listed is known, what is not there too, and only as far as the list went; memory stays bounded.
    use super::*;

    fn file(size: u64) -> Facts {
        Facts { is_folder: false, size, modified: 1 }
    }

    fn entry(name: &str, facts: Facts) -> Entry {
        Entry { name: name.into(), facts }
    }

    #[test]
    fn knows_what_was_listed() {
        let neighbours = Neighbours::default();
        let unknown = |wants_page| Known::Nothing { wants_page };
        assert_eq!([neighbours.find("d/", "b"), neighbours.find("d/", "b")], [unknown(false), unknown(false)]);
        assert_eq!(neighbours.find("d/", "b"), unknown(true));
        neighbours.learn(
            "d/",
            "b",
            Some("f"),
            vec![entry("b", file(1)), entry("d", Facts::FOLDER), entry("f", file(2))],
        );
        assert_eq!(neighbours.find("d/", "b"), Known::Is(Some(file(1))));
        assert_eq!(neighbours.find("d/", "d"), Known::Is(Some(Facts::FOLDER)));
        assert_eq!(neighbours.find("d/", "c"), Known::Is(None));
        // It may lie before, or behind: as a folder `f!/` would.
        for name in ["a", "g", "f!"] {
            assert_eq!(neighbours.find("d/", name), unknown(true), "{name}");
        }
        assert_eq!(neighbours.find("e/", "b"), unknown(false));
        neighbours.learn("d/", "a", None, vec![entry("a", file(3)), entry("b", file(1))]);
        assert_eq!(neighbours.find("d/", "z"), Known::Is(None));
        assert_eq!(neighbours.lock().names, 3);
    }

    #[test]
    fn a_folder_whose_file_lies_before_is_not_told() {
        // `a`, `a!` and `a/`: of a page that begins behind `a`, nobody knows whether `a` is a file.
        let neighbours = Neighbours::default();
        neighbours.learn("", "a!", None, vec![entry("a!", file(1)), entry("a", Facts::FOLDER)]);
        assert_eq!(neighbours.find("", "a"), Known::Nothing { wants_page: false });
    }

    #[test]
    fn forgets_what_is_too_much() {
        let neighbours = Neighbours::default();
        let page = |from: usize| (from..from + 1_000).map(|n| entry(&format!("{n:08}"), file(1))).collect::<Vec<_>>();
        for folder in 0..100 {
            neighbours.learn(&format!("{folder}/"), "0", None, page(0));
        }
        assert!(neighbours.lock().names <= NAMES);
        assert_eq!(neighbours.find("99/", "00000007"), Known::Is(Some(file(1))));
        assert_eq!(neighbours.find("0/", "00000007"), Known::Nothing { wants_page: false });
        for number in 0..200 {
            let (from, to) = (format!("{:08}", number * 1_000), format!("{:08}", number * 1_000 + 999));
            neighbours.learn("long/", &from, Some(&to), page(number * 1_000));
        }
        assert!(neighbours.lock().names <= NAMES);
        assert_eq!(neighbours.find("long/", "00199007"), Known::Is(Some(file(1))));
    }
}
