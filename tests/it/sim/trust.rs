//! What is harmed, and what the store knows of it: known damage is never relied on, and refuses nobody who brings bytes.

use std::collections::BTreeSet;

use bedplate::format::damage::{self, WHOLE};
use bedplate::format::manifest::Location;
use bedplate::format::row::{PackRow, PackState, key};
use bedplate::model::PackId;
use bedplate::store::StoreError;

use super::client::Client;
use super::ground::{terms_of, under};
use super::model::{Place, Violation};
use super::setup::Promise;

impl Client {
    /// What the store has written down as damaged, as long as it is.
    pub(super) fn distrusted(&self) -> BTreeSet<Location> {
        let rows = self.rows();
        under(&rows, b"q/").filter_map(|(key, _)| damage::place(&[damage::PREFIX, key].concat()).ok()).collect()
    }

    /// What was put must not rely on what was known to be damaged before.
    pub(super) fn check_trust(
        &self,
        place: &Place,
        write: u64,
        distrusted: &BTreeSet<Location>,
    ) -> Result<(), Violation> {
        if distrusted.is_empty() {
            return Ok(());
        }
        let Some(terms) = terms_of(&self.rows(), place, Some(write)) else { return Ok(()) };
        let is_distrusted =
            |at: &Location| distrusted.contains(at) || distrusted.contains(&Location { pack: at.pack, chunk: WHOLE });
        let relied = terms.iter().flat_map(|term| term.chunks().map(|chunk| Location { pack: term.pack, chunk }));
        let harmed = self.decay.borrow().harmed(relied.filter(is_distrusted), &self.volume);
        match harmed.first() {
            None => Ok(()),
            Some((pack, chunk)) => {
                Err(format!("{}/{}: it relies on chunk {chunk} of {pack}, known to be damaged", place.0, place.1))
            }
        }
    }

    /// The chunks of an object that are harmed now.
    pub(super) fn harmed(&self, place: &Place) -> BTreeSet<(PackId, u32)> {
        let terms = terms_of(&self.rows(), place, None).unwrap_or_default();
        let chunks = terms.iter().flat_map(|term| term.chunks().map(|chunk| Location { pack: term.pack, chunk }));
        self.decay.borrow().harmed(chunks, &self.volume)
    }

    /// The packs that are harmed now, and that are neither gone nor going.
    pub(super) fn harmed_packs(&self) -> BTreeSet<PackId> {
        let rows = self.rows();
        let is_there = |pack: &PackId| {
            let row = rows.get(&key::pack(*pack)).and_then(|row| PackRow::decode(row).ok());
            row.is_some_and(|row| row.state != PackState::Deleting)
        };
        self.decay.borrow().all(&self.volume).into_keys().filter(is_there).collect()
    }

    /// Whether a write was refused for damage: bytes that come are stored, whatever happened to others.
    pub(super) fn is_refused_for_damage(&self, error: &StoreError) -> bool {
        self.setup.promise() == Promise::Damaged && matches!(error, StoreError::Corrupt { .. })
    }
}
