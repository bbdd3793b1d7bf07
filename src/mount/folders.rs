//! A folder's names, as the kernel takes them: by pages of S3's, and only as many at once as it has room for.

use fuser::{Errno, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::answers::refused;
use super::inner::Inner;
use super::tree::{Facts, number_of};

/// What fills an answer with names.
pub(super) enum Filled {
    Plain(ReplyDirectory),
    Plus(ReplyDirectoryPlus),
}

impl Filled {
    /// Adds a name; whether there was no room for it.
    fn add(&mut self, inner: &Inner, inode: u64, next: u64, name: &str, facts: Facts) -> bool {
        let attr = inner.attr(inode, facts);
        match self {
            Self::Plain(reply) => reply.add(INodeNo(inode), next, attr.kind, name),
            Self::Plus(reply) => reply.add(INodeNo(inode), next, name, &inner.believed, &attr, Generation(0)),
        }
    }

    fn ok(self) {
        match self {
            Self::Plain(reply) => reply.ok(),
            Self::Plus(reply) => reply.ok(),
        }
    }

    fn error(self, errno: Errno) {
        match self {
            Self::Plain(reply) => reply.error(errno),
            Self::Plus(reply) => reply.error(errno),
        }
    }
}

impl Inner {
    /// Answers with the names of a folder from the one with the number `offset` on.
    pub(super) async fn fill(&self, number: u64, handle: u64, offset: u64, mut reply: Filled) {
        let (Some(page), Some(folder)) = (self.folder(handle), self.tree.key(number)) else {
            // A folder that was removed while it was open has no names.
            return if self.folder(handle).is_some() { reply.ok() } else { reply.error(Errno::EBADF) };
        };
        let mut page = page.lock().await;
        let mut at = offset;
        for (place, name) in [".", ".."].into_iter().enumerate().skip(offset.min(2) as usize) {
            let inode = if place == 0 { number } else { self.tree.parent(number) };
            if reply.add(self, inode, at + 1, name, Facts::FOLDER) {
                return reply.ok();
            }
            at += 1;
        }
        loop {
            if let Err(error) = self.listing.turn(&mut page, &folder, at - 2).await {
                return reply.error(refused(&error));
            }
            let from = (at - 2).saturating_sub(page.before) as usize;
            if from >= page.entries.len() {
                return reply.ok();
            }
            for entry in &page.entries[from..] {
                let written = self.tree.number(number, &entry.name).filter(|inode| self.writing(*inode).is_some());
                let facts = written.and_then(|inode| self.tree.facts(inode)).unwrap_or(entry.facts);
                let plus = matches!(reply, Filled::Plus(_));
                let inode = match (plus, written) {
                    (true, None) => self.tree.learn(number, &entry.name, facts),
                    (true, Some(inode)) => {
                        self.tree.hold(inode);
                        inode
                    }
                    (false, _) => number_of(number, &entry.name),
                };
                if reply.add(self, inode, at + 1, &entry.name, facts) {
                    if plus {
                        self.tree.forget(inode, 1);
                    }
                    return reply.ok();
                }
                at += 1;
            }
        }
    }
}
