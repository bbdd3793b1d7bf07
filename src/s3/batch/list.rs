//! The list that a batch asks by: JSON, read strictly.

use s3s::dto::Range;
use s3s::{S3Error, S3ErrorCode, S3Result};
use serde::Deserialize;

use crate::model::{ByteRange, ObjectKey};
use crate::store::StoreError;

/// Most objects of one batch.
pub(super) const OBJECTS_MAX: usize = 10_000;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    objects: Vec<Line>,
    #[serde(default)]
    on_error: OnError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    range: Option<String>,
    if_match: Option<String>,
}

/// What becomes of the others where one object cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnError {
    /// None of them is sent, or no more.
    #[default]
    Stop,
    /// It is marked in the stream, which goes on.
    Mark,
}

/// One object, or a range of one, as a batch names it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its place in the list, from 0.
    pub(super) place: usize,
    pub(super) key: ObjectKey,
    range: Option<Range>,
    /// The entity tag that it must have, without quotes.
    pub(super) if_match: Option<String>,
}

impl Entry {
    /// The bytes that are wanted of an object of `size` bytes.
    pub(super) fn wanted(&self, size: u64) -> Result<ByteRange, StoreError> {
        match self.range.as_ref().map(|range| range.check(size)) {
            None => Ok(ByteRange { start: 0, end: size }),
            Some(Ok(bytes)) => Ok(ByteRange { start: bytes.start, end: bytes.end }),
            Some(Err(_)) => Err(StoreError::InvalidRange { size }),
        }
    }
}

/// A batch, as it is asked for.
#[derive(Debug)]
pub(super) struct List {
    pub(super) entries: Vec<Entry>,
    pub(super) on_error: OnError,
}

impl List {
    /// Bytes of memory that its entries take, besides their keys.
    pub(super) fn weight(&self) -> u64 {
        (self.entries.len() * size_of::<Entry>()) as u64
    }

    /// Reads the body of a request.
    pub(super) fn read(text: &[u8]) -> S3Result<Self> {
        let document: Document = serde_json::from_slice(text)
            .map_err(|error| unusable(format!("The list is not what a batch takes: {error}.")))?;
        if document.objects.is_empty() || document.objects.len() > OBJECTS_MAX {
            return Err(unusable(format!("A batch names 1 to {OBJECTS_MAX} objects, not {}.", document.objects.len())));
        }
        let entries = document.objects.into_iter().enumerate().map(|(place, line)| line.read(place));
        Ok(Self { entries: entries.collect::<S3Result<_>>()?, on_error: document.on_error })
    }
}

impl Line {
    fn read(self, place: usize) -> S3Result<Entry> {
        let key = self.key.parse().map_err(|error| unusable(format!("Object {place} of the list: {error}.")))?;
        let range = self.range.map(|range| Range::parse(&range)).transpose();
        let range = range
            .map_err(|_| unusable(format!("Object {place} of the list: a range is bytes=FIRST-LAST, as in GET.")))?;
        let if_match = self.if_match.map(|etag| etag.trim_matches('"').to_owned());
        Ok(Entry { place, key, range, if_match })
    }
}

/// The list cannot be answered, whatever is in the bucket.
fn unusable(text: String) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    //! Lists are read strictly, and refusals name the line.
    use super::*;

    #[test]
    fn reads_keys_ranges_and_conditions() {
        let list = List::read(br#"{"objects": [{"key": "a"}, {"key": "b", "range": "bytes=2-", "if_match": "\"e\""}], "on_error": "mark"}"#);
        let list = list.unwrap();
        assert_eq!(list.on_error, OnError::Mark);
        let [a, b] = &list.entries[..] else { panic!("{list:?}") };
        assert_eq!((a.place, a.key.as_str(), a.wanted(5).unwrap()), (0, "a", ByteRange { start: 0, end: 5 }));
        assert_eq!(
            (b.place, b.wanted(5).unwrap(), b.if_match.as_deref()),
            (1, ByteRange { start: 2, end: 5 }, Some("e"))
        );
        assert!(matches!(b.wanted(2), Err(StoreError::InvalidRange { size: 2 })));
        assert_eq!(List::read(br#"{"objects": [{"key": "a"}]}"#).unwrap().on_error, OnError::Stop);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let many = format!(r#"{{"objects": [{}]}}"#, vec![r#"{"key": "a"}"#; OBJECTS_MAX + 1].join(","));
        let long = format!(r#"{{"objects": [{{"key": "a"}}, {{"key": "{}"}}]}}"#, "k".repeat(1025));
        let bad = [
            ("", "EOF"),
            ("[]", "expected struct"),
            (r#"{"objects": []}"#, "1 to 10000 objects, not 0"),
            (&many, "not 10001"),
            (&long, "Object 1 of the list: an object key has"),
            (r#"{"objects": [{"key": ""}]}"#, "Object 0"),
            (r#"{"objects": [{"key": "a", "range": "0-5"}]}"#, "bytes=FIRST-LAST"),
            (r#"{"objects": [{"key": "a", "version": "x"}]}"#, "unknown field `version`"),
            (r#"{"objects": [{"key": "a"}], "on_error": "skip"}"#, "unknown variant `skip`"),
        ];
        for (text, expected) in bad {
            let error = List::read(text.as_bytes()).unwrap_err();
            assert!(error.message().is_some_and(|message| message.contains(expected)), "{text:.80}: {error:?}");
        }
    }
}
