//! The conformance card: what this BMC can do for a rack, found out by reading alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bmc, BmcError, PowerState};

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Offered as the standard has it.
    Works,
    /// Offered oddly, or known to be odd here; bedplate deals with it.
    WorkedAround,
    /// Not offered.
    Missing,
    /// It could not be found out.
    Unknown,
}

/// One line of the card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trait {
    /// What it is about.
    pub name: String,
    /// How it stands.
    pub mark: Mark,
    /// In what way.
    pub detail: String,
}

/// The whole card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The BMC.
    pub bmc: String,
    /// Whose firmware it is.
    pub family: String,
    /// The Redfish version that it claims.
    pub redfish_version: Option<String>,
    /// The system that is meant.
    pub system_id: String,
    /// Whether a machine behind it can be imaged through it.
    pub fit: bool,
    /// Line by line.
    pub traits: Vec<Trait>,
}

impl Card {
    /// Notes a service that is not there, or that could not be looked at.
    fn lacks(&mut self, name: &str, error: &BmcError) {
        let mark = if matches!(error, BmcError::Unsupported { .. }) { Mark::Missing } else { Mark::Unknown };
        self.add(name, mark, error.to_string());
    }

    fn add(&mut self, name: &str, mark: Mark, detail: impl Into<String>) {
        self.traits.push(Trait { name: name.to_owned(), mark, detail: detail.into() });
    }
}

impl Bmc {
    /// Finds out what this BMC offers. Changes nothing.
    ///
    /// # Errors
    /// Only when the system itself cannot be read.
    pub async fn card(&self) -> Result<Card, BmcError> {
        let system = self.system().await?;
        let mut card = Card {
            bmc: self.name().to_owned(),
            family: self.family().to_owned(),
            redfish_version: self.root["RedfishVersion"].as_str().map(str::to_owned),
            system_id: system["Id"].as_str().unwrap_or_default().to_owned(),
            fit: false,
            traits: vec![],
        };
        self.card_session(&mut card);
        self.card_system(&mut card);
        let power = self.card_power(&mut card, &system).await;
        let media = self.card_media(&mut card).await;
        let boot = self.card_boot(&mut card, &system).await;
        match self.has_light().await {
            Ok(true) => card.add("identify light", Mark::Works, "can be switched"),
            Ok(false) => card.add("identify light", Mark::Missing, "a failed machine cannot be made to blink"),
            Err(error) => card.add("identify light", Mark::Unknown, error.to_string()),
        }
        self.card_services(&mut card).await;
        for fact in self.quirks.own_facts() {
            card.add(fact.name(), Mark::WorkedAround, fact.words());
        }
        card.fit = power && media && boot;
        Ok(card)
    }

    fn card_session(&self, card: &mut Card) {
        match self.root["Links"]["Sessions"]["@odata.id"].as_str() {
            Some(_) => card.add("sessions", Mark::Works, "one session, deleted at the end"),
            None => card.add("sessions", Mark::WorkedAround, "none offered: Basic credentials with each request"),
        }
    }

    fn card_system(&self, card: &mut Card) {
        match self.systems.len() {
            1 => card.add("system", Mark::Works, "one"),
            n => card.add(
                "system",
                Mark::WorkedAround,
                format!("{n} behind this BMC; {} is the one meant", card.system_id),
            ),
        }
    }

    async fn card_power(&self, card: &mut Card, system: &Value) -> bool {
        let state = self.power().await.unwrap_or(PowerState::Unknown);
        if state == PowerState::Unknown {
            card.add("power state", Mark::Missing, "it does not say whether the machine is on");
        } else {
            card.add("power state", Mark::Works, state.to_string());
        }
        let offered = self.reset_types(system).await;
        let has = |name: &str| offered.iter().any(|o| o == name);
        let listed = offered.join(", ");
        match (has("On"), has("ForceOff"), offered.is_empty()) {
            (true, true, _) => card.add("power switch", Mark::Works, listed),
            (_, _, true) => card.add(
                "power switch",
                Mark::WorkedAround,
                "it does not say what it offers; the standard names are used",
            ),
            (false, true, _) if has("ForceOn") || has("PushPowerButton") => {
                card.add("power switch", Mark::WorkedAround, listed);
            }
            _ => {
                card.add("power switch", Mark::Missing, format!("On and ForceOff are needed; it offers {listed}"));
                return false;
            }
        }
        state != PowerState::Unknown
    }

    async fn card_media(&self, card: &mut Card) -> bool {
        let (slots, by_action) = match self.media_slots().await {
            Ok(found) => found,
            Err(error) => {
                card.add("virtual media", Mark::Unknown, error.to_string());
                return false;
            }
        };
        match (slots, by_action) {
            (0, _) => card.add(
                "virtual media",
                Mark::Missing,
                "no CD or DVD slot that takes a URL (a licence may be missing)",
            ),
            (n, 0) => {
                card.add("virtual media", Mark::WorkedAround, format!("{n} slots without InsertMedia: PATCH is used"));
            }
            (n, _) => card.add("virtual media", Mark::Works, format!("{n} slots that take a URL")),
        }
        slots > 0
    }

    async fn card_boot(&self, card: &mut Card, system: &Value) -> bool {
        let pending = match system["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str() {
            Some(link) => self.client.get::<Value>(link).await.unwrap_or_default(),
            None => Value::Null,
        };
        let staged = pending["Boot"].get("BootSourceOverrideTarget").is_some();
        let boot = if staged { &pending["Boot"] } else { &system["Boot"] };
        let texts =
            |key: &str| -> Option<Vec<&str>> { Some(boot[key].as_array()?.iter().filter_map(Value::as_str).collect()) };
        let targets = texts("BootSourceOverrideTarget@Redfish.AllowableValues");
        let cd = self.quirks.cd_names().iter().any(|name| targets.as_ref().is_none_or(|list| list.contains(name)));
        if boot.get("BootSourceOverrideEnabled").is_none() || !cd {
            card.add("boot override", Mark::Missing, "it cannot be told to boot from a virtual CD");
            return false;
        }
        let place = if staged { "staged in the settings object" } else { "on the system" };
        match targets {
            Some(list) => card.add("boot override", Mark::Works, format!("{place}: {}", list.join(", "))),
            None => card.add(
                "boot override",
                Mark::WorkedAround,
                format!("{place}; it does not say which targets it takes"),
            ),
        }
        let durations = texts("BootSourceOverrideEnabled@Redfish.AllowableValues");
        let keeps = system["Boot"]["BootSourceOverrideEnabled"] == "Continuous";
        if keeps || durations.is_some_and(|list| !list.contains(&"Once")) {
            card.add(
                "boot once",
                Mark::WorkedAround,
                "it keeps an override: the disk is set again after the installation",
            );
        } else {
            card.add("boot once", Mark::Works, "offered; what it keeps is read back each time");
        }
        true
    }

    async fn card_services(&self, card: &mut Card) {
        match self.bios().await {
            Ok(bios) => {
                let known = self.bios_registry_len(bios.registry.as_deref()).await;
                let detail = format!("{} settings, {known} of them described", bios.attributes.len());
                card.add("BIOS settings", if known > 0 { Mark::Works } else { Mark::WorkedAround }, detail);
            }
            Err(error) => card.lacks("BIOS settings", &error),
        }
        match self.boot_order().await {
            Ok(order) => card.add("boot order", Mark::Works, format!("{} entries", order.len())),
            Err(error) => card.lacks("boot order", &error),
        }
        match self.secure_boot().await.map(|found| found.enabled) {
            Ok(Some(on)) => card.add("secure boot", Mark::Works, if on { "on" } else { "off" }),
            Ok(None) => card.add("secure boot", Mark::Unknown, "not shown without a licence"),
            Err(error) => card.lacks("secure boot", &error),
        }
        match self.firmware_ways().await {
            Ok(ways) if ways.is_empty() => card.add("firmware update", Mark::Missing, "no way in"),
            Ok(ways) => card.add("firmware update", Mark::Works, ways.join(", ")),
            Err(error) => card.lacks("firmware update", &error),
        }
        for (name, key) in [
            ("firmware list", "UpdateService"),
            ("accounts", "AccountService"),
            ("tasks", "Tasks"),
            ("events", "EventService"),
            ("certificates", "CertificateService"),
        ] {
            match self.root[key]["@odata.id"].as_str() {
                None => card.add(name, Mark::Missing, "not offered; nothing here needs it"),
                Some(link) => match self.client.get::<Value>(link).await {
                    Ok(_) => card.add(name, Mark::Works, "offered"),
                    Err(error) => card.add(name, Mark::Unknown, error.to_string()),
                },
            }
        }
    }
}
