//! Requests signed by hand with SigV4, so that a test can sign what no client would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ring::{digest, hmac};

/// A key, with a session's token where it has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signer {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// The text of the first such element.
    pub(crate) fn element(&self, name: &str) -> &str {
        let (_, rest) = self.text.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        rest.split_once(&format!("</{name}>")).unwrap().0
    }

    /// Status and code of a refusal; the status alone of anything else.
    pub(crate) fn outcome(&self) -> String {
        if self.status < 300 { self.status.to_string() } else { format!("{} {}", self.status, self.element("Code")) }
    }
}

impl Signer {
    pub(crate) fn new(access_key: &str, secret_key: &str) -> Self {
        Self { access_key: access_key.to_owned(), secret_key: secret_key.to_owned(), token: None }
    }

    /// What S3 answers to a GET of a path.
    pub(crate) fn get(&self, address: SocketAddr, path: &str) -> Answer {
        self.send(address, "GET", path, "", "s3")
    }

    /// What STS answers to a form.
    pub(crate) fn sts(&self, address: SocketAddr, form: &str) -> Answer {
        self.send(address, "POST", "/", form, "sts")
    }

    /// Signs with headers, and sends. A body is a form.
    pub(crate) fn send(&self, address: SocketAddr, method: &str, path: &str, body: &str, service: &str) -> Answer {
        let mut headers = self.headers(address, method, path, body, service, &[]);
        if !body.is_empty() {
            headers.push(("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()));
        }
        raw(address, method, path, &headers, body)
    }

    /// The headers of a request, and more, with its signature over all of them.
    pub(crate) fn headers(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        body: &str,
        service: &str,
        more: &[(&'static str, &str)],
    ) -> Vec<(&'static str, String)> {
        let date = amz_date();
        let mut headers = vec![("host", address.to_string())];
        if service == "s3" {
            headers.push(("x-amz-content-sha256", sha256(body)));
        }
        headers.push(("x-amz-date", date.clone()));
        if let Some(token) = &self.token {
            headers.push(("x-amz-security-token", token.clone()));
        }
        headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        headers.sort();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let listed: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (path_only, query) = path.split_once('?').unwrap_or((path, ""));
        let canonical = format!("{method}\n{path_only}\n{query}\n{listed}\n{names}\n{}", sha256(body));
        let (scope, signature) = self.sign(&date, service, &canonical);
        let shown = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key
        );
        headers.push(("authorization", shown));
        headers
    }

    /// A presigned GET of a path; the token, where there is one, is signed as part of the query.
    pub(crate) fn presigned(&self, address: SocketAddr, path: &str) -> String {
        let date = amz_date();
        let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
        let mut query = vec![
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", format!("{}/{scope}", self.access_key)),
            ("X-Amz-Date", date.clone()),
            ("X-Amz-Expires", "600".to_owned()),
        ];
        if let Some(token) = &self.token {
            query.push(("X-Amz-Security-Token", token.clone()));
        }
        query.push(("X-Amz-SignedHeaders", "host".to_owned()));
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let query = query.join("&");
        let canonical = format!("GET\n{path}\n{query}\nhost:{address}\n\nhost\nUNSIGNED-PAYLOAD");
        let (_, signature) = self.sign(&date, "s3", &canonical);
        format!("{path}?{query}&X-Amz-Signature={signature}")
    }

    /// The scope and the signature.
    fn sign(&self, date: &str, service: &str, canonical: &str) -> (String, String) {
        let scope = format!("{}/us-east-1/{service}/aws4_request", &date[..8]);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical));
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in scope.split('/').chain([to_sign.as_str()]) {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        (scope, hex::encode(key))
    }
}

/// Sends a request as it is.
pub(crate) fn raw(address: SocketAddr, method: &str, path: &str, headers: &[(&str, String)], body: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, text }
}

/// A value as a query carries it.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// The present moment as SigV4 writes it.
fn amz_date() -> String {
    let text = bedplate::sys::clock::now().to_string();
    format!("{}Z", text.split('.').next().unwrap().replace(['-', ':'], ""))
}
