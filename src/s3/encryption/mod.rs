//! Server-side encryption: under keys that requests bring (SSE-C), or under keys of the store's own (SSE-S3).
//!
//! Bytes are encrypted here, before the store sees them, and decrypted behind it: what it cuts, packs, checks and repairs is ciphertext. Each object
//! has a key of its own, so equal objects share no chunk. A key that a request brings is neither kept nor logged: the row keeps a salted verifier,
//! by which another key is told at once.

mod cipher;
mod envelope;
mod settings;
mod wish;

use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};
use s3s::dto::ServerSideEncryption;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use self::cipher::{Cipher, Encrypting, Piece};
use self::envelope::{DataKey, Envelope};
use self::settings::Rule;
pub(super) use self::wish::{
    AES256, CustomerHeaders, Wish, check_read, customer_headers, encryption_wish, source_headers,
};
use self::wish::{CustomerKey, Wanted};
use super::Door;
use crate::auth::ObjectKeys;
use crate::model::{BucketName, ObjectKey};
use crate::store::{
    BucketInfo, ByteStream, ENCRYPTION, LateMd5, ObjectInfo, PartInfo, PutRequest, StoreError, UploadInfo,
};
use crate::sys::entropy;

type Headers = std::collections::BTreeMap<String, String>;

/// How an object is encrypted, its key at hand; or that it is not.
#[derive(Debug)]
pub(super) struct Encryption(Option<Opened>);

#[derive(Debug)]
struct Opened {
    envelope: Envelope,
    key: DataKey,
    /// The key that the request brought.
    customer: Option<CustomerKey>,
}

/// Why an envelope was not opened.
enum Unopened {
    /// There is none, and a key was brought.
    NotEncrypted,
    NoKey,
    WrongKey,
    /// It is damaged, or was sealed under another master key.
    Lost,
}

/// Sets what an answer says of the object's encryption.
macro_rules! tell_encryption {
    ($output:expr, $encryption:expr) => {{
        let encryption: &$crate::s3::encryption::Encryption = $encryption;
        $output.server_side_encryption = encryption.method();
        $output.sse_customer_algorithm = encryption.customer_md5().map(|_| $crate::s3::encryption::AES256.to_owned());
        $output.sse_customer_key_md5 = encryption.customer_md5().map(str::to_owned);
    }};
}
pub(super) use tell_encryption;

/// Whether the bucket encrypts objects that do not say whether they are to be.
pub(super) async fn is_default(store: &crate::store::Store, bucket: &BucketName) -> S3Result<bool> {
    Ok(Rule::of(store, bucket).await?.encrypts)
}

/// What an object that has these headers is encrypted with, as answers say it: nothing of keys that are a customer's.
pub(super) fn method_of(headers: &Headers) -> Option<ServerSideEncryption> {
    let envelope = Envelope::read(headers).ok().flatten();
    let managed = matches!(envelope, Some(Envelope::Managed { .. }));
    managed.then(|| ServerSideEncryption::from_static(ServerSideEncryption::AES256))
}

/// Where an object that was found in a bucket was written, which its key is bound to: a snapshot, or a branch, shows those of others.
fn written_at<'a>(bucket: &'a BucketName, info: &'a ObjectInfo) -> (&'a BucketName, &'a ObjectKey) {
    (info.home.as_ref().unwrap_or(bucket), &info.key)
}

/// Opens what an object, or an upload, keeps of its encryption.
fn open(
    keys: &ObjectKeys,
    (bucket, key): (&BucketName, &ObjectKey),
    headers: &Headers,
    customer: Option<CustomerKey>,
) -> Result<Option<Opened>, Unopened> {
    let envelope = Envelope::read(headers).map_err(|_| Unopened::Lost)?;
    let Some(envelope) = envelope else {
        return if customer.is_some() { Err(Unopened::NotEncrypted) } else { Ok(None) };
    };
    let data_key = match (&envelope, &customer) {
        (Envelope::Managed { sealed }, None) => DataKey(keys.open(bucket, key, sealed).ok_or(Unopened::Lost)?),
        (Envelope::Managed { .. }, Some(_)) => return Err(Unopened::NotEncrypted),
        (Envelope::Customer { .. }, None) => return Err(Unopened::NoKey),
        (Envelope::Customer { .. }, Some(customer)) => envelope.open(customer).ok_or(Unopened::WrongKey)?,
    };
    Ok(Some(Opened { envelope, key: data_key, customer }))
}

fn lost((bucket, key): (&BucketName, &ObjectKey)) -> S3Error {
    tracing::error!(%bucket, %key, "the key of an encrypted object cannot be opened");
    let text = "The object's key cannot be opened: it was sealed under another master key, or its row is damaged. Restore the master key from its copy.";
    S3Error::with_message(S3ErrorCode::InternalError, text)
}

impl Door {
    /// How a new object is to be encrypted: as the request asks, or as the bucket says, or, in a copy, at least as its source was.
    pub(super) async fn encryption_for(
        &self,
        place: &BucketInfo,
        key: &ObjectKey,
        wish: &Wish<'_>,
        source: &Encryption,
    ) -> S3Result<Encryption> {
        let asked = wish.read()?;
        let rule = Rule::of(&self.store, &place.name).await?;
        let opened = match asked {
            Wanted::Customer(_) if rule.blocks_customer => {
                return Err(s3_error!(
                    AccessDenied,
                    "The bucket does not admit objects under keys that requests bring."
                ));
            }
            Wanted::Customer(customer) => {
                let (envelope, key) = Envelope::customer(&customer);
                Opened { envelope, key, customer: Some(customer) }
            }
            Wanted::Any if !rule.encrypts && source.0.is_none() => return Ok(Encryption(None)),
            Wanted::Any | Wanted::Managed => {
                let mut data_key = [0; 32];
                entropy::fill(&mut data_key);
                let sealed = self.keys.seal(&place.name, key, &data_key);
                Opened { envelope: Envelope::Managed { sealed }, key: DataKey(data_key), customer: None }
            }
        };
        Ok(Encryption(Some(opened)))
    }

    /// How a stored object is encrypted, once the request was found to bring its key.
    pub(super) fn encryption_of(
        &self,
        bucket: &BucketName,
        info: &ObjectInfo,
        customer: CustomerHeaders<'_>,
    ) -> S3Result<Encryption> {
        let place = written_at(bucket, info);
        let opened = open(&self.keys, place, &info.headers, customer.read()?);
        opened.map(Encryption).map_err(|why| match why {
            Unopened::NotEncrypted => {
                s3_error!(InvalidRequest, "The encryption parameters are not applicable to this object.")
            }
            Unopened::NoKey => s3_error!(
                InvalidRequest,
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object."
            ),
            Unopened::WrongKey => {
                s3_error!(AccessDenied, "Access Denied: the object was stored under another key than the one provided.")
            }
            Unopened::Lost => lost(place),
        })
    }

    /// How an upload's parts are encrypted, once the request was found to bring the key that the upload was begun with.
    pub(super) fn encryption_of_upload(
        &self,
        bucket: &BucketName,
        upload: &UploadInfo,
        customer: CustomerHeaders<'_>,
    ) -> S3Result<Encryption> {
        let place = (bucket, &upload.key);
        let opened = open(&self.keys, place, &upload.headers, customer.read()?);
        opened.map(Encryption).map_err(|why| match why {
            Unopened::NotEncrypted => s3_error!(
                InvalidRequest,
                "The multipart upload was not initiated with a key of the customer's. Subsequent requests must not bring one."
            ),
            Unopened::NoKey => s3_error!(
                InvalidRequest,
                "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters."
            ),
            Unopened::WrongKey => {
                s3_error!(InvalidArgument, "The provided encryption parameters did not match the ones used originally.")
            }
            Unopened::Lost => lost(place),
        })
    }

    /// What a copy that shares the bytes of its source keeps of their encryption; `source` is how the source was encrypted when it was looked
    /// at, and a copy of one that was replaced since is refused.
    pub(super) fn carried(
        &self,
        source: &Encryption,
        (from, info): (&BucketName, &ObjectInfo),
        to: (&BucketName, &ObjectKey),
    ) -> Result<Headers, StoreError> {
        let customer = source.0.as_ref().and_then(|opened| opened.customer.clone());
        let opened = open(&self.keys, written_at(from, info), &info.headers, customer).map_err(|_| StoreError::Busy)?;
        let envelope = match (opened, &source.0) {
            (None, None) => return Ok(Headers::new()),
            (Some(Opened { envelope: Envelope::Managed { .. }, key, .. }), Some(_)) => {
                Envelope::Managed { sealed: self.keys.seal(to.0, to.1, &key.0) }
            }
            (Some(Opened { envelope, .. }), Some(_)) => envelope,
            _ => return Err(StoreError::Busy),
        };
        let nonces = info.headers.get_key_value(envelope::NONCES).map(|(name, nonces)| (name.clone(), nonces.clone()));
        Ok(nonces.into_iter().chain([envelope.write()]).collect())
    }
}

/// Whether a header is about how the bytes are encrypted, and so goes only where the bytes go.
pub(super) fn is_own(name: &str) -> bool {
    [ENCRYPTION, envelope::NONCES].contains(&name)
}

/// The nonces of the object that an upload becomes.
pub(super) fn sum_up(upload: &UploadInfo, parts: &[PartInfo]) -> Result<Headers, StoreError> {
    if !upload.headers.contains_key(ENCRYPTION) {
        return Ok(Headers::new());
    }
    let mut nonces = Vec::with_capacity(parts.len());
    for part in parts {
        let own = envelope::read_nonces(&part.headers);
        nonces.extend(own.map_err(|_| StoreError::InvalidPart { number: part.number })?);
    }
    Ok(Headers::from([envelope::write_nonces(&nonces)]))
}

impl Encryption {
    /// None.
    pub(super) const NONE: Self = Self(None);

    /// What an upload keeps, for its parts.
    pub(super) fn headers(&self) -> Option<(String, String)> {
        self.0.as_ref().map(|opened| opened.envelope.write())
    }

    /// Whether bytes that are encrypted the one way can be read the other way.
    pub(super) fn shares_bytes_with(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => match (&one.customer, &other.customer) {
                (None, None) => true,
                (Some(one), Some(other)) => one.key == other.key,
                _ => false,
            },
            _ => false,
        }
    }

    /// A whole body as it is to be stored; `put` then says so.
    pub(super) fn seal(&self, body: ByteStream, put: &mut PutRequest) -> ByteStream {
        put.headers.extend(self.headers());
        self.seal_part(0, body, put)
    }

    /// A part's body as it is to be stored.
    pub(super) fn seal_part(&self, number: u32, body: ByteStream, put: &mut PutRequest) -> ByteStream {
        let Some(opened) = &self.0 else { return body };
        let piece = Piece::fresh(number);
        put.headers.extend([envelope::write_nonces(&[piece.nonce])]);
        let (expected, found) = (put.expected_md5.take(), LateMd5::default());
        // The entity tag of an object under a customer's key tells nothing of its text.
        if opened.customer.is_none() {
            put.given_md5 = Some(found.clone());
        }
        let md5 = (expected.is_some() || opened.customer.is_none()).then(Md5::new);
        let cipher = Cipher::new(opened.key.clone(), vec![piece], 0);
        Encrypting { body, cipher, md5, expected, found }.boxed()
    }

    /// The text of a stored object from the byte `start` on, out of its stored bytes from there on.
    pub(super) fn unseal(
        &self,
        bucket: &BucketName,
        info: &ObjectInfo,
        start: u64,
        body: ByteStream,
    ) -> S3Result<ByteStream> {
        let Some(opened) = &self.0 else { return Ok(body) };
        let pieces =
            envelope::pieces(&info.headers, &info.part_list, info.size).map_err(|_| lost((bucket, &info.key)))?;
        Ok(cipher::decrypt(body, Cipher::new(opened.key.clone(), pieces, start)))
    }

    pub(super) fn method(&self) -> Option<ServerSideEncryption> {
        let managed = self.0.as_ref().is_some_and(|opened| opened.customer.is_none());
        managed.then(|| ServerSideEncryption::from_static(ServerSideEncryption::AES256))
    }

    pub(super) fn customer_md5(&self) -> Option<&str> {
        Some(self.0.as_ref()?.customer.as_ref()?.md5.as_str())
    }
}
