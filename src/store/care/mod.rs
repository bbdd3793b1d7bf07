//! Care of what is stored: every pack is read again within some weeks, damage is written down until it is repaired, chunks
//! that are stored a second time stand in for damaged ones, and what can be derived from packs is derived again. Nothing
//! here removes a pack.

mod damage;
mod index;
mod pace;
mod rebuild;
mod repair;
mod report;
mod scrub;
mod verify;

pub(super) use damage::unreadable_packs;
pub(super) use index::Sweep;
pub(super) use pace::Pace;
pub use rebuild::{RebuildOptions, RebuildReport};
pub use repair::RepairReport;
pub use report::{DamageInfo, ScrubStatus};
pub use scrub::{ScrubOptions, ScrubReport, ScrubSettings};
pub(super) use verify::{BadChunk, verify};
