//! A client's snapshots: made, removed, and left to go by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{SnapshotInfo, StoreError};
use bedplate::sys::clock;

use super::client::Client;
use super::history::{CallId, End};
use super::model::{Place, Violation};
use super::scene::{Failed, chain};
use super::shelf::{May, Thing};

/// Snapshots of one bucket at a time.
const MOST: usize = 3;

impl Client {
    /// One call that has to do with snapshots or branches.
    pub(super) async fn snapshot(&mut self) -> Result<(), Violation> {
        match self.random.weighted(&[8, 8, 2, 3, 2, 2, 3, 6, 2]) {
            0 => self.create_snapshot().await,
            1 => self.read_snapshot().await,
            2 => self.list_snapshot().await,
            3 => self.diff().await,
            4 => self.restore().await,
            5 => self.remove_some_snapshot().await,
            6 => self.branch().await,
            7 => self.work_on_branch().await,
            _ => self.expire().await,
        }
    }

    pub(super) fn pick(&mut self, names: &[BucketName]) -> Option<BucketName> {
        (!names.is_empty()).then(|| self.random.pick(names).clone())
    }

    /// One of them, or none, and what is known of it.
    pub(super) fn some_snapshot(&mut self) -> Option<(BucketName, Thing)> {
        let name = self.pick(&self.shelf.snapshots())?;
        let thing = self.shelf.get(&name)?;
        Some((name, thing))
    }

    async fn create_snapshot(&mut self) -> Result<(), Violation> {
        let branch = if self.random.chance(250) { self.pick(&self.shelf.branches()) } else { None };
        let bucket = branch.clone().unwrap_or_else(|| self.place().0);
        if self.shelf.of(&bucket).len() >= MOST {
            return self.create_twice(&bucket).await;
        }
        let name = self.shelf.free_name(&bucket);
        let keep = self.random.chance(300).then(|| Duration::from_millis(self.random.spread(30_000)));
        self.note(&format!("snapshot {name}, keep {keep:?}"));
        let places: Vec<Place> = self.setup.places.iter().filter(|place| place.0 == bucket).cloned().collect();
        let calls = self.model.begin_views(&places);
        let held = branch.as_ref().and_then(|branch| self.shelf.get(branch)).map(|thing| thing.content);
        // Whoever hears nothing does not know whether it is there, nor at which moment it was made.
        let made = self.model.fresh();
        let expires = keep.map(|keep| clock::now().plus(keep));
        let keys = calls.keys().chain(held.iter().flat_map(|held| held.keys()));
        let content = keys.map(|key| (key.clone(), May::None)).collect();
        self.shelf.put(&name, Thing { made, is_busy: true, expires, content, ..Thing::default() });
        branch.iter().for_each(|branch| self.shelf.change(branch, |thing| thing.is_busy = true));
        let (store, (_, of_it)) = (self.store.clone(), name.snapshot().ok_or("it is a snapshot's name")?);
        let outcome = self.patient(store.create_snapshot(&bucket, &of_it, keep)).await;
        let info = match outcome {
            Some(Ok(info)) => info,
            outcome => {
                calls.iter().for_each(|(key, call)| self.model.forget(&(bucket.clone(), key.clone()), *call));
                if let Some(Err(error)) = outcome
                    && self.judge(&error)? == Failed::Harmless
                {
                    self.shelf.remove(&name);
                    branch.iter().for_each(|branch| self.shelf.change(branch, |thing| thing.is_busy = false));
                }
                return Ok(());
            }
        };
        self.count("snapshots made");
        self.note("    made");
        let mut content = held.unwrap_or_default();
        for (key, call) in &calls {
            content.insert(key.clone(), Some(self.model.happened(&(bucket.clone(), key.clone()), *call)?));
        }
        self.shelf.change(&name, |thing| {
            (thing.is_sure, thing.is_busy, thing.expires, thing.content) = (true, false, info.expires, content);
        });
        branch.iter().for_each(|branch| self.shelf.change(branch, |thing| thing.is_busy = false));
        self.look_through(&name, made, &info, calls).await
    }

    /// Looks at all that a new snapshot shows: what was possible while it was made, and the calls' histories agree on it.
    async fn look_through(
        &mut self,
        name: &BucketName,
        made: u64,
        info: &SnapshotInfo,
        calls: BTreeMap<ObjectKey, CallId>,
    ) -> Result<(), Violation> {
        if name.snapshot() != Some((info.bucket.clone(), info.name.clone())) || !info.branches.is_empty() {
            return Err(format!("{name} is made as {info:?}"));
        }
        for (key, call) in calls {
            let seen = self.glance(name, made, &key).await?;
            let place = (name.base(), key);
            match seen {
                Some(seen) if self.shelf.is_still(name, made) => self.model.end(&place, call, &End::Saw(seen))?,
                _ => self.model.forget(&place, call),
            }
        }
        Ok(())
    }

    /// A name that is taken is refused.
    async fn create_twice(&mut self, bucket: &BucketName) -> Result<(), Violation> {
        let of_it = self.shelf.of(bucket);
        let Some(name) = self.pick(&of_it) else { return Ok(()) };
        let Some(thing) = self.shelf.get(&name).filter(|thing| thing.is_steady() && thing.expires.is_none()) else {
            return Ok(());
        };
        let (store, (bucket, of_it)) = (self.store.clone(), name.snapshot().ok_or("it is a snapshot's name")?);
        self.shelf.change(&name, |thing| thing.is_busy = true);
        let outcome = self.patient(store.create_snapshot(&bucket, &of_it, None)).await;
        self.shelf.change(&name, |thing| thing.is_busy = false);
        match outcome {
            Some(Ok(_)) => Err(format!("{name} was made twice, first as {}", thing.made)),
            None | Some(Err(StoreError::SnapshotExists(_))) => Ok(()),
            Some(Err(error)) => self.judge(&error).map(drop),
        }
    }

    async fn remove_some_snapshot(&mut self) -> Result<(), Violation> {
        let Some((name, _)) = self.some_snapshot() else { return Ok(()) };
        self.remove_snapshot(&name).await
    }

    pub(super) async fn remove_snapshot(&mut self, name: &BucketName) -> Result<(), Violation> {
        self.note(&format!("remove {name}"));
        let before = self.shelf.from(name);
        self.shelf.change(name, |thing| (thing.is_busy, thing.is_leaving) = (true, true));
        let (store, (bucket, of_it)) = (self.store.clone(), name.snapshot().ok_or("it is a snapshot's name")?);
        let outcome = self.patient(store.remove_snapshot(&bucket, &of_it)).await;
        let branches: Vec<Thing> = self.shelf.from(name).iter().filter_map(|name| self.shelf.get(name)).collect();
        let thing = self.shelf.get(name).ok_or_else(|| format!("{name} is known until it is removed"))?;
        let is_over = thing.expires.is_some_and(|expires| expires <= clock::now());
        match outcome {
            None => Ok(()),
            Some(Ok(())) if branches.iter().any(|branch| branch.is_sure && !branch.is_leaving) => {
                Err(format!("{name} is removed, and there are branches of it"))
            }
            Some(Ok(())) => {
                self.shelf.remove(name);
                self.count("snapshots removed");
                Ok(())
            }
            Some(Err(StoreError::SnapshotInUse { .. })) if !before.is_empty() || !branches.is_empty() => {
                self.shelf.change(name, |thing| (thing.is_busy, thing.is_leaving) = (false, is_over));
                self.count("snapshots kept for branches");
                Ok(())
            }
            // Its time was over, and somebody has seen to that.
            Some(Err(StoreError::NoSuchSnapshot(_))) if is_over => Ok(()),
            // It may have left, and not been swept.
            Some(Err(error)) => self.judge(&error).map(drop),
        }
    }

    async fn expire(&mut self) -> Result<(), Violation> {
        let now = clock::now();
        let is_over = |thing: &Thing| thing.expires.is_some_and(|expires| expires <= now);
        let over = self.shelf.all(|_, thing| is_over(thing));
        self.note(&format!("expire {over:?}"));
        let must: Vec<(BucketName, Thing)> =
            over.iter().filter_map(|name| Some((name.clone(), self.shelf.get(name)?))).collect();
        let has_branches = |name: &BucketName| !self.shelf.from(name).is_empty();
        let must: Vec<_> = must.into_iter().filter(|(name, thing)| thing.is_steady() && !has_branches(name)).collect();
        over.iter().for_each(|name| self.shelf.change(name, |thing| thing.is_leaving = true));
        let store = self.store.clone();
        match self.patient(store.expire_snapshots(now)).await {
            None => return Ok(()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return self.judge(&error).map(drop),
        }
        for (name, before) in must {
            let after = self.shelf.get(&name);
            if after.is_some_and(|after| (after.made, after.branched) == (before.made, before.branched)) {
                // Another expiry may be at it: its row is gone for readers, and its name is free a little later.
                self.shelf.spend(&name);
                self.count("snapshots expired");
            }
        }
        Ok(())
    }

    /// Ends removals that were broken off, and nothing else.
    pub(super) async fn end_removals(&mut self) -> Result<(), Violation> {
        let store = self.store.clone();
        match self.patient(store.expire_snapshots(clock::Timestamp(0))).await {
            Some(Err(error)) => Err(format!("removals cannot be ended: {}", chain(&error))),
            _ => Ok(()),
        }
    }
}
