//! Deliberate bugs, one switch each, all off. A simulation that does not find them would not find the same bug made by
//! mistake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Packs are not synced before they are relied on.
    SkipSync = 1,
    /// Folders are not synced before a pack in them is relied on.
    SkipFolderSync = 2,
    /// A writer that finds a condemned pack leaves it condemned.
    SkipResurrect = 4,
    /// A write is acknowledged before its transaction has committed.
    AcknowledgeEarly = 8,
    /// What is found damaged stays in the index, so that new uploads rely on it.
    RelyOnDamage = 16,
    /// The scrub believes that a pack's chunks are what their digests say.
    SkipCompare = 32,
    /// The collector does not follow what only snapshots show.
    ForgetSnapshots = 64,
}

/// The bugs that are switched on; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<AtomicU8>);

impl Faults {
    /// Switches a bug on.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        self.0.fetch_or(fault as u8, Ordering::Relaxed);
        self
    }

    /// Whether a bug is switched on.
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.0.load(Ordering::Relaxed) & fault as u8 != 0
    }
}
