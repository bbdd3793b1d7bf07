//! The store's metadata rows: their keys, and their values. Each value begins with a version byte and ends with the
//! CRC32C of all before. docs/format.md has the tables.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::field::{Damaged, Reader, Writer};
use super::manifest::{self, Location, Term};
use crate::model::{BucketName, Digest, ObjectKey, PackId, UploadId};
use crate::sys::clock::Timestamp;

const VERSION: u8 = 1;

/// Keys of the rows.
pub mod key {
    use super::{BucketName, Digest, ObjectKey, PackId, UploadId};

    fn join(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// `b/` bucket.
    #[must_use]
    pub fn bucket(bucket: &BucketName) -> Vec<u8> {
        join(&[b"b/", bucket.as_str().as_bytes()])
    }

    /// `o/` bucket, a zero byte, key.
    #[must_use]
    pub fn object(bucket: &BucketName, key: &ObjectKey) -> Vec<u8> {
        join(&[&objects(bucket), key.as_str().as_bytes()])
    }

    /// What the keys of a bucket's objects begin with.
    #[must_use]
    pub fn objects(bucket: &BucketName) -> Vec<u8> {
        join(&[b"o/", bucket.as_str().as_bytes(), &[0]])
    }

    /// `m/` manifest id, then the object's offset at which the row's terms end, 8 bytes big endian: a scan from an
    /// offset finds the row that covers it.
    #[must_use]
    pub fn manifest(id: &[u8; 16], end: u64) -> Vec<u8> {
        join(&[&manifests(id), &end.to_be_bytes()])
    }

    /// What the keys of a manifest's rows begin with.
    #[must_use]
    pub fn manifests(id: &[u8; 16]) -> Vec<u8> {
        join(&[b"m/", id])
    }

    /// `p/` pack id.
    #[must_use]
    pub fn pack(pack: PackId) -> Vec<u8> {
        join(&[b"p/", &pack.0])
    }

    /// `f/` pack id: the pack is being filled, and is for the next start to seal.
    #[must_use]
    pub fn filling(pack: PackId) -> Vec<u8> {
        join(&[b"f/", &pack.0])
    }

    /// `g/epoch`: the collector's epoch.
    #[must_use]
    pub fn epoch() -> Vec<u8> {
        b"g/epoch".to_vec()
    }

    /// `c/` digest.
    #[must_use]
    pub fn chunk(digest: &Digest) -> Vec<u8> {
        join(&[b"c/", &digest.0])
    }

    /// `u/` bucket, a zero byte, key, a zero byte, upload id.
    #[must_use]
    pub fn upload(bucket: &BucketName, key: &ObjectKey, upload: UploadId) -> Vec<u8> {
        join(&[&uploads(bucket), key.as_str().as_bytes(), &[0], &upload.0])
    }

    /// What the keys of a bucket's uploads begin with.
    #[must_use]
    pub fn uploads(bucket: &BucketName) -> Vec<u8> {
        join(&[b"u/", bucket.as_str().as_bytes(), &[0]])
    }

    /// `u/p/` upload id, part number, 4 bytes big endian. No bucket is named `p/…`.
    #[must_use]
    pub fn part(upload: UploadId, number: u32) -> Vec<u8> {
        join(&[&parts(upload), &number.to_be_bytes()])
    }

    /// What the keys of an upload's parts begin with.
    #[must_use]
    pub fn parts(upload: UploadId) -> Vec<u8> {
        join(&[b"u/p/", &upload.0])
    }
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRow {
    /// Who made it.
    pub owner: String,
    /// When.
    pub created: Timestamp,
    /// While it is being deleted, the id of the process that does it: nothing may be put into it. The mark of a process
    /// that has ended means nothing.
    pub deleting: Option<[u8; 16]>,
}

impl BucketRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).u64(self.created.0).bytes(self.owner.as_bytes());
        match &self.deleting {
            None => out.u8(0),
            Some(by) => out.u8(1).raw(by),
        };
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("bucket row", bytes)?;
        reader.version(VERSION)?;
        let created = Timestamp(reader.u64()?);
        let owner = reader.text()?;
        let deleting = match reader.u8()? {
            0 => None,
            1 => Some(reader.array()?),
            _ => return Err(reader.damaged("a flag is neither 0 nor 1")),
        };
        let row = Self { owner, created, deleting };
        reader.end()?;
        Ok(row)
    }
}

/// Where an object's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Here.
    Inline(Bytes),
    /// In these runs of chunks.
    Terms(Vec<Term>),
    /// In the runs of chunks that the manifest rows of this id list.
    Rows([u8; 16]),
}

impl Body {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Inline(bytes) => {
                out.u8(0).bytes(bytes);
            }
            Self::Terms(terms) => {
                out.u8(1);
                manifest::write(out, terms);
            }
            Self::Rows(id) => {
                out.u8(2).raw(id);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, size: u64) -> Result<Self, Damaged> {
        let (body, total) = match reader.u8()? {
            0 => {
                let bytes = Bytes::copy_from_slice(reader.bytes()?);
                let total = bytes.len() as u64;
                (Self::Inline(bytes), total)
            }
            1 => {
                let (terms, total) = manifest::read(reader)?;
                (Self::Terms(terms), total)
            }
            2 => (Self::Rows(reader.array()?), size),
            _ => return Err(reader.damaged("its body is of a kind that this program does not know")),
        };
        if total == size { Ok(body) } else { Err(reader.damaged("its body does not add up to its size")) }
    }
}

/// What a client said about an object, kept as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Content type.
    pub content_type: Option<String>,
    /// Other headers, by lower-case name.
    pub headers: BTreeMap<String, String>,
}

impl Described {
    fn write(&self, out: &mut Writer) {
        out.optional_text(self.content_type.as_deref()).varint(self.headers.len() as u64);
        for (name, value) in &self.headers {
            out.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let content_type = reader.optional_text()?;
        let count = reader.varint()?;
        let mut headers = BTreeMap::new();
        for _ in 0..count {
            let name = reader.text()?;
            headers.insert(name, reader.text()?);
        }
        Ok(Self { content_type, headers })
    }
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// Length in bytes.
    pub size: u64,
    /// Entity tag without quotes.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
    /// What the client said about it.
    pub described: Described,
    /// Xet's file hash; absent where the object was put together from parts.
    pub root_digest: Option<Digest>,
    /// Parts that it was put together from; 0 for a single PUT.
    pub parts: u32,
    /// Its bytes.
    pub body: Body,
}

impl ObjectRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).varint(self.size).u64(self.modified.0).bytes(self.etag.as_bytes());
        self.described.write(&mut out);
        match &self.root_digest {
            None => out.u8(0),
            Some(digest) => out.u8(1).raw(&digest.0),
        };
        out.varint(u64::from(self.parts));
        self.body.write(&mut out);
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("object row", bytes)?;
        reader.version(VERSION)?;
        let size = reader.varint()?;
        let modified = Timestamp(reader.u64()?);
        let etag = reader.text()?;
        let described = Described::read(&mut reader)?;
        let root_digest = match reader.u8()? {
            0 => None,
            1 => Some(Digest(reader.array()?)),
            _ => return Err(reader.damaged("a flag is neither 0 nor 1")),
        };
        let parts = reader.varint32()?;
        let body = Body::read(&mut reader, size)?;
        reader.end()?;
        Ok(Self { size, etag, modified, described, root_digest, parts, body })
    }
}

/// One row of a long object's manifest: its terms.
#[must_use]
pub fn encode_terms(terms: &[Term]) -> Bytes {
    let mut out = Writer::default();
    out.u8(VERSION);
    manifest::write(&mut out, terms);
    out.seal().take().into()
}

/// Reads a row of a manifest: its terms, and the sum of their bytes.
pub fn decode_terms(bytes: &[u8]) -> Result<(Vec<Term>, u64), Damaged> {
    let mut reader = Reader::sealed("manifest row", bytes)?;
    reader.version(VERSION)?;
    let terms = manifest::read(&mut reader)?;
    reader.end()?;
    Ok(terms)
}

/// Where a pack is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackState {
    /// It still grows: its directory is in the memory of the process that fills it, and in its groups.
    Open,
    /// It is whole.
    Sealed,
    /// Nothing refers to it; who finds it of use again makes it sealed again.
    Condemned,
    /// It is being removed: nothing may refer to it any more.
    Deleting,
}

/// A pack that is durable and may be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// Where it is in its life.
    pub state: PackState,
    /// Length of the file in bytes; 0 while it is open.
    pub bytes: u64,
    /// Where its directory begins; 0 while it is open.
    pub directory_offset: u64,
    /// Its chunks; 0 while it is open.
    pub chunks: u32,
    /// Sum of its chunks' lengths in bytes; 0 while it is open.
    pub raw_bytes: u64,
    /// When it was begun.
    pub created: Timestamp,
    /// The epoch in which it was begun.
    pub created_epoch: u64,
    /// The last epoch in which a writer relied on it.
    pub referenced_epoch: u64,
    /// The epoch in which it was condemned; 0 where it is not.
    pub condemned_epoch: u64,
    /// When all its chunks were last read and found good; 0, never.
    pub verified: Timestamp,
}

impl PackRow {
    /// The row of a pack that was just begun.
    #[must_use]
    pub fn open(created: Timestamp, epoch: u64) -> Self {
        Self {
            state: PackState::Open,
            bytes: 0,
            directory_offset: 0,
            chunks: 0,
            raw_bytes: 0,
            created,
            created_epoch: epoch,
            referenced_epoch: epoch,
            condemned_epoch: 0,
            verified: Timestamp(0),
        }
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        let state = match self.state {
            PackState::Open => 0,
            PackState::Sealed => 1,
            PackState::Condemned => 2,
            PackState::Deleting => 3,
        };
        out.u8(VERSION).u8(state).varint(self.bytes).varint(self.directory_offset).varint(u64::from(self.chunks));
        out.varint(self.raw_bytes).u64(self.created.0).varint(self.created_epoch).varint(self.referenced_epoch);
        out.varint(self.condemned_epoch).u64(self.verified.0);
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("pack row", bytes)?;
        reader.version(VERSION)?;
        let state = match reader.u8()? {
            0 => PackState::Open,
            1 => PackState::Sealed,
            2 => PackState::Condemned,
            3 => PackState::Deleting,
            _ => return Err(reader.damaged("its state is not one that this program knows")),
        };
        let row = Self {
            state,
            bytes: reader.varint()?,
            directory_offset: reader.varint()?,
            chunks: reader.varint32()?,
            raw_bytes: reader.varint()?,
            created: Timestamp(reader.u64()?),
            created_epoch: reader.varint()?,
            referenced_epoch: reader.varint()?,
            condemned_epoch: reader.varint()?,
            verified: Timestamp(reader.u64()?),
        };
        if row.directory_offset > row.bytes {
            return Err(reader.damaged("its directory lies beyond its end"));
        }
        reader.end()?;
        Ok(row)
    }
}

/// The value of the row that marks a pack as being filled: it says nothing more.
#[must_use]
pub fn encode_filling() -> Bytes {
    let mut out = Writer::default();
    out.u8(VERSION).seal().take().into()
}

/// The value of a chunk's index row: where the chunk is. 24 bytes: the pack's id, the chunk's number, CRC32C.
#[must_use]
pub fn encode_location(at: Location) -> Bytes {
    let mut out = Writer::with_capacity(24);
    out.raw(&at.pack.0).u32(at.chunk);
    out.seal().take().into()
}

/// Reads the value of a chunk's index row.
pub fn decode_location(bytes: &[u8]) -> Result<Location, Damaged> {
    let mut reader = Reader::sealed("index row", bytes)?;
    let at = Location { pack: PackId(reader.array()?), chunk: reader.u32()? };
    reader.end()?;
    Ok(at)
}

/// The value of the epoch's row.
#[must_use]
pub fn encode_epoch(epoch: u64) -> Bytes {
    let mut out = Writer::default();
    out.u8(VERSION).u64(epoch);
    out.seal().take().into()
}

/// Reads the value of the epoch's row. A store that was never collected has none: its epoch is 1.
pub fn decode_epoch(bytes: Option<&[u8]>) -> Result<u64, Damaged> {
    let Some(bytes) = bytes else { return Ok(1) };
    let mut reader = Reader::sealed("epoch row", bytes)?;
    reader.version(VERSION)?;
    let epoch = reader.u64()?;
    reader.end()?;
    Ok(epoch)
}

/// A multipart upload that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRow {
    /// When it was begun.
    pub created: Timestamp,
    /// What the client said about the object to be.
    pub described: Described,
}

impl UploadRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).u64(self.created.0);
        self.described.write(&mut out);
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("upload row", bytes)?;
        reader.version(VERSION)?;
        let row = Self { created: Timestamp(reader.u64()?), described: Described::read(&mut reader)? };
        reader.end()?;
        Ok(row)
    }
}

/// A part of an open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// Length in bytes.
    pub size: u64,
    /// MD5 of its bytes: its entity tag.
    pub md5: [u8; 16],
    /// When it was written.
    pub modified: Timestamp,
    /// Xet's file hash of the part alone.
    pub root_digest: Digest,
    /// Its bytes.
    pub body: Body,
}

impl PartRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION).varint(self.size).raw(&self.md5).u64(self.modified.0).raw(&self.root_digest.0);
        self.body.write(&mut out);
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("part row", bytes)?;
        reader.version(VERSION)?;
        let size = reader.varint()?;
        let md5 = reader.array()?;
        let modified = Timestamp(reader.u64()?);
        let root_digest = Digest(reader.array()?);
        let body = Body::read(&mut reader, size)?;
        reader.end()?;
        Ok(Self { size, md5, modified, root_digest, body })
    }
}

#[cfg(test)]
mod tests {
    //! Every row reads back, and hostile or damaged bytes end in an error.
    use proptest::prelude::*;

    use super::*;

    fn object(body: Body, size: u64) -> ObjectRow {
        let headers = BTreeMap::from([("cache-control".to_owned(), "no-store".to_owned())]);
        ObjectRow {
            size,
            etag: "d41d8cd98f00b204e9800998ecf8427e-3".into(),
            modified: Timestamp(1_795_471_199_999),
            described: Described { content_type: Some("text/plain".into()), headers },
            root_digest: Some(Digest([3; 32])),
            parts: 3,
            body,
        }
    }

    #[test]
    fn rows_read_back() {
        let term = Term { pack: PackId([1; 16]), first: 2, count: 3, repeats: false, bytes: 200_000 };
        for row in [
            object(Body::Inline(Bytes::from_static(b"hello")), 5),
            object(Body::Terms(vec![term]), 200_000),
            object(Body::Rows([4; 16]), 1 << 40),
        ] {
            assert_eq!(ObjectRow::decode(&row.encode()).unwrap(), row);
        }
        let bucket = BucketRow { owner: "root".into(), created: Timestamp(5), deleting: Some([7; 16]) };
        assert_eq!(BucketRow::decode(&bucket.encode()).unwrap(), bucket);
        let open = PackRow::open(Timestamp(1), 300);
        for state in [PackState::Open, PackState::Sealed, PackState::Condemned, PackState::Deleting] {
            let pack = PackRow { state, bytes: 9, directory_offset: 4, chunks: 2, raw_bytes: 7, ..open };
            assert_eq!(PackRow::decode(&pack.encode()).unwrap(), pack);
        }
        let at = Location { pack: PackId([8; 16]), chunk: 77 };
        assert_eq!(decode_location(&encode_location(at)).unwrap(), at);
        assert_eq!(decode_epoch(Some(&encode_epoch(7))).unwrap(), 7);
        assert_eq!(decode_epoch(None).unwrap(), 1);
        let upload = UploadRow { created: Timestamp(5), described: Described::default() };
        assert_eq!(UploadRow::decode(&upload.encode()).unwrap(), upload);
        let part = PartRow {
            size: 200_000,
            md5: [1; 16],
            modified: Timestamp(6),
            root_digest: Digest([2; 32]),
            body: Body::Terms(vec![term]),
        };
        assert_eq!(PartRow::decode(&part.encode()).unwrap(), part);
        assert_eq!(decode_terms(&encode_terms(&[term])).unwrap(), (vec![term], 200_000));
    }

    #[test]
    fn a_body_must_add_up() {
        let row = object(Body::Inline(Bytes::from_static(b"hello")), 6);
        assert!(ObjectRow::decode(&row.encode()).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(mut bytes: Vec<u8>, seal: bool, first in 0u8..3) {
            if seal {
                bytes.insert(0, first);
                let crc = crc32c::crc32c(&bytes);
                bytes.extend_from_slice(&crc.to_le_bytes());
            }
            let _ = ObjectRow::decode(&bytes);
            let _ = BucketRow::decode(&bytes);
            let _ = PackRow::decode(&bytes);
            let _ = UploadRow::decode(&bytes);
            let _ = PartRow::decode(&bytes);
            let _ = decode_terms(&bytes);
            let _ = decode_location(&bytes);
            let _ = decode_epoch(Some(&bytes));
        }
    }
}
