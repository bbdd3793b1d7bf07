//! Calls to a BMC through the `redfish` crate, typed where it has a type and raw where it has none. Its client knows
//! only the gateway; errors come back as the gateway knew them.

use std::collections::BTreeSet;
use std::sync::Arc;

use redfish::{ErrorKind, Method};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::BmcError;
use super::exchange::Exchange;
use super::fact::Fact;
use super::gateway::{FAULT, Room};

/// Members of one collection that are read.
const MEMBERS_MAX: usize = 4096;
/// Pages of one collection that are read.
const PAGES_MAX: usize = 128;

/// A client of one BMC.
pub(super) struct Client {
    room: Room,
    bmc: String,
    exchange: Arc<Exchange>,
}

impl Client {
    pub(super) fn new(room: Room, exchange: Arc<Exchange>) -> Self {
        Self { room, bmc: exchange.bmc().to_owned(), exchange }
    }

    /// The BMC as messages name it.
    pub(super) fn bmc(&self) -> &str {
        &self.bmc
    }

    /// Whether the BMC has that oddity, as far as it is known yet.
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.exchange.has(fact)
    }

    /// Reads a resource by its link.
    pub(super) async fn get<T: DeserializeOwned>(&self, link: &str) -> Result<T, BmcError> {
        let link = self.own(link)?;
        Box::pin(self.room.redfish().get_uri(&link)).await.map_err(|e| self.fault(&e, "GET", &link))
    }

    /// Runs an action.
    pub(super) async fn post(&self, link: &str, body: &Value) -> Result<Value, BmcError> {
        self.raw(Method::POST, link, Some(body)).await
    }

    /// Changes properties of a resource.
    pub(super) async fn patch(&self, link: &str, body: &Value) -> Result<Value, BmcError> {
        self.raw(Method::PATCH, link, Some(body)).await
    }

    /// Runs an action without parameters.
    pub(super) async fn act(&self, link: &str) -> Result<Value, BmcError> {
        let body = self.has(Fact::BodyDemanded).then(|| json!({}));
        self.raw(Method::POST, link, body.as_ref()).await
    }

    /// Removes a resource.
    pub(super) async fn delete(&self, link: &str) -> Result<Value, BmcError> {
        self.raw(Method::DELETE, link, None).await
    }

    async fn raw(&self, method: Method, link: &str, body: Option<&Value>) -> Result<Value, BmcError> {
        let link = self.own(link)?;
        let name = method.to_string();
        let asked = Box::pin(self.room.redfish().request_json_value(method, &link, body)).await;
        asked.map_err(|e| self.fault(&e, &name, &link))
    }

    /// The links of a collection's members, over all its pages.
    pub(super) async fn members(&self, link: &str) -> Result<Vec<String>, BmcError> {
        let (members, whole) = self.pages(link, MEMBERS_MAX).await?;
        if !whole {
            return Err(self.unreadable("GET", link, "its pages do not end"));
        }
        let mut links: Vec<String> =
            members.iter().filter_map(|member| member["@odata.id"].as_str()).map(str::to_owned).collect();
        let mut seen = BTreeSet::new();
        links.retain(|link| seen.insert(link.trim_end_matches('/').to_owned()));
        Ok(links)
    }

    /// A collection's members as they stand in it, page by page until there are `most`; and whether those are all.
    pub(super) async fn pages(&self, link: &str, most: usize) -> Result<(Vec<Value>, bool), BmcError> {
        let (mut members, mut pages) = (vec![], BTreeSet::new());
        let mut next = Some(link.to_owned());
        while let Some(link) = next.take() {
            if !pages.insert(link.clone()) || pages.len() > PAGES_MAX || members.len() > most {
                return Ok((members, false));
            }
            let mut page: Value = self.get(&link).await?;
            // Some BMCs send null or an object for an empty list.
            match page["Members"].take() {
                Value::Array(list) => members.extend(list),
                _ if self.has(Fact::NullMembers) => {}
                _ => return Err(self.unreadable("GET", &link, "its Members are no list")),
            }
            let more = page["Members@odata.nextLink"].as_str().or_else(|| page["@odata.nextLink"].as_str());
            next = more.filter(|more| !more.is_empty()).map(str::to_owned);
        }
        Ok((members, true))
    }

    /// A link as the gateway takes it. The gateway has taken hosts out of links already; one that still leads
    /// elsewhere came from a place that no one expects links in.
    fn own(&self, link: &str) -> Result<String, BmcError> {
        self.room.url(link).map(Into::into).ok_or_else(|| BmcError::ForeignLink {
            bmc: self.bmc.clone(),
            request: "a request".to_owned(),
            uri: link.to_owned(),
        })
    }

    fn fault(&self, error: &redfish::Error, method: &str, link: &str) -> BmcError {
        let kept = error.body_snippet().and_then(|text| serde_json::from_str::<Value>(text).ok()).and_then(|body| {
            let id = (body["error"]["code"] == FAULT).then(|| body["error"]["message"].as_str()?.parse().ok())?;
            self.room.faults().take(id?)
        });
        if let Some(kept) = kept {
            return kept;
        }
        match error.kind() {
            ErrorKind::Decode => self.unreadable(method, link, &error.to_string()),
            _ => BmcError::Local { what: format!("asking BMC {}", self.bmc), why: error.to_string() },
        }
    }

    fn unreadable(&self, method: &str, link: &str, why: &str) -> BmcError {
        let path = self.room.path(link);
        BmcError::Unreadable { bmc: self.bmc.clone(), request: format!("{method} {path}"), why: why.to_owned() }
    }
}
