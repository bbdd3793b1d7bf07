//! What the model knows of snapshots and branches. A snapshot shows what its bucket held at one moment of the call that made it, and
//! from then on exactly that; a branch shows its snapshot's content until it is written to, and nobody else is changed by that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bedplate::model::{BucketName, ObjectKey};
use bedplate::sys::clock::Timestamp;

use super::history::{Call, CallId, VersionId};
use super::model::{Model, Place, Violation};

/// What a key shows: a version, or nothing.
pub(super) type Seen = Option<VersionId>;

/// What a key may show; none where that can be whatever was ever written.
pub(super) type May = Option<BTreeSet<Seen>>;

/// A snapshot (`BUCKET@NAME`) or a branch.
#[derive(Clone, Debug, Default)]
pub(super) struct Thing {
    /// Tells things apart that had the same name one after the other.
    pub made: u64,
    /// It is there for sure, unless it leaves.
    pub is_sure: bool,
    /// It may be gone: a removal has begun, or its time is over.
    pub is_leaving: bool,
    /// Somebody works on it, or did not hear how that ended: it is left alone until all is at rest.
    pub is_busy: bool,
    /// The earliest moment at which it may go by itself.
    pub expires: Option<Timestamp>,
    /// Branches that were begun from it, ever.
    pub branched: u64,
    /// The snapshot that a branch came from.
    pub origin: Option<BucketName>,
    pub content: BTreeMap<ObjectKey, May>,
    /// Keys that a branch may have rows of its own of.
    pub own: BTreeSet<ObjectKey>,
    /// Keys that were put into a branch for sure.
    pub written: BTreeSet<ObjectKey>,
}

impl Thing {
    /// Whether it can be worked with.
    pub(super) fn is_steady(&self) -> bool {
        self.is_sure && !self.is_leaving && !self.is_busy
    }

    /// What each key shows, where all of it is known.
    pub(super) fn known(&self) -> Option<BTreeMap<ObjectKey, VersionId>> {
        let mut known = BTreeMap::new();
        for (key, may) in &self.content {
            let may = may.as_ref().filter(|may| may.len() == 1)?;
            known.extend(may.iter().next()?.clone().map(|id| (key.clone(), id)));
        }
        Some(known)
    }

    /// Each key may show nothing, too.
    pub(super) fn may_be_empty(&mut self) {
        self.content.values_mut().flatten().for_each(|may| may.extend([None]));
    }
}

/// The key of what is seen is as it may be; from here on it is that.
fn narrow(name: &BucketName, key: &ObjectKey, may: &mut May, seen: &Seen) -> Result<(), Violation> {
    match may {
        Some(may) if !may.contains(seen) => {
            Err(format!("{name}/{key} shows {seen:?}, and what it holds since it was made is {may:?}"))
        }
        may => {
            *may = Some(BTreeSet::from([seen.clone()]));
            Ok(())
        }
    }
}

/// All snapshots and branches that there may be; clones share it.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    things: Rc<RefCell<BTreeMap<BucketName, Thing>>>,
    /// Names of snapshots that are gone, and whose rows may still be.
    spent: Rc<RefCell<BTreeSet<BucketName>>>,
}

impl Shelf {
    pub(super) fn put(&self, name: &BucketName, thing: Thing) {
        self.things.borrow_mut().insert(name.clone(), thing);
    }

    pub(super) fn get(&self, name: &BucketName) -> Option<Thing> {
        self.things.borrow().get(name).cloned()
    }

    pub(super) fn change(&self, name: &BucketName, with: impl FnOnce(&mut Thing)) {
        if let Some(thing) = self.things.borrow_mut().get_mut(name) {
            with(thing);
        }
    }

    /// It is gone for good, and so is its name's row.
    pub(super) fn remove(&self, name: &BucketName) {
        self.things.borrow_mut().remove(name);
    }

    /// It is gone, and its name is not to be used again.
    pub(super) fn spend(&self, name: &BucketName) {
        self.remove(name);
        self.spent.borrow_mut().insert(name.clone());
    }

    /// Whether snapshots of the bucket have left that may not be swept.
    pub(super) fn has_spent(&self, bucket: &BucketName) -> bool {
        self.spent.borrow().iter().any(|name| name.base() == *bucket)
    }

    /// Names of all things that are so, in order.
    pub(super) fn all(&self, is_so: impl Fn(&BucketName, &Thing) -> bool) -> Vec<BucketName> {
        let things = self.things.borrow();
        things.iter().filter(|(name, thing)| is_so(name, thing)).map(|(name, _)| name.clone()).collect()
    }

    /// Snapshots that can be worked with.
    pub(super) fn snapshots(&self) -> Vec<BucketName> {
        self.all(|name, thing| name.is_snapshot() && thing.is_steady())
    }

    /// Branches that can be worked with.
    pub(super) fn branches(&self) -> Vec<BucketName> {
        self.all(|name, thing| !name.is_snapshot() && thing.is_steady())
    }

    /// Snapshots of a bucket.
    pub(super) fn of(&self, bucket: &BucketName) -> Vec<BucketName> {
        self.all(|name, _| name.is_snapshot() && name.base() == *bucket)
    }

    /// Branches of a snapshot that may be there.
    pub(super) fn from(&self, snapshot: &BucketName) -> Vec<BucketName> {
        self.all(|_, thing| thing.origin.as_ref() == Some(snapshot))
    }

    pub(super) fn names(&self) -> Vec<BucketName> {
        self.all(|_, _| true)
    }

    /// What has to go before a thing can: a snapshot's branches, or a branch's snapshots.
    pub(super) fn leaves(&self, name: &BucketName) -> Vec<BucketName> {
        if name.is_snapshot() { self.from(name) } else { self.of(name) }
    }

    /// A name for a snapshot of the bucket under which there is nothing; names come again.
    pub(super) fn free_name(&self, bucket: &BucketName) -> BucketName {
        let (things, spent) = (self.things.borrow(), self.spent.borrow());
        let names = (0..).map(|number| bucket.at(&format!("s{number}").parse().expect("a name")));
        let mut free = names.filter(|name| !things.contains_key(name) && !spent.contains(name));
        free.next().expect("numbers do not end")
    }

    /// Whether it is the same thing still, and nobody removes it.
    pub(super) fn is_still(&self, name: &BucketName, made: u64) -> bool {
        self.things.borrow().get(name).is_some_and(|thing| thing.made == made && !thing.is_leaving)
    }

    /// A key of a thing showed something; of one that is being removed nothing is asked.
    pub(super) fn saw(&self, name: &BucketName, made: u64, key: &ObjectKey, seen: &Seen) -> Result<(), Violation> {
        let mut things = self.things.borrow_mut();
        match things.get_mut(name) {
            Some(thing) if thing.made == made && !thing.is_leaving => {
                narrow(name, key, thing.content.entry(key.clone()).or_insert(Some(BTreeSet::from([None]))), seen)
            }
            _ => Ok(()),
        }
    }

    /// Nothing is under way any more.
    pub(super) fn settle(&self) {
        self.things.borrow_mut().values_mut().for_each(|thing| thing.is_busy = false);
    }
}

impl Model {
    /// The calls that see what a bucket holds at one moment from now on.
    pub(super) fn begin_views(&self, places: &[Place]) -> BTreeMap<ObjectKey, CallId> {
        places.iter().map(|place| (place.1.clone(), self.begin(place, Call::Read))).collect()
    }
}
