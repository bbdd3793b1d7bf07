//! Inodes: what the kernel holds on to, in little memory. An inode's number is a hash of its parent's and its name, so that it
//! is the same after a remount, and a name is found without a second table.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The root's number.
pub(super) const ROOT: u64 = 1;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) is_folder: bool,
    /// Bytes.
    pub(super) size: u64,
    /// Milliseconds since 1970.
    pub(super) modified: u64,
}

struct Node {
    parent: u64,
    name: Box<str>,
    facts: Facts,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// The inodes that the kernel knows.
pub(super) struct Tree {
    nodes: Mutex<HashMap<u64, Node>>,
    prefix: String,
}

impl Tree {
    /// A tree whose root stands for the keys that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { nodes: Mutex::default(), prefix: prefix.to_owned() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a name that the kernel is told of now.
    pub(super) fn learn(&self, parent: u64, name: &str, facts: Facts) -> u64 {
        let mut nodes = self.lock();
        let mut number = number_of(parent, name);
        loop {
            match nodes.get_mut(&number) {
                Some(node) if node.parent == parent && *node.name == *name => {
                    node.facts = facts;
                    node.lookups += 1;
                    return number;
                }
                // Another name's number: the next one.
                Some(_) => number = number.wrapping_add(1).max(ROOT + 1),
                None => {
                    nodes.insert(number, Node { parent, name: name.into(), facts, lookups: 1 });
                    return number;
                }
            }
        }
    }

    /// What the kernel holds `count` times less. Folders stay: names below them are found through them.
    pub(super) fn forget(&self, number: u64, count: u64) {
        let mut nodes = self.lock();
        if let Some(node) = nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 && !node.facts.is_folder {
                nodes.remove(&number);
            }
        }
    }

    /// The key of an inode; a folder's ends with a slash, or is empty.
    pub(super) fn key(&self, number: u64) -> Option<String> {
        let nodes = self.lock();
        let mut parts: Vec<&str> = Vec::new();
        let is_folder = number == ROOT || nodes.get(&number)?.facts.is_folder;
        let mut at = number;
        while at != ROOT {
            let node = nodes.get(&at)?;
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
            return Some(Facts { is_folder: true, size: 0, modified: 0 });
        }
        self.lock().get(&number).map(|node| node.facts)
    }

    /// Corrects what is known of an inode; whether that is something else than before.
    pub(super) fn correct(&self, number: u64, facts: Facts) -> bool {
        match self.lock().get_mut(&number) {
            Some(node) => std::mem::replace(&mut node.facts, facts) != facts,
            None => false,
        }
    }

    /// A name has become another: the kernel goes on with the inode that it had.
    pub(super) fn moved(&self, from: (u64, &str), to: (u64, &str)) {
        for node in self.lock().values_mut().filter(|node| node.parent == from.0 && *node.name == *from.1) {
            (node.parent, node.name) = (to.0, to.1.into());
        }
    }

    /// The parent of an inode.
    pub(super) fn parent(&self, number: u64) -> u64 {
        self.lock().get(&number).map_or(ROOT, |node| node.parent)
    }

    /// How many inodes the kernel knows.
    pub(super) fn len(&self) -> u64 {
        self.lock().len() as u64
    }
}

/// The number that a name should have.
pub(super) fn number_of(parent: u64, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parent.to_le_bytes()).update(name.as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number).max(ROOT + 1)
}

#[cfg(test)]
mod tests {
    //! Keys come back from inodes, and what is forgotten takes no memory.
    use super::*;

    #[test]
    fn keys_and_forgetting() {
        let tree = Tree::new("data/");
        let facts = |is_folder| Facts { is_folder, size: 5, modified: 0 };
        let folder = tree.learn(ROOT, "ä", facts(true));
        let file = tree.learn(folder, "b.txt", facts(false));
        assert_eq!(tree.learn(folder, "b.txt", facts(false)), file);
        assert_eq!(tree.key(file).as_deref(), Some("data/ä/b.txt"));
        assert_eq!(tree.key(folder).as_deref(), Some("data/ä/"));
        assert_eq!(tree.key(ROOT).as_deref(), Some("data/"));
        tree.moved((folder, "b.txt"), (ROOT, "c.txt"));
        assert_eq!(tree.key(file).as_deref(), Some("data/c.txt"));
        assert_ne!(tree.learn(folder, "b.txt", facts(false)), file);
        tree.forget(file, 1);
        assert!(tree.facts(file).is_some());
        tree.forget(file, 1);
        assert_eq!((tree.facts(file), tree.len()), (None, 2));
    }
}
