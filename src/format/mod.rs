//! Every byte layout we own, on disk and on the wire: pure, versioned, and specified in docs/format.md before it is
//! written here. Decoders take hostile input and answer with an error, never a panic.

pub mod boot_region;
pub mod chunk_list;
pub mod codec;
pub mod cut;
pub mod damage;
pub mod digest;
pub mod disk_marker;
pub mod field;
pub mod known;
pub mod manifest;
pub mod order;
pub mod pack;
pub mod pieces;
pub mod push;
pub mod recipe;
pub mod row;
