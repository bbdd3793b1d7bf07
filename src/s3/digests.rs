//! The digests of documents: an XML body is another than its sender meant when they do not match, and nothing of it is done.

use bytes::Bytes;
use hyper::HeaderMap;
use md5::{Digest as _, Md5};
use s3s::checksum::ChecksumHasher;

use super::admission::Broken;
use super::checksum::{ALL, Algorithm};
use crate::auth::base64;

/// What a body must have, as far as it has come.
#[derive(Default)]
pub(super) struct Digests {
    /// Of the header `Content-MD5`.
    md5: Option<(Md5, String)>,
    /// Of the header `x-amz-checksum-…`.
    checksum: Option<(ChecksumHasher, Algorithm, String)>,
}

impl Digests {
    /// Those that the headers give.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(|text| text.trim().to_owned());
        let checksum = ALL.into_iter().find_map(|algorithm| {
            let mut hasher = ChecksumHasher::default();
            algorithm.start(&mut hasher);
            Some((hasher, algorithm, text(algorithm.header())?))
        });
        Self { md5: text("content-md5").map(|text| (Md5::new(), text)), checksum }
    }

    /// Takes the next piece, or the end, where all is compared.
    pub(super) fn take(&mut self, piece: Option<&Bytes>) -> Result<(), Broken> {
        let Some(piece) = piece else { return self.end() };
        if let Some((md5, _)) = &mut self.md5 {
            md5.update(piece);
        }
        if let Some((hasher, ..)) = &mut self.checksum {
            hasher.update(piece);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Broken> {
        if let Some((md5, expected)) = self.md5.take() {
            let expected = base64::decode(&expected).filter(|bytes| bytes.len() == 16).ok_or(Broken::NoDigest)?;
            if expected != md5.finalize().as_slice() {
                return Err(Broken::OtherDigest);
            }
        }
        if let Some((hasher, algorithm, expected)) = self.checksum.take()
            && algorithm.of(&hasher.finalize()) != Some(&expected)
        {
            return Err(Broken::OtherDigest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! A body with the digests of its headers passes, any other does not.
    use super::*;

    fn outcome(headers: &[(&str, &str)]) -> Result<(), Broken> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut digests = Digests::of(&headers);
        digests
            .take(Some(&Bytes::from_static(b"hel")))
            .and_then(|()| digests.take(Some(&Bytes::from_static(b"lo"))))?;
        digests.take(None)
    }

    #[test]
    fn digests_are_compared() {
        assert!(outcome(&[]).is_ok());
        assert!(outcome(&[("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="), ("x-amz-checksum-crc32", "NhCmhg==")]).is_ok());
        for wrong in [("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="), ("x-amz-checksum-crc32", "AAAAAA==")] {
            assert!(matches!(outcome(&[wrong]), Err(Broken::OtherDigest)), "{wrong:?}");
        }
        assert!(matches!(outcome(&[("content-md5", "bad")]), Err(Broken::NoDigest)));
    }
}
