//! What is in a folder: S3's lists, page by page, and single names.

use super::bucket::{Bucket, BucketError, Whence};
use super::listed::{Found, Listed};
use super::neighbours::{Known, Neighbours};
use super::statistics::STATISTICS_FILE;
use super::tree::Facts;

/// Names in one page.
const PAGE: usize = 1_000;
/// Longest name of a file, in bytes.
pub(super) const NAME_MAX: usize = 255;

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) facts: Facts,
}

/// A folder's list as it is gone through.
#[derive(Default)]
pub(super) struct Page {
    /// How many names came before this page.
    pub(super) before: u64,
    pub(super) entries: Vec<Entry>,
    token: Option<String>,
    is_begun: bool,
    /// Files whose names the newest name begins with: a folder of the same name may still come.
    trail: Vec<Box<str>>,
}

/// What single keys and folders are.
pub(super) struct Listing {
    bucket: Bucket,
    root: Box<str>,
    /// Of what never changes.
    neighbours: Option<Neighbours>,
}

impl Listing {
    pub(super) fn new(bucket: Bucket, root: &str, is_snapshot: bool) -> Self {
        Self { bucket, root: root.into(), neighbours: is_snapshot.then(Neighbours::default) }
    }

    /// The bucket that it asks.
    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Brings a folder's list to the page that holds the name with the number `at`, or to the last one.
    pub(super) async fn turn(&self, page: &mut Page, folder: &str, at: u64) -> Result<(), BucketError> {
        if !page.is_begun || at < page.before {
            *page = Page::default();
        }
        while !page.is_begun || at >= page.before + page.entries.len() as u64 && page.token.is_some() {
            let whence = page.token.as_deref().map_or(Whence::Start, Whence::Token);
            let listed = self.bucket.list(folder, false, whence, PAGE).await?;
            page.before += page.entries.len() as u64;
            page.token.clone_from(&listed.token);
            page.entries = entries(folder, listed, &mut page.trail);
            if *folder == *self.root {
                page.entries.retain(|entry| &*entry.name != STATISTICS_FILE);
            }
            page.is_begun = true;
        }
        Ok(())
    }

    /// Whether a folder has anything but its own marker; names that no file can have count.
    pub(super) async fn is_empty(&self, folder: &str) -> Result<bool, BucketError> {
        let listed = self.bucket.list(folder, true, Whence::Start, 2).await?;
        Ok(listed.found.iter().all(|found| found.key() == folder) && listed.token.is_none())
    }

    async fn is_there(&self, folder: &str) -> Result<bool, BucketError> {
        Ok(!self.bucket.list(folder, true, Whence::Start, 1).await?.found.is_empty())
    }

    /// What a key is: an object, or a folder because keys begin with it.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Facts>, BucketError> {
        let folder = format!("{key}/");
        let first = self.bucket.list(key, true, Whence::Start, 1).await?.found.into_iter().next();
        let is_folder = match first {
            None => false,
            Some(Found::Object { key: found, size, modified, .. }) if found == key => {
                return Ok(Some(Facts { is_folder: false, size, modified }));
            }
            // What sorts between a name and what is below it, as `a.txt` does, hides whether there is any of it.
            Some(found) => found.key().starts_with(&folder) || self.is_there(&folder).await?,
        };
        Ok(is_folder.then_some(Facts::FOLDER))
    }

    /// What a name in a folder is. Of a snapshot's folders, pages are asked for where names are.
    pub(super) async fn look_up(&self, folder: &str, name: &str) -> Result<Option<Facts>, BucketError> {
        let key = format!("{folder}{name}");
        let Some(neighbours) = &self.neighbours else { return self.find(&key).await };
        match neighbours.find(folder, name) {
            Known::Is(found) => return Ok(found),
            Known::Nothing { wants_page: false } => return self.find(&key).await,
            Known::Nothing { wants_page: true } => {}
        }
        // Behind the longest key that is shorter by a character: hardly anything lies between it and the name.
        let before = &key[..key.len() - key.chars().next_back().map_or(0, char::len_utf8)];
        let listed = self.bucket.list(folder, false, Whence::After(before), PAGE).await?;
        let to = listed.token.as_ref().and_then(|_| listed.found.last()?.key().strip_prefix(folder).map(str::to_owned));
        let is_usable = listed.token.is_none() || to.as_deref().is_some_and(|to| to >= name);
        if is_usable {
            neighbours.learn(folder, name, to.as_deref(), entries(folder, listed, &mut Vec::new()));
        }
        match neighbours.find(folder, name) {
            Known::Is(found) => Ok(found),
            Known::Nothing { .. } => self.find(&key).await,
        }
    }

    /// An object, and its entity tag.
    pub(super) async fn object(&self, key: &str) -> Result<Option<(Facts, String)>, BucketError> {
        let listed = self.bucket.list(key, true, Whence::Start, 1).await?;
        Ok(listed.found.into_iter().find_map(|found| match found {
            Found::Object { key: found, size, modified, etag } if found == key => {
                Some((Facts { is_folder: false, size, modified }, etag))
            }
            _ => None,
        }))
    }
}

/// The names that a page of keys shows in a folder, in the keys' order. Where a file and a folder have one name, the file hides
/// the folder.
fn entries(folder: &str, listed: Listed, trail: &mut Vec<Box<str>>) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(listed.found.len());
    for found in listed.found {
        let Some(name) = name_in(folder, found.key()) else { continue };
        while trail.last().is_some_and(|above| !name.starts_with(&**above)) {
            trail.pop();
        }
        let facts = match found {
            Found::Prefix(_) if trail.last() == Some(&name) => continue,
            Found::Prefix(_) => Facts::FOLDER,
            Found::Object { size, modified, .. } => {
                trail.push(name.clone());
                Facts { is_folder: false, size, modified }
            }
        };
        entries.push(Entry { name, facts });
    }
    entries
}

/// The name of a key in a folder; nothing for the folder's own marker, and for names that no file can have.
fn name_in(folder: &str, key: &str) -> Option<Box<str>> {
    let below = key.strip_prefix(folder)?;
    let name = below.strip_suffix('/').unwrap_or(below);
    let is_name = !name.is_empty() && !name.contains(['/', '\0']) && name.len() <= NAME_MAX;
    (is_name && !matches!(name, "." | "..")).then(|| name.into())
}

#[cfg(test)]
mod tests {
    //! Names that no file can have hide themselves and nothing else; a file hides the folder of its name, on a later page too.
    use super::*;

    fn listed(keys: &[&str]) -> Listed {
        let found = keys.iter().map(|key| match key.strip_suffix('>') {
            Some(prefix) => Found::Prefix(prefix.to_owned()),
            None => Found::Object { key: (*key).to_owned(), size: 1, modified: 2, etag: String::new() },
        });
        Listed { found: found.collect(), token: None }
    }

    #[test]
    fn names_of_a_page() {
        let long = format!("d/{}", "x".repeat(256));
        let keys = ["d/", "d//>", "d/..", "d/./>", "d/a", "d/a!", "d/a!b", "d/a.b/>", "d/b\0", "d/c\n", &long];
        let mut trail = Vec::new();
        let shown = |entries: Vec<Entry>| {
            let one = |entry: Entry| format!("{}{}", entry.name, if entry.facts.is_folder { "/" } else { "" });
            entries.into_iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(shown(entries("d/", listed(&keys), &mut trail)), ["a", "a!", "a!b", "a.b/", "c\n"]);
        let mut trail = Vec::new();
        assert_eq!(shown(entries("", listed(&["a", "a!", "a!b"]), &mut trail)), ["a", "a!", "a!b"]);
        assert_eq!(shown(entries("", listed(&["a!b/>", "a!c/>", "a/>", "b/>"]), &mut trail)), ["a!c/", "b/"]);
    }
}
