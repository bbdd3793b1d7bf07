//! The fixtures of format version 1, kept in tests/fixture/v1: proves that this program reads what every earlier one of
//! the same version wrote, and refuses a damaged copy with words that name the damage.
//!
//! Each test says in plain values what its file holds. `BEDPLATE_WRITE_FIXTURES=1 cargo test fixtures::` writes the files
//! anew; that is right only for a kind of file that is new, or before a version is released.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bedplate::format::boot_region::BootRegion;
use bedplate::format::chunk_list::{ChunkList, ChunkRef};
use bedplate::format::codec::{Codec, Decoder, Encoder, Frame};
use bedplate::format::damage::DamageRow;
use bedplate::format::digest::chunk_digest;
use bedplate::format::disk_marker::DiskMarker;
use bedplate::format::manifest::{Location, Term};
use bedplate::format::pack::{Directory, Entry, FOOTER, Footer, GROUP_START, Group, MAGIC};
use bedplate::format::row::{
    self, Body, BucketRow, Described, ObjectRow, Origin, PackRow, PackState, PartList, PartRow, SnapshotRow, UploadRow,
};
use bedplate::model::{Digest, PackId, Version, Versioning};
use bedplate::sys::clock::Timestamp;
use bytes::Bytes;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/v1").join(name)
}

/// The kept file of that name. `made` is what this program writes for the same value.
fn kept(name: &str, made: &[u8]) -> Vec<u8> {
    if std::env::var_os("BEDPLATE_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(path("")).unwrap();
        std::fs::write(path(name), made).unwrap();
    }
    std::fs::read(path(name)).unwrap()
}

/// The kept file, which this program must write in the same way too.
fn exact(name: &str, made: &[u8]) -> Vec<u8> {
    let bytes = kept(name, made);
    assert_eq!(bytes, made, "{name} is written differently than it was");
    bytes
}

/// The kept twin of a file: one bit of it is wrong.
fn damaged(name: &str, good: &[u8], at: usize) -> Vec<u8> {
    let mut bad = good.to_vec();
    bad[at] ^= 0x10;
    exact(name, &bad)
}

/// A digest that people can tell from others.
fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn described() -> Described {
    let headers = [("cache-control", "no-store"), ("x-amz-meta-épôque", "47")];
    Described {
        content_type: Some("application/x-checkpoint".into()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

fn terms() -> Vec<Term> {
    let (one, two) = (PackId([0x11; 16]), PackId([0x22; 16]));
    vec![
        Term { pack: one, first: 0, count: 3, repeats: false, bytes: 200_000 },
        Term { pack: two, first: 8191, count: 1, repeats: false, bytes: 1 },
        Term { pack: one, first: 7, count: 1_000_000, repeats: true, bytes: 131_072_000_000 },
    ]
}

#[test]
fn bucket_rows() {
    let row = BucketRow::new("root", Timestamp(1_795_600_000_000));
    assert_eq!(BucketRow::decode(&exact("bucket.row", &row.encode())).unwrap(), row);
    let row = BucketRow { deleting: Some([0x77; 16]), ..row };
    assert_eq!(BucketRow::decode(&exact("bucket-deleting.row", &row.encode())).unwrap(), row);
    let row = BucketRow { versioning: Versioning::Enabled, object_lock: true, ..row };
    assert_eq!(BucketRow::decode(&exact("bucket-versioned.row", &row.encode())).unwrap(), row);
    let origin = |bucket: &str, epoch| Origin {
        bucket: bucket.parse().unwrap(),
        snapshot: "2026-11-27_nightly".parse().unwrap(),
        epoch,
    };
    let origins = vec![origin("experiments", 3), origin("datasets", 0)];
    let row = BucketRow {
        epoch: 4711,
        snapshots: vec![0, 1, 4000, 4710],
        origins,
        ..BucketRow::new("root", Timestamp(1_795_600_000_000))
    };
    assert_eq!(BucketRow::decode(&exact("bucket-branch.row", &row.encode())).unwrap(), row);
}

#[test]
fn snapshot_rows() {
    let row = SnapshotRow {
        created: Timestamp(1_795_600_000_000),
        epoch: 4710,
        expires: Some(Timestamp(1_798_192_000_000)),
        leaving: false,
        branches: vec!["experiments".parse().unwrap(), "run-7".parse().unwrap()],
    };
    let bytes = exact("snapshot.row", &row.encode());
    assert_eq!(SnapshotRow::decode(&bytes).unwrap(), row);
    let row = SnapshotRow { expires: None, leaving: true, branches: Vec::new(), ..row };
    assert_eq!(SnapshotRow::decode(&exact("snapshot-leaving.row", &row.encode())).unwrap(), row);
    let error = SnapshotRow::decode(&damaged("snapshot-damaged.row", &bytes, 12)).unwrap_err();
    assert_eq!(error.to_string(), "the snapshot row is damaged: its checksum does not match");
}

#[test]
fn object_rows() {
    let inline = ObjectRow {
        size: 16,
        etag: "b13c0cb5c6d2c0b5c2d0b33b1a2a3fd1".into(),
        modified: Timestamp(1_795_600_000_001),
        root_digest: Some(digest(0xaa)),
        body: Body::Inline(Bytes::from_static(b"sixteen bytes, 1")),
        ..ObjectRow::empty()
    };
    assert_eq!(ObjectRow::decode(&exact("object-inline.row", &inline.encode())).unwrap(), inline);
    let chunked =
        ObjectRow { size: 131_072_200_001, described: described(), body: Body::Terms(terms()), ..inline.clone() };
    let bytes = exact("object-terms.row", &chunked.encode());
    assert_eq!(ObjectRow::decode(&bytes).unwrap(), chunked);
    let long = ObjectRow {
        size: 1 << 50,
        etag: "d41d8cd98f00b204e9800998ecf8427e-10000".into(),
        root_digest: None,
        parts: 10_000,
        body: Body::Rows([0x33; 16]),
        ..inline.clone()
    };
    assert_eq!(ObjectRow::decode(&exact("object-rows.row", &long.encode())).unwrap(), long);
    let mut part_list = PartList { sums: Bytes::from_static(b"sum1sum2sum3"), ..PartList::default() };
    [(1, 8), (2, 8), (5, 0)].into_iter().for_each(|(number, bytes)| part_list.push(number, bytes));
    let version = Version { stamp: 1_795_600_000_001_000, random: 0x0102_0304_0506_0708 };
    let versioned = ObjectRow { version, parts: 3, part_list, ..inline.clone() };
    assert_eq!(ObjectRow::decode(&exact("object-version.row", &versioned.encode())).unwrap(), versioned);
    let marker = ObjectRow { modified: Timestamp(1_795_600_000_002), version, marker: true, ..ObjectRow::empty() };
    assert_eq!(ObjectRow::decode(&exact("object-marker.row", &marker.encode())).unwrap(), marker);
    let later = ObjectRow { epoch: 4711, ..inline };
    assert_eq!(ObjectRow::decode(&exact("object-epoch.row", &later.encode())).unwrap(), later);
    let error = ObjectRow::decode(&damaged("object-terms-damaged.row", &bytes, 40)).unwrap_err();
    assert_eq!(error.to_string(), "the object row is damaged: its checksum does not match");
}

#[test]
fn manifest_rows() {
    let bytes = exact("manifest.row", &row::encode_terms(&terms()));
    assert_eq!(row::decode_terms(&bytes).unwrap(), (terms(), 131_072_200_001));
    let error = row::decode_terms(&damaged("manifest-damaged.row", &bytes, 0)).unwrap_err();
    assert_eq!(error.to_string(), "the manifest row is damaged: its checksum does not match");
}

#[test]
fn index_rows() {
    let at = Location { pack: PackId([0x11; 16]), chunk: 4711 };
    let bytes = exact("index.row", &row::encode_location(at));
    assert_eq!(row::decode_location(&bytes).unwrap(), at);
    let error = row::decode_location(&damaged("index-damaged.row", &bytes, 18)).unwrap_err();
    assert_eq!(error.to_string(), "the index row is damaged: its checksum does not match");
}

#[test]
fn epoch_rows() {
    let bytes = exact("epoch.row", &row::encode_epoch(4711));
    assert_eq!(row::decode_epoch(Some(&bytes)).unwrap(), 4711);
    let error = row::decode_epoch(Some(&damaged("epoch-damaged.row", &bytes, 3))).unwrap_err();
    assert_eq!(error.to_string(), "the epoch row is damaged: its checksum does not match");
}

#[test]
fn damage_rows() {
    let row = DamageRow {
        found: Timestamp(1_795_600_000_001),
        digest: Some(digest(0x47)),
        needed: true,
        what: "its bytes do not have its digest".to_owned(),
    };
    let bytes = exact("damage.row", &row.encode());
    assert_eq!(DamageRow::decode(&bytes).unwrap(), row);
    let error = DamageRow::decode(&damaged("damage-damaged.row", &bytes, 9)).unwrap_err();
    assert_eq!(error.to_string(), "the damage row is damaged: its checksum does not match");
}

#[test]
fn upload_and_part_rows() {
    let upload = UploadRow { created: Timestamp(1_795_600_000_002), described: described() };
    assert_eq!(UploadRow::decode(&exact("upload.row", &upload.encode())).unwrap(), upload);
    let part = PartRow {
        size: 131_072_200_001,
        md5: [0x55; 16],
        modified: Timestamp(1_795_600_000_003),
        root_digest: digest(0xbb),
        body: Body::Terms(terms()),
        described: Described::default(),
    };
    assert_eq!(PartRow::decode(&exact("part.row", &part.encode())).unwrap(), part);
    let summed = PartRow { described: described(), ..part };
    assert_eq!(PartRow::decode(&exact("part-summed.row", &summed.encode())).unwrap(), summed);
}

#[test]
fn boot_regions() {
    let region = BootRegion {
        url: "https://10.99.0.1:9100".into(),
        certificate_pin: "ab".repeat(32),
        token: "0123456789abcdef0123456789abcdef".into(),
        node: "node-07".into(),
    };
    let bytes = exact("boot.region", &region.encode().unwrap());
    assert_eq!(BootRegion::decode(&bytes).unwrap(), region);
    let error = BootRegion::decode(&damaged("boot-damaged.region", &bytes, 30)).unwrap_err();
    assert_eq!(error.to_string(), "the boot region is damaged: its checksum does not match");
}

#[test]
fn disk_markers() {
    let marker = DiskMarker {
        image: "node-minimal@2026.11.1".parse().unwrap(),
        root_digest: digest(0xcc),
        finished: true,
        tables: vec![format!("{}-{}", "0f".repeat(16), "89abcdef")],
    };
    let bytes = exact("disk.marker", &marker.encode().unwrap());
    assert_eq!(DiskMarker::decode(&bytes).unwrap(), Some(marker));
    let error = DiskMarker::decode(&damaged("disk-damaged.marker", &bytes, 20)).unwrap_err();
    assert_eq!(error.to_string(), "the disk marker is damaged: its checksum does not match");
}

#[test]
fn pack_rows() {
    let open = PackRow::open(Timestamp(1_795_600_000_004), 3);
    assert_eq!(PackRow::decode(&exact("pack-open.row", &open.encode())).unwrap(), open);
    let sealed = PackRow {
        state: PackState::Sealed,
        bytes: 67_108_000,
        directory_offset: 67_000_000,
        chunks: 1928,
        raw_bytes: 134_217_728,
        referenced_epoch: 300,
        verified: Timestamp(1_795_700_000_000),
        ..open
    };
    let bytes = exact("pack-sealed.row", &sealed.encode());
    assert_eq!(PackRow::decode(&bytes).unwrap(), sealed);
    let condemned = PackRow { state: PackState::Condemned, condemned_epoch: 301, ..sealed };
    assert_eq!(PackRow::decode(&exact("pack-condemned.row", &condemned.encode())).unwrap(), condemned);
    let deleting = PackRow { state: PackState::Deleting, ..condemned };
    assert_eq!(PackRow::decode(&exact("pack-deleting.row", &deleting.encode())).unwrap(), deleting);
    let error = PackRow::decode(&damaged("pack-sealed-damaged.row", &bytes, 1)).unwrap_err();
    assert_eq!(error.to_string(), "the pack row is damaged: its checksum does not match");
}

#[test]
fn chunk_lists() {
    let chunk = |n: u8, codec, within| ChunkRef {
        digest: digest(n),
        pack: u32::from(n % 2),
        offset: 16 + 40_000 * u64::from(n),
        stored_len: 30_000,
        raw_len: 65_536,
        codec,
        within,
    };
    let mut chunks = vec![chunk(1, Codec::Zstd, 0), chunk(2, Codec::ZstdFrame, 0), chunk(2, Codec::ZstdFrame, 65_536)];
    chunks.extend([ChunkRef { raw_len: 30_000, ..chunk(3, Codec::Raw, 0) }; 5]);
    let packs = vec![PackId([0x11; 16]), PackId([0x22; 16])];
    let list = ChunkList { size: 3 * 65_536 + 5 * 30_000, root_digest: digest(0xdd), packs, chunks };
    let bytes = exact("image.list", &list.encode());
    assert_eq!(ChunkList::decode(&bytes).unwrap(), list);
    let error = ChunkList::decode(&damaged("image-damaged.list", &bytes, 100)).unwrap_err();
    assert_eq!(error.to_string(), "the chunk list is damaged: its checksum does not match");
}

const PACK: PackId = PackId([0x5a; 16]);

/// The chunks of the packs here, in three groups: noise, a text alone, texts that share a frame; more texts.
fn chunks() -> Vec<Bytes> {
    let noise = (0..75u32).flat_map(|n| n.wrapping_mul(n).wrapping_mul(0x9E37_79B9).to_le_bytes()).collect::<Vec<_>>();
    let text = |n: usize| format!("chunk {n} of a fixture of format version 1; ").repeat(10 + n);
    std::iter::once(noise).chain((1..7).map(|n| text(n).into_bytes())).map(Bytes::from).collect()
}

/// An open pack with its groups: the chunks of the first frames, in groups of so many frames each.
fn open_pack(groups: &[usize]) -> (Vec<u8>, Directory) {
    let (mut chunks, mut encoder) = (chunks(), Encoder::new());
    let mut frames = encoder.encode(&chunks[..5]);
    frames.extend(encoder.encode(&chunks[5..]));
    let mut frames = frames.into_iter();
    let (mut pack, mut all) = (MAGIC.to_vec(), Vec::new());
    for count in groups {
        let frames: Vec<Frame> = frames.by_ref().take(*count).collect();
        let mut offset = pack.len() + Group::head_len(frames.iter().map(|frame| frame.chunks).sum());
        let mut entries = Vec::new();
        for frame in &frames {
            let (mut within, stored_len) = (0, frame.stored.len() as u32);
            for chunk in chunks.drain(..frame.chunks) {
                let (digest, raw_len) = (chunk_digest(&chunk), chunk.len() as u32);
                let codec = frame.codec;
                entries.push(Entry { digest, offset: offset as u64, stored_len, raw_len, codec, within });
                within += raw_len;
            }
            offset += frame.stored.len();
        }
        let group = Group { durable: pack.len() as u64, entries };
        pack.extend(group.encode(PACK));
        frames.iter().for_each(|frame| pack.extend_from_slice(&frame.stored));
        all.extend(group.entries);
    }
    (pack, Directory { pack: PACK, entries: all })
}

/// What a pack holds, for people: its groups as far as they go, each chunk decoded and compared with its digest.
fn describe(pack: &[u8]) -> String {
    assert!(pack.starts_with(MAGIC));
    let (mut text, mut at, mut decoder) = (String::new(), MAGIC.len(), Decoder::new());
    while let Some(len) = pack.get(at..at + GROUP_START).and_then(|start| Group::peek(start.first_chunk().unwrap())) {
        let group = pack.get(at..at + len).map(|head| Group::decode(PACK, at as u64, head));
        let group = match group {
            None => return text + &format!("group at {at}: cut off in its head\n"),
            Some(Err(error)) => return text + &format!("group at {at}: {error}\n"),
            Some(Ok(group)) => group,
        };
        writeln!(text, "group at {at}, {len} bytes of head, {} durable", group.durable).unwrap();
        for Entry { digest, offset, stored_len, raw_len, codec, within } in &group.entries {
            write!(text, "  {stored_len} at {offset}, {codec:?}, {raw_len} from {within}: ").unwrap();
            let Some(stored) = pack.get(*offset as usize..).and_then(|rest| rest.get(..*stored_len as usize)) else {
                text += "cut off\n";
                continue;
            };
            let chunk = decoder.chunk(*offset, *codec, &Bytes::copy_from_slice(stored), *within, *raw_len).unwrap();
            assert_eq!(chunk_digest(&chunk), *digest);
            writeln!(text, "chunk {}", chunks().iter().position(|known| *known == chunk).unwrap()).unwrap();
        }
        at = group.end() as usize;
    }
    text
}

/// Both packs begin alike.
const GROUPS: &str = "\
group at 16, 156 bytes of head, 16 durable
  300 at 172, Raw, 300 from 0: chunk 0
  61 at 472, Zstd, 462 from 0: chunk 1
group at 533, 212 bytes of head, 533 durable
  69 at 745, ZstdFrame, 504 from 0: chunk 2
  69 at 745, ZstdFrame, 546 from 504: chunk 3
  69 at 745, ZstdFrame, 588 from 1050: chunk 4
";

#[test]
fn sealed_packs() {
    let (mut made, directory) = open_pack(&[2, 1]);
    made.extend(directory.encode());
    let pack = kept("sealed.pack", &made);
    assert_eq!(describe(&pack), GROUPS);
    let footer = Footer::decode(pack.last_chunk::<FOOTER>().unwrap()).unwrap();
    let tail = &pack[footer.directory_offset as usize..];
    let directory = Directory::decode(tail).unwrap();
    assert_eq!((directory.pack, footer.pack, footer.chunks), (PACK, PACK, 5));
    assert_eq!(directory.encode(), tail);
    let lens: Vec<u32> = directory.entries.iter().map(|entry| entry.raw_len).collect();
    assert_eq!(lens, chunks()[..5].iter().map(|chunk| chunk.len() as u32).collect::<Vec<_>>());
    let bad = damaged("sealed-damaged.pack", &pack, footer.directory_offset as usize + 60);
    let error = Directory::decode(&bad[footer.directory_offset as usize..]).unwrap_err();
    assert_eq!(error.to_string(), "the pack directory is damaged: its checksum does not match");
}

#[test]
fn open_packs() {
    let (made, _) = open_pack(&[2, 1, 1]);
    let pack = kept("open.pack", &made[..made.len() - 20]);
    let described = describe(&pack);
    let (whole, cut_off) = described.split_at(GROUPS.len());
    assert_eq!(whole, GROUPS);
    assert_eq!(
        cut_off,
        "group at 814, 156 bytes of head, 814 durable\n  \
         65 at 970, ZstdFrame, 630 from 0: cut off\n  \
         65 at 970, ZstdFrame, 672 from 630: cut off\n"
    );
    let bad = damaged("open-damaged.pack", &pack, MAGIC.len() + 40);
    assert_eq!(describe(&bad), "group at 16: the pack group is damaged: its checksum does not match\n");
}
