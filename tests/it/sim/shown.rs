//! What snapshots and branches show: by the heads of objects, their bytes, lists, comparisons and copies.

use std::collections::{BTreeMap, BTreeSet};

use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{ChangeKind, ListRequest, Precondition, StoreError};

use super::client::Client;
use super::history::{Call, Condition};
use super::model::{Place, Violation, id_of};
use super::setup::Promise;
use super::shelf::{Seen, Thing};

impl Client {
    /// What a key of a thing shows by its head; none where nobody heard.
    pub(super) async fn glance(
        &mut self,
        name: &BucketName,
        made: u64,
        key: &ObjectKey,
    ) -> Result<Option<Seen>, Violation> {
        let store = self.store.clone();
        let outcome = self.patient(store.head(name, key)).await;
        let Some(seen) = outcome.map(|outcome| outcome.map(Some)) else { return Ok(None) };
        let info = match seen {
            Ok(info) => info,
            Err(StoreError::NoSuchKey(_)) => None,
            Err(error) => return self.unless_gone(name, made, &error).map(|()| None),
        };
        let seen = match &info {
            Some(info) => {
                self.check_info(&(name.clone(), key.clone()), info)?;
                Some(id_of(info)?)
            }
            None => None,
        };
        self.shelf.saw(name, made, key, &seen)?;
        Ok(Some(seen))
    }

    /// A call on a thing failed: for a reason that the seed has, or because the thing is gone.
    pub(super) fn unless_gone(&self, name: &BucketName, made: u64, error: &StoreError) -> Result<(), Violation> {
        match error {
            StoreError::NoSuchSnapshot(_) | StoreError::NoSuchBucket(_) | StoreError::NoSuchKey(_)
                if !self.shelf.is_still(name, made) =>
            {
                Ok(())
            }
            error => self.judge(error).map(drop).map_err(|what| format!("{name}: {what}")),
        }
    }

    pub(super) async fn read_snapshot(&mut self) -> Result<(), Violation> {
        let Some((name, thing)) = self.some_snapshot() else { return Ok(()) };
        for _ in 0..self.random.between(1, 3) {
            let keys: Vec<ObjectKey> = thing.content.keys().cloned().collect();
            if keys.is_empty() {
                break;
            }
            let key = self.random.pick(&keys).clone();
            self.note(&format!("read {name}/{key}"));
            let slow = self.random.chance(60);
            self.read_shown(&name, thing.made, &key, slow).await?;
        }
        self.count("snapshots read");
        Ok(())
    }

    /// Reads all of an object that a thing shows. Whether it was refused for damage.
    pub(super) async fn read_shown(
        &mut self,
        name: &BucketName,
        made: u64,
        key: &ObjectKey,
        slow: bool,
    ) -> Result<bool, Violation> {
        let place = (name.clone(), key.clone());
        let store = self.store.clone();
        let (info, stream) = match self.patient(store.get(name, key, None)).await {
            None => return Ok(false),
            Some(Ok(found)) => found,
            Some(Err(StoreError::NoSuchKey(_))) => {
                return self.shelf.saw(name, made, key, &None).map(|()| false);
            }
            Some(Err(error)) => {
                self.unless_gone(name, made, &error)?;
                return Ok(matches!(error, StoreError::Corrupt { .. }));
            }
        };
        self.check_info(&place, &info)?;
        let id = id_of(&info)?;
        self.shelf.saw(name, made, key, &Some(id.clone()))?;
        let content = self.model.find(&id)?.content;
        Ok(!self.compare(&place, stream, &content, slow).await?)
    }

    pub(super) async fn list_snapshot(&mut self) -> Result<(), Violation> {
        let Some((name, thing)) = self.some_snapshot() else { return Ok(()) };
        self.note(&format!("list {name}"));
        self.list_shown(&name, &thing).await
    }

    /// Lists a thing page by page: each key that it has, and no other.
    pub(super) async fn list_shown(&mut self, name: &BucketName, thing: &Thing) -> Result<(), Violation> {
        let limit = self.random.between(1, 5) as usize;
        let mut request = ListRequest { limit, ..ListRequest::default() };
        let mut listed: BTreeMap<ObjectKey, Seen> = BTreeMap::new();
        loop {
            let store = self.store.clone();
            let page = match self.patient(store.list(name, &request)).await {
                None => return Ok(()),
                Some(Ok(page)) => page,
                Some(Err(error)) => return self.unless_gone(name, thing.made, &error),
            };
            for info in page.objects {
                self.check_info(&(name.clone(), info.key.clone()), &info)?;
                listed.insert(info.key.clone(), Some(id_of(&info)?));
            }
            match page.next {
                Some(next) => request.start_after = Some(next),
                None => break,
            }
        }
        let keys: BTreeSet<ObjectKey> = thing.content.keys().chain(listed.keys()).cloned().collect();
        for key in keys {
            self.shelf.saw(name, thing.made, &key, listed.get(&key).unwrap_or(&None))?;
        }
        self.count("snapshots listed");
        Ok(())
    }

    pub(super) async fn diff(&mut self) -> Result<(), Violation> {
        let (Some((one, from)), Some((other, to))) = (self.some_snapshot(), self.some_snapshot()) else {
            return Ok(());
        };
        let (Some(before), Some(after)) = (from.known(), to.known()) else { return Ok(()) };
        self.note(&format!("diff {one} {other}"));
        let store = self.store.clone();
        let diff = match self.patient(store.snapshot_diff(&one, &other, 1000)).await {
            None => return Ok(()),
            Some(Ok(diff)) => diff,
            Some(Err(error)) if self.shelf.is_still(&one, from.made) => {
                return self.unless_gone(&other, to.made, &error);
            }
            Some(Err(error)) => return self.unless_gone(&one, from.made, &error),
        };
        if !self.shelf.is_still(&one, from.made) || !self.shelf.is_still(&other, to.made) {
            return Ok(());
        }
        let keys: BTreeSet<&ObjectKey> = before.keys().chain(after.keys()).collect();
        let wanted = keys.into_iter().filter_map(|key| match (before.get(key), after.get(key)) {
            (Some(one), Some(other)) => (one != other).then(|| (ChangeKind::Changed, key.clone())),
            (Some(_), None) => Some((ChangeKind::Removed, key.clone())),
            _ => Some((ChangeKind::Added, key.clone())),
        });
        let found = diff.changes.iter().map(|change| (change.kind, change.key.clone()));
        if !found.eq(wanted) || diff.added + diff.changed + diff.removed != diff.changes.len() as u64 {
            return Err(format!("from {one} with {before:?} to {other} with {after:?} it tells {diff:?}"));
        }
        self.count("snapshots compared");
        Ok(())
    }

    /// Copies an object out of a snapshot.
    pub(super) async fn restore(&mut self) -> Result<(), Violation> {
        let Some((name, thing)) = self.some_snapshot() else { return Ok(()) };
        let known: Vec<_> = thing.known().unwrap_or_default().into_iter().collect();
        if known.is_empty() {
            return Ok(());
        }
        let ((key, id), to) = (self.random.pick(&known).clone(), self.place());
        self.note(&format!("restore {name}/{key} to {}/{}", to.0, to.1));
        let call = self.model.begin(&to, Call::Write(vec![id], Condition::None));
        let store = self.store.clone();
        let none = Precondition::default();
        let copied = store.copy((&name, &key), (&to.0, &to.1), None, &none);
        match self.patient(copied).await {
            None => Ok(()),
            Some(Err(error @ (StoreError::NoSuchKey(_) | StoreError::NoSuchSnapshot(_)))) => {
                self.unless_gone(&name, thing.made, &error)?;
                self.model.nothing_happened(&to, call)
            }
            Some(outcome) => {
                self.count("restored");
                self.wrote(&to, call, outcome)
            }
        }
    }

    /// Whether a refusal of damage has no cause among the object's own chunks.
    pub(super) fn is_whole(&self, place: &Place) -> bool {
        self.setup.promise() == Promise::Damaged && self.harmed(place).is_empty()
    }
}
