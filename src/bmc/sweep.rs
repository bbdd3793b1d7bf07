//! Sessions that killed processes of ours left open at a BMC: found by their notes, and deleted at the next contact.

use hyper::HeaderMap;
use serde_json::Value;

use super::exchange::{Ask, Exchange};
use super::fact::Fact;
use super::session::{Login, Session};

/// Where a session says from which address it was made (DSP0268, Session).
const ORIGIN: &str = "ClientOriginIPAddress";
/// Members of a session collection that are looked at; BMCs hold a few dozen at most.
const MEMBERS_MAX: usize = 100;

impl Session {
    /// Deletes the sessions that killed processes of ours left at this BMC, whose sessions are made at `path`.
    pub(super) async fn sweep(&self, exchange: &Exchange, login: &Login, path: &str) {
        let noted = self.ledger.sessions_noted(exchange.bmc());
        let Login::Token { open, .. } = login else { return };
        let own = open.as_ref().map(|open| open.place());
        for place in &noted.left {
            if own == Some(place.as_str()) {
                continue;
            }
            // A BMC that was restarted gives its numbers anew: what stands there now may be somebody else's.
            let ours = self.is_ours(exchange, login, place).await;
            if ours == Some(false) || (ours == Some(true) && self.delete(exchange, login, place).await) {
                self.ledger.session_ended(exchange.bmc(), place);
            }
        }
        let look = noted.unnamed && exchange.has(Fact::SessionUnnamed);
        if look && self.sweep_unnamed(exchange, login, path, &noted.held).await.is_some() {
            self.ledger.sessions_unnamed_ended(exchange.bmc());
        }
    }

    /// Deletes the sessions of our user, made from our address, that no running process of ours holds; none where it has to be tried
    /// again. A BMC that does not say where sessions were made from keeps them, until it ends them by itself.
    async fn sweep_unnamed(&self, exchange: &Exchange, login: &Login, path: &str, held: &[String]) -> Option<()> {
        let Login::Token { open: Some(open), .. } = login else { return Some(()) };
        let own = open.place();
        let mine = self.read(exchange, login, own).await?.1;
        let (Some(origin), Some(user)) = (mine[ORIGIN].as_str(), mine["UserName"].as_str()) else { return Some(()) };
        let all = self.read(exchange, login, path).await?.1;
        let members = all["Members"].as_array().map(Vec::as_slice).unwrap_or_default();
        for member in members.iter().take(MEMBERS_MAX) {
            let Some(place) = member["@odata.id"].as_str().and_then(|link| exchange.own(link)) else { continue };
            if place == own || held.contains(&place) {
                continue;
            }
            let (status, session) = self.read(exchange, login, &place).await?;
            let ours = session["UserName"] == user && session[ORIGIN] == origin;
            if status == 200 && ours && !self.delete(exchange, login, &place).await {
                return None;
            }
        }
        Some(())
    }

    /// Whether a session is still there and of our user; none where that could not be found out.
    async fn is_ours(&self, exchange: &Exchange, login: &Login, place: &str) -> Option<bool> {
        match self.read(exchange, login, place).await? {
            (404 | 410, _) => Some(false),
            (200, session) => Some(session["UserName"].as_str() == self.username().as_deref()),
            _ => None,
        }
    }

    /// Status and document; none where there was no answer, or none that can be read.
    async fn read(&self, exchange: &Exchange, login: &Login, place: &str) -> Option<(u16, Value)> {
        let mut headers = HeaderMap::new();
        login.apply(&mut headers);
        let answer = exchange.send(&Ask::get(place), headers).await.ok()?;
        let status = answer.status.as_u16();
        match answer.json() {
            Some(document) => Some((status, document)),
            None if status == 200 => None,
            None => Some((status, Value::Null)),
        }
    }
}
