//! What the store must hold: the history of every key, every version that was ever written, and the open uploads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bedplate::model::{BucketName, ObjectKey, UploadId};
use bedplate::store::{ObjectInfo, PutRequest};
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::history::{Call, CallId, Condition, End, History, Impossible, Version, VersionId};

/// The header that names the write which an object came from.
pub(super) const WRITE: &str = "x-amz-meta-write";

/// The header of an object whose headers were changed after it was written: its content type is of the write before.
pub(super) const AMENDED: &str = "x-amz-meta-amended";

/// A bucket and a key in it.
pub(super) type Place = (BucketName, ObjectKey);

/// Something is not as the model says.
pub(super) type Violation = String;

/// What may be under a part's number: its entity tag and its bytes. None where there may be nothing.
pub(super) type Part = Option<(String, Rc<Bytes>)>;

/// An open upload.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub place: Place,
    pub write: u64,
    /// What each number may hold: more than one only after a call on it did not end.
    pub parts: BTreeMap<u32, Vec<Part>>,
    /// It may be gone: a completion or an abort of it did not end.
    pub is_doubtful: bool,
    /// A client works on it.
    pub is_busy: bool,
}

/// The model; clones share it.
#[derive(Clone, Default)]
pub(super) struct Model {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    histories: BTreeMap<Place, History>,
    versions: BTreeMap<VersionId, Version>,
    /// Copies under way: where they read.
    copies: BTreeMap<CallId, (Place, Place, u64)>,
    uploads: BTreeMap<UploadId, Upload>,
    ended_uploads: BTreeSet<UploadId>,
    /// Uploads whose begin did not end: as many may be there that nobody knows.
    unknown_uploads: BTreeMap<Place, i64>,
}

/// MD5 as an entity tag.
pub(super) fn etag(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

/// A request whose headers name the write.
pub(super) fn request(write: u64) -> PutRequest {
    PutRequest {
        content_type: Some(format!("application/x-{write}")),
        headers: BTreeMap::from([(WRITE.to_owned(), write.to_string())]),
        ..PutRequest::default()
    }
}

/// Which version an object says that it is.
pub(super) fn id_of(info: &ObjectInfo) -> Result<VersionId, Violation> {
    let write = info.headers.get(WRITE).and_then(|text| text.parse().ok());
    let write: u64 = write.ok_or_else(|| format!("{info:?} names no write"))?;
    let is_amended = info.headers.contains_key(AMENDED);
    if !is_amended && info.content_type.as_deref() != Some(format!("application/x-{write}").as_str()) {
        return Err(format!("{info:?} has the content type of another write"));
    }
    Ok((write, info.etag.clone()))
}

fn impossible(place: &Place) -> impl Fn(Impossible) -> Violation {
    move |impossible| format!("{}/{}: {impossible}", place.0, place.1)
}

impl Model {
    /// A number for a write.
    pub(super) fn fresh(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        inner.next += 1;
        inner.next
    }

    /// Makes known a version that may come to be.
    pub(super) fn version(&self, write: u64, content: Bytes, etag: String, parts: Option<u32>) -> VersionId {
        let version = Version { write, etag, content: Rc::new(content), parts };
        let id = version.id();
        self.inner.borrow_mut().versions.insert(id.clone(), version);
        id
    }

    pub(super) fn begin(&self, place: &Place, call: Call) -> CallId {
        let id = self.fresh();
        let mut inner = self.inner.borrow_mut();
        if let Call::Write(versions, _) = &call {
            for version in versions {
                inner.offer(place, version);
            }
        }
        inner.histories.entry(place.clone()).or_default().begin(id, call);
        id
    }

    /// Begins a copy: it may write any version that its source has from now on until it ends.
    pub(super) fn begin_copy(&self, from: &Place, to: &Place, write: u64, condition: Condition) -> CallId {
        let id = self.fresh();
        let mut inner = self.inner.borrow_mut();
        let sources = inner.histories.entry(from.clone()).or_default().possible();
        inner.histories.entry(to.clone()).or_default().begin(id, Call::Write(Vec::new(), condition));
        inner.copies.insert(id, (from.clone(), to.clone(), write));
        sources.iter().flatten().for_each(|source| inner.offer(from, source));
        id
    }

    pub(super) fn end(&self, place: &Place, id: CallId, end: &End) -> Result<(), Violation> {
        let mut inner = self.inner.borrow_mut();
        inner.copies.remove(&id);
        inner.histories.entry(place.clone()).or_default().end(id, end).map_err(impossible(place))
    }

    pub(super) fn nothing_happened(&self, place: &Place, id: CallId) -> Result<(), Violation> {
        let mut inner = self.inner.borrow_mut();
        inner.copies.remove(&id);
        inner.histories.entry(place.clone()).or_default().nothing_happened(id).map_err(impossible(place))
    }

    /// A read has taken effect: all that it can have seen.
    pub(super) fn happened(&self, place: &Place, id: CallId) -> Result<BTreeSet<Option<VersionId>>, Violation> {
        let mut inner = self.inner.borrow_mut();
        let seen = inner.histories.entry(place.clone()).or_default().happened(id);
        if seen.is_empty() { Err(format!("{}/{}: a read cannot have happened", place.0, place.1)) } else { Ok(seen) }
    }

    /// Nobody will hear what a read saw.
    pub(super) fn forget(&self, place: &Place, id: CallId) {
        self.inner.borrow_mut().histories.entry(place.clone()).or_default().forget(id);
    }

    /// Nothing is under way any more.
    pub(super) fn settle(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.copies.clear();
        inner.histories.values_mut().for_each(History::settle);
        inner.uploads.values_mut().for_each(|upload| upload.is_busy = false);
    }

    pub(super) fn find(&self, id: &VersionId) -> Result<Version, Violation> {
        let inner = self.inner.borrow();
        inner.versions.get(id).cloned().ok_or_else(|| format!("nobody ever wrote the version {id:?}"))
    }

    pub(super) fn possible(&self, place: &Place) -> Vec<Option<VersionId>> {
        self.inner.borrow().histories.get(place).map_or_else(|| vec![None], History::possible)
    }

    /// Calls `with` with all that is known of uploads.
    pub(super) fn uploads<T>(&self, with: impl FnOnce(&mut BTreeMap<UploadId, Upload>) -> T) -> T {
        with(&mut self.inner.borrow_mut().uploads)
    }

    /// The upload is gone for good.
    pub(super) fn upload_ended(&self, id: UploadId) {
        let mut inner = self.inner.borrow_mut();
        inner.uploads.remove(&id);
        inner.ended_uploads.insert(id);
    }

    /// How many more uploads there may be at the place whose ids nobody was told.
    pub(super) fn may_have_begun(&self, place: &Place, more: i64) {
        *self.inner.borrow_mut().unknown_uploads.entry(place.clone()).or_default() += more;
    }

    /// Compares the uploads that a bucket lists with those that it must have; answers those that nobody knew.
    pub(super) fn check_uploads(&self, bucket: &BucketName, listed: &[(ObjectKey, UploadId)]) -> Result<(), Violation> {
        let mut inner = self.inner.borrow_mut();
        for (key, id) in listed {
            if inner.ended_uploads.contains(id) {
                return Err(format!("upload {id} of {bucket}/{key} is there again, and it had ended"));
            }
            if let Some(upload) = inner.uploads.get_mut(id) {
                upload.is_doubtful = false;
                continue;
            }
            let place = (bucket.clone(), key.clone());
            match inner.unknown_uploads.get_mut(&place) {
                Some(count) if *count > 0 => *count -= 1,
                _ => return Err(format!("nobody began upload {id} of {bucket}/{key}")),
            }
            let upload = Upload { place, write: 0, parts: BTreeMap::new(), is_doubtful: false, is_busy: false };
            inner.uploads.insert(*id, upload);
        }
        let there: BTreeSet<UploadId> = listed.iter().map(|(_, id)| *id).collect();
        let missing = |(id, upload): (&UploadId, &Upload)| {
            (upload.place.0 == *bucket && !there.contains(id)).then_some((*id, upload.is_doubtful))
        };
        let gone: Vec<_> = inner.uploads.iter().filter_map(missing).collect();
        for (id, is_doubtful) in gone {
            if !is_doubtful {
                return Err(format!("upload {id} in {bucket} is lost"));
            }
            inner.uploads.remove(&id);
            inner.ended_uploads.insert(id);
        }
        Ok(())
    }
}

impl Inner {
    /// A place may get this version: copies of it that are under way may write it elsewhere.
    fn offer(&mut self, source: &Place, version: &VersionId) {
        let copies: Vec<_> = self.copies.iter().map(|(id, copy)| (*id, copy.clone())).collect();
        for (id, (_, to, write)) in copies.into_iter().filter(|(_, (from, ..))| from == source) {
            let version = self.copied(version, write);
            if self.histories.entry(to.clone()).or_default().widen(id, version.clone()) {
                self.offer(&to, &version);
            }
        }
    }

    /// What a copy of the version is: the same, or the same bytes under the copy's own headers where `write` is not 0.
    fn copied(&mut self, source: &VersionId, write: u64) -> VersionId {
        if write == 0 {
            return source.clone();
        }
        let id = (write, source.1.clone());
        if let Some(version) = self.versions.get(source).cloned() {
            self.versions.insert(id.clone(), Version { write, ..version });
        }
        id
    }
}
