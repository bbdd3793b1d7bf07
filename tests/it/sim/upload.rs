//! A client's multipart uploads: begun, filled, completed, aborted, left alone, and taken up again after a power cut.

use std::collections::BTreeMap;
use std::rc::Rc;

use bedplate::model::UploadId;
use bedplate::model::limit::PART_MIN;
use bedplate::store::{PutRequest, StoreError};
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::body::body;
use super::client::Client;
use super::history::Call;
use super::model::{Part, Upload, Violation, etag, request};
use super::scene::{Failed, chain};

impl Client {
    /// Works on an upload: an old one, or one that it begins.
    pub(super) async fn upload(&mut self) -> Result<(), Violation> {
        let idle = self.model.uploads(|uploads| {
            let idle = uploads.iter().filter(|(_, upload)| !upload.is_busy && !upload.is_doubtful);
            idle.map(|(id, _)| *id).collect::<Vec<_>>()
        });
        let id = if !idle.is_empty() && self.random.chance(500) {
            let id = *self.random.pick(&idle);
            self.change(id, |upload| upload.is_busy = true);
            Some(id)
        } else {
            self.begin_upload().await?
        };
        let Some(id) = id else { return Ok(()) };
        let is_known = self.known(id)?.write > 0;
        for _ in 0..self.random.below(4) {
            if is_known && !self.part(id).await? {
                return Ok(());
            }
        }
        match self.random.below(10) {
            0..6 if is_known => self.complete(id).await?,
            6..8 => self.abort(id).await?,
            _ => self.note("upload left alone"),
        }
        self.change(id, |upload| upload.is_busy = false);
        Ok(())
    }

    fn change(&self, id: UploadId, with: impl FnOnce(&mut Upload)) {
        self.model.uploads(|uploads| uploads.get_mut(&id).map(with));
    }

    fn known(&self, id: UploadId) -> Result<Upload, Violation> {
        self.model.uploads(|uploads| uploads.get(&id).cloned()).ok_or_else(|| format!("upload {id} is unknown"))
    }

    async fn begin_upload(&mut self) -> Result<Option<UploadId>, Violation> {
        let place = self.place();
        let write = self.model.fresh();
        self.note(&format!("upload of {}/{} begins, write {write}", place.0, place.1));
        let store = self.store.clone();
        // Until the call has ended well, there may be an upload whose id nobody knows.
        self.model.may_have_begun(&place, 1);
        match self.patient(store.create_upload(&place.0, &place.1, request(write))).await {
            Some(Ok(id)) => {
                self.model.may_have_begun(&place, -1);
                let upload = Upload { place, write, parts: BTreeMap::new(), is_doubtful: false, is_busy: true };
                self.model.uploads(|uploads| uploads.insert(id, upload));
                return Ok(Some(id));
            }
            Some(Err(error)) if self.judge(&error)? == Failed::Harmless => self.model.may_have_begun(&place, -1),
            _ => {}
        }
        Ok(None)
    }

    /// Uploads a part; false when the upload has to be left alone.
    async fn part(&mut self, id: UploadId) -> Result<bool, Violation> {
        let Upload { place, .. } = self.known(id)?;
        let number = *self.random.pick(&[1, 1, 2, 2, 3, 17]);
        let content = if self.random.chance(150) {
            self.contents.borrow_mut().long(PART_MIN)
        } else {
            self.contents.borrow_mut().next()
        };
        self.note(&format!("part {number} of {}/{} {} bytes", place.0, place.1, content.len()));
        let sum = etag(&content);
        let part: Part = Some((sum.clone(), Rc::new(content.clone())));
        // From here on until it ends, the number may hold the one or the other.
        let before = self.known(id)?.parts.get(&number).cloned().unwrap_or_else(|| vec![None]);
        let mut either = before.clone();
        either.push(part.clone());
        self.change(id, |upload| drop(upload.parts.insert(number, either)));
        let body = body(&content, None, &mut self.random);
        let store = self.store.clone();
        let put = store.put_part(&place.0, &place.1, &id, number, body, PutRequest::default());
        let held = match self.patient(put).await {
            Some(Ok(info)) if info.etag == sum && info.size == content.len() as u64 && info.number == number => {
                self.count("part written");
                vec![part]
            }
            Some(Ok(info)) => return Err(format!("{}/{}: {info:?} is not the part that was put", place.0, place.1)),
            Some(Err(error)) if self.is_refused_for_damage(&error) => {
                return Err(format!("a part is not stored, because others are damaged: {}", chain(&error)));
            }
            Some(Err(error)) => match self.judge(&error)? {
                Failed::Harmless => before,
                Failed::Unknown => return Ok(self.leave(id)),
            },
            None => return Ok(self.leave(id)),
        };
        self.change(id, |upload| drop(upload.parts.insert(number, held)));
        Ok(true)
    }

    fn leave(&self, id: UploadId) -> bool {
        self.change(id, |upload| upload.is_busy = false);
        false
    }

    async fn complete(&mut self, id: UploadId) -> Result<(), Violation> {
        let Upload { place, write, parts, .. } = self.known(id)?;
        let sure = parts.iter().filter_map(|(number, held)| match &held[..] {
            [Some((etag, content))] => Some((*number, etag.clone(), content.clone())),
            _ => None,
        });
        let mut chosen: Vec<(u32, String, Rc<Bytes>)> = sure.collect();
        chosen.retain(|_| self.random.chance(800));
        let small = chosen.iter().rev().skip(1).any(|(_, _, content)| (content.len() as u64) < PART_MIN);
        let mut named: Vec<(u32, String)> = chosen.iter().map(|(number, etag, _)| (*number, etag.clone())).collect();
        let spoils = self.random.chance(100) && !named.is_empty();
        if spoils {
            named[0].1 = "0".repeat(32);
        }
        let (condition, precondition) = self.condition(&place);
        let content: Vec<u8> = chosen.iter().map(|(_, _, content)| &content[..]).collect::<Vec<_>>().concat();
        let mut sums = Md5::new();
        chosen.iter().for_each(|(_, etag, _)| sums.update(hex::decode(etag).unwrap()));
        let sum = format!("{}-{}", hex::encode(sums.finalize()), chosen.len());
        let version = self.model.version(write, content.into(), sum, Some(chosen.len() as u32));
        self.note(&format!("upload of {}/{} completes, {} parts, {condition:?}", place.0, place.1, chosen.len()));
        let call = self.model.begin(&place, Call::Write(vec![version], condition));
        self.change(id, |upload| upload.is_doubtful = true);
        let store = self.store.clone();
        let completed = store.complete_upload(&place.0, &place.1, &id, &named, &precondition);
        let Some(outcome) = self.patient(completed).await else { return Ok(()) };
        match outcome {
            Ok(_) if small || spoils || chosen.is_empty() => {
                return Err(format!("{}/{}: a completion that is wrong was accepted", place.0, place.1));
            }
            Ok(info) => {
                self.count("completed");
                self.model.upload_ended(id);
                return self.wrote(&place, call, Ok(info));
            }
            Err(StoreError::InvalidPart { .. }) if spoils || chosen.is_empty() => {
                self.model.nothing_happened(&place, call)?;
            }
            Err(StoreError::EntityTooSmall { .. }) if small => self.model.nothing_happened(&place, call)?,
            Err(StoreError::Meta(error)) => return self.failed(&place, call, &StoreError::Meta(error)),
            Err(error) => self.wrote(&place, call, Err(error))?,
        }
        self.change(id, |upload| upload.is_doubtful = false);
        Ok(())
    }

    pub(super) async fn abort(&mut self, id: UploadId) -> Result<(), Violation> {
        let Upload { place, .. } = self.known(id)?;
        self.note(&format!("upload of {}/{} is aborted", place.0, place.1));
        self.change(id, |upload| upload.is_doubtful = true);
        let store = self.store.clone();
        match self.patient(store.abort_upload(&place.0, &place.1, &id)).await {
            Some(Ok(())) => {
                self.count("aborted");
                self.model.upload_ended(id);
            }
            Some(Err(error)) if self.judge(&error)? == Failed::Harmless => {
                self.change(id, |upload| upload.is_doubtful = false);
            }
            _ => {}
        }
        Ok(())
    }
}
