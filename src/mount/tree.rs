//! Inodes: what the kernel holds on to, in little memory. An inode's number is a hash of its parent's and its name, so that it
//! is the same after a remount, and a name is found without a second table; the few names that have another number, because
//! they were moved or the number was taken, are in one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The root's number.
pub(super) const ROOT: u64 = 1;
/// The number of the file with the statistics.
pub(super) const STATISTICS: u64 = 2;
/// The parent of what has no name any more.
const NOWHERE: u64 = 0;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) is_folder: bool,
    /// Bytes.
    pub(super) size: u64,
    /// Milliseconds since 1970.
    pub(super) modified: u64,
}

impl Facts {
    /// What is known of a folder.
    pub(super) const FOLDER: Self = Self { is_folder: true, size: 0, modified: 0 };
}

struct Node {
    parent: u64,
    name: Box<str>,
    facts: Facts,
    /// Whether it was changed here, so that what a list says of it next is the same.
    is_ours: bool,
    /// How often the kernel was told of it and has not forgotten it, and who writes it.
    holders: u64,
    /// How many nodes have it as their parent.
    children: u32,
}

impl Node {
    /// Takes what is said of it now; whether it can be the same.
    fn adopt(&mut self, facts: Facts) -> bool {
        let is_same = self.facts == facts || self.is_ours && !facts.is_folder;
        if is_same {
            (self.facts, self.is_ours) = (facts, false);
        }
        is_same
    }
}

/// The inodes that the kernel knows.
pub(super) struct Tree {
    nodes: Mutex<Nodes>,
    prefix: String,
}

#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Node>,
    /// Numbers of names that do not have the number that they should.
    displaced: HashMap<(u64, Box<str>), u64>,
}

impl Nodes {
    fn number(&self, parent: u64, name: &str) -> Option<u64> {
        // Nearly always empty; a key to look for costs an allocation.
        if !self.displaced.is_empty()
            && let Some(number) = self.displaced.get(&(parent, name.into()))
        {
            return Some(*number);
        }
        let number = number_of(parent, name);
        let node = self.by_number.get(&number)?;
        (node.parent == parent && *node.name == *name).then_some(number)
    }

    /// Gives a node a place.
    fn link(&mut self, number: u64, parent: u64, name: &str) {
        if number != number_of(parent, name) {
            self.displaced.insert((parent, name.into()), number);
        }
        if let Some(folder) = self.by_number.get_mut(&parent) {
            folder.children += 1;
        }
        if let Some(node) = self.by_number.get_mut(&number) {
            (node.parent, node.name) = (parent, name.into());
        }
    }

    /// Takes its place from a node, and removes the folders above that nobody holds any more.
    fn unlink(&mut self, number: u64) {
        let Some(node) = self.by_number.get_mut(&number) else { return };
        let parent = std::mem::replace(&mut node.parent, NOWHERE);
        let name = std::mem::take(&mut node.name);
        if number != number_of(parent, &name) {
            self.displaced.remove(&(parent, name));
        }
        if let Some(folder) = self.by_number.get_mut(&parent) {
            folder.children -= 1;
            self.drop_unheld(parent);
        }
    }

    /// Removes a node that nobody holds. Folders stay for as long as names below them are found through them.
    fn drop_unheld(&mut self, number: u64) {
        if self.by_number.get(&number).is_some_and(|node| node.holders == 0 && node.children == 0) {
            self.unlink(number);
            self.by_number.remove(&number);
        }
    }
}

impl Tree {
    /// A tree whose root stands for the keys that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { nodes: Mutex::default(), prefix: prefix.to_owned() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a name, where the kernel knows it.
    pub(super) fn number(&self, parent: u64, name: &str) -> Option<u64> {
        self.lock().number(parent, name)
    }

    /// The number of a name that the kernel is told of now.
    pub(super) fn learn(&self, parent: u64, name: &str, facts: Facts) -> u64 {
        let mut nodes = self.lock();
        if let Some(number) = nodes.number(parent, name)
            && let Some(node) = nodes.by_number.get_mut(&number)
        {
            if node.adopt(facts) {
                node.holders += 1;
                return number;
            }
            nodes.unlink(number);
            nodes.drop_unheld(number);
        }
        let mut number = number_of(parent, name);
        while nodes.by_number.contains_key(&number) {
            number = number.wrapping_add(1).max(STATISTICS + 1);
        }
        let node = Node { parent: NOWHERE, name: Box::default(), facts, is_ours: false, holders: 1, children: 0 };
        nodes.by_number.insert(number, node);
        nodes.link(number, parent, name);
        number
    }

    /// Holds an inode once more, for the kernel or beside it.
    pub(super) fn hold(&self, number: u64) {
        if let Some(node) = self.lock().by_number.get_mut(&number) {
            node.holders += 1;
        }
    }

    /// What is held `count` times less.
    pub(super) fn forget(&self, number: u64, count: u64) {
        let mut nodes = self.lock();
        if let Some(node) = nodes.by_number.get_mut(&number) {
            node.holders = node.holders.saturating_sub(count);
            nodes.drop_unheld(number);
        }
    }

    /// The key of an inode; a folder's ends with a slash, or is empty. Nothing of one that has no name any more.
    pub(super) fn key(&self, number: u64) -> Option<String> {
        let nodes = self.lock();
        let mut parts: Vec<&str> = Vec::new();
        let is_folder = number == ROOT || nodes.by_number.get(&number)?.facts.is_folder;
        let mut at = number;
        while at != ROOT {
            let node = nodes.by_number.get(&at)?;
            parts.push(&node.name);
            at = node.parent;
        }
        let mut key = self.prefix.clone();
        for (place, part) in parts.iter().rev().enumerate() {
            key.push_str(part);
            if is_folder || place + 1 < parts.len() {
                key.push('/');
            }
        }
        Some(key)
    }

    /// What is known of an inode.
    pub(super) fn facts(&self, number: u64) -> Option<Facts> {
        if number == ROOT {
            return Some(Facts::FOLDER);
        }
        self.lock().by_number.get(&number).map(|node| node.facts)
    }

    /// Takes what is said of an inode's object now; nothing where that is another than the inode stands for, else whether it is
    /// what was known.
    pub(super) fn adopt(&self, number: u64, facts: Facts) -> Option<bool> {
        let mut nodes = self.lock();
        let node = nodes.by_number.get_mut(&number)?;
        let was_known = !node.is_ours && node.facts == facts;
        node.adopt(facts).then_some(was_known)
    }

    /// An inode's object is changed here; `is_ours` unless some have it open as it was.
    pub(super) fn change(&self, number: u64, facts: Facts, is_ours: bool) {
        if let Some(node) = self.lock().by_number.get_mut(&number) {
            (node.facts, node.is_ours) = (facts, is_ours);
        }
    }

    /// A name has become another: the kernel goes on with the inode that it had, and what had the other name has none. `is_ours` unless some
    /// have it open as it was.
    pub(super) fn moved(&self, from: (u64, &str), to: (u64, &str), is_ours: bool) {
        let mut nodes = self.lock();
        let (source, target) = (nodes.number(from.0, from.1), nodes.number(to.0, to.1));
        if source == target {
            return;
        }
        if let Some(target) = target {
            nodes.unlink(target);
            nodes.drop_unheld(target);
        }
        if let Some(source) = source {
            nodes.unlink(source);
            nodes.link(source, to.0, to.1);
            // A copy has a time of its own.
            nodes.by_number.entry(source).and_modify(|node| node.is_ours |= is_ours);
        }
    }

    /// A name is gone; who has it open goes on with the inode.
    pub(super) fn removed(&self, parent: u64, name: &str) {
        let mut nodes = self.lock();
        if let Some(number) = nodes.number(parent, name) {
            nodes.unlink(number);
            nodes.drop_unheld(number);
        }
    }

    /// The parent of an inode.
    pub(super) fn parent(&self, number: u64) -> u64 {
        self.lock().by_number.get(&number).map_or(ROOT, |node| node.parent)
    }

    /// How many inodes the kernel knows.
    pub(super) fn len(&self) -> u64 {
        self.lock().by_number.len() as u64
    }
}

/// The number that a name should have.
pub(super) fn number_of(parent: u64, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parent.to_le_bytes()).update(name.as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number).max(STATISTICS + 1)
}

#[cfg(test)]
mod tests {
    //! Keys come back from inodes, whatever was moved and removed, and what is forgotten takes no memory.
    use super::*;

    const FILE: Facts = Facts { is_folder: false, size: 5, modified: 0 };

    #[test]
    fn keys_and_forgetting() {
        let tree = Tree::new("data/");
        let folder = tree.learn(ROOT, "ä", Facts::FOLDER);
        let file = tree.learn(folder, "b.txt", FILE);
        assert_eq!(tree.learn(folder, "b.txt", FILE), file);
        assert_eq!(tree.key(file).as_deref(), Some("data/ä/b.txt"));
        assert_eq!(tree.key(folder).as_deref(), Some("data/ä/"));
        assert_eq!(tree.key(ROOT).as_deref(), Some("data/"));
        // The kernel lets folders go before what is in them, or after.
        tree.forget(folder, 1);
        assert_eq!(tree.key(file).as_deref(), Some("data/ä/b.txt"));
        tree.forget(file, 1);
        assert!(tree.facts(file).is_some());
        tree.forget(file, 1);
        assert_eq!((tree.facts(file), tree.len()), (None, 0));
    }

    #[test]
    fn moves_and_removals() {
        let tree = Tree::new("");
        let folder = tree.learn(ROOT, "d", Facts::FOLDER);
        let (first, second) = (tree.learn(folder, "1", FILE), tree.learn(ROOT, "2", FILE));
        tree.moved((folder, "1"), (ROOT, "2"), true);
        assert_eq!((tree.key(first).as_deref(), tree.key(second)), (Some("2"), None));
        assert_eq!((tree.number(folder, "1"), tree.number(ROOT, "2")), (None, Some(first)));
        // The name that became free is another inode's, and the one that was moved is found by its new name.
        let third = tree.learn(folder, "1", FILE);
        assert!(third != first && tree.key(third).as_deref() == Some("d/1"));
        assert_eq!(tree.learn(ROOT, "2", FILE), first);
        tree.removed(ROOT, "2");
        assert_eq!((tree.key(first), tree.facts(first)), (None, Some(FILE)));
        // A file that is a folder now is another inode.
        let other = tree.learn(folder, "1", Facts::FOLDER);
        assert!(other != third && tree.key(third).is_none());
        // So is an object that another has replaced, but not one that was changed here.
        let newer = Facts { size: 6, ..FILE };
        let replaced = tree.learn(ROOT, "r", FILE);
        assert_eq!((tree.adopt(replaced, FILE), tree.adopt(replaced, newer)), (Some(true), None));
        tree.change(replaced, FILE, true);
        assert_eq!((tree.adopt(replaced, newer), tree.adopt(replaced, FILE)), (Some(false), None));
        let newest = tree.learn(ROOT, "r", FILE);
        assert!(newest != replaced && tree.key(replaced).is_none());
        for (number, count) in
            [(replaced, 1), (newest, 1), (first, 2), (second, 1), (third, 1), (other, 1), (folder, 1)]
        {
            tree.forget(number, count);
        }
        assert_eq!(tree.len(), 0);
        assert!(tree.lock().displaced.is_empty());
    }

    #[test]
    fn names_that_are_walked_and_forgotten_leave_nothing() {
        let tree = Tree::new("");
        for folder in 0..1_000 {
            let number = tree.learn(ROOT, &format!("folder-{folder}"), Facts::FOLDER);
            let files: Vec<u64> = (0..100).map(|file| tree.learn(number, &format!("{file}"), FILE)).collect();
            tree.forget(number, 1);
            files.iter().for_each(|file| tree.forget(*file, 1));
        }
        assert_eq!(tree.len(), 0);
    }
}
