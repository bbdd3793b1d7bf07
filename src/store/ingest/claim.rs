//! New chunks that an upload has taken upon itself to store. Uploads of the same bytes at the same time, as when every rank of a
//! training job saves the same weights, would each find the store without them; so the first one claims a chunk, and the others wait
//! for it instead of storing it too. What the guard has stored again is nobody's to claim: each upload has its own neighbours.
//!
//! Nobody waits while it holds claims, so that no two wait for each other, and nobody waits long: an upload whose client sleeps
//! must hold up no other. Who has waited in vain stores the chunk itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::Digest;

/// How long one upload waits for another's chunks: many times what it takes to store a run of them.
const PATIENCE: Duration = Duration::from_millis(100);

/// The claims of all uploads; clones share them.
#[derive(Clone, Default)]
pub(in crate::store) struct Underway(Arc<Mutex<HashMap<Digest, Arc<Claimant>>>>);

impl Underway {
    fn claims(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Claimant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload, as those see it who wait for its chunks.
struct Claimant {
    /// Somebody waits.
    wanted: AtomicBool,
    /// How often it has released what it had claimed.
    released: watch::Sender<u64>,
}

/// One upload's claims.
pub(super) struct Claims {
    underway: Underway,
    own: Arc<Claimant>,
    held: Vec<Digest>,
}

/// A chunk that another upload is about to store.
pub(super) struct Awaited {
    claimant: Arc<Claimant>,
    released: u64,
}

impl Claims {
    pub(super) fn new(underway: Underway) -> Self {
        let own = Claimant { wanted: AtomicBool::new(false), released: watch::Sender::new(0) };
        Self { underway, own: Arc::new(own), held: Vec::new() }
    }

    /// Claims a chunk, unless another upload has.
    pub(super) fn claim(&mut self, digest: Digest) -> Result<(), Awaited> {
        match self.underway.claims().entry(digest) {
            Entry::Vacant(free) => {
                free.insert(self.own.clone());
                self.held.push(digest);
                Ok(())
            }
            Entry::Occupied(taken) if Arc::ptr_eq(taken.get(), &self.own) => Ok(()),
            Entry::Occupied(taken) => {
                let claimant = taken.get().clone();
                let released = *claimant.released.borrow();
                Err(Awaited { claimant, released })
            }
        }
    }

    /// Whether somebody waits for what is claimed.
    pub(super) fn are_wanted(&self) -> bool {
        self.own.wanted.load(Ordering::Relaxed)
    }

    /// Gives all claims up: the chunks are where everyone finds them, or will not be.
    pub(super) fn release(&mut self) {
        let mut claims = self.underway.claims();
        for digest in self.held.drain(..) {
            claims.remove(&digest);
        }
        drop(claims);
        self.own.wanted.store(false, Ordering::Relaxed);
        self.own.released.send_modify(|released| *released += 1);
    }

    /// Waits until those have released their claims that these chunks wait for, but not long.
    pub(super) async fn wait(awaited: &[Awaited]) {
        for Awaited { claimant, released } in awaited {
            if *claimant.released.borrow() == *released {
                claimant.wanted.store(true, Ordering::Relaxed);
            }
        }
        let all = async {
            for each in awaited {
                let mut released = each.claimant.released.subscribe();
                // It cannot fail: the sender lives in what is awaited.
                let _ = released.wait_for(|now| *now > each.released).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    //! The second to come waits for the first, is let go when that has stored or given up, and never waits for ever.
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_for_the_first() {
        let underway = Underway::default();
        let (mut first, mut second) = (Claims::new(underway.clone()), Claims::new(underway));
        assert!(first.claim(digest(1)).is_ok());
        assert!(first.claim(digest(1)).is_ok());
        let Err(awaited) = second.claim(digest(1)) else { panic!("claimed twice") };
        assert!(second.claim(digest(2)).is_ok() && !first.are_wanted());
        let before = tokio::time::Instant::now();
        tokio::join!(Claims::wait(std::slice::from_ref(&awaited)), async {
            assert!(first.are_wanted());
            first.release();
        });
        assert!(before.elapsed() < PATIENCE);
        assert!(second.claim(digest(1)).is_ok());
        drop(second);
        assert!(first.claim(digest(1)).is_ok() && first.claim(digest(2)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long() {
        let underway = Underway::default();
        let (mut first, mut second) = (Claims::new(underway.clone()), Claims::new(underway));
        assert!(first.claim(digest(1)).is_ok());
        let Err(awaited) = second.claim(digest(1)) else { panic!("claimed twice") };
        let before = tokio::time::Instant::now();
        Claims::wait(&[awaited]).await;
        assert_eq!(before.elapsed(), PATIENCE);
    }
}
