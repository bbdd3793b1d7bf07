//! The sessions of one simulated BMC.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

/// Where they are made and listed.
pub(super) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// Open sessions, by number.
#[derive(Default)]
pub(super) struct Sessions {
    open: BTreeMap<u64, Session>,
    /// Since the BMC last started.
    numbered: u64,
    /// In all.
    made: u64,
}

struct Session {
    token: String,
    user: String,
    /// From where it was made.
    from: Option<IpAddr>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The BMC restarts, and knows none any more. It gives its numbers anew, as real ones do.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.numbered = 0;
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        self.open.values().any(|session| session.token == token)
    }

    /// Opens one; answers its place and its token.
    pub(super) fn begin(&mut self, serial: &str, user: &str, from: Option<IpAddr>) -> (String, String) {
        self.made += 1;
        self.numbered += 1;
        let token = format!("{serial}-{}", self.made);
        self.open.insert(self.numbered, Session { token: token.clone(), user: user.to_owned(), from });
        (format!("{SESSIONS}/{}", self.numbered), token)
    }

    /// Ends the one at this place; answers whether there was one.
    pub(super) fn end(&mut self, path: &str) -> bool {
        number(path).is_some_and(|number| self.open.remove(&number).is_some())
    }

    /// What stands at this path; none where nothing does, or it is no path of sessions.
    pub(super) fn document(&self, path: &str) -> Option<Value> {
        if path == SESSIONS {
            let link = |number: &u64| json!({ "@odata.id": format!("{SESSIONS}/{number}") });
            let members: Vec<Value> = self.open.keys().map(link).collect();
            return Some(json!({ "@odata.id": SESSIONS, "Members@odata.count": members.len(), "Members": members }));
        }
        let number = number(path)?;
        let session = self.open.get(&number)?;
        Some(json!({
            "@odata.id": path, "@odata.type": "#Session.v1_7_0.Session", "Id": number.to_string(), "Name": "Session",
            "UserName": session.user, "ClientOriginIPAddress": session.from,
        }))
    }
}

fn number(path: &str) -> Option<u64> {
    path.strip_prefix(SESSIONS)?.trim_matches('/').parse().ok()
}
