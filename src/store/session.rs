//! What is in packs that are still open: found here until the index has it. A crash loses this; the packs' groups say it again.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::error::{StoreError, chain, is_full};
use crate::format::manifest::Location;
use crate::format::pack::Entry;
use crate::model::{Digest, PackId};

/// Why a pack did not become durable; told to every upload that needs it.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    DiskFull,
    Closed,
    Other(String),
}

impl Failure {
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        if is_full(error) {
            return Self::DiskFull;
        }
        Self::Other(chain(error))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DiskFull => Self::DiskFull,
            Failure::Closed => Self::Closed,
            Failure::Other(text) => Self::Io { action: "write a pack", source: text.into() },
        }
    }
}

/// How far a pack is durable and its row written.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    /// Bytes from the pack's start that survive a power cut.
    pub(super) bytes: u64,
    /// Why there will be no more.
    pub(super) failed: Option<Failure>,
}

/// A pack that is being filled, as everyone sees it.
pub(super) struct OpenPack {
    pub(super) pack: PackId,
    entries: RwLock<Vec<Entry>>,
    durable: watch::Sender<Durable>,
}

impl OpenPack {
    pub(super) fn new(pack: PackId) -> Self {
        Self { pack, entries: RwLock::default(), durable: watch::Sender::new(Durable::default()) }
    }

    /// A chunk of it.
    pub(super) fn entry(&self, chunk: u32) -> Option<Entry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(chunk as usize).copied()
    }

    /// How to wait for a chunk of it.
    pub(super) fn ticket(&self, chunk: u32) -> Option<Ticket> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        Some(Ticket::of(self, entries.get(chunk as usize)?.end()))
    }

    /// How many chunks it has.
    pub(super) fn len(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All its chunks.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_durable(&self) -> Durable {
        self.durable.borrow().clone()
    }

    /// Says how far it is durable now.
    pub(super) fn advance(&self, bytes: u64) {
        self.durable.send_modify(|durable| durable.bytes = durable.bytes.max(bytes));
    }
}

/// Who needs a chunk of an open pack waits with this until it is durable.
#[derive(Clone)]
pub(super) struct Ticket {
    pack: PackId,
    need: u64,
    durable: watch::Receiver<Durable>,
}

impl Ticket {
    fn of(open: &OpenPack, need: u64) -> Self {
        Self { pack: open.pack, need, durable: open.durable.subscribe() }
    }

    /// Waits until the bytes that it stands for are durable.
    pub(super) async fn wait(mut self) -> Result<(), StoreError> {
        let need = self.need;
        match self.durable.wait_for(|durable| durable.bytes >= need || durable.failed.is_some()).await {
            Ok(durable) if durable.bytes >= need => Ok(()),
            Ok(durable) => Err(durable.failed.clone().unwrap_or(Failure::Closed).into()),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

/// What an upload waits for: of each open pack, the last byte that it needs.
#[derive(Default)]
pub(super) struct Tickets(BTreeMap<PackId, Ticket>);

impl Tickets {
    pub(super) fn add(&mut self, ticket: Ticket) {
        match self.0.entry(ticket.pack) {
            MapEntry::Vacant(slot) => {
                slot.insert(ticket);
            }
            MapEntry::Occupied(mut slot) => slot.get_mut().need = slot.get().need.max(ticket.need),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The packs, and how much of each must be durable.
    pub(super) fn needs(&self) -> Vec<(PackId, u64)> {
        self.0.iter().map(|(pack, ticket)| (*pack, ticket.need)).collect()
    }

    pub(super) async fn wait(self) -> Result<(), StoreError> {
        for ticket in self.0.into_values() {
            ticket.wait().await?;
        }
        Ok(())
    }
}

/// The chunks of all open packs; clones share it.
#[derive(Clone, Default)]
pub(super) struct Session(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    chunks: HashMap<Digest, (Location, u64)>,
    packs: BTreeMap<PackId, Arc<OpenPack>>,
}

impl State {
    fn find(&self, digest: &Digest) -> Option<(Location, Ticket)> {
        let (at, need) = self.chunks.get(digest)?;
        Some((*at, Ticket::of(self.packs.get(&at.pack)?, *need)))
    }
}

impl Session {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where chunks are, of those that are in open packs.
    pub(super) fn find(&self, digests: &[Digest]) -> Vec<Option<(Location, Ticket)>> {
        let state = self.state();
        digests.iter().map(|digest| state.find(digest)).collect()
    }

    /// An open pack.
    pub(super) fn pack(&self, pack: PackId) -> Option<Arc<OpenPack>> {
        self.state().packs.get(&pack).cloned()
    }

    /// Takes up a pack that was just begun.
    pub(super) fn begin(&self, open: Arc<OpenPack>) {
        self.state().packs.insert(open.pack, open);
    }

    /// Notes chunks that were appended to an open pack, and answers where each is.
    pub(super) fn append(&self, open: &OpenPack, new: &[Entry]) -> Vec<(Location, Ticket)> {
        let mut entries = open.entries.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let mut placed = Vec::with_capacity(new.len());
        for entry in new {
            let at = Location { pack: open.pack, chunk: entries.len() as u32 };
            entries.push(*entry);
            state.chunks.insert(entry.digest, (at, entry.end()));
            placed.push((at, Ticket::of(open, entry.end())));
        }
        placed
    }

    /// Forgets a pack: from here on the index has its chunks.
    pub(super) fn end(&self, open: &OpenPack) {
        let entries = open.entries();
        let mut state = self.state();
        state.packs.remove(&open.pack);
        state.forget(open.pack, &entries);
    }

    /// Gives up what of a pack is not durable: who waits for it is told why, nobody finds it any more. Answers whether
    /// anything of the pack is durable; if not, it is forgotten.
    pub(super) fn give_up(&self, open: &OpenPack, failure: Failure) -> bool {
        let durable = open.is_durable().bytes;
        let lost = {
            let mut entries = open.entries.write().unwrap_or_else(PoisonError::into_inner);
            let kept = entries.iter().take_while(|entry| entry.end() <= durable).count();
            entries.split_off(kept)
        };
        let mut state = self.state();
        state.forget(open.pack, &lost);
        if durable == 0 {
            state.packs.remove(&open.pack);
        }
        drop(state);
        open.durable.send_modify(|state| state.failed = Some(failure));
        durable > 0
    }
}

impl State {
    fn forget(&mut self, pack: PackId, entries: &[Entry]) {
        for entry in entries {
            if self.chunks.get(&entry.digest).is_some_and(|(at, _)| at.pack == pack) {
                self.chunks.remove(&entry.digest);
            }
        }
    }
}
