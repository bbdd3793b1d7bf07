//! A client's branches: begun from a snapshot, written to, read and removed. One client at a time works on a branch.

use std::collections::BTreeSet;

use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{Precondition, StoreError};

use super::body::body;
use super::client::Client;
use super::history::VersionId;
use super::model::{AMENDED, Violation, WRITE, etag, request};
use super::scene::{Failed, chain};
use super::shelf::{May, Seen, Thing};

/// Branches at a time.
const MOST: usize = 3;

impl Client {
    pub(super) async fn branch(&mut self) -> Result<(), Violation> {
        if self.shelf.all(|name, _| !name.is_snapshot()).len() >= MOST {
            return self.work_on_branch().await;
        }
        let Some(name) = self.pick(&self.shelf.snapshots()) else { return Ok(()) };
        let Some(thing) = self.shelf.get(&name) else { return Ok(()) };
        let made = self.model.fresh();
        let branch: BucketName = format!("branch-{made}").parse().map_err(|error| format!("{error}"))?;
        self.note(&format!("branch {name} to {branch}"));
        self.shelf.change(&name, |thing| thing.branched += 1);
        let (origin, content) = (Some(name.clone()), thing.content);
        self.shelf.put(&branch, Thing { made, is_busy: true, origin, content, ..Thing::default() });
        let (store, (bucket, of_it)) = (self.store.clone(), name.snapshot().ok_or("it is a snapshot's name")?);
        match self.patient(store.branch_snapshot(&bucket, &of_it, &branch)).await {
            None => Ok(()),
            Some(Ok(_)) if self.shelf.get(&name).is_none_or(|now| now.made != thing.made) => {
                Err(format!("{branch} was begun from {name}, which was removed"))
            }
            Some(Ok(_)) => {
                self.shelf.change(&branch, |thing| (thing.is_sure, thing.is_busy) = (true, false));
                self.count("branches made");
                Ok(())
            }
            Some(Err(StoreError::NoSuchSnapshot(_))) if !self.shelf.is_still(&name, thing.made) => {
                self.shelf.remove(&branch);
                Ok(())
            }
            Some(Err(error)) => {
                if self.judge(&error)? == Failed::Harmless {
                    self.shelf.remove(&branch);
                }
                Ok(())
            }
        }
    }

    pub(super) async fn work_on_branch(&mut self) -> Result<(), Violation> {
        let Some(name) = self.pick(&self.shelf.branches()) else { return Ok(()) };
        self.shelf.change(&name, |thing| thing.is_busy = true);
        let key = self.place().1;
        let is_heard = match self.random.weighted(&[5, 2, 4, 2, 2, 2]) {
            0 => self.put_in_branch(&name, key).await?,
            1 => self.delete_in_branch(&name, key).await?,
            2 => self.read_branch(&name, key).await?,
            3 => self.rename_in_branch(&name).await?,
            4 => self.amend_in_branch(&name).await?,
            _ => {
                let empties = self.random.chance(700);
                self.remove_branch(&name, empties).await?
            }
        };
        if is_heard {
            self.shelf.change(&name, |thing| thing.is_busy = false);
        }
        Ok(())
    }

    async fn read_branch(&mut self, name: &BucketName, key: ObjectKey) -> Result<bool, Violation> {
        let Some(thing) = self.shelf.get(name) else { return Ok(true) };
        self.note(&format!("read {name}/{key}"));
        self.read_shown(name, thing.made, &key, false).await?;
        if self.random.chance(300) {
            self.list_shown(name, &thing).await?;
        }
        Ok(true)
    }

    /// From now on the key may show this too. Answers what it may have shown before.
    fn may_write(&self, name: &BucketName, key: &ObjectKey, seen: &Seen) -> May {
        let mut before = None;
        self.shelf.change(name, |thing| {
            thing.own.insert(key.clone());
            let may = thing.content.entry(key.clone()).or_insert_with(|| Some(BTreeSet::from([None])));
            before = may.clone();
            may.iter_mut().for_each(|may| may.extend([seen.clone()]));
        });
        before
    }

    fn now_shows(&self, name: &BucketName, key: &ObjectKey, may: May) {
        self.shelf.change(name, |thing| drop(thing.content.insert(key.clone(), may)));
    }

    /// Whether it is known how it ended.
    async fn put_in_branch(&mut self, name: &BucketName, key: ObjectKey) -> Result<bool, Violation> {
        let (write, content) = (self.model.fresh(), self.contents.borrow_mut().next());
        let id = self.model.version(write, content.clone(), etag(&content), None);
        self.note(&format!("put {name}/{key} {} bytes, write {write}", content.len()));
        let before = self.may_write(name, &key, &Some(id.clone()));
        let body = body(&content, None, &mut self.random);
        let store = self.store.clone();
        match self.patient(store.put(name, &key, body, request(write))).await {
            None => Ok(false),
            Some(Ok(info)) => {
                self.check_info(&(name.clone(), key.clone()), &info)?;
                self.wrote_in_branch(name, key, id);
                Ok(true)
            }
            Some(Err(error)) if self.is_refused_for_damage(&error) => {
                Err(format!("{name}/{key}: it is not stored, because others are damaged: {}", chain(&error)))
            }
            Some(Err(error)) => self.did_not_write(name, [(&key, before)], &error),
        }
    }

    /// A branch shows a write that was acknowledged, and is not what its snapshot was.
    fn wrote_in_branch(&mut self, name: &BucketName, key: ObjectKey, id: VersionId) {
        self.now_shows(name, &key, Some(BTreeSet::from([Some(id)])));
        self.shelf.change(name, |thing| thing.written.extend([key]));
        self.count("branches written");
    }

    /// One of the objects that a branch has for sure.
    fn some_object(&mut self, name: &BucketName) -> Option<(ObjectKey, VersionId)> {
        let known: Vec<_> = self.shelf.get(name)?.known()?.into_iter().collect();
        (!known.is_empty()).then(|| self.random.pick(&known).clone())
    }

    /// Whether it is known how it ended.
    async fn rename_in_branch(&mut self, name: &BucketName) -> Result<bool, Violation> {
        let (Some((from, id)), to) = (self.some_object(name), self.place().1) else { return Ok(true) };
        if from == to {
            return Ok(true);
        }
        self.note(&format!("rename {name}/{from} to {to}"));
        let before = [(&from, self.may_write(name, &from, &None)), (&to, self.may_write(name, &to, &Some(id.clone())))];
        let (store, none) = (self.store.clone(), Precondition::default());
        match self.patient(store.rename(name, &from, &to, |_| Ok(()), &none)).await {
            None => Ok(false),
            Some(Ok(_)) => {
                self.now_shows(name, &from, Some(BTreeSet::from([None])));
                self.wrote_in_branch(name, to, id);
                Ok(true)
            }
            Some(Err(error)) => self.did_not_write(name, before, &error),
        }
    }

    /// Changes an object's headers. Whether it is known how it ended.
    async fn amend_in_branch(&mut self, name: &BucketName) -> Result<bool, Violation> {
        let Some((key, id)) = self.some_object(name) else { return Ok(true) };
        let (write, old) = (self.model.fresh(), self.model.find(&id)?);
        let id = self.model.version(write, (*old.content).clone(), old.etag, old.parts);
        self.note(&format!("amend {name}/{key}, write {write}"));
        let before = self.may_write(name, &key, &Some(id.clone()));
        let store = self.store.clone();
        let amended = store.amend(name, &key, None, |headers| {
            headers.extend([(WRITE.to_owned(), write.to_string()), (AMENDED.to_owned(), "yes".to_owned())]);
            Ok(())
        });
        match self.patient(amended).await {
            None => Ok(false),
            Some(Ok(info)) => {
                self.check_info(&(name.clone(), key.clone()), &info)?;
                self.wrote_in_branch(name, key, id);
                Ok(true)
            }
            Some(Err(error)) => self.did_not_write(name, [(&key, before)], &error),
        }
    }

    /// A write failed: where that changed nothing, its keys show what they did. Whether that is known.
    fn did_not_write<'a>(
        &self,
        name: &BucketName,
        before: impl IntoIterator<Item = (&'a ObjectKey, May)>,
        error: &StoreError,
    ) -> Result<bool, Violation> {
        let is_heard = self.judge(error)? == Failed::Harmless;
        for (key, may) in before.into_iter().filter(|_| is_heard) {
            self.now_shows(name, key, may);
        }
        Ok(is_heard)
    }

    /// Whether it is known how it ended.
    async fn delete_in_branch(&mut self, name: &BucketName, key: ObjectKey) -> Result<bool, Violation> {
        self.note(&format!("delete {name}/{key}"));
        let before = self.may_write(name, &key, &None);
        let store = self.store.clone();
        match self.patient(store.delete(name, &key)).await {
            None => Ok(false),
            Some(Ok(existed)) => {
                let is_so = before.is_none_or(|may| may.iter().any(|seen| seen.is_some() == existed));
                self.now_shows(name, &key, Some(BTreeSet::from([None])));
                if is_so { Ok(true) } else { Err(format!("{name}/{key} is deleted, and existed: {existed}")) }
            }
            Some(Err(error)) => self.did_not_write(name, [(&key, before)], &error),
        }
    }

    /// Removes a branch, whose own objects it deletes before or not. Whether it is known how it ended.
    pub(super) async fn remove_branch(&mut self, name: &BucketName, empties: bool) -> Result<bool, Violation> {
        self.note(&format!("remove {name}, emptied {empties}"));
        let Some(thing) = self.shelf.get(name) else { return Ok(true) };
        for key in thing.own.iter().filter(|_| empties) {
            if !self.delete_in_branch(name, key.clone()).await? {
                return Ok(false);
            }
        }
        let Some(thing) = self.shelf.get(name) else { return Ok(true) };
        let shows = |key: &ObjectKey, is_so: fn(&BTreeSet<Seen>) -> bool, otherwise: bool| {
            thing.content.get(key).is_some_and(|may| may.as_ref().map_or(otherwise, is_so))
        };
        let may_be_full = thing.own.iter().any(|key| shows(key, |may| may.iter().any(Option::is_some), true));
        let is_full = thing.written.iter().any(|key| shows(key, |may| !may.contains(&None), false));
        self.shelf.change(name, |thing| {
            thing.is_leaving = true;
            thing.may_be_empty();
        });
        let store = self.store.clone();
        let outcome = self.patient(store.delete_bucket(name)).await;
        let snapshots: Vec<Thing> = self.shelf.of(name).iter().filter_map(|name| self.shelf.get(name)).collect();
        let has_snapshots = !snapshots.is_empty() || self.shelf.has_spent(name);
        match outcome {
            None => Ok(false),
            Some(Ok(())) if is_full || snapshots.iter().any(|of_it| of_it.is_sure && !of_it.is_leaving) => {
                Err(format!("{name} is removed, and is {thing:?} with snapshots {snapshots:?}"))
            }
            Some(Ok(())) => {
                self.shelf.remove(name);
                self.count("branches removed");
                Ok(true)
            }
            // The mark that it is being deleted may not have come off again, where the disk fails.
            Some(Err(StoreError::BucketNotEmpty(_))) if may_be_full && self.setup.faults.meta_errors > 0 => Ok(false),
            Some(Err(StoreError::BucketNotEmpty(_))) if may_be_full && self.setup.faults.full > 0 => Ok(false),
            Some(Err(StoreError::BucketNotEmpty(_))) if may_be_full => self.stays(name, thing),
            Some(Err(StoreError::HasSnapshots(_) | StoreError::Busy)) if has_snapshots => self.stays(name, thing),
            Some(Err(error)) => self.judge(&error).map(|_| false),
        }
    }

    /// The branch was not removed.
    fn stays(&self, name: &BucketName, before: Thing) -> Result<bool, Violation> {
        self.count("branches not empty");
        self.shelf.put(name, before);
        Ok(true)
    }
}
