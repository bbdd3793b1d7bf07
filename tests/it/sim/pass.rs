//! A whole pass of the scrub while all is at rest: what is harmed must be put right, or told; and what is put again must heal it.

use std::collections::BTreeSet;

use bedplate::format::row::{PackState, decode_location};
use bedplate::model::PackId;
use bedplate::model::limit::INLINE_MAX;
use bedplate::store::{ScrubOptions, ScrubReport};
use bytes::Bytes;

use super::body::body;
use super::client::Client;
use super::ground::under;
use super::history::{Call, Condition};
use super::model::{Place, Violation, etag, id_of, request};
use super::scene::chain;
use super::setup::Promise;

impl Client {
    /// Scrubs everything while nobody else does anything: what is harmed must be put right, or told.
    pub(super) async fn pass(&mut self, repair: bool) -> Result<(), Violation> {
        self.note(&format!("a whole pass, repair {repair}"));
        let store = self.store.clone();
        let options = ScrubOptions { repair, ..ScrubOptions::default() };
        let report = match self.patient(store.scrub(options)).await {
            Some(Ok(report)) => report,
            Some(Err(error)) => return Err(format!("a pass cannot be made: {}", chain(&error))),
            None => return Ok(()),
        };
        self.scrubbed(&report);
        self.explained_repair(&report.repair)?;
        if self.setup.promise() == Promise::Named {
            return Ok(());
        }
        self.has_told(&report, repair)?;
        self.index_is_good()
    }

    /// Compares what a pass told with what is harmed.
    fn has_told(&self, report: &ScrubReport, repair: bool) -> Result<(), Violation> {
        let ground = self.survey()?;
        let harms = self.decay.borrow().all(&self.volume);
        let mut told: BTreeSet<(PackId, Option<u32>)> = BTreeSet::new();
        for info in &report.damage {
            let is_so = harms.get(&info.pack).is_some_and(|harm| match info.chunk {
                Some(chunk) => harm.chunks.contains(&chunk),
                None => harm.directory,
            });
            if !is_so || info.needed_by == 0 {
                return Err(format!("a pass tells damage that is none: {info:?}"));
            }
            told.insert((info.pack, info.chunk));
        }
        let sealed = ground.packs.iter().filter(|(_, pack)| pack.row.state == PackState::Sealed);
        let copies = sealed.flat_map(|(id, pack)| {
            let harm = harms.get(id);
            let entries = pack.directory.iter().flat_map(|directory| (0..).zip(&directory.entries));
            entries.filter(move |(chunk, _)| harm.is_none_or(|harm| !harm.is_of(*chunk)))
        });
        let copies: BTreeSet<_> = copies.map(|(_, entry)| entry.digest).collect();
        for (id, harm) in &harms {
            let Some(pack) = ground.packs.get(id) else { continue };
            let Some(directory) = &pack.directory else { continue };
            let wrong = |what: &str| Err(format!("a pass, repair {repair}, leaves pack {id} with {harm:?}: {what}"));
            if matches!(pack.row.state, PackState::Open | PackState::Deleting) {
                continue;
            }
            if repair && (harm.heads != harm.directory || harm.magic && !harm.directory) {
                return wrong("heads and directory were not made again from each other");
            }
            if harm.directory {
                if !pack.used.is_empty() && !told.contains(&(*id, None)) {
                    return wrong("it is in use, and not told");
                }
                continue;
            }
            for chunk in harm.chunks.intersection(&pack.used) {
                if !told.contains(&(*id, Some(*chunk))) {
                    return wrong("a chunk is in use, and not told");
                }
                if repair && copies.contains(&directory.entries[*chunk as usize].digest) {
                    return wrong("there is a good copy of a chunk, and it is not used");
                }
                self.count("harmed for good");
            }
        }
        Ok(())
    }

    /// No index row leads to a chunk that a pass has found damaged.
    fn index_is_good(&self) -> Result<(), Violation> {
        let mut harms = self.decay.borrow().all(&self.volume);
        let there = self.harmed_packs();
        harms.retain(|pack, _| there.contains(pack));
        for (key, value) in under(&self.rows(), b"c/") {
            let at = decode_location(value).map_err(|error| error.to_string())?;
            if harms.get(&at.pack).is_some_and(|harm| !harm.directory && harm.chunks.contains(&at.chunk)) {
                return Err(format!("the index leads {} to the damaged {at:?}", hex::encode(key)));
            }
        }
        Ok(())
    }

    /// Puts the bytes of each harmed object again, under another key: after one more pass all are whole, but where a pack cannot
    /// even say what it held.
    pub(super) async fn heal(&mut self) -> Result<(), Violation> {
        let places = self.setup.places.clone();
        let mut healed = Vec::new();
        for place in &places {
            if self.harmed(place).is_empty() {
                continue;
            }
            // What was given up may still have happened: the store says which of the possible versions it is.
            let store = self.store.clone();
            let id = match self.patient(store.head(&place.0, &place.1)).await {
                Some(Ok(info)) => id_of(&info)?,
                Some(Err(error)) => return Err(format!("{}/{}: {}", place.0, place.1, chain(&error))),
                None => continue,
            };
            let content = self.model.find(&id)?.content;
            // What is put so short lives in its row, and is no copy for a part that was as short and lives in a pack.
            if content.len() < INLINE_MAX {
                continue;
            }
            let to = self.place();
            let stored = self.put_again(&to, (*content).clone()).await?;
            healed.retain(|place| *place != to);
            if stored && to != *place {
                healed.push(place.clone());
            }
        }
        self.pass(true).await?;
        let harms = self.decay.borrow().all(&self.volume);
        for place in healed {
            let left = self.harmed(&place);
            if left.iter().any(|(pack, _)| harms.get(pack).is_some_and(|harm| !harm.directory)) {
                return Err(format!("{}/{} was put again, and is not repaired: {left:?}", place.0, place.1));
            }
            self.count("healed");
        }
        Ok(())
    }

    async fn put_again(&mut self, to: &Place, content: Bytes) -> Result<bool, Violation> {
        let write = self.model.fresh();
        let version = self.model.version(write, content.clone(), etag(&content), None);
        self.note(&format!("put again {}/{} {} bytes, write {write}", to.0, to.1, content.len()));
        let call = self.model.begin(to, Call::Write(vec![version], Condition::None));
        let distrusted = self.distrusted();
        let body = body(&content, None, &mut self.random);
        let store = self.store.clone();
        let Some(outcome) = self.patient(store.put(&to.0, &to.1, body, request(write))).await else { return Ok(false) };
        self.wrote(to, call, outcome)?;
        self.check_trust(to, write, &distrusted)?;
        Ok(true)
    }

    /// Nothing is written down any more of packs that are gone.
    pub(super) async fn forgets(&mut self) -> Result<(), Violation> {
        self.pass(true).await?;
        let left = self.distrusted();
        if left.is_empty() { Ok(()) } else { Err(format!("an empty store remembers damage: {left:?}")) }
    }
}
