//! Object rows, and the rows of long objects' manifests.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{VERSION, VERSION_EXTENDED, VERSION_SNAPSHOT};
use crate::format::field::{Damaged, Reader, Writer};
use crate::format::manifest::{self, Term};
use crate::model::{Digest, Version};
use crate::sys::clock::Timestamp;

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
    pub(super) fn write(&self, out: &mut Writer) {
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

    pub(super) fn read(reader: &mut Reader<'_>, size: u64) -> Result<Self, Damaged> {
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
    pub(super) fn write(&self, out: &mut Writer) {
        out.optional_text(self.content_type.as_deref()).varint(self.headers.len() as u64);
        for (name, value) in &self.headers {
            out.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
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

/// Parts of one length whose numbers follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRun {
    /// Number of the first.
    pub first: u32,
    /// How many they are.
    pub count: u32,
    /// Length of each in bytes.
    pub bytes: u64,
}

/// The parts that an object was put together from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartList {
    /// Their numbers and lengths.
    pub runs: Vec<PartRun>,
    /// The checksum of each part, all of one length, one after the other; empty where they had none.
    pub sums: Bytes,
}

impl PartList {
    /// Adds the next part.
    pub fn push(&mut self, number: u32, bytes: u64) {
        match self.runs.last_mut() {
            Some(run) if run.bytes == bytes && run.first + run.count == number => run.count += 1,
            _ => self.runs.push(PartRun { first: number, count: 1, bytes }),
        }
    }

    fn write(&self, out: &mut Writer) {
        out.varint(self.runs.len() as u64);
        for run in &self.runs {
            out.varint(u64::from(run.first)).varint(u64::from(run.count)).varint(run.bytes);
        }
        out.bytes(&self.sums);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = reader.varint()?;
        let mut list = Self::default();
        for _ in 0..count {
            let run = PartRun { first: reader.varint32()?, count: reader.varint32()?, bytes: reader.varint()? };
            list.runs.push(run);
        }
        list.sums = Bytes::copy_from_slice(reader.bytes()?);
        Ok(list)
    }
}

/// An object, or one of its versions.
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
    /// Which version it is.
    pub version: Version,
    /// Whether it says that the object was deleted, and is no object itself.
    pub marker: bool,
    /// Its parts; empty for a single PUT, and for objects that were written before parts were kept.
    pub part_list: PartList,
    /// The bucket's epoch in which the row was written; 0 before the bucket's first snapshot.
    pub epoch: u64,
}

impl ObjectRow {
    /// The row of an object of no bytes, of which nothing is known.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            size: 0,
            etag: String::new(),
            modified: Timestamp(0),
            described: Described::default(),
            root_digest: None,
            parts: 0,
            body: Body::Inline(Bytes::new()),
            version: Version::default(),
            marker: false,
            part_list: PartList::default(),
            epoch: 0,
        }
    }

    /// Where the version stands among those of its key: the higher, the newer.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        if self.version.stamp == 0 { self.modified.0.saturating_mul(1_000) } else { self.version.stamp }
    }

    /// Whether it says, in a branch that keeps no versions, that there is nothing of what the branch began with.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.marker && self.version == Version::default()
    }

    fn is_extended(&self) -> bool {
        self.version != Version::default() || self.marker || self.part_list != PartList::default()
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        let version = match (self.epoch, self.is_extended()) {
            (1.., _) => VERSION_SNAPSHOT,
            (0, true) => VERSION_EXTENDED,
            (0, false) => VERSION,
        };
        out.u8(version);
        out.varint(self.size).u64(self.modified.0).bytes(self.etag.as_bytes());
        self.described.write(&mut out);
        match &self.root_digest {
            None => out.u8(0),
            Some(digest) => out.u8(1).raw(&digest.0),
        };
        out.varint(u64::from(self.parts));
        self.body.write(&mut out);
        if version >= VERSION_EXTENDED {
            out.u64(self.version.stamp).u64(self.version.random).u8(u8::from(self.marker));
            self.part_list.write(&mut out);
        }
        if version >= VERSION_SNAPSHOT {
            out.varint(self.epoch);
        }
        out.seal().take().into()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("object row", bytes)?;
        let written = reader.version_up_to(VERSION_SNAPSHOT)?;
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
        let (mut version, mut marker, mut part_list) = (Version::default(), false, PartList::default());
        if written >= VERSION_EXTENDED {
            version = Version { stamp: reader.u64()?, random: reader.u64()? };
            marker = reader.flag()?;
            part_list = PartList::read(&mut reader)?;
        }
        let epoch = if written >= VERSION_SNAPSHOT { reader.varint()? } else { 0 };
        reader.end()?;
        Ok(Self { size, etag, modified, described, root_digest, parts, body, version, marker, part_list, epoch })
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
