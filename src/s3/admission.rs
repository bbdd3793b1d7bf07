//! What is admitted at once, and what of it is cut: memory stays bounded however many clients come, stall or trickle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::HeaderMap;
use hyper::header::CONTENT_LENGTH;
use hyper::http::Extensions;
use s3s::{S3Error, S3ErrorCode, S3Result};
use tokio_util::sync::CancellationToken;

use crate::model::limit::INLINE_MAX;
use crate::sys::lane::{Crowded, Lane, Pulse, Seat};
use crate::sys::wire::HangUp;

/// Bodies received at once: each holds the buffers of a pipeline.
const WRITES_MAX: usize = 24;
/// Short bodies received at once. Most of their time they wait for the disk, all of them together, so many come quickly.
const SHORT_WRITES_MAX: usize = 128;
/// Bodies sent at once: each holds what is read ahead.
const READS_MAX: usize = 96;
/// What [`Turns::frame`] and [`Turns::document`] count in.
const UNIT: u64 = 64 * 1024;
/// Large signed frames held at once, in bytes.
const FRAMES_BYTES: u64 = 32 * 1024 * 1024;
/// Large documents held at once, in bytes; what they are parsed into takes several times as much.
const DOCUMENTS_BYTES: u64 = 16 * 1024 * 1024;
/// The lists of batches that are being sent, in bytes; what they are parsed into takes a few times as much.
const LISTS_BYTES: u64 = 32 * 1024 * 1024;
/// Documents and forms up to this length have places of their own, so that large ones do not keep them waiting.
const SMALL_DOCUMENT: u64 = 256 * 1024;
const SMALL_DOCUMENTS: usize = 32;

/// The turns of one door; clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    writes: Lane,
    short_writes: Lane,
    reads: Lane,
    frames: Lane,
    documents: Lane,
    small_documents: Lane,
    lists: Lane,
}

impl Turns {
    pub(super) fn new() -> Self {
        let units = |bytes: u64| Lane::new(usize::try_from(bytes / UNIT).unwrap_or(usize::MAX));
        Self {
            writes: Lane::new(WRITES_MAX),
            short_writes: Lane::new(SHORT_WRITES_MAX),
            reads: Lane::new(READS_MAX),
            frames: units(FRAMES_BYTES),
            documents: units(DOCUMENTS_BYTES),
            small_documents: Lane::new(SMALL_DOCUMENTS),
            lists: units(LISTS_BYTES),
        }
    }

    /// A turn to receive the body of the request with these extensions, until what is returned is dropped.
    pub(super) async fn write(&self, extensions: &Extensions) -> S3Result<Seat> {
        let watch = Watch::of(extensions);
        self.writes.enter(1, &watch.0.upload).await.map_err(|crowded| watch.too_many(crowded))
    }

    /// As [`Turns::write`], for a whole object: where the wire says that the body is short, it needs no pipeline, and none of
    /// the seats of those that do.
    pub(super) async fn write_object(&self, extensions: &Extensions, headers: &HeaderMap) -> S3Result<Seat> {
        if !is_short(headers) {
            return self.write(extensions).await;
        }
        let watch = Watch::of(extensions);
        self.short_writes.enter(1, &watch.0.upload).await.map_err(|crowded| watch.too_many(crowded))
    }

    /// A turn to send a body, and how its client keeps up.
    pub(super) async fn read(&self, extensions: &Extensions) -> S3Result<(Seat, Pulse)> {
        let watch = Watch::of(extensions);
        let pulse = watch.0.download.clone();
        let seat = self.reads.enter(1, &pulse).await.map_err(|crowded| watch.too_many(crowded))?;
        Ok((seat, pulse))
    }

    /// Room for the list of a batch, of so many bytes, for as long as the batch is sent.
    pub(super) async fn list(&self, bytes: u64, extensions: &Extensions) -> S3Result<Seat> {
        let watch = Watch::of(extensions);
        let seat = self.lists.enter(units(bytes, LISTS_BYTES), &watch.0.download).await;
        seat.map_err(|crowded| watch.too_many(crowded))
    }

    /// Room for a signed frame of so many bytes.
    pub(super) async fn frame(&self, bytes: u64, pulse: &Pulse) -> Result<Seat, Crowded> {
        self.frames.enter(units(bytes, FRAMES_BYTES), pulse).await
    }

    /// Room for a body of so many bytes that is held as a whole.
    pub(super) async fn document(&self, bytes: u64, pulse: &Pulse) -> Result<Seat, Crowded> {
        if bytes <= SMALL_DOCUMENT {
            return self.small_documents.enter(1, pulse).await;
        }
        self.documents.enter(units(bytes, DOCUMENTS_BYTES), pulse).await
    }
}

/// Whether no more bytes can come than live in an object's row. HTTP keeps to this length, whatever else a client says.
fn is_short(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length < INLINE_MAX)
}

fn units(bytes: u64, most: u64) -> u32 {
    u32::try_from(bytes.min(most).div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

/// Why a body was not received to its end, where that decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client sent nothing for too long.
    TooSlow,
    /// Others needed the room.
    Crowded,
    /// A frame is longer than any may be.
    TooLarge,
    /// A document is another than its digest says.
    OtherDigest,
    /// The digest is none.
    NoDigest,
}

impl Broken {
    pub(super) fn error(self) -> S3Error {
        match self {
            Self::TooSlow => S3Error::new(S3ErrorCode::RequestTimeout),
            Self::Crowded => slow_down(),
            Self::TooLarge => S3Error::new(S3ErrorCode::EntityTooLarge),
            Self::OtherDigest => S3Error::new(S3ErrorCode::BadDigest),
            Self::NoDigest => S3Error::new(S3ErrorCode::InvalidDigest),
        }
    }
}

fn slow_down() -> S3Error {
    S3Error::with_message(S3ErrorCode::SlowDown, "Please reduce your request rate: too many requests are under way.")
}

/// One request's progress, in its extensions; clones share it.
#[derive(Clone)]
pub(super) struct Watch(Arc<Inner>);

struct Inner {
    upload: Pulse,
    download: Pulse,
    broken: Mutex<Option<Broken>>,
    received: AtomicBool,
    /// Room for a body that is held as a whole, for as long as the request lasts.
    document: Mutex<Option<Seat>>,
}

impl Watch {
    /// For a request on the connection that `hang_up` ends.
    pub(super) fn new(hang_up: Option<&HangUp>) -> Self {
        Self(Arc::new(Inner {
            upload: Pulse::new(CancellationToken::new()),
            // The answer has begun, so nothing but the end of the connection tells the client.
            download: Pulse::new(hang_up.map(|hang_up| hang_up.0.clone()).unwrap_or_default()),
            broken: Mutex::new(None),
            received: AtomicBool::new(false),
            document: Mutex::new(None),
        }))
    }

    fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self::new(None))
    }

    /// How the client keeps up with sending.
    pub(super) fn upload(&self) -> &Pulse {
        &self.0.upload
    }

    /// Notes why the body broke off.
    pub(super) fn broke(&self, why: Broken) {
        self.0.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Why the body broke off.
    pub(super) fn broken(&self) -> Option<Broken> {
        *self.0.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body was received to its end.
    pub(super) fn received(&self) {
        self.0.received.store(true, Ordering::Relaxed);
    }

    /// Whether the body was received to its end.
    pub(super) fn is_received(&self) -> bool {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Keeps the room for as long as the request lasts.
    pub(super) fn keep(&self, seat: Seat) {
        *self.0.document.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat);
    }

    fn too_many(&self, _: Crowded) -> S3Error {
        self.broke(Broken::Crowded);
        slow_down()
    }
}
