//! What requests say of encryption: keys that they bring, and what they want their objects encrypted with.

use hyper::HeaderMap;
use md5::{Digest as _, Md5};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::auth::base64;

/// The one algorithm.
pub(in crate::s3) const AES256: &str = "AES256";
/// The header that asks for encryption under the store's own keys.
const METHOD: &str = "x-amz-server-side-encryption";

/// A key that a request brings, with its MD5 as the request wrote it.
#[derive(Clone)]
pub(in crate::s3) struct CustomerKey {
    pub(super) key: [u8; 32],
    pub(super) md5: String,
}

impl std::fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomerKey(…)")
    }
}

/// The three headers that bring a key.
#[derive(Clone, Copy, Default)]
pub(in crate::s3) struct CustomerHeaders<'a> {
    pub(in crate::s3) algorithm: Option<&'a str>,
    pub(in crate::s3) key: Option<&'a str>,
    pub(in crate::s3) md5: Option<&'a str>,
}

/// The key that a request brings for the object that it names.
macro_rules! customer_headers {
    ($input:expr) => {
        $crate::s3::encryption::CustomerHeaders {
            algorithm: $input.sse_customer_algorithm.as_deref(),
            key: $input.sse_customer_key.as_deref(),
            md5: $input.sse_customer_key_md5.as_deref(),
        }
    };
}
pub(in crate::s3) use customer_headers;

/// The key that a request brings for the object that it copies from.
macro_rules! source_headers {
    ($input:expr) => {
        $crate::s3::encryption::CustomerHeaders {
            algorithm: $input.copy_source_sse_customer_algorithm.as_deref(),
            key: $input.copy_source_sse_customer_key.as_deref(),
            md5: $input.copy_source_sse_customer_key_md5.as_deref(),
        }
    };
}
pub(in crate::s3) use source_headers;

/// What a write wants its object encrypted with.
macro_rules! encryption_wish {
    ($input:expr) => {
        $crate::s3::encryption::Wish {
            method: $input.server_side_encryption.as_ref().map(|method| method.as_str()),
            kms: $input.ssekms_key_id.is_some() || $input.ssekms_encryption_context.is_some(),
            customer: $crate::s3::encryption::customer_headers!($input),
        }
    };
}
pub(in crate::s3) use encryption_wish;

fn unusable(lack: &str) -> S3Error {
    let text = format!("Requests specifying Server Side Encryption with Customer provided keys must provide {lack}.");
    S3Error::with_message(S3ErrorCode::InvalidArgument, text)
}

impl CustomerHeaders<'_> {
    /// Whether any of them is there.
    pub(in crate::s3) fn is_some(&self) -> bool {
        self.algorithm.is_some() || self.key.is_some() || self.md5.is_some()
    }

    /// The key, once the three were found to belong together; none where none of them is there.
    pub(in crate::s3) fn read(self) -> S3Result<Option<CustomerKey>> {
        if !self.is_some() {
            return Ok(None);
        }
        if self.algorithm != Some(AES256) {
            return Err(unusable("a valid encryption algorithm"));
        }
        let text = self.key.filter(|key| !key.is_empty()).ok_or_else(|| unusable("an appropriate secret key"))?;
        let md5 = self.md5.filter(|md5| !md5.is_empty());
        let md5 = md5.ok_or_else(|| unusable("the client calculated MD5 of the secret key"))?;
        // S3's keys are padded base64, and nothing that merely can be read as such.
        let key = base64::decode(text).filter(|key| base64::encode(key) == text);
        let Some(key) = key.and_then(|key| <[u8; 32]>::try_from(key).ok()) else {
            return Err(s3_error!(InvalidArgument, "The secret key was invalid for the specified algorithm."));
        };
        if base64::decode(md5).as_deref() != Some(&Md5::digest(key)[..]) {
            let text = "The calculated MD5 hash of the key did not match the hash that was provided.";
            return Err(s3_error!(InvalidArgument, "{}", text));
        }
        Ok(Some(CustomerKey { key, md5: md5.to_owned() }))
    }
}

/// What a write wants its object encrypted with, as its headers say.
pub(in crate::s3) struct Wish<'a> {
    pub(in crate::s3) method: Option<&'a str>,
    pub(in crate::s3) kms: bool,
    pub(in crate::s3) customer: CustomerHeaders<'a>,
}

/// What a write wants its object encrypted with.
#[derive(Debug)]
pub(in crate::s3) enum Wanted {
    /// It does not say.
    Any,
    /// A key of the store's.
    Managed,
    /// The key that it brings.
    Customer(CustomerKey),
}

impl Wish<'_> {
    /// Whether it wants anything.
    pub(in crate::s3) fn is_some(&self) -> bool {
        self.method.is_some() || self.kms || self.customer.is_some()
    }

    pub(in crate::s3) fn read(&self) -> S3Result<Wanted> {
        let customer = self.customer.read()?;
        match self.method {
            None | Some(AES256) if self.kms => Err(s3_error!(
                InvalidArgument,
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
            )),
            Some(_) if customer.is_some() => Err(s3_error!(
                InvalidArgument,
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified"
            )),
            Some(AES256) => Ok(Wanted::Managed),
            Some("aws:kms" | "aws:kms:dsse") => Err(no_kms()),
            Some(_) => Err(s3_error!(InvalidArgument, "The encryption method specified is not supported")),
            None => Ok(customer.map_or(Wanted::Any, Wanted::Customer)),
        }
    }
}

/// There is no key management service: who asks for one is told, and nothing is stored otherwise than was asked.
pub(super) fn no_kms() -> S3Error {
    s3_error!(
        NotImplemented,
        "There is no key management service here: encrypt with AES256, or bring keys of your own."
    )
}

/// Refuses a read that says what the object is to be encrypted with: S3 takes that of writes only.
pub(in crate::s3) fn check_read(headers: &HeaderMap) -> S3Result<()> {
    if headers.contains_key(METHOD) {
        return Err(s3_error!(
            InvalidArgument,
            "x-amz-server-side-encryption header is not supported for this operation."
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! A key counts when all three headers are there and fit each other; what cannot be had is refused by its code.
    use super::*;

    fn told(result: S3Result<Option<CustomerKey>>) -> Option<String> {
        let error = result.err()?;
        assert_eq!(*error.code(), S3ErrorCode::InvalidArgument);
        error.message().map(str::to_owned)
    }

    #[test]
    fn keys_come_with_algorithm_and_digest() {
        let text = base64::encode(&[1; 32]);
        let md5 = base64::encode(&Md5::digest([1; 32]));
        let all = CustomerHeaders { algorithm: Some("AES256"), key: Some(&text), md5: Some(&md5) };
        assert_eq!(all.read().unwrap().unwrap().key, [1; 32]);
        assert!(CustomerHeaders::default().read().unwrap().is_none());
        let (short, odd) = (base64::encode(&[1; 16]), base64::encode(&Md5::digest([1; 16])));
        let bad = [
            (CustomerHeaders { algorithm: None, ..all }, "valid encryption algorithm"),
            (CustomerHeaders { algorithm: Some("AES128"), ..all }, "valid encryption algorithm"),
            (CustomerHeaders { key: None, ..all }, "appropriate secret key"),
            (CustomerHeaders { md5: None, ..all }, "client calculated MD5"),
            (CustomerHeaders { md5: Some(&odd), ..all }, "did not match the hash"),
            (CustomerHeaders { md5: Some("x"), ..all }, "did not match the hash"),
            (CustomerHeaders { key: Some(&short), md5: Some(&odd), ..all }, "invalid for the specified algorithm"),
            (CustomerHeaders { key: Some("???"), ..all }, "invalid for the specified algorithm"),
            (CustomerHeaders { key: Some(text.trim_end_matches('=')), ..all }, "invalid for the specified algorithm"),
        ];
        for (headers, expected) in bad {
            assert!(told(headers.read()).is_some_and(|text| text.contains(expected)), "{expected}");
        }
    }

    #[test]
    fn wishes_are_met_or_refused() {
        let text = base64::encode(&[1; 32]);
        let md5 = base64::encode(&Md5::digest([1; 32]));
        let customer = CustomerHeaders { algorithm: Some("AES256"), key: Some(&text), md5: Some(&md5) };
        let none = CustomerHeaders::default();
        let read = |method, kms, customer| Wish { method, kms, customer }.read();
        assert!(matches!(read(None, false, none), Ok(Wanted::Any)));
        assert!(matches!(read(Some("AES256"), false, none), Ok(Wanted::Managed)));
        assert!(matches!(read(None, false, customer), Ok(Wanted::Customer(_))));
        let code = |result: S3Result<Wanted>| result.unwrap_err().code().as_str().to_owned();
        assert_eq!(code(read(Some("aws:kms"), true, none)), "NotImplemented");
        assert_eq!(code(read(Some("aws:kms:dsse"), false, none)), "NotImplemented");
        assert_eq!(code(read(Some("ROT13"), false, none)), "InvalidArgument");
        assert_eq!(code(read(Some("AES256"), true, none)), "InvalidArgument");
        assert_eq!(code(read(None, true, none)), "InvalidArgument");
        assert_eq!(code(read(Some("AES256"), false, customer)), "InvalidArgument");
    }
}
