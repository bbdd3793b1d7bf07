//! Events that a BMC sends by itself: subscriptions, for those who listen.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fact::Fact;
use super::{Bmc, BmcError};

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its link.
    pub link: String,
    /// Where the BMC sends events to.
    pub destination: String,
    /// What the subscriber wrote into it.
    pub context: String,
}

impl Bmc {
    async fn subscriptions_link(&self) -> Result<String, BmcError> {
        let service = self.root["EventService"]["@odata.id"].as_str();
        let service = service.ok_or_else(|| self.unsupported("send events: it has no event service"))?;
        let service: Value = self.client.get(service).await?;
        let list = service["Subscriptions"]["@odata.id"].as_str();
        list.map(str::to_owned).ok_or_else(|| self.unsupported("take subscriptions for events"))
    }

    /// The subscriptions that there are.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC sends no events.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, BmcError> {
        let mut found = vec![];
        for link in self.client.members(&self.subscriptions_link().await?).await? {
            let Ok(document) = self.client.get::<Value>(&link).await else { continue };
            let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
            found.push(Subscription { destination: text("Destination"), context: text("Context"), link });
        }
        Ok(found)
    }

    /// Has the BMC send its events to `destination`; does nothing where it does so already.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] where the subscription does not show.
    pub async fn subscribe(&self, destination: &str, context: &str) -> Result<Subscription, BmcError> {
        let find = |list: Vec<Subscription>| list.into_iter().find(|known| known.destination == destination);
        if let Some(known) = find(self.subscriptions().await?) {
            return Ok(known);
        }
        let mut body = json!({ "Destination": destination, "Context": context, "Protocol": "Redfish" });
        if !self.quirks.has(Fact::HpeNoRetryPolicy) {
            body["DeliveryRetryPolicy"] = json!("RetryForever");
        }
        let list = self.subscriptions_link().await?;
        self.post(&list, &body).await?;
        let made = find(self.subscriptions().await?);
        made.ok_or_else(|| self.not_obeyed("the subscription", "it does not show"))
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// Any [`BmcError`] of asking.
    pub async fn unsubscribe(&self, subscription: &Subscription) -> Result<(), BmcError> {
        self.client.delete(&subscription.link).await.map(drop)
    }
}
