//! What a round sees before it decides: every pack's row, what all roots refer to, what a crash left. Whatever cannot be read ends the
//! round: what is not understood is not garbage.

use std::collections::{BTreeMap, BTreeSet};

use super::mark::{self, Marked, Marks};
use super::pace::Pace;
use super::plan::{self, Facts, PackFacts};
use super::roots::{Root, Roots, each_term, unreadable};
use super::{Memory, REPACK_BYTES};
use crate::format::damage::WHOLE;
use crate::format::field::Damaged;
use crate::format::row::{PackRow, PackState, key};
use crate::meta::prefix_end;
use crate::model::{PackId, UploadId};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::faults::Fault;

/// Rows read at once.
const PAGE: usize = 1024;
/// Manifests that no root names, of which one round takes note; a later one has the others.
const SUSPECTS_MAX: usize = 100_000;

/// What a round knows.
pub(super) struct Survey {
    pub(super) facts: Facts,
    pub(super) marks: Marks,
    pub(super) objects: u64,
    /// Uploads that have ended and left parts.
    pub(super) ended_uploads: Vec<UploadId>,
    /// Manifests that no root names and that nobody can be about to name.
    pub(super) manifests: Vec<[u8; 16]>,
    /// Whether a later round has more to do, because of something that was seen for the first time.
    pub(super) first_seen: bool,
}

/// Looks at the whole store, in the epoch of the round.
pub(super) async fn survey(
    inner: &Inner,
    epoch: u64,
    memory: &mut Memory,
    pace: &mut Pace,
) -> Result<Survey, StoreError> {
    // Before anything is marked: what an activity wrote that has ended by now is seen by the marks.
    let oldest_before = inner.activities.oldest_in(epoch);
    let packs = all_packs(inner, pace).await?;
    let marks = Marks::new(packs.iter().map(|(pack, row)| {
        let is_whole = row.state != PackState::Open;
        (*pack, is_whole.then_some(row.chunks))
    }));
    let mut marking =
        Marking { inner, marks, named: Vec::new(), uploads: BTreeSet::new(), new: BTreeMap::new(), objects: 0 };
    marking.all(pace).await?;
    let Marking { marks, mut named, uploads, objects, .. } = marking;
    named.sort_unstable();
    let ended_uploads = ended(inner, uploads).await?;
    let unnamed = unnamed(inner, &named, pace).await?;
    let manifests: Vec<[u8; 16]> = unnamed
        .iter()
        .filter(|id| memory.manifests.get(*id).is_some_and(|seen| *seen < oldest_before))
        .copied()
        .collect();
    let strays = strays(inner).await?;
    let first_seen = strays.iter().any(|pack| !memory.strays.contains(pack))
        || unnamed.iter().any(|id| !memory.manifests.contains_key(id));
    let twice: Vec<PackId> = strays.iter().filter(|pack| memory.strays.contains(pack)).copied().collect();
    memory.strays = strays;
    let seen = std::mem::take(&mut memory.manifests);
    memory.manifests = unnamed.into_iter().map(|id| (id, seen.get(&id).copied().unwrap_or(epoch))).collect();
    let mut facts = Facts {
        epoch,
        oldest: inner.activities.oldest_in(epoch),
        packs: Vec::with_capacity(packs.len()),
        strays: twice,
        small: inner.packs.pack_bytes / plan::SMALL_PART,
        repack_bytes: REPACK_BYTES,
    };
    let mut damage: BTreeMap<PackId, Vec<u32>> = BTreeMap::new();
    for (at, _) in inner.all_damage().await? {
        damage.entry(at.pack).or_default().push(at.chunk);
    }
    for (number, (pack, row)) in packs.into_iter().enumerate() {
        let (marked, pinned) = (marks.count(number), marks.is_pinned(number));
        let damaged = marked > 0
            && damage.get(&pack).is_some_and(|chunks| {
                let live = marks.live(pack);
                chunks.iter().any(|chunk| *chunk == WHOLE || live.binary_search(chunk).is_ok())
            });
        let mut fact = PackFacts { pack, row, marked, live_bytes: None, pinned, damaged };
        if plan::is_to_be_measured(&fact, &facts) {
            fact.live_bytes = measure(inner, &fact, &marks).await?;
            pace.rest().await;
        }
        facts.packs.push(fact);
    }
    Ok(Survey { facts, marks, objects, ended_uploads, manifests, first_seen })
}

/// Every pack's row, in order.
async fn all_packs(inner: &Inner, pace: &mut Pace) -> Result<Vec<(PackId, PackRow)>, StoreError> {
    let mut packs = Vec::new();
    let mut start = b"p/".to_vec();
    loop {
        let rows = inner.meta.scan(&start, b"p0", PAGE).await?;
        for (row_key, value) in &rows {
            let damaged = Damaged { what: "row key", why: "it holds no pack's id" };
            let id = row_key.get(2..).and_then(|id| id.try_into().ok());
            let pack = PackId(id.ok_or_else(|| unreadable("the list of packs", &damaged))?);
            let row = PackRow::decode(value).map_err(|damage| unreadable(&format!("pack {pack}"), &damage))?;
            packs.push((pack, row));
        }
        pace.rest().await;
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
            _ => return Ok(packs),
        }
    }
}

/// Marks what roots refer to.
struct Marking<'a> {
    inner: &'a Inner,
    marks: Marks,
    /// Of each manifest that a root names, half of its id: 8 bytes for each are enough to keep all that are named, and at worst
    /// one too many.
    named: Vec<u64>,
    /// Uploads that have parts.
    uploads: BTreeSet<[u8; 16]>,
    /// Packs that were not there when marking began, and a root that refers to each.
    new: BTreeMap<PackId, String>,
    objects: u64,
}

fn half(id: &[u8; 16]) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&id[8..]);
    u64::from_be_bytes(half)
}

impl Marking<'_> {
    async fn all(&mut self, pace: &mut Pace) -> Result<(), StoreError> {
        let forgets = self.inner.faults.has(Fault::ForgetSnapshots);
        let mut roots = Roots::all();
        while let Some(page) = roots.next(self.inner).await? {
            for root in page.iter().filter(|root| !(forgets && root.key.starts_with(b"h/"))) {
                self.root(root).await?;
            }
            pace.rest().await;
        }
        self.check_new().await
    }

    async fn root(&mut self, root: &Root) -> Result<(), StoreError> {
        match root.upload() {
            Some(upload) => drop(self.uploads.insert(upload)),
            None => self.objects += 1,
        }
        if let crate::format::row::Body::Rows(id) = root.body() {
            self.named.push(half(id));
        }
        let pins = root.pins();
        let (marks, new) = (&mut self.marks, &mut self.new);
        let marked = each_term(self.inner, root, |terms| {
            for term in &terms {
                match marks.mark(term, pins) {
                    Marked::Yes => {}
                    Marked::NewPack => {
                        new.entry(term.pack).or_insert_with(|| root.name());
                    }
                    Marked::NoSuchChunk => {
                        let why = "it refers to a chunk that the pack does not have";
                        return Err(Damaged { what: "manifest", why }.into());
                    }
                }
            }
            Ok(())
        });
        let Err(error) = marked.await else { return Ok(()) };
        let StoreError::CorruptRow(damage) = error else { return Err(error) };
        // Deleted or replaced since: its manifest went with it. What replaced it has touched its packs in this epoch.
        if self.inner.meta.get(&root.key).await?.as_ref() != Some(&root.bytes) {
            return Ok(());
        }
        Err(unreadable(&root.name(), &damage))
    }

    /// Packs that came while the marks were made have rows. One that has none is lost, and with it a reason to trust the rest.
    async fn check_new(&self) -> Result<(), StoreError> {
        let packs: Vec<&PackId> = self.new.keys().collect();
        for packs in packs.chunks(PAGE) {
            let keys: Vec<Vec<u8>> = packs.iter().map(|pack| key::pack(**pack)).collect();
            for (pack, row) in packs.iter().zip(self.inner.meta.get_many(&keys).await?) {
                if row.is_none() {
                    let what = format!("{} needs pack {pack}, which is not in the list of packs", self.new[*pack]);
                    return Err(StoreError::NotCollected { what });
                }
            }
        }
        Ok(())
    }
}

/// Those of the uploads that have no row: parts that a crash left behind.
async fn ended(inner: &Inner, mut uploads: BTreeSet<[u8; 16]>) -> Result<Vec<UploadId>, StoreError> {
    let ranges: [(&[u8], &[u8]); 2] = [(b"u/", b"u/p/"), (b"u/p0", b"u0")];
    for (start, end) in ranges {
        let mut start = start.to_vec();
        while !uploads.is_empty() {
            let rows = inner.meta.scan(&start, end, PAGE).await?;
            for (row_key, _) in &rows {
                if let Some(id) = row_key.last_chunk::<16>() {
                    uploads.remove(id);
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => break,
            }
        }
    }
    Ok(uploads.into_iter().map(UploadId).collect())
}

/// Manifests that no root names.
async fn unnamed(inner: &Inner, named: &[u64], pace: &mut Pace) -> Result<BTreeSet<[u8; 16]>, StoreError> {
    let mut found = BTreeSet::new();
    let mut start = b"m/".to_vec();
    while found.len() < SUSPECTS_MAX {
        let Some((row_key, _)) = inner.meta.scan(&start, b"m0", 1).await?.pop() else { break };
        let damaged = Damaged { what: "row key", why: "it holds no manifest's id" };
        let id: [u8; 16] =
            row_key.get(2..18).and_then(|id| id.try_into().ok()).ok_or_else(|| unreadable("a manifest", &damaged))?;
        if named.binary_search(&half(&id)).is_err() {
            found.insert(id);
        }
        start = prefix_end(&key::manifests(&id));
        pace.rest().await;
    }
    Ok(found)
}

/// Files that no row names and that this process is not filling.
async fn strays(inner: &Inner) -> Result<BTreeSet<PackId>, StoreError> {
    // Listed before rows and open packs are looked at: a pack that is begun or gets its row in between is then found there.
    let files = inner.packs.list().await?;
    let mut strays = BTreeSet::new();
    for files in files.chunks(PAGE) {
        let keys: Vec<Vec<u8>> = files.iter().map(|pack| key::pack(*pack)).collect();
        let rows = inner.meta.get_many(&keys).await?;
        let without = files.iter().zip(rows).filter(|(_, row)| row.is_none()).map(|(pack, _)| *pack);
        strays.extend(without.filter(|pack| inner.packer.session().pack(*pack).is_none()));
    }
    Ok(strays)
}

/// Stored bytes of a pack's marked chunks; none where its directory cannot be read, which is the scrub's to tell.
async fn measure(inner: &Inner, fact: &PackFacts, marks: &Marks) -> Result<Option<u64>, StoreError> {
    match inner.read_directory(fact.pack, &fact.row).await {
        Ok(directory) => Ok(Some(mark::stored_bytes(&directory.entries, &marks.live(fact.pack)))),
        Err(StoreError::CorruptRow(damage)) => {
            tracing::warn!(pack = %fact.pack, %damage, "a pack cannot be measured; run `bedplate store fsck`");
            Ok(None)
        }
        Err(StoreError::NoSuchPack(pack)) => {
            tracing::warn!(%pack, "a pack's file is missing; run `bedplate store fsck`");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
