//! The front door of a simulated BMC: connections are counted, answers are late, and some do not come.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Twin;
use super::fault::{Draws, Fault, Temper};
use super::state::{Asked, Effect};

/// How long a BMC that restarts is away.
const AWAY: Duration = Duration::from_secs(3);
/// How long a closed connection may take to be seen as closed.
const SETTLES: Duration = Duration::from_millis(30);
/// Requests to a BMC are small.
const BODY_MAX: usize = 1024 * 1024;

/// What goes on at the door.
pub(super) struct Desk {
    draws: Draws,
    /// Until when the BMC restarts.
    away: Option<Instant>,
}

impl Desk {
    pub(super) fn new(temper: &Temper, number: u64) -> Self {
        Self { draws: Draws::new(temper, number), away: None }
    }
}

/// What happens to one request before it is looked at.
struct Fate {
    late: Duration,
    fault: Option<Fault>,
    away: bool,
}

impl Twin {
    /// Serves until it is stopped.
    pub(super) async fn open(&self, listener: TcpListener, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let (stream, from) = tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            if self.is_away() {
                continue;
            }
            drop(stream.set_nodelay(true));
            let now = open.fetch_add(1, Ordering::SeqCst) + 1;
            let (twin, open) = (self.clone(), open.clone());
            connections.spawn(async move {
                twin.count(now, &open).await;
                let service = service_fn(|request| {
                    let twin = twin.clone();
                    async move { twin.respond(request, from.ip()).await }
                });
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(served.await);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// Notes how many connections are open. One that its client has closed already may not have been seen to end yet.
    async fn count(&self, now: usize, open: &AtomicUsize) {
        if now > self.state().tally.connections_peak {
            tokio::time::sleep(SETTLES).await;
            let still = open.load(Ordering::SeqCst).min(now);
            let mut state = self.state();
            state.tally.connections_peak = state.tally.connections_peak.max(still);
        }
    }

    fn is_away(&self) -> bool {
        let desk = self.inner.door.lock().unwrap_or_else(PoisonError::into_inner);
        desk.away.is_some_and(|until| Instant::now() < until)
    }

    fn fate(&self, path: &str) -> Fate {
        let mut desk = self.inner.door.lock().unwrap_or_else(PoisonError::into_inner);
        let mut late = desk.draws.latency(self.inner.tree.seconds(path));
        let fault = desk.draws.fault();
        if fault == Some(Fault::Slow) {
            late *= 20;
        }
        if fault == Some(Fault::Reboot) {
            desk.away = Some(Instant::now() + AWAY);
        }
        Fate { late, fault, away: desk.away.is_some_and(|until| Instant::now() < until) }
    }

    /// Answers, or does not: an error makes the connection break.
    async fn respond(&self, request: Request<Incoming>, from: IpAddr) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(std::io::Error::other)?.to_bytes();
        let fate = self.fate(parts.uri.path());
        tokio::time::sleep(fate.late).await;
        if fate.fault == Some(Fault::Reboot) {
            self.state().restart();
        }
        if fate.away || fate.fault == Some(Fault::Drop) {
            return Err(std::io::Error::other("the BMC hangs up"));
        }
        let plain = |status: u16| Response::builder().status(status);
        let empty = || Full::new(Bytes::new());
        match fate.fault {
            Some(Fault::Busy) => {
                return plain(503).header(header::RETRY_AFTER, "1").body(empty()).map_err(std::io::Error::other);
            }
            // What fails so was not begun.
            Some(Fault::Error) => return plain(500).body(empty()).map_err(std::io::Error::other),
            _ => {}
        }
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let asked = Asked {
            method: &parts.method,
            path: parts.uri.path(),
            token: text("x-auth-token"),
            basic: text("authorization").and_then(|value| value.strip_prefix("Basic ")),
            if_match: text("if-match"),
            from: Some(from),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        };
        let change = parts.method != Method::GET;
        let (lie, stale) = (change && fate.fault == Some(Fault::Lie), fate.fault == Some(Fault::Stale));
        let reply = self.state().answer(&asked, Instant::now(), lie, stale);
        tracing::debug!(node = self.inner.node, method = %parts.method, path = asked.path, status = reply.status.as_u16(), "simulated BMC asked");
        if let Some(Effect::Started(from, life)) = reply.effect {
            self.started(from, life);
        }
        let mut response = plain(reply.status.as_u16()).header(header::CONTENT_TYPE, "application/json");
        for (name, value) in reply.headers {
            response = response.header(name, value);
        }
        response.body(Full::new(reply.body)).map_err(std::io::Error::other)
    }
}
