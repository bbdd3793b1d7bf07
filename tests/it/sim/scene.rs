//! What everyone in a simulation has in common, and the judgement on errors: each must have a cause that the seed has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedplate::meta::MetaError;
use bedplate::store::StoreError;

use super::content::Contents;
use super::decay::Decay;
use super::ground::Ground;
use super::model::{Model, Violation};
use super::rows::Rows;
use super::setup::{Promise, Setup};
use super::shelf::Shelf;
use super::volume::SimVolume;
use super::world::World;

/// How often things happened, by name: what a run covered.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// How a call that did not do what it was asked can have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It changed nothing.
    Harmless,
    /// It may have happened, or may still.
    Unknown,
}

/// The shared part; clones share it.
#[derive(Clone)]
pub(super) struct Scene {
    pub setup: Rc<Setup>,
    pub world: World,
    pub(super) model: Model,
    /// Snapshots and branches.
    pub(super) shelf: Shelf,
    pub contents: Rc<RefCell<Contents>>,
    /// The disk: its files, and the rows.
    pub volume: SimVolume,
    pub rows: Arc<Mutex<Rows>>,
    /// The bits that turned.
    pub decay: Rc<RefCell<Decay>>,
    counts: Rc<RefCell<Counts>>,
}

impl Scene {
    pub(super) fn new(setup: Setup, world: &World) -> Self {
        Self {
            contents: Rc::new(RefCell::new(Contents::new(setup.seed))),
            setup: Rc::new(setup),
            world: world.clone(),
            model: Model::default(),
            shelf: Shelf::default(),
            volume: SimVolume::new(world),
            rows: Arc::default(),
            decay: Rc::default(),
            counts: Rc::default(),
        }
    }

    /// The same, where nothing goes wrong and nobody is impatient.
    pub(super) fn calm(&self) -> Self {
        Self { setup: Rc::new(self.setup.calm()), ..self.clone() }
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at everything that lies under the store.
    pub(super) fn survey(&self) -> Result<Ground, Violation> {
        Ground::survey(&self.rows(), &self.volume, &self.decay.borrow())
    }

    pub(super) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn add(&self, what: &'static str, count: u64) {
        *self.counts.borrow_mut().entry(what).or_default() += count;
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// What an error leaves behind; a violation where nothing explains it.
    pub(super) fn judge(&self, error: &StoreError) -> Result<Failed, Violation> {
        self.world.note(format!("    failed: {}", chain(error)));
        self.count("failed");
        let faults = &self.setup.faults;
        let (is_explained, failed) = match error {
            StoreError::DiskFull => (faults.full > 0, Failed::Harmless),
            StoreError::Meta(MetaError::Engine { .. }) => (faults.meta_errors > 0, Failed::Unknown),
            StoreError::Io { .. } => (faults.volume_errors > 0 || faults.meta_errors > 0, Failed::Harmless),
            StoreError::Corrupt { pack, chunk, .. } if self.setup.promise() == Promise::Damaged => {
                self.count("refused for damage");
                (self.decay.borrow().explains(*pack, *chunk), Failed::Harmless)
            }
            StoreError::Corrupt { .. } | StoreError::CorruptRow(_) | StoreError::NoSuchPack(_) => {
                (self.setup.promise() == Promise::Named, Failed::Harmless)
            }
            _ => (false, Failed::Harmless),
        };
        if is_explained { Ok(failed) } else { Err(format!("nothing explains the error: {}", chain(error))) }
    }
}

/// An error with its causes.
pub(super) fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
