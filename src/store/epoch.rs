//! The collector's epoch, as this process knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The current epoch; clones share it.
#[derive(Clone)]
pub(super) struct Epoch(Arc<AtomicU64>);

impl Epoch {
    /// The epoch in which a store begins.
    pub(super) fn first() -> Self {
        Self(Arc::new(AtomicU64::new(1)))
    }

    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
