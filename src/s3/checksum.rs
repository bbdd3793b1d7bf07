//! Checksums as S3 defines them: five algorithms, given in a header or a trailer, kept with the object under the name of the header, and
//! of a multipart object either of its whole content or of the checksums of its parts.

use std::collections::BTreeMap;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{self, Checksum as _};
use s3s::dto::{Checksum, ChecksumType};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::auth::base64;
use crate::store::{PartInfo, StoreError};

/// Before the name of each algorithm in headers.
pub(super) const PREFIX: &str = "x-amz-checksum-";
/// Whether a checksum is of the whole content or of the parts' checksums.
pub(super) const TYPE: &str = "x-amz-checksum-type";
/// The algorithm that an upload was begun with.
pub(super) const ALGORITHM: &str = "x-amz-checksum-algorithm";

/// An algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// All of them.
pub(super) const ALL: [Algorithm; 5] =
    [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

impl Algorithm {
    /// Its name in requests, `CRC32`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The algorithm of that name.
    pub(super) fn named(name: &str) -> S3Result<Self> {
        let found = ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
        })
    }

    /// The header that carries it.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Its length in bytes.
    fn bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether checksums of parts can be put together to that of the whole.
    fn combines(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// Makes `hasher` compute it.
    pub(super) fn start(self, hasher: &mut ChecksumHasher) {
        match self {
            Self::Crc32 => hasher.crc32 = Some(crypto::Crc32::new()),
            Self::Crc32c => hasher.crc32c = Some(crypto::Crc32c::new()),
            Self::Crc64Nvme => hasher.crc64nvme = Some(crypto::Crc64Nvme::new()),
            Self::Sha1 => hasher.sha1 = Some(crypto::Sha1::new()),
            Self::Sha256 => hasher.sha256 = Some(crypto::Sha256::new()),
        }
    }

    /// Its place in what a hasher found.
    pub(super) fn of(self, found: &Checksum) -> Option<&String> {
        match self {
            Self::Crc32 => found.checksum_crc32.as_ref(),
            Self::Crc32c => found.checksum_crc32c.as_ref(),
            Self::Crc64Nvme => found.checksum_crc64nvme.as_ref(),
            Self::Sha1 => found.checksum_sha1.as_ref(),
            Self::Sha256 => found.checksum_sha256.as_ref(),
        }
    }

    /// The checksum's bytes, when the text is one of this algorithm.
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        base64::decode(text).filter(|bytes| bytes.len() == self.bytes())
    }
}

/// What a request says of its body's checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Announced {
    pub(super) algorithm: Algorithm,
    /// Whether it comes with the body's end.
    pub(super) in_trailer: bool,
}

/// The checksum that a request's headers announce: at most one, of good form.
pub(super) fn announced(headers: &HeaderMap) -> S3Result<Option<Announced>> {
    let trailers = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok());
    let trailers: Vec<_> =
        trailers.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let mut found = None;
    for algorithm in ALL {
        let given = headers.get(algorithm.header());
        let in_trailer = trailers.iter().any(|name| name == algorithm.header());
        if given.is_none() && !in_trailer {
            continue;
        }
        if found.is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
        if let Some(given) = given
            && given.to_str().ok().and_then(|text| algorithm.decode(text.trim())).is_none()
        {
            let text = format!("Value for {} header is invalid.", algorithm.header());
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text));
        }
        found = Some(Announced { algorithm, in_trailer: given.is_none() });
    }
    if found.is_none() && headers.contains_key("x-amz-sdk-checksum-algorithm") {
        let name = headers.get("x-amz-sdk-checksum-algorithm").and_then(|name| name.to_str().ok()).unwrap_or_default();
        // MD5 travels in a header of its own.
        if !name.eq_ignore_ascii_case("MD5") {
            Algorithm::named(name)?;
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
            ));
        }
    }
    Ok(found)
}

/// What an object keeps of a checksum of its whole content.
pub(super) fn kept(found: &Checksum) -> BTreeMap<String, String> {
    let sums =
        ALL.into_iter().filter_map(|algorithm| Some((algorithm.header().to_owned(), algorithm.of(found)?.clone())));
    sums.collect()
}

/// How an upload's checksum is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scheme {
    pub(super) algorithm: Algorithm,
    pub(super) composite: bool,
    /// Whether the upload asked for it; else it is what S3 computes unasked.
    pub(super) asked: bool,
}

impl Scheme {
    /// As an upload is begun with.
    pub(super) fn new(algorithm: Option<&str>, kind: Option<&str>) -> S3Result<Self> {
        let Some(name) = algorithm else {
            if kind.is_some() {
                return Err(s3_error!(
                    InvalidRequest,
                    "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
                ));
            }
            return Ok(Self { algorithm: Algorithm::Crc64Nvme, composite: false, asked: false });
        };
        let algorithm = Algorithm::named(name)?;
        let composite = match kind {
            None => algorithm != Algorithm::Crc64Nvme,
            Some(ChecksumType::COMPOSITE) => true,
            Some(ChecksumType::FULL_OBJECT) => false,
            Some(_) => return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type header is invalid.")),
        };
        let possible = if composite { algorithm != Algorithm::Crc64Nvme } else { algorithm.combines().is_some() };
        if !possible {
            let kind = if composite { "COMPOSITE" } else { "FULL_OBJECT" };
            let text = format!(
                "The {kind} checksum type cannot be used with the {} checksum algorithm.",
                name.to_ascii_lowercase()
            );
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text));
        }
        Ok(Self { algorithm, composite, asked: true })
    }

    /// As an upload keeps it.
    pub(super) fn of(headers: &BTreeMap<String, String>) -> S3Result<Self> {
        Self::new(headers.get(ALGORITHM).map(String::as_str), headers.get(TYPE).map(String::as_str))
    }

    /// What the upload keeps of it.
    pub(super) fn headers(self) -> BTreeMap<String, String> {
        if !self.asked {
            return BTreeMap::new();
        }
        BTreeMap::from([
            (ALGORITHM.to_owned(), self.algorithm.name().to_owned()),
            (TYPE.to_owned(), self.kind().to_owned()),
        ])
    }

    pub(super) fn kind(self) -> &'static str {
        if self.composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT }
    }

    /// The object's checksum out of those of its parts, as it is kept, and the parts' own; nothing where parts have none.
    pub(super) fn sum_up(self, parts: &[PartInfo]) -> Result<(BTreeMap<String, String>, Bytes), StoreError> {
        let header = self.algorithm.header();
        let mut sums = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(sum) = part.headers.get(header).and_then(|text| self.algorithm.decode(text)) else {
                return Ok((BTreeMap::new(), Bytes::new()));
            };
            sums.push(sum);
        }
        let value = match self.algorithm.combines() {
            Some(crc) if !self.composite => {
                let mut parts = sums.iter().zip(parts);
                let first = parts.next().map_or(0, |(sum, _)| number(sum));
                let whole = parts
                    .fold(first, |whole, (sum, part)| crc_fast::checksum_combine(crc, whole, number(sum), part.size));
                base64::encode(&whole.to_be_bytes()[8 - self.algorithm.bytes()..])
            }
            _ => {
                let mut hasher = ChecksumHasher::default();
                self.algorithm.start(&mut hasher);
                sums.iter().for_each(|sum| hasher.update(sum));
                let found = hasher.finalize();
                format!("{}-{}", self.algorithm.of(&found).map_or("", String::as_str), sums.len())
            }
        };
        let kept = BTreeMap::from([(header.to_owned(), value), (TYPE.to_owned(), self.kind().to_owned())]);
        let parts = if self.asked { sums.concat().into() } else { Bytes::new() };
        Ok((kept, parts))
    }
}

/// The checksum of two pieces, the second of `bytes` bytes, out of those of each; nothing where it cannot be computed so.
pub(super) fn added(
    first: &BTreeMap<String, String>,
    second: &BTreeMap<String, String>,
    bytes: u64,
) -> BTreeMap<String, String> {
    let whole = type_of(first).is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT);
    let sum = |algorithm: Algorithm| {
        let crc = algorithm.combines().filter(|_| whole)?;
        let of = |headers: &BTreeMap<String, String>| algorithm.decode(headers.get(algorithm.header())?);
        let sum = crc_fast::checksum_combine(crc, number(&of(first)?), number(&of(second)?), bytes);
        Some((algorithm.header().to_owned(), base64::encode(&sum.to_be_bytes()[8 - algorithm.bytes()..])))
    };
    ALL.into_iter().filter_map(sum).collect()
}

/// A checksum as a big-endian number.
fn number(sum: &[u8]) -> u64 {
    sum.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The algorithm of what an object keeps, if it keeps a checksum.
pub(super) fn algorithm_of(headers: &BTreeMap<String, String>) -> Option<Algorithm> {
    ALL.into_iter().find(|algorithm| headers.contains_key(algorithm.header()))
}

/// The type of what an object keeps.
pub(super) fn type_of(headers: &BTreeMap<String, String>) -> Option<ChecksumType> {
    algorithm_of(headers)?;
    Some(match headers.get(TYPE) {
        Some(kind) => ChecksumType::from(kind.clone()),
        None => ChecksumType::from_static(ChecksumType::FULL_OBJECT),
    })
}

/// The checksum of one part, out of those that an object keeps, by the part's place among them.
pub(super) fn of_part(algorithm: Algorithm, sums: &[u8], place: usize) -> Option<(&'static str, String)> {
    let bytes = algorithm.bytes();
    let sum = sums.get(place * bytes..(place + 1) * bytes)?;
    Some((algorithm.header(), base64::encode(sum)))
}

/// Sets an answer's checksum fields to what `$headers` holds.
macro_rules! set_checksums {
    ($output:expr, $headers:expr) => {{
        let headers = $headers;
        let sum = |name: &str| headers.get(name).cloned();
        $output.checksum_crc32 = sum("x-amz-checksum-crc32");
        $output.checksum_crc32c = sum("x-amz-checksum-crc32c");
        $output.checksum_crc64nvme = sum("x-amz-checksum-crc64nvme");
        $output.checksum_sha1 = sum("x-amz-checksum-sha1");
        $output.checksum_sha256 = sum("x-amz-checksum-sha256");
    }};
}

/// The checksums that a request or one of its elements gives, by header.
macro_rules! given_checksums {
    ($input:expr) => {{
        let given = [
            ("x-amz-checksum-crc32", &$input.checksum_crc32),
            ("x-amz-checksum-crc32c", &$input.checksum_crc32c),
            ("x-amz-checksum-crc64nvme", &$input.checksum_crc64nvme),
            ("x-amz-checksum-sha1", &$input.checksum_sha1),
            ("x-amz-checksum-sha256", &$input.checksum_sha256),
        ];
        let given = given.into_iter().filter_map(|(name, sum)| Some((name.to_owned(), sum.clone()?)));
        given.collect::<std::collections::BTreeMap<String, String>>()
    }};
}

pub(super) use {given_checksums, set_checksums};

#[cfg(test)]
mod tests {
    //! Checksums of parts add up to that of the whole, composite ones are of the parts' checksums, and bad combinations are refused.
    use super::*;
    use crate::sys::clock::Timestamp;

    fn sums(algorithm: Algorithm, bytes: &[u8]) -> BTreeMap<String, String> {
        let mut hasher = ChecksumHasher::default();
        algorithm.start(&mut hasher);
        hasher.update(bytes);
        kept(&hasher.finalize())
    }

    fn part(algorithm: Algorithm, number: u32, bytes: &[u8]) -> PartInfo {
        let headers = sums(algorithm, bytes);
        PartInfo { number, size: bytes.len() as u64, etag: String::new(), modified: Timestamp(0), headers }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let scheme = Scheme::new(Some(algorithm.name()), Some("FULL_OBJECT")).unwrap();
            let parts: Vec<_> = [&bytes[..77], &bytes[77..300_000], &bytes[300_000..]]
                .iter()
                .enumerate()
                .map(|(n, bytes)| part(algorithm, n as u32 + 1, bytes))
                .collect();
            let (kept, _) = scheme.sum_up(&parts).unwrap();
            assert_eq!(kept[algorithm.header()], sums(algorithm, &bytes)[algorithm.header()], "{algorithm:?}");
            assert_eq!(kept[TYPE], "FULL_OBJECT");
        }
    }

    #[test]
    fn composites_are_of_the_parts_checksums() {
        let scheme = Scheme::new(Some("SHA256"), None).unwrap();
        let parts = [part(Algorithm::Sha256, 1, b"one"), part(Algorithm::Sha256, 2, b"two")];
        let (kept, own) = scheme.sum_up(&parts).unwrap();
        assert_eq!(own.len(), 64);
        assert_eq!(
            kept["x-amz-checksum-sha256"],
            format!("{}-2", sums(Algorithm::Sha256, &own)["x-amz-checksum-sha256"])
        );
        assert_eq!(of_part(Algorithm::Sha256, &own, 1).unwrap().1, parts[1].headers["x-amz-checksum-sha256"]);
        assert!(of_part(Algorithm::Sha256, &own, 2).is_none());
    }

    #[test]
    fn combinations_that_cannot_be_are_refused() {
        for (algorithm, kind) in
            [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("MD4", "COMPOSITE"), ("CRC32", "HALF")]
        {
            assert!(Scheme::new(Some(algorithm), Some(kind)).is_err(), "{algorithm} {kind}");
        }
        assert!(Scheme::new(None, Some("COMPOSITE")).is_err());
        assert!(!Scheme::new(None, None).unwrap().asked);
    }

    #[test]
    fn one_checksum_of_good_form_is_announced() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(announced(&headers(&[])).unwrap(), None);
        let found = announced(&headers(&[("x-amz-trailer", "x-amz-checksum-crc32")])).unwrap().unwrap();
        assert_eq!(found, Announced { algorithm: Algorithm::Crc32, in_trailer: true });
        assert!(announced(&headers(&[("x-amz-checksum-crc32", "AAAAAA==")])).unwrap().is_some());
        for wrong in [
            headers(&[("x-amz-checksum-crc32", "AAAA")]),
            headers(&[("x-amz-checksum-sha1", "not base64")]),
            headers(&[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32c", "AAAAAA==")]),
            headers(&[("x-amz-sdk-checksum-algorithm", "CRC32")]),
        ] {
            assert!(announced(&wrong).is_err(), "{wrong:?}");
        }
    }
}
