//! The roots: every row that refers to chunks. Objects, what they were where a snapshot shows it, and the parts of open uploads; whatever else comes to refer to chunks is walked
//! here too, or it loses them.

use bytes::Bytes;

use crate::format::field::Damaged;
use crate::format::manifest::Term;
use crate::format::row::{self, Body, ObjectRow, PartRow, key};
use crate::meta::prefix_end;
use crate::model::BucketName;
use crate::store::Inner;
use crate::store::commit::manifest_end;
use crate::store::error::StoreError;

/// Rows read at once.
const PAGE: usize = 256;
/// Rows of one manifest read at once, of about 10 KiB each.
const MANIFESTS_AT_ONCE: usize = 32;

/// What a root is.
pub(in crate::store) enum Kind {
    Object(ObjectRow),
    Part(PartRow),
}

/// One row that refers to chunks.
pub(in crate::store) struct Root {
    pub(in crate::store) key: Bytes,
    /// The row's bytes, as a transaction expects them.
    pub(in crate::store) bytes: Bytes,
    pub(in crate::store) kind: Kind,
}

impl Root {
    pub(in crate::store) fn body(&self) -> &Body {
        match &self.kind {
            Kind::Object(row) => &row.body,
            Kind::Part(row) => &row.body,
        }
    }

    pub(in crate::store) fn size(&self) -> u64 {
        match &self.kind {
            Kind::Object(row) => row.size,
            Kind::Part(row) => row.size,
        }
    }

    /// The row with its bytes elsewhere.
    pub(in crate::store) fn moved_to(&self, body: Body) -> Bytes {
        match &self.kind {
            Kind::Object(row) => ObjectRow { body, ..row.clone() }.encode(),
            Kind::Part(row) => PartRow { body, ..row.clone() }.encode(),
        }
    }

    /// Whether outsiders know its packs by their ids: agents hold an image's chunk list for as long as they install it.
    pub(in crate::store) fn pins(&self) -> bool {
        self.key.starts_with(&key::objects(&BucketName::images()))
    }

    /// The upload that a part belongs to.
    pub(in crate::store) fn upload(&self) -> Option<[u8; 16]> {
        match self.kind {
            Kind::Object(_) => None,
            Kind::Part(_) => self.key.get(4..20)?.try_into().ok(),
        }
    }

    /// What to call it in a message.
    pub(in crate::store) fn name(&self) -> String {
        name_of(&self.key)
    }
}

fn name_of(key: &[u8]) -> String {
    if let Ok((bucket, object, version)) = key::read_version(key) {
        let (bucket, object) = (String::from_utf8_lossy(bucket), String::from_utf8_lossy(&object));
        return format!("object {bucket}/{object}, version {}", version.id());
    }
    if let Ok((bucket, object, _)) = key::read_past(key) {
        let (bucket, object) = (String::from_utf8_lossy(bucket), String::from_utf8_lossy(&object));
        return format!("object {bucket}/{object}, as a snapshot of the bucket has it");
    }
    match (key.strip_prefix(b"o/"), key.get(4..)) {
        (Some(object), _) => format!("object {}", String::from_utf8_lossy(object).replace('\0', "/")),
        (None, Some(part)) => format!("part {} of an upload", hex::encode(part)),
        (None, None) => "a row".to_owned(),
    }
}

/// Nothing is collected, because something cannot be read.
pub(in crate::store) fn unreadable(name: &str, damage: &Damaged) -> StoreError {
    StoreError::NotCollected { what: format!("{name}: {damage}") }
}

/// Walks all roots, a page of rows at a time.
pub(in crate::store) struct Roots {
    /// Ranges of keys that are still to be walked, the next one last.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Roots {
    pub(in crate::store) fn all() -> Self {
        let range = |prefix: &[u8]| (prefix.to_vec(), prefix_end(prefix));
        // Taken from the end: what becomes an older version meanwhile, or what only snapshots show, goes on to a range that is yet to come.
        Self { ranges: vec![range(b"h/"), range(b"v/"), range(b"u/p/"), range(b"o/")] }
    }

    /// The next page; none at the end. A row that cannot be read is an error.
    pub(in crate::store) async fn next(&mut self, inner: &Inner) -> Result<Option<Vec<Root>>, StoreError> {
        let Some((start, end)) = self.ranges.last_mut() else { return Ok(None) };
        let rows = inner.meta.scan(start, end, PAGE).await?;
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => *start = [last, &b"\0"[..]].concat(),
            _ => drop(self.ranges.pop()),
        }
        let roots = rows.into_iter().map(|(key, bytes)| {
            let kind = if key.starts_with(b"u/p/") {
                PartRow::decode(&bytes).map(Kind::Part)
            } else {
                ObjectRow::decode(&bytes).map(Kind::Object)
            };
            let kind = kind.map_err(|damage| unreadable(&name_of(&key), &damage))?;
            Ok(Root { key, bytes, kind })
        });
        roots.collect::<Result<Vec<Root>, StoreError>>().map(Some)
    }
}

/// Hands all terms of a root to `take`, part by part. Damage is told as it is: whoever asked finds out whether the root has
/// changed in the meantime, and its manifest with it.
pub(in crate::store) async fn each_term(
    inner: &Inner,
    root: &Root,
    mut take: impl FnMut(Vec<Term>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let id = match root.body() {
        _ if root.size() == 0 => return Ok(()),
        Body::Inline(_) => return Ok(()),
        Body::Terms(terms) => return take(terms.clone()),
        Body::Rows(id) => id,
    };
    let mut start = key::manifests(id);
    let end = prefix_end(&start);
    let damaged = |why| Damaged { what: "manifest", why };
    let mut covered = 0;
    loop {
        let rows = inner.meta.scan(&start, &end, MANIFESTS_AT_ONCE).await?;
        for (row_key, value) in &rows {
            let (terms, bytes) = row::decode_terms(value)?;
            covered += bytes;
            if manifest_end(row_key)? != covered {
                return Err(damaged("rows of it are missing").into());
            }
            take(terms)?;
        }
        match rows.last() {
            Some((last, _)) if rows.len() == MANIFESTS_AT_ONCE => start = [last, &b"\0"[..]].concat(),
            _ if covered == root.size() => return Ok(()),
            _ => return Err(damaged("rows of it are missing").into()),
        }
    }
}
