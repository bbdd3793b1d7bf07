//! A client: it calls the store as its seed has it, and tells the model how each call began and ended.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use bedplate::model::{ByteRange, ObjectKey};
use bedplate::store::{ByteStream, ListRequest, ObjectInfo, Precondition, Store, StoreError};
use futures_util::StreamExt as _;

use super::body::{Flaw, body};
use super::history::{Call, CallId, Condition, End};
use super::model::{Place, Violation, etag, id_of, request};
use super::random::Random;
use super::scene::{Failed, Scene, chain};

/// One client in one life of the machine.
pub(super) struct Client {
    pub number: u64,
    pub scene: Scene,
    pub store: Store,
    pub random: Random,
}

impl Deref for Client {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl Client {
    /// Makes all calls of this life.
    pub(super) async fn run(mut self) -> Result<(), Violation> {
        for _ in 0..self.setup.turns {
            if self.random.chance(400) {
                tokio::time::sleep(Duration::from_millis(self.random.spread(200))).await;
            }
            let snapshots = self.setup.snapshots;
            if snapshots > 0 && self.random.chance(snapshots) {
                self.snapshot().await?;
                continue;
            }
            let habits = self.setup.habits;
            match self.random.weighted(&habits) {
                0 => self.put().await?,
                1 => self.read().await?,
                2 => self.head().await?,
                3 => self.delete().await?,
                4 => self.copy().await?,
                5 => self.list().await?,
                _ => self.upload().await?,
            }
        }
        Ok(())
    }

    pub(super) fn note(&self, text: &str) {
        self.world.note(format!("client {}: {text}", self.number));
    }

    pub(super) fn place(&mut self) -> Place {
        let setup = self.setup.clone();
        self.random.pick(&setup.places).clone()
    }

    /// Waits for a call, or gives it up; none when it was given up. After a power cut nobody hears anything.
    pub(super) async fn patient<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        let impatience = self.setup.impatience;
        let ended = if self.random.chance(impatience) {
            let limit = Duration::from_millis(self.random.spread(300));
            tokio::time::timeout(limit, call).await.ok()
        } else {
            Some(call.await)
        };
        if self.world.is_cut() {
            std::future::pending::<()>().await;
        }
        if ended.is_none() {
            self.note("    gave up");
            self.count("given up");
        }
        ended
    }

    /// A call on one key failed.
    pub(super) fn failed(&self, place: &Place, call: CallId, error: &StoreError) -> Result<(), Violation> {
        match self.judge(error)? {
            Failed::Harmless => self.model.nothing_happened(place, call),
            Failed::Unknown => Ok(()),
        }
    }

    /// A condition that may hold.
    pub(super) fn condition(&mut self, place: &Place) -> (Condition, Precondition) {
        match self.random.below(10) {
            0 => {
                let none = Precondition { if_none_match_any: true, ..Precondition::default() };
                (Condition::Absent, none)
            }
            1 => (Condition::Present, Precondition { if_match: Some("*".into()), ..Precondition::default() }),
            2 => match self.model.possible(place).into_iter().flatten().next() {
                Some((_, etag)) => {
                    let wanted = Precondition { if_match: Some(etag.clone()), ..Precondition::default() };
                    (Condition::Etag(etag), wanted)
                }
                None => (Condition::None, Precondition::default()),
            },
            _ => (Condition::None, Precondition::default()),
        }
    }

    async fn put(&mut self) -> Result<(), Violation> {
        let place = self.place();
        let content = self.contents.borrow_mut().next();
        let write = self.model.fresh();
        let (condition, precondition) = self.condition(&place);
        let version = self.model.version(write, content.clone(), etag(&content), None);
        let mut wanted = request(write);
        wanted.precondition = precondition;
        let flaws = self.setup.flaws;
        let flaw = self.random.chance(flaws).then(|| Flaw::of(&mut self.random));
        if let Some(flaw) = flaw {
            flaw.announce(&mut wanted, &content);
        }
        self.note(&format!(
            "put {}/{} {} bytes, write {write}, {condition:?}, {flaw:?}",
            place.0,
            place.1,
            content.len()
        ));
        let call = self.model.begin(&place, Call::Write(vec![version.clone()], condition));
        let distrusted = self.distrusted();
        let body = body(&content, flaw, &mut self.random);
        let store = self.store.clone();
        let Some(outcome) = self.patient(store.put(&place.0, &place.1, body, wanted)).await else { return Ok(()) };
        match (outcome, flaw) {
            (Ok(_), Some(flaw)) => Err(format!("{}/{}: a body that {flaw:?} was stored", place.0, place.1)),
            (Err(error), Some(flaw)) if flaw.is_named_by(&error) => {
                self.count("flawed body refused");
                self.model.nothing_happened(&place, call)
            }
            (Err(error), _) if self.is_refused_for_damage(&error) => {
                Err(format!("{}/{}: it is not stored, because others are damaged: {}", place.0, place.1, chain(&error)))
            }
            (outcome, _) => {
                let is_stored = outcome.is_ok();
                self.wrote(&place, call, outcome)?;
                if is_stored { self.check_trust(&place, write, &distrusted) } else { Ok(()) }
            }
        }
    }

    /// A write ended.
    pub(super) fn wrote(
        &self,
        place: &Place,
        call: CallId,
        outcome: Result<ObjectInfo, StoreError>,
    ) -> Result<(), Violation> {
        match outcome {
            Ok(info) => {
                self.check_info(place, &info)?;
                self.count("written");
                self.note("    written");
                self.model.end(place, call, &End::Wrote(id_of(&info)?))
            }
            Err(StoreError::PreconditionFailed) => {
                self.count("refused by its condition");
                self.model.end(place, call, &End::Refused)
            }
            Err(StoreError::NoSuchKey(_)) => self.model.end(place, call, &End::RefusedAbsent),
            Err(error) => self.failed(place, call, &error),
        }
    }

    /// What the store says of an object must be so of the version that it says it is.
    pub(super) fn check_info(&self, place: &Place, info: &ObjectInfo) -> Result<(), Violation> {
        let version = self.model.find(&id_of(info)?)?;
        if info.key != place.1 || info.size != version.content.len() as u64 || info.parts != version.parts {
            return Err(format!("{}/{}: {info:?} is not what was written", place.0, place.1));
        }
        Ok(())
    }

    async fn head(&mut self) -> Result<(), Violation> {
        let place = self.place();
        let call = self.model.begin(&place, Call::Read);
        let store = self.store.clone();
        let outcome = self.patient(store.head(&place.0, &place.1)).await;
        match outcome {
            None => self.model.nothing_happened(&place, call),
            Some(Ok(info)) => {
                self.check_info(&place, &info)?;
                self.model.end(&place, call, &End::Saw(Some(id_of(&info)?)))
            }
            Some(Err(StoreError::NoSuchKey(_))) => self.model.end(&place, call, &End::Saw(None)),
            Some(Err(error)) => {
                self.judge(&error)?;
                self.model.nothing_happened(&place, call)
            }
        }
    }

    /// Reads an object, or a range of it, now and then so slowly that much else happens meanwhile.
    async fn read(&mut self) -> Result<(), Violation> {
        let place = self.place();
        let range = match self.model.possible(&place).into_iter().flatten().next() {
            Some(id) if self.random.chance(500) => {
                let size = self.model.find(&id)?.content.len() as u64;
                let start = self.random.below(size + 1);
                Some(ByteRange { start, end: start + self.random.below(size - start + 1) })
            }
            _ => None,
        };
        self.note(&format!("read {}/{} {range:?}", place.0, place.1));
        let call = self.model.begin(&place, Call::Read);
        let store = self.store.clone();
        let Some(outcome) = self.patient(store.get(&place.0, &place.1, range)).await else {
            return self.model.nothing_happened(&place, call);
        };
        let (info, stream) = match outcome {
            Ok(found) => found,
            Err(StoreError::NoSuchKey(_)) => return self.model.end(&place, call, &End::Saw(None)),
            Err(StoreError::InvalidRange { .. }) if range.is_some() => {
                return self.model.nothing_happened(&place, call);
            }
            Err(error) => {
                self.judge(&error)?;
                return self.model.nothing_happened(&place, call);
            }
        };
        self.check_info(&place, &info)?;
        let id = id_of(&info)?;
        self.model.end(&place, call, &End::Saw(Some(id.clone())))?;
        let content = self.model.find(&id)?.content;
        let range = range.unwrap_or(ByteRange { start: 0, end: content.len() as u64 });
        let slow = self.random.chance(100);
        self.compare(&place, stream, &content[range.start as usize..range.end as usize], slow).await.map(drop)
    }

    /// The stream must give these bytes, or an error that is explained. Whether it gave them.
    pub(super) async fn compare(
        &mut self,
        place: &Place,
        mut stream: ByteStream,
        wanted: &[u8],
        slow: bool,
    ) -> Result<bool, Violation> {
        let mut at = 0;
        loop {
            let Some(piece) = self.patient(stream.next()).await else { return Ok(false) };
            match piece {
                None if at == wanted.len() => {
                    self.count("read");
                    return Ok(true);
                }
                None => return Err(format!("{}/{}: it ends after {at} of {} bytes", place.0, place.1, wanted.len())),
                Some(Ok(bytes)) if wanted[at..].starts_with(&bytes) => at += bytes.len(),
                Some(Ok(bytes)) => {
                    let what = format!("{} bytes after {at} of {} are other bytes", bytes.len(), wanted.len());
                    return Err(format!("{}/{}: {what}", place.0, place.1));
                }
                Some(Err(error)) => match error.downcast_ref::<StoreError>() {
                    Some(error) => return self.judge(error).map(|_| false),
                    None => {
                        return Err(format!(
                            "{}/{}: a stream's error is none of the store's: {error}",
                            place.0, place.1
                        ));
                    }
                },
            }
            if slow {
                tokio::time::sleep(Duration::from_millis(self.random.spread(120_000))).await;
            }
        }
    }

    async fn delete(&mut self) -> Result<(), Violation> {
        let place = self.place();
        self.delete_one(&place).await
    }

    /// Deletes an object, or finds none.
    pub(super) async fn delete_one(&mut self, place: &Place) -> Result<(), Violation> {
        self.note(&format!("delete {}/{}", place.0, place.1));
        let call = self.model.begin(place, Call::Delete);
        let store = self.store.clone();
        let Some(outcome) = self.patient(store.delete(&place.0, &place.1)).await else { return Ok(()) };
        match outcome {
            Ok(was_there) => {
                self.count("deleted");
                self.note(&format!("    deleted: {was_there}"));
                self.model.end(place, call, &End::Deleted(was_there))
            }
            Err(error) => self.failed(place, call, &error),
        }
    }

    async fn copy(&mut self) -> Result<(), Violation> {
        let (from, to) = (self.place(), self.place());
        let write = if self.random.chance(500) { self.model.fresh() } else { 0 };
        let replace = (write > 0).then(|| request(write));
        let (condition, precondition) = self.condition(&to);
        let asks = matches!(condition, Condition::Present | Condition::Etag(_));
        self.note(&format!("copy {}/{} to {}/{}, write {write}, {condition:?}", from.0, from.1, to.0, to.1));
        let seen = self.model.begin(&from, Call::Read);
        let call = self.model.begin_copy(&from, &to, write, condition);
        let store = self.store.clone();
        let copied = store.copy((&from.0, &from.1), (&to.0, &to.1), replace, &precondition);
        let outcome = self.patient(copied).await;
        match &outcome {
            Some(Ok(info)) if write == 0 => self.model.end(&from, seen, &End::Saw(Some(id_of(info)?)))?,
            Some(Err(StoreError::NoSuchKey(_))) if !asks => {
                self.model.end(&from, seen, &End::Saw(None))?;
                return self.model.nothing_happened(&to, call);
            }
            _ => self.model.nothing_happened(&from, seen)?,
        }
        match outcome {
            None => Ok(()),
            // Its source may have been the one that was missing.
            Some(Err(StoreError::NoSuchKey(_))) => self.model.nothing_happened(&to, call),
            Some(outcome) => self.wrote(&to, call, outcome),
        }
    }

    async fn list(&mut self) -> Result<(), Violation> {
        let (bucket, key) = self.place();
        let prefix = if self.random.chance(500) { key.as_str().split('/').next().unwrap_or_default() } else { "" };
        let places: Vec<Place> = self.setup.places.to_vec();
        let covered: Vec<Place> =
            places.into_iter().filter(|(of, key)| *of == bucket && key.as_str().starts_with(prefix)).collect();
        let calls: Vec<CallId> = covered.iter().map(|place| self.model.begin(place, Call::Read)).collect();
        let mut found: BTreeMap<ObjectKey, ObjectInfo> = BTreeMap::new();
        let mut request = ListRequest {
            prefix: prefix.to_owned(),
            delimiter: None,
            start_after: None,
            limit: self.random.between(1, 10) as usize,
        };
        loop {
            let store = self.store.clone();
            match self.patient(store.list(&bucket, &request)).await {
                Some(Ok(page)) => {
                    found.extend(page.objects.into_iter().map(|info| (info.key.clone(), info)));
                    match page.next {
                        Some(next) => request.start_after = Some(next),
                        None => break,
                    }
                }
                outcome => {
                    if let Some(Err(error)) = outcome {
                        self.judge(&error)?;
                    }
                    let mut each = covered.iter().zip(calls);
                    return each.try_for_each(|(place, call)| self.model.nothing_happened(place, call));
                }
            }
        }
        self.count("listed");
        for (place, call) in covered.iter().zip(calls) {
            let saw = match found.remove(&place.1) {
                Some(info) => {
                    self.check_info(place, &info)?;
                    Some(id_of(&info)?)
                }
                None => None,
            };
            self.model.end(place, call, &End::Saw(saw))?;
        }
        if found.is_empty() { Ok(()) } else { Err(format!("{bucket} lists what nobody put there: {:?}", found.keys())) }
    }
}
