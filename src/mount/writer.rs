//! Writes of one object. A file of up to one part is held whole in memory, is read, written and cut anywhere, and stored in
//! one piece; a longer one goes from its beginning to its end, in parts that travel while the next is written.

use bytes::{Bytes, BytesMut};
use fuser::Errno;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStoreExt as _, Result};
use tokio::sync::oneshot;

use super::answers::{refused, unstored};
use super::bucket::Bucket;
use crate::sys::worker::Workers;

/// Bytes of one part; also the longest file that is held whole.
pub(super) const PART: usize = 16 * 1024 * 1024;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 2;

/// Where what is written goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) s3: &'a AmazonS3,
    pub(super) bucket: &'a Bucket,
    /// Who sends parts.
    pub(super) workers: &'a Workers,
    /// The object's key now; none where the file was removed.
    pub(super) key: Option<&'a str>,
}

/// A file that is written.
pub(super) enum Writer {
    /// As the object is, of so many bytes: nothing was written yet.
    Untouched(u64),
    /// All of it, and whether that is still to be stored.
    Held(BytesMut, bool),
    /// Its beginning has left.
    Sent(Sent),
    /// A part was lost: what is left of the file must not take the place of the object that is there.
    Broken,
}

/// A long file under way.
pub(super) struct Sent {
    upload: Box<dyn MultipartUpload>,
    under_way: FuturesUnordered<oneshot::Receiver<Result<()>>>,
    /// Bytes that were given to parts.
    bytes: u64,
    /// What was not.
    tail: BytesMut,
}

impl Sent {
    /// Gives what is there to a part, which travels whether or not anybody waits for it.
    async fn send(&mut self, workers: &Workers) -> Result<()> {
        let part: Bytes = self.tail.split().freeze();
        self.bytes += part.len() as u64;
        let (tell, told) = oneshot::channel();
        let travel = self.upload.put_part(part.into());
        // Nobody hears it where the upload was given up.
        workers.spawn("a part", async move { drop(tell.send(travel.await)) });
        self.under_way.push(told);
        self.wait(PARTS_AT_ONCE).await
    }

    /// Waits until at most so many parts are under way.
    async fn wait(&mut self, most: usize) -> Result<()> {
        while self.under_way.len() > most {
            if let Some(done) = self.under_way.next().await {
                done.unwrap_or_else(|_| Err(Error::Generic { store: "S3", source: "a part was lost".into() }))?;
            }
        }
        Ok(())
    }

    async fn complete(&mut self, workers: &Workers) -> Result<u64> {
        if !self.tail.is_empty() {
            self.send(workers).await?;
        }
        self.wait(0).await?;
        self.upload.complete().await?;
        Ok(self.bytes)
    }
}

impl Writer {
    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Untouched(size) => *size,
            Self::Held(bytes, _) => bytes.len() as u64,
            Self::Sent(sent) => sent.bytes + sent.tail.len() as u64,
            Self::Broken => 0,
        }
    }

    /// Whether something is still to be stored.
    pub(super) fn is_owing(&self) -> bool {
        matches!(self, Self::Held(_, true) | Self::Sent(_) | Self::Broken)
    }

    /// Empties the file; nothing that was stored is gone before this is.
    pub(super) fn empty(&mut self) -> Result<(), Errno> {
        if matches!(self, Self::Sent(_)) {
            return Err(Errno::EBUSY);
        }
        *self = Self::Held(BytesMut::new(), true);
        Ok(())
    }

    /// Bytes of a file that is held; nothing of one that is not.
    pub(super) fn read(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let Self::Held(bytes, _) = self else { return None };
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
        Some(bytes[at(offset)..at(offset.saturating_add(len))].to_vec())
    }

    /// Sets the length of a file that is held, or leaves it as it is.
    pub(super) fn resize(&mut self, size: u64) -> Result<(), Errno> {
        match self {
            // Nothing but its beginning may have been fetched: its object can be longer.
            Self::Held(bytes, is_owing) if size <= PART as u64 => {
                bytes.resize(size as usize, 0);
                *is_owing = true;
                Ok(())
            }
            Self::Broken => Err(Errno::EIO),
            same if size == same.size() => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Takes bytes: anywhere in a file that is held, else not before what has left.
    pub(super) async fn write(&mut self, to: Target<'_>, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let (start, buffer) = match self {
            Self::Held(held, is_owing) => {
                *is_owing = true;
                (0, held)
            }
            Self::Sent(sent) => (sent.bytes, &mut sent.tail),
            Self::Untouched(_) => return Err(Errno::EOPNOTSUPP),
            Self::Broken => return Err(Errno::EIO),
        };
        let at = offset.checked_sub(start).and_then(|at| usize::try_from(at).ok()).ok_or(Errno::EOPNOTSUPP)?;
        // A gap is zeros, as long as it need not travel.
        if at > buffer.len() && at > PART {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = at + bytes.len();
        if end > buffer.len() {
            buffer.resize(end, 0);
        }
        buffer[at..end].copy_from_slice(bytes);
        if buffer.len() > PART
            && let Err(error) = self.send(to).await
        {
            return Err(error);
        }
        Ok(())
    }

    /// Sends what has become too long to be held.
    async fn send(&mut self, to: Target<'_>) -> Result<(), Errno> {
        if let Self::Held(held, _) = self {
            // What has no name is nobody's once it is closed: it has as much room as memory gives it.
            let Some(key) = to.key else { return Err(Errno::ENOSPC) };
            let path = Path::parse(key).map_err(|_| Errno::EINVAL)?;
            let tail = std::mem::take(held);
            let upload = match to.s3.put_multipart(&path).await {
                Ok(upload) => upload,
                Err(error) => {
                    // A part of the file is here, which must not take the object's place at the close.
                    *self = Self::Broken;
                    return Err(unstored(&error));
                }
            };
            *self = Self::Sent(Sent { upload, under_way: FuturesUnordered::new(), bytes: 0, tail });
        }
        let Self::Sent(sent) = self else { return Ok(()) };
        match sent.send(to.workers).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.give_up().await;
                Err(unstored(&error))
            }
        }
    }

    /// Lets the upload go, for good.
    pub(super) async fn give_up(&mut self) {
        if let Self::Sent(mut sent) = std::mem::replace(self, Self::Broken) {
            sent.under_way.clear();
            // The first error is the one to tell; an upload that stays open holds no object.
            drop(sent.upload.abort().await);
        }
    }

    /// Stores what was written, durably. What has no name any more is nobody's.
    pub(super) async fn store(&mut self, to: Target<'_>) -> Result<(), Errno> {
        let Some(key) = to.key else { return Ok(()) };
        match self {
            Self::Untouched(_) | Self::Held(_, false) => Ok(()),
            Self::Broken => Err(Errno::EIO),
            Self::Held(bytes, is_owing) => {
                // What is whole in memory is tried again at the next close.
                to.bucket.put(key, Bytes::copy_from_slice(bytes)).await.map_err(|error| refused(&error))?;
                *is_owing = false;
                Ok(())
            }
            Self::Sent(sent) => match sent.complete(to.workers).await {
                Ok(size) => {
                    *self = Self::Untouched(size);
                    Ok(())
                }
                Err(error) => {
                    self.give_up().await;
                    Err(unstored(&error))
                }
            },
        }
    }
}
