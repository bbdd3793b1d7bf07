//! Keys of the rows.

use crate::format::field::Damaged;
use crate::model::{BucketName, Digest, ObjectKey, PackId, SnapshotName, UploadId, Version};

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

/// `v/` bucket, a zero byte, the key with `00 01` in place of each zero byte, `00 00`, then where the version stands
/// (8 bytes big endian, inverted: the newest comes first) and its random number (8 bytes big endian).
#[must_use]
pub fn version(bucket: &BucketName, key: &ObjectKey, version: Version) -> Vec<u8> {
    join(&[&versions_of(bucket, key), &(!version.stamp).to_be_bytes(), &version.random.to_be_bytes()])
}

/// What the keys of an object's older versions begin with.
#[must_use]
pub fn versions_of(bucket: &BucketName, key: &ObjectKey) -> Vec<u8> {
    let mut out = versions(bucket);
    out.extend_from_slice(&escaped(key.as_str()));
    out.extend_from_slice(&[0, 0]);
    out
}

/// What the keys of a bucket's older versions begin with.
#[must_use]
pub fn versions(bucket: &BucketName) -> Vec<u8> {
    join(&[b"v/", bucket.as_str().as_bytes(), &[0]])
}

/// `h/` bucket, a zero byte, the key as in an older version's, `00 00`, then the bucket's epoch in which the row was replaced (8 bytes
/// big endian): what an object was, for the snapshots that show it.
#[must_use]
pub fn past(bucket: &BucketName, key: &ObjectKey, replaced: u64) -> Vec<u8> {
    join(&[&past_of(bucket, key), &replaced.to_be_bytes()])
}

/// What the keys of all that an object was begin with.
#[must_use]
pub fn past_of(bucket: &BucketName, key: &ObjectKey) -> Vec<u8> {
    join(&[&pasts(bucket), &escaped(key.as_str()), &[0, 0]])
}

/// What the keys of all that a bucket's objects were begin with.
#[must_use]
pub fn pasts(bucket: &BucketName) -> Vec<u8> {
    join(&[b"h/", bucket.as_str().as_bytes(), &[0]])
}

/// The bucket, the object's key and the epoch of replacement of a row of what an object was.
pub fn read_past(key: &[u8]) -> Result<(&[u8], Vec<u8>, u64), Damaged> {
    let damaged = Damaged { what: "row key", why: "it does not name what an object was" };
    let (name, replaced) = key.split_last_chunk::<8>().ok_or(damaged)?;
    let (bucket, object) = read_escaped(name, b"h/", damaged)?;
    Ok((bucket, object, u64::from_be_bytes(*replaced)))
}

/// `z/` bucket, a zero byte, name: a snapshot of the bucket.
#[must_use]
pub fn snapshot(bucket: &BucketName, name: &SnapshotName) -> Vec<u8> {
    join(&[&snapshots(bucket), name.as_str().as_bytes()])
}

/// What the keys of a bucket's snapshots begin with.
#[must_use]
pub fn snapshots(bucket: &BucketName) -> Vec<u8> {
    join(&[b"z/", bucket.as_str().as_bytes(), &[0]])
}

/// An object's key, or the beginning of one, so that it ends nowhere but at its end and sorts as before.
#[must_use]
pub fn escaped(key: impl AsRef<[u8]>) -> Vec<u8> {
    let key = key.as_ref();
    let mut out = Vec::with_capacity(key.len());
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(1);
        }
    }
    out
}

/// The bucket, the object's key and the version of an older version's key.
pub fn read_version(key: &[u8]) -> Result<(&[u8], Vec<u8>, Version), Damaged> {
    let damaged = Damaged { what: "row key", why: "it names no version of an object" };
    let (name, numbers) = key.split_last_chunk::<16>().ok_or(damaged)?;
    let (bucket, object) = read_escaped(name, b"v/", damaged)?;
    let number = u128::from_be_bytes(*numbers);
    Ok((bucket, object, Version { stamp: !((number >> 64) as u64), random: number as u64 }))
}

/// The bucket and the object's key of a row's key that begins with `owner` and ends, but for numbers, with `00 00`.
fn read_escaped<'a>(name: &'a [u8], owner: &[u8], damaged: Damaged) -> Result<(&'a [u8], Vec<u8>), Damaged> {
    let name = name.strip_prefix(owner).and_then(|name| name.strip_suffix(&[0, 0])).ok_or(damaged)?;
    let split = name.iter().position(|byte| *byte == 0).ok_or(damaged)?;
    let mut object = Vec::with_capacity(name.len());
    let mut bytes = name[split + 1..].iter();
    while let Some(byte) = bytes.next() {
        object.push(*byte);
        if *byte == 0 && bytes.next() != Some(&1) {
            return Err(damaged);
        }
    }
    Ok((&name[..split], object))
}

/// `s/` bucket, a zero byte, name: a setting of the bucket.
#[must_use]
pub fn setting(bucket: &BucketName, name: &str) -> Vec<u8> {
    join(&[&settings(bucket), name.as_bytes()])
}

/// What the keys of a bucket's settings begin with.
#[must_use]
pub fn settings(bucket: &BucketName) -> Vec<u8> {
    join(&[b"s/", bucket.as_str().as_bytes(), &[0]])
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
