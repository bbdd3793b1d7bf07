//! Every hard limit, one constant each, with its reason.

/// Smallest chunk in bytes (the Xet protocol's minimum); only the last chunk of an object may be shorter.
pub const CHUNK_MIN: usize = 8 * 1024;
/// Mean chunk in bytes (the Xet protocol's target).
pub const CHUNK_MEAN: usize = 64 * 1024;
/// Largest chunk in bytes (the Xet protocol's maximum).
pub const CHUNK_MAX: usize = 128 * 1024;
/// Bytes of chunks that are compressed together: enough for zstd to find what they have in common, little enough that reading
/// one of them alone costs a fifth of a millisecond.
pub const FRAME_TARGET: usize = 256 * 1024;
/// A frame never decodes to more; the format allows for longer frames than are written now.
pub const FRAME_MAX: usize = 1024 * 1024;
/// Chunks that the terms of an object have at least, on average: bounds how badly the last of many versions can lie, for a twentieth
/// more room. Measured in docs/bench-store.md, together with more.
pub const CHUNKS_PER_TERM: u32 = 2;
/// Terms that each object may have besides.
pub const SPARE_TERMS: u32 = 128;
/// A pack is sealed once it holds this many bytes: large enough that listing and fetching packs costs little, small
/// enough that one is rewritten in seconds.
pub const PACK_TARGET: u64 = 64 * 1024 * 1024;
/// Chunks in one pack: bounds a directory's memory (the Xet protocol's limit for its own packs is the same).
pub const PACK_CHUNKS_MAX: usize = 8192;
/// Objects shorter than one minimum chunk cannot be cut, so they live in their row.
pub const INLINE_MAX: usize = CHUNK_MIN;
/// Longest object key in UTF-8 bytes (S3).
pub const KEY_BYTES_MAX: usize = 1024;
/// Most parts of a multipart upload (S3).
pub const PARTS_MAX: u32 = 10_000;
/// Smallest part but the last, in bytes (S3).
pub const PART_MIN: u64 = 5 * 1024 * 1024;
/// Largest single PUT or part, in bytes (S3).
pub const PUT_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Snapshots of one bucket: its row lists them, and every write reads it.
pub const SNAPSHOTS_MAX: usize = 1_000;
/// Branches of one snapshot: its row lists them.
pub const BRANCHES_MAX: usize = 1_000;
/// Branches of branches: how many buckets one lookup may go through.
pub const BRANCH_DEPTH_MAX: usize = 16;
/// Keys in one metadata transaction: fits every engine that the metadata trait is meant for.
pub const TRANSACTION_KEYS_MAX: usize = 500;
/// The boot image that virtual media carries, in bytes: some BMCs refuse more, and most move 1 to 30 MB/s.
pub const BOOT_IMAGE_MAX: u64 = 64 * 1024 * 1024;
/// Body of one BMC answer, in bytes.
pub const BMC_BODY_MAX: usize = 16 * 1024 * 1024;
