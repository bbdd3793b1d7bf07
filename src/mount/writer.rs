//! Writes of one object: from its beginning to its end, in parts that travel while the next is written.

use bytes::{Bytes, BytesMut};
use fuser::Errno;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, Result};

/// Bytes of one part; also what may be written on after it was stored.
const PART: usize = 16 * 1024 * 1024;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 2;

/// A file that is written.
pub(super) struct Writer {
    path: Path,
    /// Bytes written so far.
    pub(super) size: u64,
    /// Bytes that the object has which is there, until it is truncated.
    pub(super) before: u64,
    /// What has not been given to a part.
    buffer: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
    under_way: FuturesUnordered<BoxFuture<'static, Result<()>>>,
    /// How many bytes the stored object has.
    stored: Option<u64>,
    is_complete: bool,
    /// A part was lost: what is left of the file must not take the place of the object that is there.
    is_broken: bool,
}

impl Writer {
    /// A writer of an object; `before` is the length of the one that is there and is not replaced yet.
    pub(super) fn new(path: Path, before: u64) -> Self {
        Self {
            path,
            size: 0,
            before,
            buffer: BytesMut::new(),
            upload: None,
            under_way: FuturesUnordered::new(),
            stored: None,
            is_complete: false,
            is_broken: false,
        }
    }

    /// Takes bytes at the end of what was written, and nowhere else.
    pub(super) async fn write(&mut self, s3: &AmazonS3, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if self.is_broken {
            return Err(Errno::EIO);
        }
        if offset != self.size || self.before > 0 || self.is_complete {
            return Err(Errno::EOPNOTSUPP);
        }
        self.buffer.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        if self.buffer.len() >= PART
            && let Err(error) = self.send(s3).await
        {
            self.give_up().await;
            return Err(super::door::refused(&error));
        }
        Ok(())
    }

    /// Lets the upload go after one of its parts was lost, for good.
    async fn give_up(&mut self) {
        self.is_broken = true;
        self.buffer.clear();
        self.under_way.clear();
        if let Some(mut upload) = self.upload.take() {
            // The first error is the one to tell; an upload that stays open holds no object.
            drop(upload.abort().await);
        }
    }

    /// Sends what is there as a part.
    async fn send(&mut self, s3: &AmazonS3) -> Result<()> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(s3.put_multipart(&self.path).await?),
        };
        let part: Bytes = self.buffer.split().freeze();
        self.under_way.push(upload.put_part(part.into()));
        while self.under_way.len() > PARTS_AT_ONCE {
            if let Some(done) = self.under_way.next().await {
                done?;
            }
        }
        Ok(())
    }

    /// Empties the file.
    pub(super) async fn truncate(&mut self) -> Result<(), Errno> {
        if self.upload.is_some() {
            return Err(Errno::EOPNOTSUPP);
        }
        self.buffer.clear();
        (self.size, self.before, self.stored) = (0, 0, None);
        Ok(())
    }

    /// Whether there is something to store.
    pub(super) fn is_owing(&self) -> bool {
        self.before == 0 && self.stored != Some(self.size)
    }

    /// Stores what was written, durably.
    pub(super) async fn store(&mut self, s3: &AmazonS3) -> Result<(), Errno> {
        if self.is_broken {
            return Err(Errno::EIO);
        }
        if !self.is_owing() {
            return Ok(());
        }
        let in_parts = self.upload.is_some();
        match self.finish(s3).await {
            Ok(()) => {
                self.stored = Some(self.size);
                Ok(())
            }
            Err(error) => {
                // What is whole in the buffer is tried again at the next close.
                if in_parts {
                    self.give_up().await;
                }
                Err(super::door::refused(&error))
            }
        }
    }

    async fn finish(&mut self, s3: &AmazonS3) -> Result<()> {
        if self.upload.is_none() {
            let whole = Bytes::copy_from_slice(&self.buffer);
            return s3.put(&self.path, whole.into()).await.map(drop);
        }
        if !self.buffer.is_empty() {
            self.send(s3).await?;
        }
        while let Some(done) = self.under_way.next().await {
            done?;
        }
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        (self.upload, self.is_complete) = (None, true);
        Ok(())
    }
}
