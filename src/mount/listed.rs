//! What S3 answers to a list, read: keys as they are, whatever they hold, because they are asked for in their URL encoding.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A key of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An object.
    Object {
        key: String,
        /// Bytes.
        size: u64,
        /// Milliseconds since 1970.
        modified: u64,
        etag: String,
    },
    /// Keys that begin with this, which ends with a slash.
    Prefix(String),
}

impl Found {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Object { key, .. } => key,
            Self::Prefix(key) => key,
        }
    }
}

/// A page of a list, in the order of the keys' bytes.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) found: Vec<Found>,
    /// What the next page is asked for with.
    pub(super) token: Option<String>,
}

/// Reads a page; nothing where it is none.
pub(super) fn parse(xml: &str) -> Option<Listed> {
    element(xml, "ListBucketResult").or_else(|| xml.contains("<ListBucketResult ").then_some(xml))?;
    let mut found = Vec::new();
    for entry in elements(xml, "Contents") {
        let modified = OffsetDateTime::parse(element(entry, "LastModified")?, &Rfc3339).ok()?;
        found.push(Found::Object {
            key: decoded(element(entry, "Key")?)?,
            size: element(entry, "Size")?.parse().ok()?,
            modified: u64::try_from(modified.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
            etag: element(entry, "ETag")?.replace("&quot;", "").trim_matches('"').to_owned(),
        });
    }
    for entry in elements(xml, "CommonPrefixes") {
        found.push(Found::Prefix(decoded(element(entry, "Prefix")?)?));
    }
    found.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    let is_truncated = element(xml, "IsTruncated") == Some("true");
    let token = element(xml, "NextContinuationToken").map(str::to_owned);
    // A page that goes on without saying where would be taken for the end.
    (token.is_some() || !is_truncated).then_some(Listed { found, token: token.filter(|_| is_truncated) })
}

/// The text of an element's first occurrence.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    elements(xml, name).next()
}

/// The texts of all elements of a name, none of which holds another.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&*open)?;
        let (text, left) = after.split_once(&*close)?;
        rest = left;
        Some(text)
    })
}

/// Text out of its URL encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, left @ ..] = rest {
        rest = left;
        match first {
            b'%' => {
                let mut byte = [0];
                hex::decode_to_slice(rest.get(..2)?, &mut byte).ok()?;
                bytes.push(byte[0]);
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    //! Every key comes out of a list as it went in; what is no list is refused, and nothing of it makes the reader panic.
    use super::*;

    #[test]
    fn reads_keys_of_all_kinds() {
        let xml = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><IsTruncated>true</IsTruncated>\
            <NextContinuationToken>6a</NextContinuationToken><Contents><Key>a%0A%3C%26</Key>\
            <LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;0f-2&quot;</ETag><Size>7</Size></Contents>\
            <CommonPrefixes><Prefix>%2F</Prefix></CommonPrefixes></ListBucketResult>";
        let listed = parse(xml).unwrap();
        assert_eq!(listed.token.as_deref(), Some("6a"));
        let object =
            Found::Object { key: "a\n<&".to_owned(), size: 7, modified: 1_767_323_045_678, etag: "0f-2".to_owned() };
        assert_eq!(listed.found, [Found::Prefix("/".to_owned()), object]);
        for end in 0..xml.len() {
            drop(parse(&xml[..end]));
        }
        for bad in ["", "<html>", "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert_eq!((decoded("%2"), decoded("%zz"), decoded("%FF")), (None, None, None));
    }
}
