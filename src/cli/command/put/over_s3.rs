//! Files that travel whole, as any S3 client sends them.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Sender;
use crate::cli::exit::CliError;
use crate::cli::files::FileBelow;
use crate::cli::remote::{self, PART_BYTES, PARTS_ABOVE};

/// Parts of one file that travel at once.
const PARTS_AT_ONCE: usize = 4;

impl Sender<'_> {
    /// Sends a file.
    pub(super) async fn whole(&self, item: &FileBelow) -> Result<(), CliError> {
        let unreadable = |error: std::io::Error| CliError::because(format!("read {}", item.file.display()), &error);
        if item.bytes > PARTS_ABOVE {
            return self.in_parts(tokio::fs::File::open(&item.file).await.map_err(unreadable)?, &item.key).await;
        }
        let bytes: Bytes = tokio::fs::read(&item.file).await.map_err(unreadable)?.into();
        let length = bytes.len() as u64;
        let path = remote::path(&item.key)?;
        self.store.put(&path, bytes.into()).await.map_err(|error| self.failed(&item.key, &error))?;
        self.count(length);
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// Sends in parts of equal length, a few at once; a failure leaves nothing behind.
    pub(super) async fn in_parts(&self, mut input: impl AsyncRead + Unpin, key: &str) -> Result<(), CliError> {
        let path = remote::path(key)?;
        let mut upload = self.store.put_multipart(&path).await.map_err(|error| self.failed(key, &error))?;
        let ended = match self.send_parts(upload.as_mut(), &mut input, key).await {
            Ok(()) => upload.complete().await.map(drop).map_err(|error| self.failed(key, &error)),
            Err(error) => Err(error),
        };
        if ended.is_err() {
            // The first error is the one to tell; an upload that stays open holds no object.
            drop(upload.abort().await);
        }
        ended
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        input: &mut (impl AsyncRead + Unpin),
        key: &str,
    ) -> Result<(), CliError> {
        let mut under_way = futures_util::stream::FuturesUnordered::new();
        let mut first = true;
        loop {
            let part = read_part(input).await.map_err(|error| CliError::because("read the source", &error))?;
            let length = part.len() as u64;
            if length == 0 && !first {
                break;
            }
            first = false;
            let sending = upload.put_part(PutPayload::from(part));
            under_way.push(async move { sending.await.map(|()| length) });
            while under_way.len() >= PARTS_AT_ONCE || (length < PART_BYTES && !under_way.is_empty()) {
                let Some(done) = under_way.next().await else { break };
                self.count(done.map_err(|error| self.failed(key, &error))?);
            }
            if length < PART_BYTES {
                break;
            }
        }
        while let Some(done) = under_way.next().await {
            self.count(done.map_err(|error| self.failed(key, &error))?);
        }
        Ok(())
    }
}

/// One part, shorter than the others only at the end.
async fn read_part(input: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut part = BytesMut::with_capacity(1 << 20);
    let mut rest = input.take(PART_BYTES);
    while rest.read_buf(&mut part).await? > 0 {
        part.reserve(64 * 1024);
    }
    Ok(part.freeze())
}
