//! The check of all snapshots and branches while nobody works: those that must be there are, no other is, and each shows what it did.

use std::collections::BTreeSet;

use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{SnapshotInfo, StoreError};

use super::client::Client;
use super::ground::under;
use super::model::Violation;
use super::scene::chain;
use super::shelf::Thing;

impl Client {
    /// Checks all of them. Of one read in `permille` the bytes are compared too.
    pub(super) async fn audit_shelf(&mut self, permille: u64) -> Result<(), Violation> {
        self.shelf.settle();
        // Branches that a removal may have taken off their snapshots.
        let cut: BTreeSet<BucketName> =
            self.shelf.all(|name, thing| !name.is_snapshot() && thing.is_leaving).into_iter().collect();
        self.audit_branches().await?;
        let branches = self.shelf.branches();
        for bucket in self.setup.buckets().iter().chain(&branches) {
            self.audit_names(bucket, &cut).await?;
        }
        for (branch, origin) in self.origins(&cut) {
            if self.shelf.get(&origin).is_none() {
                return Err(format!("{branch} is there, and {origin} that it came from is not"));
            }
        }
        for name in self.shelf.all(|_, thing| thing.is_steady()) {
            if let Some(thing) = self.shelf.get(&name) {
                self.audit_thing(&name, &thing, permille).await?;
            }
        }
        Ok(())
    }

    /// Branches that are there for sure, with what they came from.
    fn origins(&self, but: &BTreeSet<BucketName>) -> Vec<(BucketName, BucketName)> {
        let there = self.shelf.branches().into_iter().filter(|name| !but.contains(name));
        there.filter_map(|name| Some((name.clone(), self.shelf.get(&name)?.origin?))).collect()
    }

    async fn audit_branches(&mut self) -> Result<(), Violation> {
        let store = self.store.clone();
        let listed = match self.patient(store.buckets()).await {
            Some(Ok(listed)) => listed,
            Some(Err(error)) => return Err(format!("the buckets cannot be listed: {}", chain(&error))),
            None => return Ok(()),
        };
        let listed: BTreeSet<BucketName> = listed.into_iter().map(|info| info.name).collect();
        let known = self.setup.buckets();
        let strange = |name: &&BucketName| !known.contains(name) && self.shelf.get(name).is_none();
        if let Some(name) = listed.iter().find(strange) {
            return Err(format!("the bucket {name} is there, and it was removed, or never made"));
        }
        for name in self.shelf.all(|name, _| !name.is_snapshot()) {
            let Some(thing) = self.shelf.get(&name) else { continue };
            let store = self.store.clone();
            match self.patient(store.bucket(&name)).await {
                Some(Ok(_)) => {
                    self.shelf.change(&name, |thing| (thing.is_sure, thing.is_leaving) = (true, false));
                }
                Some(Err(StoreError::NoSuchBucket(_))) if thing.is_sure && !thing.is_leaving => {
                    return Err(format!("the branch {name} is lost"));
                }
                // A removal that failed hides it until the next start.
                Some(Err(StoreError::NoSuchBucket(_))) if listed.contains(&name) => {
                    self.shelf.change(&name, |thing| (thing.is_busy, thing.is_leaving) = (true, true));
                }
                Some(Err(StoreError::NoSuchBucket(_))) => self.shelf.remove(&name),
                Some(Err(error)) => return Err(format!("{name}: {}", chain(&error))),
                None => {}
            }
        }
        Ok(())
    }

    /// The snapshots of a bucket by their names, and the branches of each.
    async fn audit_names(&mut self, bucket: &BucketName, cut: &BTreeSet<BucketName>) -> Result<(), Violation> {
        let store = self.store.clone();
        let infos = match self.patient(store.snapshots(bucket)).await {
            Some(Ok(infos)) => infos,
            Some(Err(error)) => return Err(format!("the snapshots of {bucket} cannot be listed: {}", chain(&error))),
            None => return Ok(()),
        };
        for name in self.shelf.of(bucket) {
            let Some(thing) = self.shelf.get(&name) else { continue };
            match infos.iter().find(|info| bucket.at(&info.name) == name) {
                Some(info) => self.audit_info(&name, info, cut)?,
                None if thing.is_sure && !thing.is_leaving => return Err(format!("the snapshot {name} is lost")),
                None => self.shelf.spend(&name),
            }
        }
        match infos.iter().find(|info| self.shelf.get(&bucket.at(&info.name)).is_none()) {
            Some(info) => Err(format!("{info:?} is there, and it was removed, or never made")),
            None => Ok(()),
        }
    }

    fn audit_info(&self, name: &BucketName, info: &SnapshotInfo, cut: &BTreeSet<BucketName>) -> Result<(), Violation> {
        self.shelf.change(name, |thing| {
            (thing.is_sure, thing.is_leaving, thing.expires) = (true, false, info.expires);
        });
        let known = self.shelf.from(name);
        if let Some(branch) = info.branches.iter().find(|branch| !known.contains(branch)) {
            return Err(format!("{name} has the branch {branch}, which is not there"));
        }
        for branch in known.iter().filter(|branch| !info.branches.contains(branch)) {
            if !cut.contains(branch) {
                return Err(format!("{name} does not know of its branch {branch}"));
            }
            self.shelf.change(branch, |thing| thing.origin = None);
        }
        Ok(())
    }

    async fn audit_thing(&mut self, name: &BucketName, thing: &Thing, permille: u64) -> Result<(), Violation> {
        let keys: Vec<ObjectKey> = thing.content.keys().cloned().collect();
        for key in keys {
            let seen = self.glance(name, thing.made, &key).await?;
            if !matches!(seen, Some(Some(_))) || !self.random.chance(permille) {
                continue;
            }
            let is_refused = self.read_shown(name, thing.made, &key, false).await?;
            if is_refused && self.is_whole(&(name.clone(), key.clone())) {
                return Err(format!("{name}/{key}: it is refused, and nothing of it is harmed"));
            }
        }
        self.list_shown(name, thing).await?;
        self.count(if name.is_snapshot() { "snapshots audited" } else { "branches audited" });
        Ok(())
    }

    /// Removes all snapshots and branches; false where one cannot be, because its removal failed before and hides it until the next start.
    pub(super) async fn clear_shelf(&mut self) -> Result<bool, Violation> {
        self.end_removals().await?;
        loop {
            let leaves = |name: &BucketName, thing: &Thing| thing.is_steady() && self.shelf.leaves(name).is_empty();
            let Some(name) = self
                .shelf
                .names()
                .into_iter()
                .find(|name| self.shelf.get(name).is_some_and(|thing| leaves(name, &thing)))
            else {
                break;
            };
            if name.is_snapshot() {
                self.remove_snapshot(&name).await?;
            } else {
                self.remove_branch(&name, true).await?;
            }
            if self.shelf.get(&name).is_some() {
                return Err(format!("{name} cannot be removed"));
            }
        }
        let left = self.shelf.names();
        let is_hidden = |name: &BucketName| self.shelf.get(name).is_some_and(|thing| thing.is_busy);
        if left.iter().any(is_hidden) {
            return Ok(false);
        }
        let rows = self.rows();
        match under(&rows, b"z/").chain(under(&rows, b"h/")).next() {
            None if left.is_empty() => Ok(true),
            row => Err(format!("without snapshots and branches there are {left:?} and the row {row:?}")),
        }
    }
}
