//! Every row reads back, and hostile or damaged bytes end in an error.
use proptest::prelude::*;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::format::manifest::{Location, Term};
use crate::model::{BucketName, Digest, ObjectKey, PackId, Version, Versioning};
use crate::sys::clock::Timestamp;

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
        version: Version::default(),
        marker: false,
        part_list: PartList::default(),
        epoch: 0,
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
    for (versioning, object_lock) in
        [(Versioning::Off, false), (Versioning::Enabled, true), (Versioning::Suspended, false)]
    {
        let deleting = Some([7; 16]);
        let bucket = BucketRow { deleting, versioning, object_lock, ..BucketRow::new("root", Timestamp(5)) };
        assert_eq!(BucketRow::decode(&bucket.encode()).unwrap(), bucket);
    }
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
        described: Described::default(),
    };
    let headers = BTreeMap::from([("x-amz-checksum-crc32".to_owned(), "AAAAAA==".to_owned())]);
    let summed = PartRow { described: Described { content_type: None, headers }, ..part.clone() };
    assert_eq!(PartRow::decode(&summed.encode()).unwrap(), summed);
    assert_eq!(PartRow::decode(&part.encode()).unwrap(), part);
    assert_eq!(decode_terms(&encode_terms(&[term])).unwrap(), (vec![term], 200_000));
}

#[test]
fn versions_read_back_and_cost_nothing_where_there_are_none() {
    let plain = object(Body::Inline(Bytes::new()), 0);
    assert_eq!(plain.encode()[0], VERSION);
    let mut part_list = PartList { sums: Bytes::from_static(b"abcdabcd"), ..PartList::default() };
    for (number, bytes) in [(1, 8), (2, 8), (4, 8), (5, 3)] {
        part_list.push(number, bytes);
    }
    assert_eq!(part_list.runs.len(), 3);
    let version = Version { stamp: 9, random: 8 };
    for row in [
        ObjectRow { version, ..plain.clone() },
        ObjectRow { marker: true, ..plain.clone() },
        ObjectRow { part_list, ..plain.clone() },
    ] {
        assert_eq!(row.encode()[0], VERSION_EXTENDED);
        assert_eq!(ObjectRow::decode(&row.encode()).unwrap(), row);
    }
}

fn origin(epoch: u64) -> Origin {
    Origin { bucket: "data".parse().unwrap(), snapshot: "v1.0".parse().unwrap(), epoch }
}

#[test]
fn what_snapshots_add_reads_back_and_costs_nothing_where_there_are_none() {
    let plain = BucketRow::new("root", Timestamp(5));
    assert_eq!(plain.encode()[0], VERSION);
    for row in [
        BucketRow { epoch: 1, ..plain.clone() },
        BucketRow { epoch: 900, snapshots: vec![0, 7, 899], ..plain.clone() },
        BucketRow { origins: vec![origin(0), origin(300)], ..plain.clone() },
    ] {
        assert_eq!(row.encode()[0], VERSION_SNAPSHOT);
        assert_eq!(BucketRow::decode(&row.encode()).unwrap(), row);
    }
    for snapshots in [vec![7, 7], vec![8, 7], vec![900]] {
        let row = BucketRow { epoch: 900, snapshots, ..plain.clone() };
        assert!(BucketRow::decode(&row.encode()).is_err());
    }
    let row = ObjectRow { epoch: 300, ..object(Body::Inline(Bytes::new()), 0) };
    assert_eq!(ObjectRow::decode(&row.encode()).unwrap(), row);
    for (expires, leaving, branches) in
        [(None, false, vec![]), (Some(Timestamp(9)), true, vec!["one".parse().unwrap(), "two".parse().unwrap()])]
    {
        let row = SnapshotRow { created: Timestamp(5), epoch: 300, expires, leaving, branches };
        assert_eq!(SnapshotRow::decode(&row.encode()).unwrap(), row);
    }
}

#[test]
fn a_snapshot_shows_what_was_written_before_it_and_replaced_after() {
    let row = BucketRow { epoch: 9, snapshots: vec![2, 5], ..BucketRow::new("root", Timestamp(5)) };
    for (written, replaced, shown) in [
        (0, 1, false),
        (0, 2, false),
        (0, 3, true),
        (2, 3, true),
        (3, 5, false),
        (3, 6, true),
        (5, 6, true),
        (6, 9, false),
    ] {
        assert_eq!(row.shows(written, replaced), shown, "{written} to {replaced}");
    }
    let (bucket, name): (BucketName, ObjectKey) = ("data".parse().unwrap(), "a\0b".parse().unwrap());
    let key = key::past(&bucket, &name, 300);
    assert_eq!(key::read_past(&key).unwrap(), (&b"data"[..], b"a\0b".to_vec(), 300));
}

#[test]
fn keys_of_versions_keep_the_order_of_keys_and_put_the_newest_first() {
    let bucket: BucketName = "bucket".parse().unwrap();
    let names: Vec<ObjectKey> = ["a", "a\0", "a\0b", "a\u{1}", "ab", "b"].map(|key| key.parse().unwrap()).into();
    let mut keys = Vec::new();
    for name in &names {
        for stamp in [9, 8] {
            let version = Version { stamp, random: 1 };
            let key = key::version(&bucket, name, version);
            let read = key::read_version(&key).unwrap();
            assert_eq!(read, (&b"bucket"[..], name.as_str().as_bytes().to_vec(), version));
            keys.push(key);
        }
    }
    assert!(keys.is_sorted());
    assert!(key::read_version(b"v/bucket\0key").is_err());
}

#[test]
fn a_body_must_add_up() {
    let row = object(Body::Inline(Bytes::from_static(b"hello")), 6);
    assert!(ObjectRow::decode(&row.encode()).is_err());
}

proptest! {
    #[test]
    fn hostile_bytes_are_harmless(mut bytes: Vec<u8>, seal: bool, first in 0u8..4) {
        if seal {
            bytes.insert(0, first);
            let crc = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        let _ = ObjectRow::decode(&bytes);
        let _ = BucketRow::decode(&bytes);
        let _ = SnapshotRow::decode(&bytes);
        let _ = PackRow::decode(&bytes);
        let _ = UploadRow::decode(&bytes);
        let _ = PartRow::decode(&bytes);
        let _ = decode_terms(&bytes);
        let _ = decode_location(&bytes);
        let _ = decode_epoch(Some(&bytes));
        let _ = key::read_version(&bytes);
        let _ = key::read_past(&bytes);
    }
}
