//! What a mount has done so far, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The file at a mount's root that shows the figures as JSON. It is in no list.
pub const STATISTICS_FILE: &str = ".bedplate-stats";

/// The counters; all only grow.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) read_bytes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) cache_bytes: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) cache_misses: AtomicU64,
    pub(super) network_bytes: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// The figures at one moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Figures {
    /// Bytes that programs read through the mount; what the kernel still had is not asked for and not counted.
    pub read_bytes: u64,
    /// Bytes that programs wrote.
    pub written_bytes: u64,
    /// Bytes that came from this node's cache.
    pub cache_bytes: u64,
    /// Chunks that came from it.
    pub cache_hits: u64,
    /// Chunks that were not in it.
    pub cache_misses: u64,
    /// Bytes of answers that came over the network, compressed as they travel.
    pub network_bytes: u64,
    /// Requests to the appliance.
    pub requests: u64,
    /// Calls that failed because the appliance could not be asked or its bytes not be believed.
    pub errors: u64,
    /// Files that are open.
    pub open_files: u64,
    /// Names that the kernel knows.
    pub known_names: u64,
    /// Seconds since it was mounted.
    pub seconds: u64,
}

impl Statistics {
    /// A request goes out.
    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// So many chunks were looked for in the cache, so many of them missed, and these many bytes found.
    pub(super) fn looked_up(&self, chunks: usize, missed: usize, bytes: u64) {
        self.cache_hits.fetch_add((chunks - missed) as u64, Ordering::Relaxed);
        self.cache_misses.fetch_add(missed as u64, Ordering::Relaxed);
        self.cache_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counted figures; what is not counted is zero.
    pub(super) fn figures(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            read_bytes: of(&self.read_bytes),
            written_bytes: of(&self.written_bytes),
            cache_bytes: of(&self.cache_bytes),
            cache_hits: of(&self.cache_hits),
            cache_misses: of(&self.cache_misses),
            network_bytes: of(&self.network_bytes),
            requests: of(&self.requests),
            errors: of(&self.errors),
            ..Figures::default()
        }
    }
}
