//! The identify light, by which a person finds the machine.

use serde_json::{Value, json};

use super::{Bmc, BmcError, links, until};

/// The two ways in which a resource offers its light.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Light {
    Active,
    Led,
}

impl Light {
    fn body(self, on: bool, led: &str) -> Value {
        match self {
            Self::Active => json!({ "LocationIndicatorActive": on }),
            Self::Led => json!({ "IndicatorLED": led }),
        }
    }

    fn shows(self, on: bool, document: &Value) -> bool {
        match self {
            Self::Active => document["LocationIndicatorActive"] == on,
            Self::Led => match document["IndicatorLED"].as_str() {
                Some("Off") => !on,
                Some("Blinking" | "Lit") => on,
                _ => false,
            },
        }
    }
}

impl Bmc {
    /// Switches the identify light on or off and reads it back.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] when neither the system nor its chassis has one that can be switched,
    /// [`BmcError::NotObeyed`] when it reads back otherwise.
    pub async fn identify(&self, on: bool) -> Result<(), BmcError> {
        let mut last = self.unsupported("switch an identify light: it shows none");
        for (link, light, led) in self.lights(on).await? {
            let sent = self.client.patch(&link, &light.body(on, led)).await;
            if let Err(error) = sent {
                last = error;
                continue;
            }
            let seen = until(self.timing().look, self.timing().setting, || async {
                let document: Value = self.client.get(&link).await?;
                Ok(light.shows(on, &document).then_some(()))
            });
            match seen.await? {
                Some(()) => return Ok(()),
                None => last = self.not_obeyed("the identify light", "it reads back unchanged"),
            }
        }
        Err(last)
    }

    /// The lights there are, best first, and what `IndicatorLED` calls the wanted state.
    async fn lights(&self, on: bool) -> Result<Vec<(String, Light, &'static str)>, BmcError> {
        let system = self.just_read(&self.system).await?;
        let mut places = vec![(self.system.clone(), system.clone())];
        for link in links(&system["Links"]["Chassis"]).into_iter().take(2) {
            if let Ok(document) = self.client.get::<Value>(&link).await {
                places.push((link, document));
            }
        }
        let mut lights = vec![];
        for (link, document) in places {
            if document["LocationIndicatorActive"].is_boolean() {
                lights.push((link.clone(), Light::Active, ""));
            }
            if document["IndicatorLED"].is_string() {
                let offered = document["IndicatorLED@Redfish.AllowableValues"].as_array();
                let blinks = offered.is_none_or(|list| list.iter().any(|value| value == "Blinking"));
                let names: &[&'static str] = match (on, blinks) {
                    (true, true) => &["Blinking", "Lit"],
                    (true, false) => &["Lit"],
                    (false, _) => &["Off"],
                };
                lights.extend(names.iter().map(|name| (link.clone(), Light::Led, *name)));
            }
        }
        Ok(lights)
    }

    /// Whether there is a light to switch, for the conformance card.
    pub(super) async fn has_light(&self) -> Result<bool, BmcError> {
        Ok(!self.lights(true).await?.is_empty())
    }
}
