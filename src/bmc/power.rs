//! Power: what it is, and changing it until it is seen to have changed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Bmc, BmcError, until};

/// How often a refusal that passes is asked again.
const ASKED_AGAIN: u32 = 12;

/// The power state that a BMC reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// On its way to on.
    PoweringOn,
    /// On its way to off.
    PoweringOff,
    /// Something else, or nothing.
    Unknown,
}

impl PowerState {
    fn read(system: &Value) -> Self {
        match system["PowerState"].as_str() {
            Some("On") => Self::On,
            Some("Off") => Self::Off,
            Some("PoweringOn") => Self::PoweringOn,
            Some("PoweringOff") => Self::PoweringOff,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::PoweringOn => "powering on",
            Self::PoweringOff => "powering off",
            Self::Unknown => "unknown",
        })
    }
}

/// What to do with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Switch on; nothing where it is on.
    On,
    /// Switch off at once; nothing where it is off.
    ForceOff,
    /// Ask the operating system to shut down; bounded, and an error where it does not.
    GracefulOff,
    /// Switch off at once and on again.
    ForceRestart,
}

impl PowerAction {
    fn goal(self) -> PowerState {
        match self {
            Self::On | Self::ForceRestart => PowerState::On,
            Self::ForceOff | Self::GracefulOff => PowerState::Off,
        }
    }

    /// The names that BMCs have for it, best first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::On => &["On", "ForceOn", "PushPowerButton"],
            Self::ForceOff => &["ForceOff"],
            Self::GracefulOff => &["GracefulShutdown", "PushPowerButton"],
            Self::ForceRestart => &["ForceRestart", "PowerCycle"],
        }
    }
}

impl Bmc {
    /// The power state now.
    ///
    /// # Errors
    /// Any [`BmcError`] of reading.
    pub async fn power(&self) -> Result<PowerState, BmcError> {
        Ok(PowerState::read(&self.system().await?))
    }

    /// Changes the power and waits, bounded, until the BMC reports it changed.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] when it does not change, [`BmcError::Unsupported`] when the BMC offers no such action.
    pub async fn set_power(&self, action: PowerAction) -> Result<(), BmcError> {
        let system = self.system().await?;
        let now = PowerState::read(&system);
        if action == PowerAction::ForceRestart {
            return self.restart(&system, now).await;
        }
        if now == action.goal() {
            return Ok(());
        }
        self.switch(&system, action).await
    }

    /// A restart that is observed: a BMC that is asked to restart reports On all the while, so it is taken apart where
    /// the action is missing, harmful, or without effect (on a system that is off).
    async fn restart(&self, system: &Value, now: PowerState) -> Result<(), BmcError> {
        if now == PowerState::Off {
            return self.switch(system, PowerAction::On).await;
        }
        let offered = self.reset_types(system).await;
        let name = PowerAction::ForceRestart.names().iter().find(|name| offered.iter().any(|o| o == *name));
        match name {
            Some(name) if !self.quirks.restart_hangs() => {
                self.reset(system, name).await?;
                self.observe(PowerAction::ForceRestart).await
            }
            _ => {
                self.switch(system, PowerAction::ForceOff).await?;
                self.switch(system, PowerAction::On).await
            }
        }
    }

    async fn switch(&self, system: &Value, action: PowerAction) -> Result<(), BmcError> {
        let offered = self.reset_types(system).await;
        let names = action.names();
        let name = match offered.is_empty() {
            true => names.first(),
            false => names.iter().find(|name| offered.iter().any(|o| o == *name)),
        };
        let Some(name) = name else {
            return Err(self.unsupported(format!("switch power as wanted: it offers only {}", offered.join(", "))));
        };
        if let Err(error) = self.reset(system, name).await {
            // A refusal may only say that it is so already, and a broken answer may come after the deed.
            let obeyed = self.power().await.is_ok_and(|state| state == action.goal());
            return if obeyed { Ok(()) } else { Err(error) };
        }
        match self.observe(action).await {
            Err(BmcError::NotObeyed { .. }) if action != PowerAction::GracefulOff => {
                // Asked once more: a BMC that was busy may have dropped it, and the goal is a state, not a step.
                self.reset(system, name).await?;
                self.observe(action).await
            }
            outcome => outcome,
        }
    }

    async fn observe(&self, action: PowerAction) -> Result<(), BmcError> {
        let limit = match action {
            PowerAction::GracefulOff => self.timing().graceful,
            _ => self.timing().power,
        };
        let seen = until(self.timing().look, limit, || async {
            Ok(Some(self.power().await?).filter(|state| *state == action.goal()))
        });
        match seen.await? {
            Some(_) => Ok(()),
            None => {
                let state = self.power().await?;
                Err(self.not_obeyed(
                    format!("power {action:?}"),
                    format!("after {} s the power is {state}", limit.as_secs()),
                ))
            }
        }
    }

    async fn reset(&self, system: &Value, name: &str) -> Result<(), BmcError> {
        let fixed = format!("{}/Actions/ComputerSystem.Reset", self.system.trim_end_matches('/'));
        let target = system["Actions"]["#ComputerSystem.Reset"]["target"].as_str().unwrap_or(&fixed);
        let body = json!({ "ResetType": name });
        self.patiently(|| self.client.post(target, &body)).await.map(drop)
    }

    /// What the BMC offers, from the action itself or from the description that it links; empty where it does not say.
    pub(super) async fn reset_types(&self, system: &Value) -> Vec<String> {
        let action = &system["Actions"]["#ComputerSystem.Reset"];
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let named = texts(&action["ResetType@Redfish.AllowableValues"]);
        if !named.is_empty() {
            return named;
        }
        let Some(link) = action["@Redfish.ActionInfo"].as_str() else { return named };
        let Ok(info) = self.client.get::<Value>(link).await else { return named };
        let parameters = info["Parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_type = parameters.iter().find(|parameter| parameter["Name"] == "ResetType");
        of_type.map(|parameter| texts(&parameter["AllowableValues"])).unwrap_or_default()
    }

    /// Asks again where this kind of BMC is known to refuse for a while without having done anything.
    pub(super) async fn patiently<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, BmcError>
    where
        F: Future<Output = Result<T, BmcError>>,
    {
        let mut asked = 0;
        loop {
            match ask().await {
                Err(error) if asked < ASKED_AGAIN && self.quirks.passes_soon(&error) => {
                    asked += 1;
                    tokio::time::sleep(5 * self.timing().look).await;
                }
                outcome => return outcome,
            }
        }
    }
}
