//! AWS Signature Version 4 in headers, with the payload left unsigned.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};

use crate::Error;

const PAYLOAD: &str = "UNSIGNED-PAYLOAD";
const REGION: &str = "us-east-1";

/// Signs requests to one host with one key. A run is shorter than the quarter of an hour that a signature's time may be off.
pub struct Signer {
    access: String,
    key: hmac::Key,
    host: String,
    day: String,
    time: String,
}

impl Signer {
    /// A signer for now.
    pub fn new(access: &str, secret: &str, host: &str) -> Result<Self, Error> {
        let time = amz_time(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
        let day = time[..8].to_owned();
        let mut key = format!("AWS4{secret}").into_bytes();
        for step in [day.as_str(), REGION, "s3", "aws4_request"] {
            let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes());
            key = made.as_ref().to_vec();
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self { access: access.to_owned(), key, host: host.to_owned(), day, time })
    }

    /// The headers of a request; `query` is encoded and in order already.
    pub fn headers(&self, method: &str, path: &str, query: &str) -> [(&'static str, String); 3] {
        let Self { access, host, day, time, .. } = self;
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{PAYLOAD}\nx-amz-date:{time}\n\n{names}\n{PAYLOAD}"
        );
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let signature = hex(hmac::sign(&self.key, text.as_bytes()).as_ref());
        let said =
            format!("AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}");
        [("x-amz-content-sha256", PAYLOAD.to_owned()), ("x-amz-date", time.clone()), ("authorization", said)]
    }
}

/// A value in a query, encoded as signatures want it.
pub fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Seconds since 1970 as `YYYYMMDDThhmmssZ`.
fn amz_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted from the first of March of the year 0, so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + years + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    //! Dates are those of the calendar, leap days too.
    use super::*;

    #[test]
    fn writes_dates() {
        assert_eq!(amz_time(0), "19700101T000000Z");
        assert_eq!(amz_time(951_827_696), "20000229T123456Z");
        assert_eq!(amz_time(1_798_761_599), "20261231T235959Z");
    }
}
