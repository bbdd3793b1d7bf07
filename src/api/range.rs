//! One byte range of a `Range` header. Several ranges at once are answered with the whole, as HTTP allows.

use crate::model::ByteRange;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Everything: no range, several ranges, or a header that is no byte range.
    Whole,
    /// These bytes, which exist.
    Part(ByteRange),
    /// Bytes that do not exist.
    Beyond,
}

/// Reads a `Range` header for something of `total` bytes.
pub(super) fn asked(header: Option<&str>, total: u64) -> Asked {
    let Some((first, last)) = header.and_then(ends) else { return Asked::Whole };
    let (start, end) = match (first, last) {
        (Some(first), Some(last)) if last < first => return Asked::Whole,
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(total)),
        (Some(first), None) => (first, total),
        (None, Some(suffix)) => (total.saturating_sub(suffix), total),
        (None, None) => return Asked::Whole,
    };
    if start >= end { Asked::Beyond } else { Asked::Part(ByteRange { start, end }) }
}

/// Reads a `Range` header that names both its ends, for something whose length is not known here.
pub(super) fn exact(header: Option<&str>) -> Option<ByteRange> {
    match header.and_then(ends) {
        Some((Some(first), Some(last))) if last >= first => Some(ByteRange { start: first, end: last.checked_add(1)? }),
        _ => None,
    }
}

fn ends(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, ranges) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = ranges.trim().split_once('-')?;
    Some((number(first)?, number(last)?))
}

/// `Some(None)` where nothing is written, `None` where it is no number (a list of ranges among them).
fn number(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! Ranges mean what RFC 9110 says they mean.
    use super::*;

    #[test]
    fn reads_ranges() {
        let part = |start, end| Asked::Part(ByteRange { start, end });
        for (header, want) in [
            (None, Asked::Whole),
            (Some("bytes=0-0"), part(0, 1)),
            (Some("bytes=0-99"), part(0, 100)),
            (Some("bytes=0-18446744073709551615"), part(0, 100)),
            (Some("Bytes = 10-19"), part(10, 20)),
            (Some("bytes=90-"), part(90, 100)),
            (Some("bytes=-1"), part(99, 100)),
            (Some("bytes=-1000"), part(0, 100)),
            (Some("bytes=100-"), Asked::Beyond),
            (Some("bytes=100-200"), Asked::Beyond),
            (Some("bytes=-0"), Asked::Beyond),
            (Some("bytes=9-8"), Asked::Whole),
            (Some("bytes=-"), Asked::Whole),
            (Some("bytes=0-1,5-6"), Asked::Whole),
            (Some("bytes=x-1"), Asked::Whole),
            (Some("bytes=+1-2"), Asked::Whole),
            (Some("lines=0-1"), Asked::Whole),
            (Some("nonsense"), Asked::Whole),
        ] {
            assert_eq!(asked(header, 100), want, "{header:?}");
        }
        assert_eq!(asked(Some("bytes=0-0"), 0), Asked::Beyond);
    }

    #[test]
    fn reads_exact_ranges() {
        assert_eq!(exact(Some("bytes=5-9")), Some(ByteRange { start: 5, end: 10 }));
        for header in ["bytes=5-", "bytes=-5", "bytes=9-5", "bytes=0-18446744073709551615", "", "bytes=0-1,2-3"] {
            assert_eq!(exact(Some(header)), None, "{header:?}");
        }
        assert_eq!(exact(None), None);
    }
}
