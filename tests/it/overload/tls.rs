//! TLS on both ports: HTTP/2 where both sides can, the appliance's own certificate or one that it was given, exchanged while
//! it runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate::sys::wire::{PinVerifier, install_crypto, pin_of};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::sign::{self, UNSIGNED};
use super::{MIB, SOON, ask, server_with};
use crate::support::{Server, noise};

/// A TLS connection that offers these protocols, and the pin of the certificate that was shown.
async fn connect(address: SocketAddr, protocols: &[&[u8]]) -> (TlsStream<TcpStream>, [u8; 32]) {
    install_crypto();
    let verifier = PinVerifier::new(None);
    let mut config = verifier.clone().tls_config();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    (stream, verifier.seen().unwrap())
}

async fn pin(address: SocketAddr) -> String {
    hex::encode(connect(address, &[b"http/1.1"]).await.1)
}

#[tokio::test]
async fn http2_and_http1_are_agreed_on() {
    let server = server_with(&[]);
    for address in [server.s3(), server.api()] {
        let (stream, _) = connect(address, &[b"h2", b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (stream, _) = connect(address, &[b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let (stream, _) = connect(server.s3(), &[b"h2"]).await;
    put_and_get(stream, server.s3(), "https").await;
    // HTTP/2 without TLS, by those who know that it is spoken.
    put_and_get(TcpStream::connect(server.s3()).await.unwrap(), server.s3(), "http").await;
}

/// Puts objects over one HTTP/2 connection, several at once, and gets them back.
async fn put_and_get<T>(stream: T, address: SocketAddr, scheme: &str)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let host = address.to_string();
    let request = |method: &str, path: &str, body: Vec<u8>| {
        let signed = sign::Unsigned { method, path, host: &host, content: UNSIGNED, headers: &[] }.sign();
        let mut request = Request::builder().method(method).uri(format!("{scheme}://{host}{path}"));
        for (name, value) in signed.headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).unwrap()
    };
    let objects = async {
        let each = (0..4_u64).map(|number| {
            let mut sender = sender.clone();
            let (path, body) = (format!("/b-bucket/{scheme}-{number}"), noise(number, 3 * MIB));
            let (put, get) = (request("PUT", &path, body.clone()), request("GET", &path, Vec::new()));
            async move {
                let answer = sender.send_request(put).await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
                let answer = sender.send_request(get).await.unwrap();
                assert_eq!(answer.status(), 200);
                assert!(answer.into_body().collect().await.unwrap().to_bytes() == body, "{path} came back different");
            }
        });
        futures_util::future::join_all(each).await;
    };
    let both = async {
        tokio::select! {
            ended = connection => panic!("the connection ended: {ended:?}"),
            () = objects => {}
        }
    };
    tokio::time::timeout(SOON, both).await.unwrap();
}

#[tokio::test]
async fn s3_speaks_tls_as_it_is_told() {
    let hello = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
    let server = Server::start_with(&["--s3-tls", "off"]);
    install_crypto();
    let config = PinVerifier::new(None).tls_config();
    let stream = TcpStream::connect(server.s3()).await.unwrap();
    let refused =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await;
    assert!(refused.is_err());
    assert!(ask(server.s3(), hello, b"").await.starts_with("HTTP/1.1 200"));
    let other = server.program().args(["serve", "--s3-tls", "maybe"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2), "{}", String::from_utf8_lossy(&other.stderr));
}

/// Writes a certificate and its key; answers its pin.
fn make(name: &str, certificate: &Path, key: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    hex::encode(pin_of(made.cert.der()))
}

#[tokio::test]
async fn a_given_certificate_is_shown_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let first = make("first", &certificate, &key);
    let args = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::start_with(&args);
    assert_eq!((pin(server.s3()).await, pin(server.api()).await), (first.clone(), first.clone()));
    assert!(server.log().contains(&first), "{}", server.log());

    // A key that is not the certificate's changes nothing; once both are there, they are shown.
    let other = folder.path().join("other.key");
    make("other", &folder.path().join("other.crt"), &other);
    std::fs::copy(&other, &key).unwrap();
    let deadline = Instant::now() + SOON;
    while !server.log().contains("the private key is not the certificate's") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(pin(server.s3()).await, first);
    let second = make("second", &certificate, &key);
    while pin(server.s3()).await != second {
        assert!(Instant::now() < deadline + SOON, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(pin(server.api()).await, second);
}

#[test]
fn a_certificate_needs_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make("a", &path("a.crt"), &path("a.key"));
    make("b", &path("b.crt"), &path("b.key"));
    let serve = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command.args(["serve", "--s3-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]).args(args);
        let output = command.env("BEDPLATE_DATA", path("data")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let (code, said) = serve(&["--tls-cert", &text("a.crt"), "--tls-key", &text("b.key")]);
    assert!(code == Some(1) && said.contains("the private key is not the certificate's"), "{said}");
    let (code, said) = serve(&["--tls-cert", &text("a.crt")]);
    assert!(code == Some(2) && said.contains("--tls-key"), "{said}");
    let (code, said) = serve(&["--tls-cert", &text("absent"), "--tls-key", &text("a.key")]);
    assert!(code == Some(1) && said.contains("absent"), "{said}");
}
