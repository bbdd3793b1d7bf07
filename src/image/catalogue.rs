//! The catalogue: every image version is one object of the bucket `.images`, so that images share chunks with each
//! other and with everything else in the store. A version never changes once it is there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::format::chunk_list::ChunkList;
use crate::model::{BucketName, ByteRange, Digest, ImageRef, ObjectKey, PackId};
use crate::store::{ByteStream, ListRequest, ObjectInfo, Precondition, PutRequest, Store, StoreError};
use crate::sys::clock::Timestamp;
use crate::sys::entropy;

use super::raw::{self, NotRaw};

/// Where an import lands before it is known whether it may have its name. A leading dot keeps it apart from versions.
const STAGING: &str = ".import/";
/// Chunk lists kept decoded: nodes of one rack install few images at a time, and one list of 10 GiB takes some 10 MB.
const LISTINGS_MAX: usize = 4;
/// What a first look at the content needs, in bytes.
const PEEK: usize = raw::PEEK_BYTES;

/// One image version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its length in bytes, zeros included.
    pub bytes: u64,
    /// Digest of its content.
    pub root_digest: Digest,
    /// When it was imported.
    pub imported: Timestamp,
}

impl ImageInfo {
    /// The reference that names it.
    #[must_use]
    pub fn reference(&self) -> ImageRef {
        ImageRef { name: self.name.clone(), version: self.version.clone() }
    }
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The version, as it now is in the catalogue.
    #[serde(flatten)]
    pub image: ImageInfo,
    /// Whether the catalogue already held exactly this.
    pub existed: bool,
}

/// What two versions share. Counted over `to`'s chunks in order, so a chunk that occurs twice counts twice, except
/// in `bytes_to_fetch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDiff {
    /// The version that is there.
    pub from: ImageInfo,
    /// The version that is to come.
    pub to: ImageInfo,
    /// Chunks of `to` that `from` has too.
    pub chunks_shared: u64,
    /// Chunks of `to` that `from` lacks.
    pub chunks_different: u64,
    /// Bytes in the shared chunks.
    pub bytes_shared: u64,
    /// Bytes in the different ones.
    pub bytes_different: u64,
    /// Stored (compressed) bytes of the different chunks, each once: what travels when `from` becomes `to`.
    pub bytes_to_fetch: u64,
}

/// Why the catalogue refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The version is not there.
    #[error(
        "there is no image {0}; `bedplate image list` shows what there is, and `bedplate image import {0} FILE` adds it"
    )]
    NoSuchImage(ImageRef),
    /// The version is there, with other content.
    #[error("image {image} exists with other content (root digest {}, not {}), and a version never changes: import under a new version, or remove this one first", there.short(), offered.short())]
    Taken {
        /// The version.
        image: ImageRef,
        /// What the catalogue holds.
        there: Digest,
        /// What was to be imported.
        offered: Digest,
    },
    /// Another import of the same version finished first.
    #[error("another import of {0} finished first; run this one again to compare the two")]
    Raced(ImageRef),
    /// The content is no raw disk image.
    #[error("{image} was not imported: {reason}")]
    NotRaw {
        /// The version that it was to become.
        image: ImageRef,
        /// What it is.
        reason: NotRaw,
    },
    /// The store refused.
    #[error("the store cannot {action} image {image}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Which image, or `*`.
        image: String,
        /// Why not.
        source: StoreError,
    },
}

/// The chunk list of one version as it goes over the wire, and the packs that it names.
#[derive(Debug)]
pub struct Listing {
    /// The encoded list.
    pub bytes: Bytes,
    /// Which bytes of which packs are the image's: start and end, in order, neighbours joined.
    extents: HashMap<PackId, Vec<(u64, u64)>>,
    /// What the store said about where the image lies.
    layout: u32,
}

impl Listing {
    /// Of a list; what an older listing allowed stays allowed, since an agent that has it may still be pulling.
    fn new(list: &ChunkList, layout: u32, older: Option<&Self>) -> Self {
        let mut extents = older.map(|older| older.extents.clone()).unwrap_or_default();
        for chunk in &list.chunks {
            let spans = extents.entry(list.packs[chunk.pack as usize]).or_default();
            let (start, end) = (chunk.offset, chunk.offset + u64::from(chunk.stored_len));
            match spans.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                Some(last) if *last == (start, end) => {}
                _ => spans.push((start, end)),
            }
        }
        extents.values_mut().for_each(join);
        Self { bytes: list.encode().into(), extents, layout }
    }

    /// Whether all bytes of the range are the image's. Packs hold other people's chunks too.
    #[must_use]
    pub fn covers(&self, pack: &PackId, range: ByteRange) -> bool {
        let Some(spans) = self.extents.get(pack) else { return false };
        let after = spans.partition_point(|span| span.0 <= range.start);
        after.checked_sub(1).is_some_and(|at| range.end <= spans[at].1)
    }
}

/// Sorts spans, and joins those that meet.
fn join(spans: &mut Vec<(u64, u64)>) {
    spans.sort_unstable();
    spans.dedup_by(|next, last| {
        let meets = next.0 <= last.1;
        last.1 = if meets { last.1.max(next.1) } else { last.1 };
        meets
    });
}

/// The catalogue. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    store: Store,
    listings: Arc<Mutex<Listings>>,
}

/// The last few listings used, oldest first. Versions never change; where they lie may, when packs are rewritten.
#[derive(Default)]
struct Listings {
    known: HashMap<ImageRef, Arc<Listing>>,
    order: VecDeque<ImageRef>,
}

impl Catalogue {
    /// The catalogue kept in `store`. Call [`Self::prepare`] once before the first use of an empty store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, listings: Arc::default() }
    }

    /// Makes the catalogue's bucket where it is absent, and forgets imports that a crash cut short.
    pub async fn prepare(&self) -> Result<(), ImageError> {
        let bucket = BucketName::images();
        match self.store.create_bucket(&bucket, "bedplate").await {
            Ok(_) | Err(StoreError::BucketExists(_)) => {}
            Err(source) => return Err(failed("make the bucket of", "*")(source)),
        }
        for object in self.objects(STAGING).await? {
            self.store.delete(&bucket, &object.key).await.map_err(failed("forget", object.key.as_str()))?;
        }
        Ok(())
    }

    /// Imports a raw disk image. The same content under the same version again succeeds and changes nothing.
    ///
    /// Fails with [`ImageError::Taken`] when the version has other content. An `Err` in `body` imports nothing.
    pub async fn import(
        &self,
        image: &ImageRef,
        body: ByteStream,
        expected_bytes: Option<u64>,
    ) -> Result<Imported, ImageError> {
        let body = self.checked(image, body).await?;
        let bucket = BucketName::images();
        let there = self.find(image).await?;
        let landing = match &there {
            None => key_of(image),
            Some(_) => key(&format!("{STAGING}{}", hex::encode(entropy::fresh_id()))),
        };
        let request = PutRequest {
            expected_bytes,
            precondition: Precondition { if_none_match_any: true, ..Precondition::default() },
            ..PutRequest::default()
        };
        let put = self.store.put(&bucket, &landing, body, request).await;
        let landed = match put {
            Ok(landed) => landed,
            Err(StoreError::PreconditionFailed) => return Err(ImageError::Raced(image.clone())),
            Err(source) => return Err(failed("import", image)(source)),
        };
        let offered = info(image, &landed)?;
        let Some(there) = there else { return Ok(Imported { image: offered, existed: false }) };
        self.store.delete(&bucket, &landing).await.map_err(failed("forget the second copy of", image))?;
        if there.root_digest == offered.root_digest && there.bytes == offered.bytes {
            return Ok(Imported { image: there, existed: true });
        }
        Err(ImageError::Taken { image: image.clone(), there: there.root_digest, offered: offered.root_digest })
    }

    /// Looks at the first bytes, and hands the whole stream on.
    async fn checked(&self, image: &ImageRef, mut body: ByteStream) -> Result<ByteStream, ImageError> {
        let mut head = BytesMut::new();
        let mut failure = None;
        while head.len() < PEEK && failure.is_none() {
            match body.next().await {
                None => break,
                Some(Ok(bytes)) => head.extend_from_slice(&bytes),
                Some(Err(error)) => failure = Some(error),
            }
        }
        if failure.is_none() {
            raw::check(&head).map_err(|reason| ImageError::NotRaw { image: image.clone(), reason })?;
        }
        let begun = stream::iter([Ok(head.freeze())]).chain(stream::iter(failure.map(Err)));
        Ok(Box::pin(begun.chain(body)))
    }

    /// Every version, by name and version.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let mut images = Vec::new();
        for object in self.objects("").await? {
            if let Ok(image) = object.key.as_str().parse::<ImageRef>() {
                images.push(info(&image, &object)?);
            }
        }
        Ok(images)
    }

    /// One version.
    pub async fn info(&self, image: &ImageRef) -> Result<ImageInfo, ImageError> {
        self.find(image).await?.ok_or_else(|| ImageError::NoSuchImage(image.clone()))
    }

    /// Takes one version out of the catalogue.
    pub async fn remove(&self, image: &ImageRef) -> Result<(), ImageError> {
        let gone = self.store.delete(&BucketName::images(), &key_of(image)).await.map_err(failed("remove", image))?;
        self.lock().forget(image);
        if gone { Ok(()) } else { Err(ImageError::NoSuchImage(image.clone())) }
    }

    /// What `to` shares with `from`.
    pub async fn diff(&self, from: &ImageRef, to: &ImageRef) -> Result<ImageDiff, ImageError> {
        let (from_info, to_info) = (self.info(from).await?, self.info(to).await?);
        let (from, to) = (self.chunk_list(from).await?, self.chunk_list(to).await?);
        Ok(compare(from_info, to_info, &from, &to))
    }

    /// The chunk list as it goes over the wire, and the packs that the image needs.
    pub async fn listing(&self, image: &ImageRef) -> Result<Arc<Listing>, ImageError> {
        let known = self.lock().known.get(image).cloned();
        let layout = self.store.layout(&BucketName::images(), &key_of(image)).await;
        let layout = match layout {
            Err(StoreError::NoSuchKey(_) | StoreError::NoSuchBucket(_)) => {
                return Err(ImageError::NoSuchImage(image.clone()));
            }
            other => other.map_err(failed("look up", image))?,
        };
        if let Some(known) = known.as_ref().filter(|known| known.layout == layout) {
            return Ok(known.clone());
        }
        let list = self.chunk_list(image).await?;
        let listing = Arc::new(Listing::new(&list, layout, known.as_deref()));
        self.lock().remember(image, &listing);
        Ok(listing)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listings> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn chunk_list(&self, image: &ImageRef) -> Result<ChunkList, ImageError> {
        match self.store.chunk_list(&BucketName::images(), &key_of(image)).await {
            Ok(list) => Ok(list),
            Err(StoreError::NoSuchKey(_) | StoreError::NoSuchBucket(_)) => Err(ImageError::NoSuchImage(image.clone())),
            Err(source) => Err(failed("read the chunk list of", image)(source)),
        }
    }

    async fn find(&self, image: &ImageRef) -> Result<Option<ImageInfo>, ImageError> {
        match self.store.head(&BucketName::images(), &key_of(image)).await {
            Ok(object) => info(image, &object).map(Some),
            Err(StoreError::NoSuchKey(_) | StoreError::NoSuchBucket(_)) => Ok(None),
            Err(source) => Err(failed("look up", image)(source)),
        }
    }

    async fn objects(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ImageError> {
        let mut found = Vec::new();
        let mut start_after = None;
        loop {
            let request = ListRequest { prefix: prefix.to_owned(), delimiter: None, start_after, limit: 1000 };
            let page = self.store.list(&BucketName::images(), &request).await.map_err(failed("list", "*"))?;
            found.extend(page.objects);
            start_after = page.next;
            if start_after.is_none() {
                return Ok(found);
            }
        }
    }
}

impl Listings {
    fn remember(&mut self, image: &ImageRef, listing: &Arc<Listing>) {
        self.forget(image);
        while self.order.len() >= LISTINGS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(image.clone(), Arc::clone(listing));
        self.order.push_back(image.clone());
    }

    fn forget(&mut self, image: &ImageRef) {
        self.known.remove(image);
        self.order.retain(|other| other != image);
    }
}

fn key(text: &str) -> ObjectKey {
    text.parse().expect("image references and staging names are far shorter than the longest key")
}

fn key_of(image: &ImageRef) -> ObjectKey {
    key(&image.to_string())
}

fn failed(action: &'static str, image: &(impl ToString + ?Sized)) -> impl FnOnce(StoreError) -> ImageError {
    let image = image.to_string();
    move |source| ImageError::Store { action, image, source }
}

fn info(image: &ImageRef, object: &ObjectInfo) -> Result<ImageInfo, ImageError> {
    Ok(ImageInfo {
        name: image.name.clone(),
        version: image.version.clone(),
        bytes: object.size,
        root_digest: object.root_digest.ok_or_else(|| ImageError::NoSuchImage(image.clone()))?,
        imported: object.modified,
    })
}

fn compare(from_info: ImageInfo, to_info: ImageInfo, from: &ChunkList, to: &ChunkList) -> ImageDiff {
    let had: HashSet<Digest> = from.chunks.iter().map(|chunk| chunk.digest).collect();
    let mut new = HashSet::new();
    let mut diff = ImageDiff {
        from: from_info,
        to: to_info,
        chunks_shared: 0,
        chunks_different: 0,
        bytes_shared: 0,
        bytes_different: 0,
        bytes_to_fetch: 0,
    };
    for chunk in &to.chunks {
        if had.contains(&chunk.digest) {
            diff.chunks_shared += 1;
            diff.bytes_shared += u64::from(chunk.raw_len);
            continue;
        }
        diff.chunks_different += 1;
        diff.bytes_different += u64::from(chunk.raw_len);
        // Chunks that share a frame travel together.
        if new.insert((chunk.pack, chunk.offset)) {
            diff.bytes_to_fetch += u64::from(chunk.stored_len);
        }
    }
    diff
}
