//! The objects of a batch, in order, found and read ahead of the one that is sent.
//!
//! Rows are looked up first, so that it is known how many bytes each object is to give; then as many are read, to their ends, as a small
//! budget of the batch's own allows. What a reader that stalls holds is bounded by that budget, and nobody else waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesOrdered};
use futures_util::{FutureExt as _, StreamExt as _};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::list::{Entry, List, OnError};
use crate::model::BucketName;
use crate::s3::Door;
use crate::s3::access::Rights;
use crate::s3::encryption::{CustomerHeaders, Encryption};
use crate::s3::error::store_error;
use crate::store::{BoxError, ByteStream, OpenObject};
use crate::sys::clock::Timestamp;

/// Objects whose rows are looked up ahead, and as many more that are read.
const LOOKS: usize = 16;
/// Bytes of objects that are read ahead of the one that is sent.
const AHEAD_BYTES: u64 = 1024 * 1024;
/// Bytes that one of them counts at least, for all that is known of it.
const AHEAD_LEAST: u64 = 16 * 1024;

/// Where a batch reads, and by what right.
pub(super) struct Source {
    pub(super) door: Door,
    pub(super) bucket: BucketName,
    pub(super) rights: Rights,
}

/// An object that was found, and may be read.
pub(super) struct Found {
    entry: Entry,
    object: OpenObject,
    encryption: Encryption,
}

impl Source {
    /// Finds an object, where the caller may have it.
    async fn find(&self, entry: &Entry) -> S3Result<(OpenObject, Encryption)> {
        self.rights.check(entry.key.as_str()).await?;
        let object = self.door.store.open_object(&self.bucket, &entry.key, None, |size| entry.wanted(size)).await;
        let object = object.map_err(|error| self.rights.access().missing(store_error(error)))?;
        self.is_the_same().await?;
        if entry.if_match.as_ref().is_some_and(|etag| etag != "*" && *etag != object.info.etag) {
            return Err(s3_error!(PreconditionFailed));
        }
        let encryption = self.door.encryption_of(&self.bucket, &object.info, CustomerHeaders::default())?;
        Ok((object, encryption))
    }

    /// Refuses where another bucket has the name by now: rows go by names, and rights do not.
    async fn is_the_same(&self) -> S3Result<()> {
        let (now, then) = (self.door.store.bucket(&self.bucket).await, self.rights.access().bucket());
        let now = now.map_err(store_error)?;
        if now.identity() == then.identity() { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    /// As [`Source::find`]; a refusal says which object it is about.
    async fn look(self: Arc<Self>, entry: Entry) -> Result<Found, Refused> {
        match self.find(&entry).await {
            Ok((object, encryption)) => Ok(Found { entry, object, encryption }),
            Err(error) => Err(Refused { entry, error }),
        }
    }

    /// Looks for all objects of a list, and answers the first refusal.
    pub(super) async fn look_for_all(self: &Arc<Self>, list: &List) -> S3Result<()> {
        let mut looks = FuturesOrdered::new();
        for entry in &list.entries {
            if looks.len() == LOOKS {
                looks.next().await.transpose().map_err(Refused::into_error)?;
            }
            looks.push_back(self.clone().look(entry.clone()).boxed());
        }
        while let Some(look) = looks.next().await {
            look.map_err(Refused::into_error)?;
        }
        Ok(())
    }

    /// Begins to read.
    async fn read(self: Arc<Self>, found: Found) -> Result<Opened, BoxError> {
        let Found { entry, object, encryption } = found;
        let range = object.range;
        let (info, bytes) = object.read();
        let mut rest = encryption.unseal(&self.bucket, &info, range.start, bytes)?;
        let (bytes, modified) = (range.len(), info.modified);
        if bytes > AHEAD_BYTES {
            let first = rest.next().await.transpose()?;
            return Ok(Opened { entry, modified, bytes, first, rest });
        }
        // All of it at once, and nothing else: a piece keeps what it was cut out of, and a stream its share of what all may read ahead.
        let mut all = BytesMut::with_capacity(bytes as usize);
        while let Some(piece) = rest.next().await.transpose()? {
            all.extend_from_slice(&piece);
        }
        Ok(Opened { entry, modified, bytes, first: Some(all.freeze()), rest: stream::empty().boxed() })
    }
}

/// An object that cannot be had, and why.
pub(super) struct Refused {
    pub(super) entry: Entry,
    pub(super) error: S3Error,
}

impl Refused {
    /// Whether the stream may go on without the object: it is not there, or not for this caller. What fails here, or for all, ends it.
    fn is_markable(&self) -> bool {
        let code = self.error.code();
        let status = self.error.status_code().or_else(|| code.status_code());
        status.is_some_and(|status| status.is_client_error()) && !matches!(code, S3ErrorCode::NoSuchBucket)
    }

    /// The error of the whole request.
    fn into_error(self) -> S3Error {
        let Self { entry, mut error } = self;
        let said = error.message().map_or_else(|| error.code().as_str().to_owned(), str::to_owned);
        error.set_message(format!("Object {} of the list, {}: {said}", entry.place, entry.key));
        error
    }
}

/// An object, its first bytes read.
pub(super) struct Opened {
    pub(super) entry: Entry,
    pub(super) modified: Timestamp,
    /// How many bytes of it follow.
    pub(super) bytes: u64,
    pub(super) first: Option<Bytes>,
    pub(super) rest: ByteStream,
}

/// What comes of an entry of the list.
pub(super) enum Outcome {
    Opened(Box<Opened>),
    Marked(Refused),
}

type Looks = FuturesOrdered<BoxFuture<'static, Result<Found, Refused>>>;
type Reads = FuturesOrdered<BoxFuture<'static, Result<Outcome, BoxError>>>;

/// All that is under way for a batch.
pub(super) struct Ahead {
    source: Arc<Source>,
    on_error: OnError,
    entries: std::vec::IntoIter<Entry>,
    looks: Looks,
    looked: VecDeque<Result<Found, Refused>>,
    reads: Reads,
    /// The bytes of each read that is under way, or done and not taken.
    costs: VecDeque<u64>,
    read: VecDeque<Result<Outcome, BoxError>>,
}

impl Ahead {
    pub(super) fn new(source: Arc<Source>, list: List) -> Self {
        Self {
            source,
            on_error: list.on_error,
            entries: list.entries.into_iter(),
            looks: Looks::new(),
            looked: VecDeque::new(),
            reads: Reads::new(),
            costs: VecDeque::new(),
            read: VecDeque::new(),
        }
    }

    /// Moves on whatever can. `is_idle` says that nothing is being sent: then the next object is read, however large it is.
    pub(super) fn push(&mut self, cx: &mut Context<'_>, is_idle: bool) {
        while self.looks.len() + self.looked.len() < LOOKS
            && let Some(entry) = self.entries.next()
        {
            self.looks.push_back(self.source.clone().look(entry).boxed());
        }
        while let Poll::Ready(Some(look)) = self.looks.poll_next_unpin(cx) {
            self.looked.push_back(look);
        }
        while let Some(next) = self.looked.pop_front() {
            let cost = next.as_ref().map_or(0, |found| found.object.range.len()).max(AHEAD_LEAST);
            let is_next = is_idle && self.costs.is_empty();
            let is_too_much = self.costs.len() >= LOOKS || self.costs.iter().sum::<u64>() + cost > AHEAD_BYTES;
            if !is_next && is_too_much {
                self.looked.push_front(next);
                break;
            }
            self.costs.push_back(cost);
            self.begin(next);
        }
        while let Poll::Ready(Some(read)) = self.reads.poll_next_unpin(cx) {
            self.read.push_back(read);
        }
    }

    fn begin(&mut self, look: Result<Found, Refused>) {
        let (source, on_error) = (self.source.clone(), self.on_error);
        let read = async move {
            match look {
                Ok(found) => source.read(found).await.map(|opened| Outcome::Opened(Box::new(opened))),
                Err(refused) if on_error == OnError::Mark && refused.is_markable() => Ok(Outcome::Marked(refused)),
                Err(refused) => Err(refused.into_error().into()),
            }
        };
        self.reads.push_back(read.boxed());
    }

    /// The next entry of the list; none at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Outcome, BoxError>>> {
        self.push(cx, true);
        if let Some(read) = self.read.pop_front() {
            self.costs.pop_front();
            return Poll::Ready(Some(read));
        }
        if self.costs.is_empty() && self.looks.is_empty() && self.looked.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}
