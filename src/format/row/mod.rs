//! The store's metadata rows: their keys, and their values. Each value begins with a version byte and ends with the
//! CRC32C of all before. docs/format.md has the tables.

mod bucket;
pub mod key;
mod object;
mod pack;
mod snapshot;
#[cfg(test)]
mod tests;
mod upload;

pub use bucket::{BucketRow, Origin};
pub use object::{Body, Described, ObjectRow, PartList, PartRun, decode_terms, encode_terms};
pub use pack::{PackRow, PackState, decode_epoch, decode_location, encode_epoch, encode_filling, encode_location};
pub use snapshot::SnapshotRow;
pub use upload::{PartRow, UploadRow};

/// The version that rows are written in, unless a row says more than it can.
const VERSION: u8 = 1;
/// The version of the rows that do: what was added stands at their end.
const VERSION_EXTENDED: u8 = 2;
/// The version of the rows that snapshots concern: what was added for them stands behind that.
const VERSION_SNAPSHOT: u8 = 3;
